//! BFD beside BGP: what one does to the other, and where an operator sees it.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use vipd::bfd::protocol::State;
use vipd_tests::{
    AgentConfig, BFD_TIMING, BIRD_BFD_TIMING, Bfd, Bird, Frr, ROUTER_IPV4, Rack, Vipd, wait_until,
};

use crate::support::{SMALL, VIP, in_lab, wait_for_peer};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_router_that_falls_silent_is_given_up_by_bfd_and_taken_back() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let sessions = Bird::sessions(&rack.balancers, 64500, "bfd on;");
        let head = format!("protocol bfd {{ interface \"*\" {{ {BIRD_BFD_TIMING} }}; }}\n");
        let mut bird = Bird::start(
            &rack.router,
            &(Bird::router_config(64501) + &head + &sessions),
        )?;
        let balancer = &rack.balancers[0];
        let text = agent_config(&rack).text(balancer);
        let _bfd = Bfd::start(&balancer.host, &text)?;
        let agent = Vipd::start(&balancer.host, &text)?;
        wait_for_both(&agent)?;

        bird.process().freeze()?;
        let silent = |peer: &Value| {
            let words = peer["last_error"].as_str().unwrap_or_default();
            peer["state"] != "Established" && words.contains("BFD says")
        };
        let given_up = wait_for_peer(&agent, "it is given up, and the reason is BFD", silent);
        bird.process().signal(Signal::CONT)?;
        given_up?;
        wait_for_peer(&agent, "it is back", |peer| peer["state"] == "Established")
    });
}

/// BIRD's BGP does not ask its BFD here, so that it is left to us.
#[test]
fn bfd_that_dies_and_begins_anew_ends_no_bgp_session_and_its_absence_is_told() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let sessions = Bird::sessions(&rack.balancers, 64500, "");
        let head = format!(
            "protocol bfd {{ interface \"*\" {{ {BIRD_BFD_TIMING} }}; \
             neighbor {} dev \"rack0\" local {ROUTER_IPV4}; }}\n",
            balancer.ipv4
        );
        let router = Bird::router_config(64501) + &head + &sessions;
        let bird = Bird::start(&rack.router, &router)?;
        let text = agent_config(&rack).text(balancer);
        let mut bfd = Bfd::start(&balancer.host, &text)?;
        let agent = Vipd::start(&balancer.host, &text)?;
        wait_for_both(&agent)?;
        ensure!(
            !agent.log().contains("whether BFD is up"),
            "{}",
            agent.log()
        );

        bfd.process().kill()?;
        wait_until("its absence is told", PATIENCE, || {
            let log = agent.log();
            ensure!(log.contains("it is not known whether BFD is up"), "{log}");
            Ok(())
        })?;
        // So the new session is down for long enough to be seen.
        bird.birdc("disable bfd1")?;
        let bfd = Bfd::start(&balancer.host, &text)?;
        for (state, request) in [(State::Down, "enable bfd1"), (State::Up, "show status")] {
            bfd.wait_for("router", state)?;
            sleep(Duration::from_secs(2));
            let peer = agent.peer("router")?;
            ensure!(peer["state"] == "Established", "{state:?}: {peer}");
            ensure!(peer["established_count"] == 1, "{state:?}: {peer}");
            bird.birdc(request)?;
        }
        Ok(())
    });
}

#[test]
fn an_operator_sees_whether_bfd_is_up_and_why_not() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        // BFD at the router says nothing of BGP, which so outlives it.
        let sessions = Bird::sessions(&rack.balancers, 64500, "");
        let balancer = &rack.balancers[0];
        let head = format!(
            "protocol bfd {{ interface \"*\" {{ {BIRD_BFD_TIMING} }}; neighbor {} dev \"rack0\" \
             local {ROUTER_IPV4}; }}\n",
            balancer.ipv4
        );
        let _bird = Bird::start(
            &rack.router,
            &(Bird::router_config(64501) + &head + &sessions),
        )?;
        let text = agent_config(&rack).text(balancer);
        let agent = Vipd::start(&balancer.host, &text)?;
        wait_for_peer(&agent, "BGP stands without BFD", |peer| {
            peer["state"] == "Established" && peer["bfd"]["state"] == "unknown"
        })?;
        let remedy = "`systemctl enable --now vipd-bfd` starts it";
        ensure_seen(
            &agent,
            "unknown",
            &[remedy, "the BFD process is not reached"],
        )?;

        let mut bfd = Bfd::start(&balancer.host, &text)?;
        // What is agreed on then is no change of state, and is asked for.
        wait_for_peer(&agent, "BFD is up at its pace", |peer| {
            peer["bfd"]["state"] == "Up" && peer["bfd"]["detection_time_seconds"] == 2.0
        })?;
        ensure_seen(
            &agent,
            "Up",
            &["the peer is given up after 2000 ms", "End-of-RIB sent"],
        )?;

        bfd.process().kill()?;
        wait_for_peer(&agent, "it is seen", |peer| {
            peer["bfd"]["state"] == "unknown"
        })?;
        ensure_seen(
            &agent,
            "unknown",
            &[remedy, "the BFD process is not reached"],
        )?;
        let peer = agent.peer("router")?;
        ensure!(peer["state"] == "Established", "BGP is gone: {peer}");
        Ok(())
    });
}

