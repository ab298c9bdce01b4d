//! How the speaker takes the death and the silence of a router.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;
use vipd_tests::{Bird, Rack, host_prefix, wait_until};

use crate::support::{
    PATIENCE, SMALL, VIP, VIP6, in_lab, start_agent, two_vips, wait_for_peer, wait_for_session,
};

#[test]
fn a_router_that_is_killed_and_comes_back_gets_its_routes_again() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let mut router = Bird::on_router(&rack, "")?;
        let agent = start_agent(&rack, &two_vips(&rack, ""))?;
        ensure_routes(&rack, &router)?;

        router.process().kill()?;
        wait_for_peer(&agent, "the session is down", |peer| {
            state(peer) != "Established"
        })?;

        let router = Bird::on_router(&rack, "")?;
        ensure_routes(&rack, &router)?;
        wait_for_session(&agent, 2)
    });
}

#[test]
fn a_router_that_falls_silent_is_given_up_after_the_hold_time_and_taken_back() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let router = Bird::on_router(&rack, "")?;
        let agent = start_agent(&rack, &two_vips(&rack, ""))?;
        ensure_routes(&rack, &router)?;

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
        ensure_routes(&rack, &router)
    });
}

fn ensure_routes(rack: &Rack, router: &Bird) -> Result<()> {
    for vip in [IpAddr::from(VIP), VIP6.into()] {
        let next_hop = rack.balancers[0].address_like(vip);
        wait_until("BIRD has the route", PATIENCE, || {
            router.ensure_next_hops(&host_prefix(vip), &[next_hop])
        })?;
    }
    Ok(())
}

fn state(peer: &Value) -> &str {
    peer["state"].as_str().unwrap_or_default()
}
