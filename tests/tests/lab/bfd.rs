//! `vipd bfd` against BIRD and FRR: sessions come up, tell why they are down, and
//! go down by themselves when packets would be lost.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use vipd::bfd::protocol::{Request, State};
use vipd_tests::{
    BFD_TIMING, BIRD_BFD_TIMING, Bfd, Bird, CLIENT_IPV4, Machine, ROUTER_IPV4, ROUTER_IPV6, Rack,
    connect, pass_object, wait_until,
};

use crate::support::{SMALL, in_lab};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn bird_and_we_see_each_other_over_ipv4_and_ipv6() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let bird = Bird::start(&rack.router, &bird_config(balancer, "", ""))?;
        let bfd = Bfd::start(&balancer.host, &config(balancer, "", &both(balancer, "")))?;
        for (name, address) in both_names(balancer) {
            let session = bfd.wait_for(name, State::Up)?;
            ensure!(session.interface.as_deref() == Some("eth0"), "{session:?}");
            wait_for_bird(&bird, &address, "Up")?;
        }
        wait_until("both have agreed on 100 ms", PATIENCE, || {
            let session = bfd.session("four")?;
            ensure!(
                session.transmit_interval_seconds == Some(0.1),
                "{session:?}"
            );
            ensure!(session.detection_time_seconds == Some(2.0), "{session:?}");
            Ok(())
        })
    });
}

#[test]
fn a_peer_behind_a_router_is_reached_over_several_hops_and_not_taken_from_farther_away() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let us = balancer.ipv4;
        let far = format!(
            "log stderr all;\nrouter id 203.0.113.10;\ntimeformat protocol iso short ms;\n\
             protocol device {{ }}\nprotocol bfd {{ multihop {{ {BIRD_BFD_TIMING} }}; \
             neighbor {us} local {CLIENT_IPV4} multihop on; }}\n"
        );
        let bird = Bird::start(&rack.client, &far)?;
        let peer = |min_ttl: u8| {
            let named = ("far", CLIENT_IPV4.to_string(), us.to_string());
            let further = format!("{BFD_TIMING}min_ttl = {min_ttl}\n");
            config(balancer, "", &session(&named, "multihop = 2", &further))
        };
        // BIRD sends with a TTL of 64, and one router is between.
        let bfd = Bfd::start(&balancer.host, &peer(63))?;
        let session = bfd.wait_for("far", State::Up)?;
        ensure!(
            session.multihop && session.interface.is_none(),
            "{session:?}"
        );
        wait_for_bird(&bird, &us.to_string(), "Up")?;

        // Another bound leaves the session as it is.
        bfd.reload(&peer(62))?;
        sleep(Duration::from_secs(2));
        let session = bfd.ensure("far", State::Up)?;
        ensure!((session.ups, session.downs) == (1, 0), "{session:?}");
        let there = bird.bfd(&us.to_string())?;
        ensure!(there.state == "Up", "{there:?}");

        bfd.reload(&peer(64))?;
        let session = bfd.wait_for_reason("far", "with a TTL below 64")?;
        ensure!(session.why.contains("nothing was heard"), "{session:?}");
        ensure!(bfd.status()?.discarded["kernel"] > 0, "it is counted");
        Ok(())
    });
}

#[test]
fn a_session_on_an_interface_goes_by_it_whatever_routes_say_and_waits_for_it() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let (ours, theirs) = ("198.18.0.2", "198.18.0.1");
        let far = format!(
            "log stderr all;\nrouter id 192.0.2.1;\ntimeformat protocol iso short ms;\n\
             protocol device {{ scan time 1; }}\nprotocol bfd {{\n\
             interface \"*\" {{ {BIRD_BFD_TIMING} }};\n\
             neighbor {ours} dev \"side0\" local {theirs};\n\
             neighbor {} dev \"rack0\" local {ROUTER_IPV4};\n}}\n",
            balancer.ipv4
        );
        let bird = Bird::start(&rack.router, &far)?;
        let side = ("side", theirs.to_owned(), ours.to_owned());
        let rest = ("rest", ROUTER_IPV4.to_string(), balancer.ipv4.to_string());
        let rest = session(&rest, "", BFD_TIMING);
        let bfd = Bfd::start(&balancer.host, &config(balancer, "", &rest))?;
        bfd.wait_for("rest", State::Up)?;

        let both = session(&side, "interface = \"side0\"", BFD_TIMING) + &rest;
        bfd.reload(&config(balancer, "", &both))?;
        bfd.wait_for_reason("side", "there is no interface side0")?;
        for sentence in ["it comes", "it is made anew"] {
            connect((&balancer.host, "side0"), (&rack.router, "side0"), 1500)?;
            rack.router
                .ip(&format!("addr add {theirs}/30 dev side0\n"))?;
            balancer.host.ip(&format!(
                "addr add {ours}/30 dev side0\nroute replace {theirs} dev eth0\n"
            ))?;
            let session = bfd.wait_for("side", State::Up).context(sentence)?;
            ensure!(session.interface.as_deref() == Some("side0"), "{session:?}");
            wait_for_bird(&bird, ours, "Up")?;
            balancer.host.ip("link del side0\n")?;
            bfd.wait_for_reason("side", "").context(sentence)?;
        }
        let rest = bfd.ensure("rest", State::Up)?;
        ensure!(rest.downs == 0, "{rest:?}");
        Ok(())
    });
}

