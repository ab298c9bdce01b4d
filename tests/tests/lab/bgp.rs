//! The speaker against BIRD and FRR: what they see of it, and how it takes
//! what they do.

use std::{
    net::IpAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;
use vipd_tests::{AgentConfig, Bird, Frr, Rack, Vipd, host_prefix, wait_until};

use crate::support::{SMALL, VIP, VIP6, in_lab};

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT_TIMERS: &str = "hold_time = \"3s\"\nconnect_retry = \"1s\"\n";
const ATTRIBUTES: &str = r#"
med = 70
communities = ["64500:100", "no-export", "64500:1:2"]
prepend = 2
"#;

#[test]
fn bird_sees_both_families_by_ebgp_with_the_attributes_given() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let sessions = Bird::sessions(&rack.balancers, 64500, "");
        let router = Bird::start(&rack.router, &(Bird::router_config(64501) + &sessions))?;
        let _agent = start_agent(&rack, &config(&rack, ATTRIBUTES))?;
        let expected = [
            ("BGP.as_path", "64500 64500 64500"),
            ("BGP.med", "70"),
            ("BGP.community", "(64500,100) (65535,65281)"),
            ("BGP.large_community", "(64500, 1, 2)"),
            ("BGP.origin", "IGP"),
        ];
        ensure_bird_routes(&rack, &router, &expected)
    });
}

#[test]
fn bird_sees_the_local_preference_and_an_empty_path_by_ibgp() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let sessions = Bird::sessions(&rack.balancers, 64500, "");
        let router = Bird::start(&rack.router, &(Bird::router_config(64500) + &sessions))?;
        let mut config = config(&rack, "local_preference = 200\n");
        config.router_as = 64500;
        let _agent = start_agent(&rack, &config)?;
        let expected = [("BGP.local_pref", "200"), ("BGP.as_path", "")];
        ensure_bird_routes(&rack, &router, &expected)
    });
}

#[test]
fn frr_sees_both_families_by_ebgp_with_the_attributes_given() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let router = Frr::start(
            &rack.router,
            &Frr::router_config(64501, &rack.balancers, 64500, &[]),
        )?;
        let _agent = start_agent(&rack, &config(&rack, ATTRIBUTES))?;
        let expected = [
            ("/aspath/string", "64500 64500 64500".into()),
            ("/metric", 70.into()),
            ("/community/string", "64500:100 no-export".into()),
            ("/largeCommunity/string", "64500:1:2".into()),
            ("/origin", "IGP".into()),
        ];
        ensure_frr_routes(&rack, &router, &expected)
    });
}

#[test]
fn frr_sees_the_local_preference_by_ibgp() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let router = Frr::start(
            &rack.router,
            &Frr::router_config(64500, &rack.balancers, 64500, &[]),
        )?;
        let mut config = config(&rack, "local_preference = 200\n");
        config.router_as = 64500;
        let _agent = start_agent(&rack, &config)?;
        ensure_frr_routes(&rack, &router, &[("/locPrf", 200.into())])
    });
}

#[test]
fn a_wrong_md5_password_keeps_bird_away_and_is_told_and_the_right_one_lets_it_in() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let sessions = Bird::sessions(&rack.balancers, 64500, "password \"the-right-one\";");
        let router = Bird::start(&rack.router, &(Bird::router_config(64501) + &sessions))?;
        wrong_then_right(&rack, || {
            router.ensure_established("lb1")?;
            Ok(())
        })
    });
}

#[test]
fn a_wrong_md5_password_keeps_frr_away_and_is_told_and_the_right_one_lets_it_in() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let further = ["password the-right-one"];
        let config = Frr::router_config(64501, &rack.balancers, 64500, &further);
        let router = Frr::start(&rack.router, &config)?;
        let neighbour = rack.balancers[0].ipv4.to_string();
        wrong_then_right(&rack, || router.ensure_established(&neighbour))
    });
}

#[test]
fn a_router_that_is_killed_and_comes_back_gets_its_routes_again() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let config_of_router =
            Bird::router_config(64501) + &Bird::sessions(&rack.balancers, 64500, "");
        let mut router = Bird::start(&rack.router, &config_of_router)?;
        let agent = start_agent(&rack, &config(&rack, ""))?;
        ensure_bird_routes(&rack, &router, &[])?;

        router.process().kill()?;
        wait_for_peer(&agent, "the session is down", |peer| {
            state(peer) != "Established"
        })?;

        let router = Bird::start(&rack.router, &config_of_router)?;
        ensure_bird_routes(&rack, &router, &[])?;
        wait_for_peer(&agent, "the session is up", |peer| {
            state(peer) == "Established"
        })
    });
}

