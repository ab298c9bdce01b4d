//! The same stories with routers of each make: what they see of the speaker,
//! and how it takes what they do.

#[path = "interop/gobgp.rs"]
mod only_gobgp;
#[path = "interop/restart.rs"]
mod restart;
#[path = "interop/router.rs"]
mod router;

use std::{
    net::IpAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{Rack, Vipd, host_prefix, wait_until};

use self::router::{Make, Route, Router, Terms};
use crate::support::{PATIENCE, SMALL, VIP, VIP6, in_lab, start_agent, two_vips, wait_for_peer};

/// A test for each story with the routers of a make, by the sentence given.
macro_rules! tests {
    ($module:ident, $make:expr, {$($sentence:ident: $story:expr,)*}) => {
        mod $module {
            use super::*;

            $(
                #[test]
                fn $sentence() {
                    in_lab(|lab| $story($make, &Rack::build(lab, SMALL)?));
                }
            )*
        }
    };
}

/// The stories that routers of every make can tell, and then more of them.
macro_rules! all_tests {
    ($module:ident, $make:expr, {$($more:tt)*}) => {
        tests!($module, $make, {
            a_router_that_waits_is_dialled: it_is_dialled,
            a_router_that_dials_is_let_in: it_dials,
            routes_of_both_families_come_by_ebgp_with_all_attributes: it_sees_ebgp,
            routes_come_by_ibgp_with_local_preference_and_an_empty_path: it_sees_ibgp,
            a_route_that_is_withdrawn_goes_and_the_other_stays: it_sees_a_withdrawal,
            a_wrong_password_is_told_and_the_right_one_lets_it_in: wrong_then_right,
            a_router_that_has_enough_routes_says_so_and_that_stays_told: it_has_enough,
            a_killed_agent_finds_its_routes_kept_and_no_connection_fails: restart::killed,
            an_upgraded_agent_finds_its_routes_kept_and_no_connection_fails: restart::upgraded,
            $($more)*
        });
    };
}

all_tests!(bird, Make::Bird, {
    a_router_that_asks_again_gets_all_routes_in_the_same_session: it_asks_again,
});
all_tests!(frr, Make::Frr, {
    a_router_that_asks_again_gets_all_routes_in_the_same_session: it_asks_again,
});
all_tests!(gobgp, Make::Gobgp, {});

fn it_is_dialled(make: Make, rack: &Rack) -> Result<()> {
    let terms = Terms {
        passive: true,
        ..Terms::default()
    };
    let router = Router::start(make, rack, &terms)?;
    let _agent = start_agent(rack, &two_vips(rack, ""))?;
    wait_until("it is established", PATIENCE, || {
        router.ensure_established()
    })
}

fn it_dials(make: Make, rack: &Rack) -> Result<()> {
    let router = Router::start(make, rack, &Terms::default())?;
    let _agent = start_agent(rack, &two_vips(rack, "passive = true\n"))?;
    wait_until("it is established", PATIENCE, || {
        router.ensure_established()
    })
}

fn it_sees_ebgp(make: Make, rack: &Rack) -> Result<()> {
    let router = Router::start(make, rack, &Terms::default())?;
    let further = "med = 70\nprepend = 2\n\
                   [[bgp.rule]]\n\
                   communities = [\"64500:100\", \"no-export\", \"64500:1:2\", \
                   \"rt:64500:7\", \"soo:65536:8\", \"rt:192.0.2.1:9\"]\n";
    let _agent = start_agent(rack, &two_vips(rack, further))?;
    for vip in VIPS {
        let mut route = wait_for_route(&router, vip)?;
        // Some give it one when it comes in; it is not in the message.
        route.local_preference = None;
        let expected = Route {
            next_hop: Some(rack.balancers[0].address_like(vip)),
            as_path: vec![64500; 3],
            origin_is_igp: true,
            med: Some(70),
            local_preference: None,
            communities: [
                "64500:100",
                "65535:65281",
                "64500:1:2",
                "rt:64500:7",
                "soo:65536:8",
                "rt:192.0.2.1:9",
            ]
            .map(str::to_owned)
            .into(),
        };
        ensure!(route == expected, "{vip} has come as {route:?}");
    }
    Ok(())
}

fn it_sees_ibgp(make: Make, rack: &Rack) -> Result<()> {
    let terms = Terms {
        local_as: 64500,
        ..Terms::default()
    };
    let router = Router::start(make, rack, &terms)?;
    let mut config = two_vips(rack, "local_preference = 200\n");
    config.router_as = 64500;
    let _agent = start_agent(rack, &config)?;
    for vip in VIPS {
        let route = wait_for_route(&router, vip)?;
        let expected = Route {
            next_hop: Some(rack.balancers[0].address_like(vip)),
            origin_is_igp: true,
            local_preference: Some(200),
            ..Route::default()
        };
        ensure!(route == expected, "{vip} has come as {route:?}");
    }
    Ok(())
}

fn it_sees_a_withdrawal(make: Make, rack: &Rack) -> Result<()> {
    let router = Router::start(make, rack, &Terms::default())?;
    let agent = start_agent(rack, &two_vips(rack, ""))?;
    for vip in VIPS {
        wait_for_route(&router, vip)?;
    }
    for [goes, stays] in [[VIPS[0], VIPS[1]], [VIPS[1], VIPS[0]]] {
        let mut config = two_vips(rack, "");
        config.services.clear();
        let config = config.udp_service("left", (stays, 53), "l2-dsr", &rack.backends);
        agent.reload(&config.text(&rack.balancers[0]))?;
        wait_until(&format!("{goes} is withdrawn"), PATIENCE, || {
            let route = router.route(&host_prefix(goes))?;
            ensure!(route.is_none(), "{route:?}");
            Ok(())
        })?;
        wait_for_route(&router, stays)?;
    }
    ensure_one_session(&agent)
}

fn wrong_then_right(make: Make, rack: &Rack) -> Result<()> {
    let terms = Terms {
        password: Some("the-right-one"),
        ..Terms::default()
    };
    let router = Router::start(make, rack, &terms)?;
    let balancer = &rack.balancers[0];
    let password = |text| balancer.host.write_secret("router.md5", text);
    password("a wrong one\n")?;
    let config = two_vips(rack, "password_file = \"router.md5\"\n");
    let agent = start_agent(rack, &config)?;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let established = router.ensure_established().is_ok();
        ensure!(!established, "established with a wrong password");
        sleep(Duration::from_millis(100));
    }
    wait_for_peer(&agent, "the trouble is told", |peer| {
        let told = ["last_error", "hint"].map(|name| peer[name].as_str().unwrap_or_default());
        told.iter()
            .any(|words| words.contains("the passwords differ"))
    })?;

    password("the-right-one\n")?;
    agent.reload(&config.text(balancer))?;
    wait_until("the right password lets it in", PATIENCE, || {
        router.ensure_established()
    })
}

