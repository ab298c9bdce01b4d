//! A new configuration in a running agent: a bad one changes nothing, a good
//! one changes only what is different.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{AgentConfig, BirdRoute, BirdSession, Site, host_prefix, wait_until};

use crate::support::{SMALL, VIP, VIP6, ensure_spread, in_lab};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_bad_configuration_is_refused_with_its_place_and_changes_nothing() {
    in_lab(|lab| {
        let mut site = Site::build(lab, SMALL, &[VIP.into()], &|rack| {
            AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends)
        })?;
        let before = witness(&site)?;
        let good = good_config(&site).text(&site.rack.balancers[0]);
        let bad = good.replace("protocol = \"tcp\"", "protocoll = \"tcp\"");
        let line = 1 + bad
            .lines()
            .position(|line| line.starts_with("protocoll"))
            .context("the mistake is there")?;

        let refusal = site.agents[0]
            .reload(&bad)
            .err()
            .context("it was accepted")?;
        let told = format!("{refusal:#}");
        ensure!(
            told.contains(&format!("vipd.toml:{line}:")),
            "no place in {told}"
        );
        ensure!(told.contains("protocoll"), "no reason in {told}");

        site.agents[0].reload_by_signal(&bad)?;
        wait_until("the log tells of the refusal", PATIENCE, || {
            let log = site.agents[0].log();
            ensure!(log.contains("protocoll"), "{log}");
            Ok(())
        })?;
        sleep(Duration::from_secs(1));
        site.agents[0].process().ensure_running()?;
        ensure_unchanged(&before, &witness(&site)?)?;
        ensure_spread(&site, VIP.into(), 5)
    });
}

#[test]
fn a_good_configuration_adds_and_removes_a_vip_and_flaps_nothing() {
    in_lab(|lab| {
        let site = Site::build(lab, SMALL, &[VIP.into()], &|rack| {
            AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends)
        })?;
        site.rack.bind_vips(&[VIP6.into()])?;
        let before = witness(&site)?;
        let balancer = &site.rack.balancers[0];
        let one = good_config(&site);
        let two = one
            .clone()
            .service("web6", VIP6.into(), "l2-dsr", &site.rack.backends);

        // Long enough to see the service leave.
        let text = |config: &AgentConfig| config.text(balancer) + "[stop]\nlinger = \"20s\"\n";
        site.agents[0].reload(&text(&two))?;
        site.wait_for_routes(VIP6.into(), &site.rack.balancers)?;
        wait_until("the new VIP answers", PATIENCE, || {
            ensure_spread(&site, VIP6.into(), 5)
        })?;

        site.agents[0].reload_by_signal(&text(&one))?;
        wait_until("the service is leaving", PATIENCE, || {
            let status = site.agents[0].status()?;
            let leaving = &status["services"][1]["leaving"];
            ensure!(*leaving == true, "{status}");
            Ok(())
        })?;
        let page = site.agents[0].metrics("text/plain")?;
        ensure!(!page.contains("web6"), "a series for a moment: {page}");
        site.wait_for_routes(VIP6.into(), &[])?;
        ensure_unchanged(&before, &witness(&site)?)?;
        ensure_spread(&site, VIP.into(), 5)
    });
}

#[test]
fn another_cluster_secret_is_refused_and_changes_nothing() {
    in_lab(|lab| {
        let mut site = Site::build(lab, SMALL, &[VIP.into()], &|rack| {
            AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends)
        })?;
        let balancer = site.rack.balancers[0].clone();
        let write = |secret: &str| balancer.host.write_secret("cluster.secret", secret);
        let without = good_config(&site).text(&balancer);
        let with = without.replace(
            "[node]\n",
            "[node]\ncluster_secret_file = \"cluster.secret\"\n",
        );
        let refused = |site: &Site, sentence: &str, text: &str| {
            let before = fingerprint(site)?;
            let answer = site.agents[0].reload(text);
            ensure!(
                fingerprint(site)? == before,
                "{sentence}: the ring has changed"
            );
            let told = format!("{:#}", answer.err().context("it was accepted")?);
            ensure!(told.contains("another secret than"), "{sentence}: {told}");
            anyhow::Ok(())
        };
        write("one\n")?;
        refused(&site, "a first secret", &with)?;

        site.agents[0].process().kill()?;
        balancer.host.write("vipd.toml", &with)?;
        site.agents[0].start_again()?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
        refused(&site, "no secret any more", &without)?;
        write("two\n")?;
        refused(&site, "another one in the same file", &with)?;
        write("one")?;
        let answer = site.agents[0].reload(&with)?;
        ensure!(answer.contains("has not changed"), "{answer}");
        ensure_spread(&site, VIP.into(), 5)
    });
}

/// That of the only service's ring.
fn fingerprint(site: &Site) -> Result<String> {
    let status = site.agents[0].status()?;
    Ok(status["services"][0]["ring_fingerprint"].to_string())
}

fn good_config(site: &Site) -> AgentConfig {
    AgentConfig::default().service("web", VIP.into(), "ipip", &site.rack.backends)
}

/// What the router knows: since when the session stands and the route exists.
/// Looked at a while after the last change, so that times tell changes apart.
fn witness(site: &Site) -> Result<(BirdSession, BirdRoute)> {
    sleep(Duration::from_millis(300));
    let session = site.router.ensure_established("lb1")?;
    let mut routes = site.router.routes(&host_prefix(VIP.into()))?;
    ensure!(routes.len() == 1, "{routes:?}");
    Ok((session, routes.remove(0)))
}

fn ensure_unchanged(
    before: &(BirdSession, BirdRoute),
    after: &(BirdSession, BirdRoute),
) -> Result<()> {
    let same_time = |a: Option<Duration>, b: Option<Duration>| {
        a.zip(b)
            .is_some_and(|(a, b)| a.abs_diff(b) < Duration::from_millis(100))
    };
    let same = same_time(before.0.since, after.0.since)
        && same_time(before.1.since, after.1.since)
        && before.1.attributes == after.1.attributes;
    ensure!(same, "before:\n{before:?}\nafter:\n{after:?}");
    Ok(())
}
