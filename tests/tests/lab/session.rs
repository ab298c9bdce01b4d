//! BGP sessions as sockets and routers make them: how far away a router may be,
//! who connects, what ends a session, and in which words the operator is told.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use serde_json::Value;
use vipd_tests::{
    AgentConfig, BALANCERS_AS, Bird, CLIENT_IPV4, Frr, Host, ROUTER_AS, Rack, Vipd, wait_until,
};

use crate::support::{PATIENCE, SMALL, VIP, in_lab, start_agent, wait_for, wait_for_session};

/// The client's host as a second router, a hop behind the first.
const FAR: &str = r#"
[[bgp.peer]]
name = "far"
address = "203.0.113.10"
as = 64502
source = "192.0.2.11"
hold_time = "3s"
connect_retry = "1s"
"#;

#[test]
fn a_router_on_the_link_is_taken_with_the_highest_ttl_only() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let router = Bird::on_router(&rack, "ttl security on;")?;
        let agent = start(&rack, "ttl_security = 1\n")?;
        wait_for_state(&agent, "router", "Established")?;

        router.configure(&Bird::rack_config(&rack, ""))?;
        // It may get as far as that we wait for BIRD's OPEN.
        wait_for(&agent, "router", "its TTL is told", |peer| {
            let told = peer["hint"].as_str().unwrap_or_default();
            told.contains("too low a TTL") && told.contains("more than 1 hop away")
        })
    });
}

#[test]
fn frr_and_vipd_take_each_other_with_the_highest_ttl() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let _router = start_frr(&rack, &["ttl-security hops 1"])?;
        let agent = start(&rack, "ttl_security = 1\n")?;
        wait_for_state(&agent, "router", "Established")
    });
}

#[test]
fn a_router_farther_away_than_allowed_is_told_as_such_and_taken_when_allowed() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let _far = start_far(&rack, "multihop 2; ttl security on;")?;
        let agent = start(&rack, FAR)?;
        let too_far = [
            "203.0.113.10 is more than 1 hop away",
            "192.0.2.1 dropped our packet",
            "multihop",
        ];
        wait_for_words(&agent, "far", &too_far)?;

        reload(&rack, &agent, &(FAR.to_owned() + "ttl_security = 1\n"))?;
        wait_for_words(&agent, "far", &["too low a TTL", "more than 1 hop away"])?;

        reload(&rack, &agent, &(FAR.to_owned() + "ttl_security = 2\n"))?;
        wait_for_state(&agent, "far", "Established")
    });
}

#[test]
fn either_side_may_leave_it_to_the_other_to_connect() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let router = Bird::on_router(&rack, "")?;
        let agent = start(&rack, "passive = true\n")?;
        wait_for_session(&agent, 1)?;

        // BIRD starts a session anew whose connecting is changed.
        router.configure(&Bird::rack_config(&rack, "passive on;"))?;
        reload(&rack, &agent, "")?;
        wait_for_session(&agent, 2)
    });
}

#[test]
fn nobody_can_connect_to_a_speaker_that_does_not_listen() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let _router = Bird::on_router(&rack, "")?;
        let text = config(&rack, "")
            .text(&rack.balancers[0])
            .replace("[bgp]\n", "[bgp]\nlisten = false\n");
        let agent = Vipd::start(&rack.balancers[0].host, &text)?;
        wait_for_state(&agent, "router", "Established")?;
        let sockets = rack.balancers[0]
            .host
            .run("ss", &["-Hltn", "sport = 179"])?;
        ensure!(sockets.is_empty(), "{sockets}");
        Ok(())
    });
}

#[test]
fn two_sides_that_connect_at_the_same_moment_have_one_session() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        rack.unplug_silently(&rack.balancers[0])?;
        let router = Bird::on_router(&rack, "")?;
        let agent = start(&rack, "")?;
        // Both dial into the void, and again and again from now on.
        sleep(Duration::from_secs(2));
        rack.plug_in(&rack.balancers[0])?;
        wait_for_state(&agent, "router", "Established")?;
        sleep(Duration::from_secs(4));
        wait_for_state(&agent, "router", "Established")?;
        router.ensure_established("lb1")?;
        let count = agent.peer("router")?["established_count"].clone();
        ensure!(count == 1, "established {count} times");
        let sockets = rack.router.run("ss", &["-Htn", "state", "established"])?;
        ensure!(sockets.lines().count() == 1, "{sockets}");
        Ok(())
    });
}

