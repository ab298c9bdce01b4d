//! A balancer dies without a word while its carrier stays: routers that watch it
//! by BFD leave it at once, though they would keep the routes of one that
//! restarts.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use vipd::bfd::protocol::State;
use vipd_tests::{
    AgentConfig, BFD_TIMING, BIRD_BFD_TIMING, Bfd, Bird, FRR_BFD_TIMING, Frr, Rack, Vipd,
    wait_until,
};

use crate::support::{SMALL, VIP, in_lab};

const PATIENCE: Duration = Duration::from_secs(20);
/// Much less than the hold time, let alone the restart time; much more than BFD
/// needs.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn bird_leaves_the_dead_at_once_though_it_keeps_routes_over_a_restart() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let us = rack.balancers[0].ipv4.to_string();
        let sessions = Bird::sessions(&rack.balancers, 64500, "bfd on; hold time 30;");
        let bfd = format!("protocol bfd {{ interface \"*\" {{ {BIRD_BFD_TIMING} }}; }}\n");
        let config = Bird::router_config(64501) + &bfd + &sessions;
        let bird = Bird::start(&rack.router, &config)?;
        is_left_soon("BIRD", &rack, || {
            let session = bird.bfd(&us)?;
            ensure!(session.state == "Up", "{session:?}");
            Ok(())
        })
    });
}

#[test]
fn frr_leaves_the_dead_at_once_though_it_keeps_routes_over_a_restart() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let us = rack.balancers[0].ipv4.to_string();
        let further = ["bfd profile all", "timers 10 30"];
        let bfd = format!("bfd\n profile all\n{FRR_BFD_TIMING} !\n!\n");
        let sessions = Frr::router_config(64501, &rack.balancers, 64500, &further);
        let frr = Frr::start_with_bfd(&rack.router, &(bfd.clone() + &sessions), &bfd)?;
        is_left_soon("FRR", &rack, || {
            let peer = frr.bfd(&us)?;
            ensure!(peer["status"] == "up", "{peer}");
            Ok(())
        })
    });
}

/// The router `make` must take its route out of the kernel when the balancer,
/// which it watches, dies.
fn is_left_soon(make: &str, rack: &Rack, watches: impl Fn() -> Result<()>) -> Result<()> {
    let balancer = &rack.balancers[0];
    let mut config =
        AgentConfig::default().udp_service("four", (VIP.into(), 53), "l2-dsr", &rack.backends);
    config.peer =
        format!("hold_time = \"30s\"\nconnect_retry = \"1s\"\n[bgp.peer.bfd]\n{BFD_TIMING}");
    let text = config.text(balancer);
    let bfd = Bfd::start(&balancer.host, &text)?;
    let agent = Vipd::start(&balancer.host, &text)?;
    wait_until("its route stands, and both watch", PATIENCE, || {
        bfd.ensure("router", State::Up)?;
        watches()?;
        let session: Value = serde_json::from_str(&agent.show_bgp(&["router", "--json"])?)?;
        let agreed = session["peers"][0]["agreed"].to_string();
        ensure!(agreed.contains("graceful restart"), "{session}");
        let route = kernel_route(rack)?;
        ensure!(!route.is_empty(), "no route");
        Ok(())
    })?;

    rack.unplug_silently(balancer)?;
    let dead = Instant::now();
    wait_until("its route is gone", SOON, || {
        let route = kernel_route(rack)?;
        ensure!(route.is_empty(), "{route}");
        Ok(())
    })?;
    eprintln!("{make} has left it {:?} after its death", dead.elapsed());
    Ok(())
}

/// What the router's kernel does with packets for the VIP.
fn kernel_route(rack: &Rack) -> Result<String> {
    rack.router.run("ip", &["route", "show", &VIP.to_string()])
}