#[test]
fn bird_and_frr_drop_bgp_when_bfd_is_stopped_in_good_order() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let sessions = Bird::sessions(&rack.balancers, 64500, "bfd on;");
        let head = format!("protocol bfd {{ interface \"*\" {{ {BIRD_BFD_TIMING} }}; }}\n");
        let router = Bird::router_config(64501) + &head + &sessions;
        let bird = Bird::start(&rack.router, &router)?;
        let us = rack.balancers[0].ipv4.to_string();
        stop_bfd(&rack, || {
            let session = bird.bfd(&us)?;
            ensure!(session.state == "Up", "{session:?}");
            Ok(())
        })
    });
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let us = rack.balancers[0].ipv4.to_string();
        let router = Frr::router_config(64501, &rack.balancers, 64500, &["bfd"]);
        let frr = Frr::start_with_bfd(&rack.router, &router, "")?;
        stop_bfd(&rack, || {
            let peer = frr.bfd(&us)?;
            ensure!(peer["status"] == "up", "{peer}");
            Ok(())
        })
    });
}

/// Stops BFD beside a running agent: the router, whose BFD is up by `is_up`, drops
/// BGP too, though AdminDown says nothing of the path. `docs/bfd.md` warns of that.
fn stop_bfd(rack: &Rack, is_up: impl Fn() -> Result<()>) -> Result<()> {
    let balancer = &rack.balancers[0];
    let text = agent_config(rack).text(balancer);
    let agent = Vipd::start(&balancer.host, &text)?;
    let mut bfd = Bfd::start(&balancer.host, &text)?;
    wait_for_both(&agent)?;
    wait_until("the router's BFD is up too", PATIENCE, is_up)?;
    bfd.process().terminate(PATIENCE)?;
    // FRR's BFD is not up then, whatever becomes of BGP.
    wait_for_peer(&agent, "the router drops BGP", |peer| {
        let told = peer["last_error"].as_str().unwrap_or_default();
        told.starts_with("the peer ended the connection")
    })
}

/// Waits until the agent knows that both stand.
fn wait_for_both(agent: &Vipd) -> Result<()> {
    wait_for_peer(agent, "BGP and BFD stand", |peer| {
        peer["state"] == "Established" && peer["bfd"]["state"] == "Up"
    })
}

/// What an operator and an alert go by: the metrics, `vipd status` and
/// `vipd show bgp router`, which has these words.
fn ensure_seen(agent: &Vipd, state: &str, words: &[&str]) -> Result<()> {
    let is_up = state == "Up";
    let page = agent.metrics("text/plain")?;
    for line in [
        format!("vipd_bfd_process_reached {}", u8::from(is_up)),
        format!("vipd_bfd_session_up{{peer=\"router\"}} {}", u8::from(is_up)),
        format!("vipd_bfd_session_state{{peer=\"router\",state=\"{state}\"}} 1"),
    ] {
        let has_it = |found: &str| found.trim_end_matches(".0") == line;
        ensure!(page.lines().any(has_it), "no {line} in {page}");
    }
    let details = agent.show_bgp(&["router"])?;
    for words in words {
        ensure!(details.contains(words), "no {words:?} in {details}");
    }
    let status = agent.command("status", &[])?;
    let row = status.lines().find(|line| line.starts_with("router "));
    let row = row.with_context(|| format!("no router in {status}"))?;
    ensure!(row.split_whitespace().any(|word| word == state), "{status}");
    ensure!(status.contains("! the BFD process") != is_up, "{status}");
    Ok(())
}

fn agent_config(rack: &Rack) -> AgentConfig {
    let mut config =
        AgentConfig::default().udp_service("four", (VIP.into(), 53), "l2-dsr", &rack.backends);
    config.peer += &format!("[bgp.peer.bfd]\n{BFD_TIMING}");
    config
}
