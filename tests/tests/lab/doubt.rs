//! All backends fall silent at once, so that our own network is the likelier cause.
//!
//! ```text
//!   client ---- router (BIRD) ---- switch ---- lb1 (vipd)
//!                                     \------- b1, b2, b3 (nginx)
//! ```
//! 1. Only the checks have lost their way: the route stays, worse, clients are served
//!    by all, also when the agent is killed and started again, and nothing breaks when
//!    the checks find their way again.
//! 2. The backends' cables are cut: the same, and an anchor that answers settles it.
//! 3. They refuse: the route is gone at once, and nobody doubts anything.

use std::{net::IpAddr, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{AgentConfig, Held, Rack, Site, Size, wait_until};

use crate::support::{PATIENCE, VIP, ensure_spread, in_lab};

/// A busy machine is not a silent one.
const CHECK: &str = "interval = \"500ms\"\ntimeout = \"500ms\"\nrise = 2\nfall = 3\n";
const SIZE: Size = Size {
    balancers: 1,
    backends: 3,
};
const BEGAN: &str = "our own network is in doubt: 3 of 3 addresses fell silent within 10 s";

#[test]
fn who_loses_only_its_checks_serves_on_and_is_never_withdrawn() {
    in_lab(|lab| {
        let mut site = build(lab)?;
        lose_checks(&site, "add")?;
        wait_until("the route is worse", PATIENCE, || ensure_worse(&site, true))?;
        let agent = &site.agents[0];
        ensure!(agent.log().contains(BEGAN), "{}", agent.log());
        let vip = VIP.to_string();
        for (command, arguments) in [("status", &[][..]), ("why", &[&*vip])] {
            let told = agent.command(command, arguments)?;
            ensure!(told.contains(BEGAN), "vipd {command}: {told}");
        }
        ensure_spread(&site, VIP.into(), 60)?;

        // The next agent believes what this one did, and comes to doubt by itself.
        site.agents[0].process().kill()?;
        site.agents[0].start_again()?;
        let began = || {
            let log = site.agents[0].log();
            let begun = format!("{BEGAN}; packets go where they went");
            ensure!(log.matches(&begun).count() == 2, "{log}");
            ensure_worse(&site, true)
        };
        wait_until("the next agent is in doubt, too", PATIENCE, began)?;
        ensure_never_withdrawn(&site)?;
        let held = Held::open(&site.rack.client, (VIP, 80).into(), 60)?;

        lose_checks(&site, "del")?;
        for backend in ["b1", "b2", "b3"] {
            site.wait_for_backend(backend, true)?;
        }
        wait_until("the route is as before", PATIENCE, || {
            ensure_worse(&site, false)
        })?;
        let report = held.judge()?;
        let by_backend = report.by_backend();
        ensure!(by_backend.len() == 3, "{by_backend:?}");
        let broken: Vec<_> = report.broken().collect();
        ensure!(broken.is_empty(), "{broken:#?}");
        ensure_never_withdrawn(&site)
    });
}

#[test]
fn who_loses_its_farm_stays_until_an_anchor_answers() {
    in_lab(|lab| {
        let site = build(lab)?;
        let (rack, agent) = (&site.rack, &site.agents[0]);
        for backend in &rack.backends {
            rack.unplug_silently(backend)?;
        }
        wait_until("the route is worse", PATIENCE, || ensure_worse(&site, true))?;
        for backend in &rack.backends {
            rack.plug_in(backend)?;
        }
        wait_until("the route is as before", PATIENCE, || {
            ensure_worse(&site, false)
        })?;
        ensure_never_withdrawn(&site)?;

        for backend in &rack.backends {
            rack.unplug_silently(backend)?;
        }
        wait_until("the route is worse again", PATIENCE, || {
            ensure_worse(&site, true)
        })?;
        let anchored = |anchor| AgentConfig {
            services: config(rack).services + &format!("[doubt]\nanchors = [\"{anchor}\"]\n"),
            ..config(rack)
        };
        // The second address of its network here: the kernel answers by itself.
        rack.balancers[0]
            .host
            .ip("addr add 192.0.2.199/24 dev eth0\n")?;
        site.reload(&anchored("192.0.2.199"))?;
        let own = "the anchor 192.0.2.199 is an address of this host";
        wait_until("it is told", PATIENCE, || {
            ensure!(agent.log().contains(own), "{}", agent.log());
            Ok(())
        })?;
        sleep(Duration::from_secs(2));
        ensure_worse(&site, true)?;

        // The router of the session: BIRD takes connections there.
        site.reload(&anchored("192.0.2.1"))?;
        site.wait_for_routes(VIP.into(), &[])?;
        let settled =
            "the backends are down after all: 192.0.2.1 answers, so our own network works";
        ensure!(agent.log().contains(settled), "{}", agent.log());
        for backend in &rack.backends {
            rack.plug_in(backend)?;
        }
        site.wait_for_routes(VIP.into(), &rack.balancers)
    });
}

#[test]
fn a_farm_that_refuses_is_withdrawn_at_once() {
    in_lab(|lab| {
        let mut site = build(lab)?;
        for server in &mut site.servers {
            server.kill()?;
        }
        site.wait_for_routes(VIP.into(), &[])?;
        let log = site.agents[0].log();
        ensure!(!log.contains("in doubt"), "{log}");
        ensure!(!log.contains("is announced worse"), "{log}");
        Ok(())
    });
}

/// Has the backends' answers to checks go nowhere, or come again.
fn lose_checks(site: &Site, verb: &str) -> Result<()> {
    let checker = site.rack.balancers[0].ipv4;
    let batch = format!("route {verb} blackhole {checker}/32\n");
    let mut backends = site.rack.backends.iter();
    backends.try_for_each(|backend| backend.host.ip(&batch))
}

fn config(rack: &Rack) -> AgentConfig {
    let config = AgentConfig {
        check: CHECK.to_owned(),
        ..AgentConfig::default()
    };
    config.service("web", VIP.into(), "ipip", &rack.backends)
}

/// A site where all backends are up and the route is well.
fn build(lab: &vipd_tests::Lab) -> Result<Site> {
    let site = Site::build(lab, SIZE, &[VIP.into()], &config)?;
    for backend in ["b1", "b2", "b3"] {
        site.wait_for_backend(backend, true)?;
    }
    ensure_worse(&site, false)?;
    Ok(site)
}

/// Whether the router hears that it is to prefer any other way (RFC 8326).
fn ensure_worse(site: &Site, expected: bool) -> Result<()> {
    let routes = site.router.routes(&format!("{VIP}/32"))?;
    let route = routes.first().context("no route")?;
    let told = route.attribute("BGP.community").unwrap_or_default();
    ensure!(told.contains("(65535,0)") == expected, "{route:?}");
    let via = IpAddr::from(site.rack.balancers[0].ipv4);
    ensure!(route.via == Some(via), "{route:?}");
    Ok(())
}

/// Neither the agent nor the router knows of a withdrawal.
fn ensure_never_withdrawn(site: &Site) -> Result<()> {
    let log = site.agents[0].log();
    ensure!(!log.contains("is withdrawn"), "{log}");
    let told = site.router.received("lb1")?;
    ensure!(told.withdrawn == 0, "{told:?}");
    Ok(())
}
