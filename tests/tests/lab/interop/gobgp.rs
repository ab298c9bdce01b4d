//! What GoBGP alone is asked; the like of it with BIRD and FRR is elsewhere.

use std::time::Duration;

use anyhow::{Result, ensure};
use vipd_tests::{Gobgp, Rack, Vipd, wait_until};

use crate::support::{PATIENCE, SMALL, in_lab, start_agent, two_vips, wait_for_peer};

/// Takes packets only with a TTL of 255, which no router in between lets pass.
const NEIGHBOURS_ONLY: &str = "\
ttl-security.config.enabled = true
ttl-security.config.ttl-min = 255
";

#[test]
fn a_router_that_wants_neighbours_only_lets_in_who_sends_the_highest_ttl() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let mut router = start(&rack, NEIGHBOURS_ONLY)?;
        let agent = start_agent(&rack, &two_vips(&rack, ""))?;
        ensure!(
            wait_for_session(&rack, &router, Duration::from_secs(4)).is_err(),
            "established with a TTL of 1"
        );
        // GoBGP sticks to a connection whose other side it does not hear.
        router.process().kill()?;
        let highest = two_vips(&rack, "multihop = 255\n");
        agent.reload(&highest.text(&rack.balancers[0]))?;
        let router = start(&rack, NEIGHBOURS_ONLY)?;
        wait_for_session(&rack, &router, PATIENCE)
    });
}

#[test]
fn a_router_that_is_shut_down_tells_the_agent_why() {
    in_lab(|lab| {
        let (rack, router, agent) = established(lab)?;
        let neighbour = rack.balancers[0].ipv4.to_string();
        let words = [
            "neighbor",
            &neighbour,
            "shutdown",
            "--reason",
            "new line cards",
        ];
        router.ask(&words)?;
        wait_for_peer(&agent, "the reason is told", |peer| {
            let told = peer["last_error"].as_str().unwrap_or_default();
            told.contains("Administrative Shutdown") && told.contains("new line cards")
        })
    });
}

#[test]
fn an_agent_that_stops_tells_the_router_why() {
    in_lab(|lab| {
        let (_rack, router, mut agent) = established(lab)?;
        agent.process().terminate(PATIENCE)?;
        wait_until("the reason is told", PATIENCE, || {
            let log = router.log();
            ensure!(log.contains("vipd stops"), "{log}");
            Ok(())
        })
    });
}

#[test]
fn a_session_that_both_sides_dial_is_one_however_often_the_router_comes_back() {
    in_lab(|lab| {
        let (rack, mut router, agent) = established(lab)?;
        for count in 2..5 {
            router.process().kill()?;
            wait_for_peer(&agent, "the session is down", |peer| {
                peer["state"] != "Established"
            })?;
            router = start(&rack, "")?;
            wait_for_session(&rack, &router, PATIENCE)?;
            wait_for_peer(&agent, "the session is up", |peer| {
                peer["state"] == "Established" && peer["established_count"] == count
            })?;
            let ports = "( sport = 179 or dport = 179 )";
            let words = ["-Htn", "state", "established", ports];
            wait_until("there is one connection", PATIENCE, || {
                let connections = rack.router.run("ss", &words)?;
                ensure!(connections.lines().count() == 1, "{connections}");
                Ok(())
            })?;
        }
        Ok(())
    });
}

fn established(lab: &vipd_tests::Lab) -> Result<(Rack, Gobgp, Vipd)> {
    let rack = Rack::build(lab, SMALL)?;
    let router = start(&rack, "")?;
    let agent = start_agent(&rack, &two_vips(&rack, ""))?;
    wait_for_session(&rack, &router, PATIENCE)?;
    Ok((rack, router, agent))
}

fn start(rack: &Rack, further: &str) -> Result<Gobgp> {
    let config = Gobgp::router_config(64501, &rack.balancers, 64500, further, "");
    Gobgp::start(&rack.router, &config)
}

fn wait_for_session(rack: &Rack, router: &Gobgp, patience: Duration) -> Result<()> {
    let neighbour = rack.balancers[0].ipv4.to_string();
    wait_until("the session is established", patience, || {
        router.ensure_established(&neighbour)
    })
}