#[test]
fn birds_shutdown_and_ours_are_read_by_the_other_in_the_operators_words() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let mut router = Bird::on_router(&rack, "")?;
        let mut agent = start(&rack, "")?;
        wait_for_state(&agent, "router", "Established")?;
        router.birdc("disable lb1 \"moving to rack 7\"")?;
        let words = ["Administrative Shutdown", "moving to rack 7"];
        wait_for(&agent, "router", "its text is told", |peer| {
            let told = peer["notification_received"].as_str().unwrap_or_default();
            words.iter().all(|word| told.contains(word))
        })?;
        router.birdc("enable lb1")?;
        wait_for_state(&agent, "router", "Established")?;
        agent.process().terminate(PATIENCE)?;
        wait_until("BIRD prints our text", PATIENCE, || {
            let log = router.process().log();
            ensure!(log.contains("vipd stops"), "{log}");
            Ok(())
        })
    });
}

#[test]
fn frrs_shutdown_is_read_in_the_operators_words() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let router = start_frr(&rack, &[])?;
        let agent = start(&rack, "")?;
        wait_for_state(&agent, "router", "Established")?;
        frr_neighbor(&router, &rack, "shutdown message moving to rack 7")?;
        wait_for(&agent, "router", "its text is told", |peer| {
            let told = peer["notification_received"].as_str().unwrap_or_default();
            told.contains("Administrative Shutdown") && told.contains("moving to rack 7")
        })
    });
}

#[test]
fn a_password_that_changes_here_first_ends_no_session() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let host = &rack.balancers[0].host;
        host.write_secret("router.md5", "swordfish\n")?;
        let router = start_frr(&rack, &["password swordfish"])?;
        let agent = start(&rack, "password_file = \"router.md5\"\n")?;
        wait_for_state(&agent, "router", "Established")?;

        host.write_secret("router.md5", "other\n")?;
        reload(&rack, &agent, "password_file = \"router.md5\"\n")?;
        sleep(Duration::from_secs(1));
        let peer = agent.peer("router")?;
        ensure!(peer["state"] == "Established", "{peer}");
        ensure!(peer["established_count"] == 1, "{peer}");
        ensure!(peer["notification_sent"].is_null(), "{peer}");

        // FRR itself ends a session whose password is changed there.
        frr_neighbor(&router, &rack, "password other")?;
        wait_for_session(&agent, 2)
    });
}

#[test]
fn a_session_is_bound_to_its_interface() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let _router = Bird::on_router(&rack, "")?;
        let agent = start(&rack, "interface = \"eth0\"\n")?;
        wait_for_state(&agent, "router", "Established")?;
        let host = &rack.balancers[0].host;
        let listening = host.run("ss", &["-Hltn", "sport = 179"])?;
        ensure!(listening.contains("%eth0"), "{listening}");

        reload(&rack, &agent, "interface = \"lo\"\n")?;
        wait_for(&agent, "router", "no session by `lo`", |peer| {
            peer["state"] != "Established" && peer["last_error"].is_string()
        })?;
        reload(&rack, &agent, "interface = \"eth7\"\n")?;
        wait_for_words(&agent, "router", &["there is no interface eth7"])
    });
}

#[test]
fn a_blocked_port_is_told_by_whom_it_is_blocked() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let _far = start_far(&rack, "multihop 2; passive on;")?;
        // The newest rule comes first.
        let block = |place: &Host, how: &str| {
            place.ip(&format!(
                "rule add to 203.0.113.10 ipproto tcp dport 179 {how}\n"
            ))
        };
        let unblock = |place: &Host| place.ip("rule flush\nrule add lookup main\n");
        let host = &rack.balancers[0].host;
        block(&rack.router, "prohibit")?;
        let agent = start(&rack, &(FAR.to_owned() + "multihop = 2\n"))?;
        let words = [
            "192.0.2.1 forbids it",
            "a packet filter there blocks port 179",
        ];
        wait_for_words(&agent, "far", &words)?;
        block(host, "prohibit")?;
        wait_for_words(&agent, "far", &["this host forbids it"])?;
        block(&rack.router, "unreachable")?;
        unblock(host)?;
        wait_for_words(&agent, "far", &["192.0.2.1 knows no way to 203.0.113.10"])?;
        block(&rack.router, "blackhole")?;
        wait_for_words(
            &agent,
            "far",
            &["no answer from", "port 179 may be blocked"],
        )?;
        unblock(&rack.router)?;
        wait_for_state(&agent, "far", "Established")
    });
}