fn it_has_enough(make: Make, rack: &Rack) -> Result<()> {
    let terms = Terms {
        most_ipv4_routes: Some(1),
        ..Terms::default()
    };
    let router = Router::start(make, rack, &terms)?;
    let mut config = two_vips(rack, "");
    config.peer = "hold_time = \"9s\"\n".to_owned();
    let agent = start_agent(rack, &config)?;
    wait_for_route(&router, VIPS[0])?;
    let more = [11, 12].into_iter().fold(config, |config, last| {
        let vip = [198, 51, 100, last].into();
        config.udp_service(&format!("more-{last}"), (vip, 53), "l2-dsr", &rack.backends)
    });
    agent.reload(&more.text(&rack.balancers[0]))?;
    let told = |peer: &Value| {
        let told = peer["notification_received"].as_str().unwrap_or_default();
        told.contains("Cease / Maximum Number of Prefixes Reached")
    };
    wait_for_peer(&agent, "it is told", told)?;
    // Whatever comes of further attempts.
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let peer = agent.peer("router")?;
        ensure!(told(&peer), "forgotten: {peer}");
        sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn it_asks_again(make: Make, rack: &Rack) -> Result<()> {
    let router = Router::start(make, rack, &Terms::default())?;
    let agent = start_agent(rack, &two_vips(rack, ""))?;
    for vip in VIPS {
        wait_for_route(&router, vip)?;
    }
    let updates = || -> Result<u64> {
        let sent = &agent.peer("router")?["messages_sent"]["update"];
        sent.as_u64().context("no count of UPDATEs")
    };
    let before = updates()?;
    router.refresh()?;
    wait_for_peer(&agent, "both families are asked for", |peer| {
        peer["messages_received"]["route_refresh"] == 2
    })?;
    wait_until("both routes are sent again", PATIENCE, || {
        let after = updates()?;
        ensure!(
            after >= before + 2,
            "{before} UPDATEs before, {after} after"
        );
        Ok(())
    })?;
    for vip in VIPS {
        ensure!(router.route(&host_prefix(vip))?.is_some(), "{vip} is gone");
    }
    ensure_one_session(&agent)
}

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP), IpAddr::V6(VIP6)];

fn wait_for_route(router: &Router, vip: IpAddr) -> Result<Route> {
    wait_until("the router has the route", PATIENCE, || {
        router.route(&host_prefix(vip))?.context("no route yet")
    })
}

/// Fails if the session has ever been lost.
fn ensure_one_session(agent: &Vipd) -> Result<()> {
    let peer = agent.peer("router")?;
    let count = &peer["established_count"];
    ensure!(*count == 1 && peer["state"] == "Established", "{peer}");
    Ok(())
}
