//! The demo's story as assertions, with fewer connections and less time.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipd_tests::{AgentConfig, Held, Lab, Probes, Site, Size};

use crate::support::{VIP, in_lab};

/// Connections held.
const HELD: usize = 60;

/// Checks that find a refusal soon, and take nobody who is late for dead.
const ALERT: &str = "interval = \"250ms\"\nfast_interval = \"50ms\"\ntimeout = \"250ms\"\n\
                     rise = 2\nfall = 3\n";

#[test]
fn a_killed_backend_takes_only_its_own_connections_along() {
    in_lab(|lab| {
        let mut site = site_checked(lab, ALERT)?;
        let (held, probes) = begin(&site)?;
        let event = Instant::now();
        site.servers[1].kill()?;
        site.wait_for_backend("b2", false)?;
        sleep(Duration::from_secs(2));

        let new = probes.finish()?.since(event);
        let last = new
            .last_failure()
            .map_or(Duration::ZERO, |last| last - event);
        ensure!(
            last <= Duration::from_secs(1),
            "new connections failed until {last:?} after: {:?}",
            new.by_failure()
        );
        let held = held.judge()?;
        ensure!(held.by_backend().len() == 3, "{:?}", held.by_backend());
        let others: Vec<_> = held.broken_elsewhere("b2").collect();
        ensure!(others.is_empty(), "{others:?}");
        ensure!(
            held.broken().count() > 0,
            "nothing was on b2: {:?}",
            held.by_backend()
        );
        Ok(())
    });
}

#[test]
fn a_killed_agent_costs_no_connection() {
    in_lab(|lab| {
        let mut site = site(lab)?;
        let (held, probes) = begin(&site)?;
        site.agents[0].process().kill()?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers[1..])?;
        sleep(Duration::from_millis(500));
        site.agents[0].start_again()?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
        sleep(Duration::from_secs(1));

        let new = probes.finish()?;
        new.ensure_all_answered()?;
        let held = held.judge()?;
        let broken: Vec<_> = held.broken().collect();
        ensure!(broken.is_empty(), "{broken:?}");
        Ok(())
    });
}

#[test]
fn established_connections_outlive_the_silent_death_of_a_balancer() {
    in_lab(|lab| {
        let site = site(lab)?;
        let (held, probes) = begin(&site)?;
        let event = Instant::now();
        site.rack.unplug_silently(&site.rack.balancers[1])?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers[..1])?;
        let given_up = Instant::now();
        // A connection that was silenced for 3 s tries again within 7.
        sleep(Duration::from_secs(7));

        let all = probes.finish()?;
        let gap = all.longest_gap();
        ensure!(gap <= Duration::from_millis(4500), "a gap of {gap:?}");
        let failures = all.since(event).failures().count();
        ensure!(failures > 0, "nothing failed: nobody died");
        let late = all
            .since(given_up + Duration::from_millis(500))
            .by_failure();
        ensure!(late.is_empty(), "failures go on: {late:?}");
        let held = held.judge()?;
        let broken: Vec<_> = held.broken().collect();
        ensure!(broken.is_empty(), "{broken:?}");
        Ok(())
    });
}

fn site(lab: &Lab) -> Result<Site> {
    site_checked(lab, &AgentConfig::default().check)
}

fn site_checked(lab: &Lab, check: &str) -> Result<Site> {
    let size = Size {
        balancers: 2,
        backends: 3,
    };
    Site::build(lab, size, &[VIP.into()], &|rack| {
        let config = AgentConfig {
            check: check.to_owned(),
            ..AgentConfig::default()
        };
        config.service("web", VIP.into(), "ipip", &rack.backends)
    })
}

/// The client begins to measure, and all is well.
fn begin(site: &Site) -> Result<(Held, Probes)> {
    for backend in &site.rack.backends {
        site.wait_for_backend(backend.host.name(), true)?;
    }
    site.wait_until_settled()?;
    let vip = (VIP, 80).into();
    let held = Held::open(&site.rack.client, vip, HELD)?;
    let probes = Probes::start(&site.rack.client, vip);
    sleep(Duration::from_millis(500));
    let calm = probes.so_far();
    calm.ensure_all_answered()?;
    Ok((held, probes))
}