#[test]
fn every_method_of_authentication_works_with_bird() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        balancer
            .host
            .write_secret("router.bfd", "as-bird-has-it\n")?;
        let methods = [
            ("simple", "simple"),
            ("keyed-md5", "keyed md5"),
            ("meticulous-keyed-md5", "meticulous keyed md5"),
            ("keyed-sha1", "keyed sha1"),
            ("meticulous-keyed-sha1", "meticulous keyed sha1"),
        ];
        for (ours, theirs) in methods {
            let auth = format!("authentication {theirs}; password \"as-bird-has-it\" {{ id 7; }};");
            let bird = Bird::start(&rack.router, &bird_config(balancer, &auth, ""))?;
            let further = format!("auth = \"{ours}\"\nkey_id = 7\nkey_file = \"router.bfd\"\n");
            let bfd = Bfd::start(
                &balancer.host,
                &config(balancer, "", &both(balancer, &further)),
            )?;
            bfd.wait_for("four", State::Up)?;
            wait_for_bird(&bird, &balancer.ipv4.to_string(), "Up")?;
        }
        Ok(())
    });
}

#[test]
fn a_wrong_key_keeps_the_session_down_and_is_told_and_the_right_one_lets_it_up() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let auth = "authentication meticulous keyed sha1; password \"right\" { id 1; };";
        let bird = Bird::start(&rack.router, &bird_config(balancer, auth, ""))?;
        balancer.host.write_secret("router.bfd", "wrong\n")?;
        let further = "auth = \"meticulous-keyed-sha1\"\nkey_file = \"router.bfd\"\n";
        let config = config(balancer, "", &both(balancer, further));
        let bfd = Bfd::start(&balancer.host, &config)?;
        bfd.wait_for_reason("four", "its password or digest is wrong")?;
        ensure!(bird.bfd(&balancer.ipv4.to_string())?.state == "Down");

        balancer.host.write_secret("router.bfd", "right\n")?;
        bfd.reload(&config)?;
        bfd.wait_for("four", State::Up)?;
        Ok(())
    });
}

#[test]
fn a_router_that_is_killed_is_given_up_and_taken_back() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let mut bird = Bird::start(&rack.router, &bird_config(balancer, "", ""))?;
        let bfd = Bfd::start(&balancer.host, &config(balancer, "", &both(balancer, "")))?;
        wait_for_pace(&bfd)?;

        bird.process().kill()?;
        let killed = Instant::now();
        let session = bfd.wait_for_reason("four", "nothing was heard of the peer for 2s")?;
        ensure!(
            killed.elapsed() < Duration::from_secs(10),
            "after {:?}",
            killed.elapsed()
        );
        ensure!(
            session.diagnostic == "Control Detection Time Expired",
            "{session:?}"
        );

        let _bird = Bird::start(&rack.router, &bird_config(balancer, "", ""))?;
        let session = bfd.wait_for("four", State::Up)?;
        ensure!((session.ups, session.downs) == (2, 1), "{session:?}");
        Ok(())
    });
}