#[test]
fn a_router_that_falls_silent_is_given_up_after_the_hold_time_and_taken_back() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let sessions = Bird::sessions(&rack.balancers, 64500, "");
        let router = Bird::start(&rack.router, &(Bird::router_config(64501) + &sessions))?;
        let agent = start_agent(&rack, &config(&rack, ""))?;
        ensure_bird_routes(&rack, &router, &[])?;

        let silence = Instant::now();
        rack.unplug_silently(&rack.balancers[0])?;
        wait_for_peer(&agent, "the session is down", |peer| {
            state(peer) != "Established"
        })?;
        let noticed = silence.elapsed();
        ensure!(
            noticed > Duration::from_millis(1900),
            "given up after {noticed:?}, with a hold time of 3 s and a keepalive each second"
        );
        ensure!(
            agent.log().to_lowercase().contains("hold time"),
            "it is not told why"
        );

        rack.plug_in(&rack.balancers[0])?;
        ensure_bird_routes(&rack, &router, &[])
    });
}

/// Two VIPs that are always up, and a session with these further lines.
fn config(rack: &Rack, further: &str) -> AgentConfig {
    let mut config = AgentConfig::default()
        .udp_service("four", (VIP.into(), 53), "l2-dsr", &rack.backends)
        .udp_service("six", (VIP6.into(), 53), "l2-dsr", &rack.backends);
    config.peer = SHORT_TIMERS.to_owned() + further;
    config
}

fn start_agent(rack: &Rack, config: &AgentConfig) -> Result<Vipd> {
    let balancer = &rack.balancers[0];
    Vipd::start(&balancer.host, &config.text(balancer))
}

fn ensure_bird_routes(rack: &Rack, router: &Bird, expected: &[(&str, &str)]) -> Result<()> {
    for vip in [IpAddr::from(VIP), VIP6.into()] {
        let next_hop = rack.balancers[0].address_like(vip);
        wait_until("BIRD has the route", PATIENCE, || {
            router.ensure_next_hops(&host_prefix(vip), &[next_hop])
        })?;
        let route = router.routes(&host_prefix(vip))?.remove(0);
        for (name, value) in expected {
            ensure!(
                route.attribute(name) == Some(value),
                "no {name} {value:?} in {route:?}"
            );
        }
    }
    Ok(())
}

fn ensure_frr_routes(rack: &Rack, router: &Frr, expected: &[(&str, Value)]) -> Result<()> {
    for vip in [IpAddr::from(VIP), VIP6.into()] {
        let next_hop = rack.balancers[0].address_like(vip).to_string();
        let path = wait_until("FRR has the route", PATIENCE, || {
            let mut paths = router.paths(&host_prefix(vip))?;
            ensure!(paths.len() == 1, "{paths:?}");
            Ok(paths.remove(0))
        })?;
        let told = path.pointer("/nexthops/0/ip");
        ensure!(
            told == Some(&next_hop.into()),
            "next hop {told:?} in {path}"
        );
        for (pointer, value) in expected {
            ensure!(
                path.pointer(pointer) == Some(value),
                "no {pointer} {value} in {path}"
            );
        }
    }
    Ok(())
}

fn wrong_then_right(rack: &Rack, established: impl Fn() -> Result<()>) -> Result<()> {
    let host = &rack.balancers[0].host;
    host.write_secret("router.md5", "a wrong one\n")?;
    let config = config(rack, "password_file = \"router.md5\"\n");
    let agent = start_agent(rack, &config)?;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        ensure!(established().is_err(), "established with a wrong password");
        sleep(Duration::from_millis(100));
    }
    wait_until("the trouble is told", PATIENCE, || {
        let peer = agent.peer("router")?;
        ensure!(state(&peer) != "Established", "{peer}");
        let told = peer.to_string().to_lowercase();
        ensure!(told.contains("password"), "{peer}");
        Ok(())
    })?;

    host.write_secret("router.md5", "the-right-one\n")?;
    agent.reload(&config.text(&rack.balancers[0]))?;
    wait_until("the right password lets it in", PATIENCE, established)
}

fn wait_for_peer(agent: &Vipd, sentence: &str, good: impl Fn(&Value) -> bool) -> Result<()> {
    wait_until(sentence, PATIENCE, || {
        let peer = agent.peer("router")?;
        ensure!(good(&peer), "{peer}");
        Ok(())
    })
}

fn state(peer: &Value) -> &str {
    peer["state"].as_str().unwrap_or_default()
}