#[test]
fn what_is_wrong_is_told_in_words_of_its_own_and_no_flood() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let absent = FAR.replace("203.0.113.10", "192.0.2.99");
        let agent = start(&rack, &absent)?;
        wait_for_words(&agent, "router", &["nothing listens on 192.0.2.1:179"])?;
        wait_for_words(&agent, "far", &["nobody on the link answers for it"])?;
        let nowhere = FAR.replace("203.0.113.10", "198.51.100.99");
        rack.balancers[0]
            .host
            .ip("route add unreachable 198.51.100.99\n")?;
        reload(&rack, &agent, &nowhere)?;
        wait_for_words(&agent, "far", &["there is no way to 198.51.100.99:179"])?;
        let not_ours = FAR.replace("192.0.2.11", "192.0.2.77");
        reload(&rack, &agent, &not_ours)?;
        let words = ["the source address 192.0.2.77 is not configured on this host"];
        wait_for_words(&agent, "far", &words)?;

        // Ten attempts and more at each of them, and each told once.
        sleep(Duration::from_secs(8));
        let log = agent.log();
        for words in [
            "nothing listens on",
            "nobody on the link answers",
            "there is no way to",
            "the source address 192.0.2.77 is not configured",
        ] {
            let told = log.matches(words).count();
            ensure!(told == 1, "`{words}` is told {told} times: {log}");
        }
        Ok(())
    });
}

#[test]
fn another_as_is_told_on_whichever_side_it_is_wrong() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let _router = Bird::on_router(&rack, "")?;
        let mut wrong = config(&rack, "");
        wrong.router_as = 64999;
        let balancer = &rack.balancers[0];
        let agent = Vipd::start(&balancer.host, &wrong.text(balancer))?;
        let words = ["the peer is in AS 64501, but AS 64999 is configured"];
        wait_for_words(&agent, "router", &words)?;
        let mut wrong = config(&rack, "");
        wrong.local_as = 64998;
        agent.reload(&wrong.text(balancer))?;
        wait_for(&agent, "router", "BIRD says so", |peer| {
            let told = peer["notification_received"].as_str().unwrap_or_default();
            told.contains("Bad Peer AS")
        })
    });
}

#[test]
fn a_password_that_does_not_fit_is_told_from_one_that_is_missing() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let host = &rack.balancers[0].host;
        host.write_secret("router.md5", "swordfish\n")?;
        let router = Bird::on_router(&rack, "password \"other\";")?;
        let agent = start(&rack, "password_file = \"router.md5\"\n")?;
        wait_for_words(&agent, "router", &["the passwords differ"])?;
        reload(&rack, &agent, "")?;
        wait_for_words(
            &agent,
            "router",
            &["a password is set there, and none here"],
        )?;
        router.configure(&Bird::rack_config(&rack, ""))?;
        wait_for_state(&agent, "router", "Established")?;
        reload(&rack, &agent, "password_file = \"router.md5\"\n")?;
        wait_for_words(&agent, "router", &["no password is set there"])
    });
}

#[test]
fn another_speaker_at_our_port_is_told() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let _router = Bird::on_router(&rack, "")?;
        let host = &rack.balancers[0].host;
        let squatter = "router id 192.0.2.11;\nprotocol device {}\nprotocol bgp { \
             local 192.0.2.11 as 64500; neighbor 192.0.2.99 as 64501; \
             ipv4 { import none; export none; }; }\n";
        let _squatter = Bird::start(host, squatter)?;
        let agent = start(&rack, "")?;
        wait_until("the listener says so", PATIENCE, || {
            let log = agent.log();
            ensure!(log.contains("another BGP speaker runs here"), "{log}");
            Ok(())
        })?;
        // We connect to the router all the same.
        wait_for_state(&agent, "router", "Established")
    });
}