#[test]
fn when_we_are_killed_the_router_sees_it_and_when_we_end_we_wait_until_it_knows() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let us = balancer.ipv4.to_string();
        let bird = Bird::start(&rack.router, &bird_config(balancer, "", ""))?;
        let config = config(balancer, "", &both(balancer, ""));
        let mut bfd = Bfd::start(&balancer.host, &config)?;
        bfd.wait_for("four", State::Up)?;
        wait_for_bird(&bird, &us, "Up")?;
        bfd.process().kill()?;
        wait_for_bird(&bird, &us, "Down")?;

        let mut bfd = Bfd::start(&balancer.host, &config)?;
        bfd.wait_for("four", State::Up)?;
        wait_for_bird(&bird, &us, "Up")?;
        let began = Instant::now();
        let status = bfd.process().terminate(PATIENCE)?;
        ensure!(status.success(), "{status}");
        let known = began.elapsed();
        ensure!(bird.bfd(&us)?.state == "Down");
        drop(bird);

        // One that cannot say so is waited for, and not for ever; it is not given
        // up before.
        let mut bird = Bird::start(&rack.router, &bird_config(balancer, "multiplier 100;", ""))?;
        let mut bfd = Bfd::start(&balancer.host, &config)?;
        bfd.wait_for("four", State::Up)?;
        wait_for_bird(&bird, &us, "Up")?;
        bird.process().freeze()?;
        let began = Instant::now();
        let ended = bfd.process().terminate(PATIENCE);
        let unknown = began.elapsed();
        bird.process().signal(Signal::CONT)?;
        ended?;
        let farewell = Duration::from_millis(2500);
        ensure!(
            known < farewell && farewell <= unknown,
            "{known:?} until BIRD had said that it knows, {unknown:?} without a word"
        );
        Ok(())
    });
}

#[test]
fn other_intervals_are_agreed_at_a_reload_and_the_session_stays_up() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let us = balancer.ipv4.to_string();
        let bird = Bird::start(&rack.router, &bird_config(balancer, "", ""))?;
        let before = config(balancer, "", &both(balancer, ""));
        let mut bfd = Bfd::start(&balancer.host, &before)?;
        wait_for_pace(&bfd)?;

        for (interval, seconds, at_bird) in [("400ms", 0.4, "0.400"), ("200ms", 0.2, "0.200")] {
            bfd.reload(&before.replace("100ms", interval))?;
            wait_until("the new interval is in force", PATIENCE, || {
                let session = bfd.ensure("four", State::Up)?;
                ensure!(
                    session.transmit_interval_seconds == Some(seconds),
                    "{session:?}"
                );
                let there = bird.bfd(&us)?;
                ensure!(there.interval == at_bird, "{there:?}");
                Ok(())
            })?;
        }
        bfd.reload("this is no configuration")?;
        wait_until("the refusal is told", PATIENCE, || {
            let log = bfd.process().log();
            ensure!(
                log.contains("the old configuration stays in force"),
                "{log}"
            );
            Ok(())
        })?;
        let session = bfd.ensure("four", State::Up)?;
        ensure!(session.downs == 0, "{session:?}");
        // A busy machine is late, but not by ages.
        let delay = bfd.status()?.worst_delay_seconds;
        ensure!(delay < 5.0, "{delay} s late");
        let after = bird.bfd(&us)?;
        ensure!(after.state == "Up", "{after:?}");
        Ok(())
    });
}

#[test]
fn a_pulled_cable_is_told_as_what_it_is() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let _bird = Bird::start(&rack.router, &bird_config(balancer, "", ""))?;
        // Long enough that nothing else can notice first.
        let patient = config(balancer, "", &both(balancer, "")).replace("= 20", "= 100");
        let bird_is_patient = patient.replace("min_rx = \"100ms\"", "min_rx = \"5s\"");
        let bfd = Bfd::start(&balancer.host, &bird_is_patient)?;
        bfd.wait_for("four", State::Up)?;
        rack.pull_cable(balancer)?;
        let session = bfd.wait_for_reason("four", "eth0 has no carrier")?;
        ensure!(session.diagnostic == "Path Down", "{session:?}");
        rack.push_cable(balancer)?;
        bfd.wait_for("four", State::Up)?;
        Ok(())
    });
}

#[test]
fn without_its_xdp_program_the_host_takes_the_session_down() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let us = balancer.ipv4.to_string();
        let bird = Bird::start(&rack.router, &bird_config(balancer, "", ""))?;
        let dataplane = "[dataplane]\ninterfaces = [\"eth0\"]\n";
        let bfd = Bfd::start(
            &balancer.host,
            &config(balancer, dataplane, &both(balancer, "")),
        )?;
        let reason = "no XDP program is attached to eth0";
        bfd.wait_for_reason("four", reason)?;

        let pass = pass_object()?;
        let attach = format!(
            "link set dev eth0 xdpdrv object {} section xdp\n",
            pass.display()
        );
        balancer.host.ip(&attach)?;
        bfd.wait_for("four", State::Up)?;
        wait_for_bird(&bird, &us, "Up")?;

        balancer.host.ip("link set dev eth0 xdpdrv off\n")?;
        let session = bfd.wait_for_reason("four", reason)?;
        ensure!(
            session.diagnostic == "Forwarding Plane Reset",
            "{session:?}"
        );
        wait_for_bird_to_leave(&bird, &us)
    });
}

