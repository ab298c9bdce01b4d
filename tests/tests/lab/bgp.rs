//! How the speaker takes the death and the silence of a router.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;
use vipd_tests::{Bird, Rack, host_prefix, wait_until};

use crate::support::{SMALL, VIP, VIP6, in_lab, start_agent, two_vips, wait_for_peer};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_router_that_is_killed_and_comes_back_gets_its_routes_again() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let mut router = start_bird(&rack)?;
        let agent = start_agent(&rack, &two_vips(&rack, ""))?;
        ensure_routes(&rack, &router)?;

        router.process().kill()?;
        wait_for_peer(&agent, "the session is down", |peer| {
            state(peer) != "Established"
        })?;

        let router = start_bird(&rack)?;
        ensure_routes(&rack, &router)?;
        wait_for_peer(&agent, "the session is up", |peer| {
            state(peer) == "Established"
        })
    });
}

#[test]
fn a_router_that_falls_silent_is_given_up_after_the_hold_time_and_taken_back() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let router = start_bird(&rack)?;
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

fn start_bird(rack: &Rack) -> Result<Bird> {
    let sessions = Bird::sessions(&rack.balancers, 64500, "");
    Bird::start(&rack.router, &(Bird::router_config(64501) + &sessions))
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