#[test]
fn a_node_is_healthy_degraded_or_isolated_by_its_routers() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let mut router = Bird::on_router(&rack, "")?;
        let mut far = start_far(&rack, "multihop 2;")?;
        let agent = start(&rack, &(FAR.to_owned() + "multihop = 2\n"))?;
        let wait = |words: &str| {
            wait_until(words, PATIENCE, || {
                let table = agent.show_bgp(&[])?;
                let told = table.lines().next().unwrap_or_default();
                ensure!(told.contains(words), "{table}");
                Ok(())
            })
        };
        wait("lb1 · healthy: 2 of 2 BGP sessions up")?;
        ensure_shown_whole(&agent)?;
        far.process().kill()?;
        wait("lb1 · degraded: 1 of 2 BGP sessions down")?;
        let status = agent.command("status", &[])?;
        ensure!(status.contains("degraded: 1 of 2"), "{status}");
        let page = agent.metrics("text/plain")?;
        let line = "vipd_bgp_sessions_state{state=\"degraded\"} 1";
        ensure!(page.contains(line), "{page}");
        router.process().kill()?;
        wait("lb1 · isolated: none of 2 BGP sessions is up")
    });
}

/// What BIRD has been told, and what it offers, is in `vipd show bgp router`.
fn ensure_shown_whole(agent: &Vipd) -> Result<()> {
    let whole = wait_until("the route is announced", PATIENCE, || {
        let whole = agent.show_bgp(&["router"])?;
        ensure!(whole.contains("1 of 1 announced"), "{whole}");
        Ok(whole)
    })?;
    for part in [
        "Established for",
        "AS 64500, router id 192.0.2.11, 192.0.2.11:",
        "AS 64501, router id 192.0.2.1, 192.0.2.1:",
        "3 s agreed, 3 s proposed",
        "hold in ",
        "keepalive in ",
        "four-octet AS",
        "route refresh",
        "198.51.100.10/32 via 192.0.2.11, path 64500, origin IGP",
    ] {
        ensure!(whole.contains(part), "no {part:?} in\n{whole}");
    }
    let json: Value = serde_json::from_str(&agent.show_bgp(&["192.0.2.1", "--json"])?)?;
    let peers = json["peers"].as_array().map_or(0, Vec::len);
    ensure!(peers == 1, "{json}");
    let route = &json["peers"][0]["routes"][0];
    ensure!(route["prefix"] == "198.51.100.10/32", "{json}");
    ensure!(agent.show_bgp(&["nobody"]).is_err(), "nobody is shown");
    Ok(())
}

fn config(rack: &Rack, peer: &str) -> AgentConfig {
    let mut config =
        AgentConfig::default().udp_service("four", (VIP.into(), 53), "l2-dsr", &rack.backends);
    config.peer += peer;
    config
}

/// An agent whose session with the router has these further lines.
fn start(rack: &Rack, peer: &str) -> Result<Vipd> {
    start_agent(rack, &config(rack, peer))
}

fn reload(rack: &Rack, agent: &Vipd, peer: &str) -> Result<()> {
    agent.reload(&config(rack, peer).text(&rack.balancers[0]))?;
    Ok(())
}

/// FRR on the router, with these further lines of the session.
fn start_frr(rack: &Rack, session: &[&str]) -> Result<Frr> {
    let config = Frr::router_config(ROUTER_AS, &rack.balancers, BALANCERS_AS, session);
    Frr::start(&rack.router, &config)
}

/// BIRD on the client's host, AS 64502, with these further lines of the session.
fn start_far(rack: &Rack, session: &str) -> Result<Bird> {
    let sessions = Bird::sessions(&rack.balancers, BALANCERS_AS, session);
    let config = Bird::router_config(64502) + &sessions;
    let address = CLIENT_IPV4.to_string();
    Bird::start(
        &rack.client,
        &config.replace("192.0.2.1 as", &format!("{address} as")),
    )
}

fn frr_neighbor(router: &Frr, rack: &Rack, words: &str) -> Result<()> {
    let line = format!("neighbor {} {words}", rack.balancers[0].ipv4);
    vtysh_configure(router, &["router bgp 64501", &line])
}

fn vtysh_configure(router: &Frr, lines: &[&str]) -> Result<()> {
    let all = [&["configure terminal"], lines].concat();
    router.vtysh(&all.join("\n"))?;
    Ok(())
}

fn wait_for_state(agent: &Vipd, peer: &str, state: &str) -> Result<()> {
    wait_for(agent, peer, state, |peer| peer["state"] == state)
}

/// Until the last error has all of these words.
fn wait_for_words(agent: &Vipd, peer: &str, words: &[&str]) -> Result<()> {
    wait_for(agent, peer, &format!("{words:?}"), |peer| {
        let told = peer["last_error"].as_str().unwrap_or_default();
        words.iter().all(|word| told.contains(word))
    })
}