#[test]
fn an_agent_that_is_away_for_too_long_takes_the_session_with_it_and_a_short_restart_does_not() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let bird = Bird::start(&rack.router, &bird_config(balancer, "", ""))?;
        let config = config(balancer, "", &both(balancer, ""));
        let config = config.replace("[bgp]\n", "[bgp]\nrestart_time = \"6s\"\n");
        let bfd = Bfd::start(&balancer.host, &config)?;
        let agent = bfd.attend()?;
        bfd.wait_for("four", State::Up)?;

        drop(agent);
        sleep(Duration::from_secs(2));
        bfd.ensure("four", State::Up)?;
        let mut agent = bfd.attend()?;
        sleep(Duration::from_secs(7));
        let session = bfd.ensure("four", State::Up)?;
        ensure!(
            session.downs == 0,
            "a short restart was noticed: {session:?}"
        );

        agent.ask(&Request::AdminDown {
            peers: None,
            down: true,
        })?;
        bfd.wait_for("four", State::AdminDown)?;
        agent.ask(&Request::AdminDown {
            peers: None,
            down: false,
        })?;
        bfd.wait_for("four", State::Up)?;

        drop(agent);
        let session = bfd.wait_for_reason("four", "the agent has been away")?;
        ensure!(
            session.diagnostic == "Concatenated Path Down",
            "{session:?}"
        );
        wait_for_bird_to_leave(&bird, &balancer.ipv4.to_string())?;
        let _agent = bfd.attend()?;
        bfd.wait_for("four", State::Up)?;
        Ok(())
    });
}

/// The BGP part of a configuration: these tables, and these peers.
fn config(balancer: &Machine, tables: &str, peers: &str) -> String {
    let router_id = balancer.ipv4;
    format!("{tables}\n[bgp]\nlocal_as = 64500\nrouter_id = \"{router_id}\"\n{peers}")
}

/// Peers `four` and `six`: the router by both families.
fn both(balancer: &Machine, further: &str) -> String {
    let four = ("four", ROUTER_IPV4.to_string(), balancer.ipv4.to_string());
    let six = ("six", ROUTER_IPV6.to_string(), balancer.ipv6.to_string());
    let further = format!("{BFD_TIMING}{further}");
    session(&four, "", &further) + &session(&six, "", &further)
}

fn both_names(balancer: &Machine) -> [(&'static str, String); 2] {
    [
        ("four", balancer.ipv4.to_string()),
        ("six", balancer.ipv6.to_string()),
    ]
}

/// A peer by name, address and source, with these lines for BGP and for BFD.
fn session((name, address, source): &(&str, String, String), peer: &str, bfd: &str) -> String {
    format!(
        "[[bgp.peer]]\nname = \"{name}\"\naddress = \"{address}\"\nas = 64501\n\
         source = \"{source}\"\n{peer}\n[bgp.peer.bfd]\n{bfd}\n"
    )
}

/// BIRD with BFD for both addresses of the balancer.
fn bird_config(balancer: &Machine, interface: &str, further: &str) -> String {
    let Machine { ipv4, ipv6, .. } = balancer;
    format!(
        "log stderr all;\nrouter id 192.0.2.1;\ntimeformat protocol iso short ms;\n\
         protocol device {{ }}\nprotocol bfd {{\n\
         interface \"*\" {{ {BIRD_BFD_TIMING} {interface} }};\n\
         neighbor {ipv4} dev \"rack0\" local {ROUTER_IPV4};\n\
         neighbor {ipv6} dev \"rack0\" local {ROUTER_IPV6};\n}}\n{further}"
    )
}

fn wait_for_bird(bird: &Bird, address: &str, state: &str) -> Result<()> {
    wait_until(&format!("BIRD says {state} of {address}"), PATIENCE, || {
        let session = bird.bfd(address)?;
        ensure!(session.state == state, "{session:?}");
        Ok(())
    })
}

/// A peer that hears our Down goes to Init, and waits there for more.
fn wait_for_bird_to_leave(bird: &Bird, address: &str) -> Result<()> {
    wait_until(&format!("BIRD has given up {address}"), PATIENCE, || {
        let session = bird.bfd(address)?;
        ensure!(session.state != "Up", "{session:?}");
        Ok(())
    })
}

/// Waits until both sides keep the pace of [`BFD_TIMING`].
fn wait_for_pace(bfd: &Bfd) -> Result<()> {
    wait_until("both have agreed on 100 ms", PATIENCE, || {
        let session = bfd.ensure("four", State::Up)?;
        ensure!(
            session.transmit_interval_seconds == Some(0.1),
            "{session:?}"
        );
        ensure!(session.detection_time_seconds == Some(2.0), "{session:?}");
        Ok(())
    })
}
