//! A flood from everywhere, at the worst moment: while slots change hands.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{
    AgentConfig, CLIENT_IPV6, Flood, FlowPlan, Flows, Rack, Site, Size, flood, flood_sources,
    usage::anonymous_memory,
};

use crate::support::{VIP6, in_lab_alone};

/// SYNs, and as many stray ACKs.
const OF_EACH: u64 = 2_000_000;
const PACE: u64 = 400_000;
const NUMBER: usize = 300;
/// What the agent's own memory may grow by, in bytes.
const GROWTH: u64 = 20 << 20;
/// Slots are made to change hands so often.
const CHANGES: Duration = Duration::from_secs(4);

#[test]
fn a_flood_while_slots_change_hands_breaks_no_connection_and_leaves_nothing_behind() {
    in_lab_alone(|lab| {
        let size = Size {
            balancers: 1,
            backends: 3,
        };
        let mut site = Site::build(lab, size, &[VIP6.into()], &config)?;
        for backend in &site.rack.backends {
            site.wait_for_backend(backend.host.name(), true)?;
            // What answers a flood would go nowhere, and cost the test time.
            let sources = flood_sources();
            backend
                .host
                .ip(&format!("route add blackhole {sources}\n"))?;
        }
        site.wait_until_settled()?;
        let plan = FlowPlan {
            sources: vec![IpAddr::from(CLIENT_IPV6)],
            target: (VIP6, 80).into(),
            number: NUMBER,
            pause: Duration::from_millis(400),
        };
        let flows = Flows::open(&site.rack.client, plan)?;
        let agent = site.agents[0].process().pid();
        let before = anonymous_memory(agent)?;

        site.drain("web/b3", true)?;
        let (learning, flooded) = flood_while_changing(&site)?;
        let per_second = flooded.sent as f64 / flooded.took.as_secs_f64();
        println!(
            "{} packets, {per_second:.0} a second; slots learning: {learning:?}",
            flooded.sent
        );
        ensure!(
            learning.iter().filter(|slots| **slots > 0).count() * 3 > learning.len(),
            "slots that learnt, as time went by: {learning:?}"
        );

        let report = flows.report();
        let broken: Vec<_> = report.broken().collect();
        ensure!(broken.is_empty(), "{} broke: {broken:#?}", broken.len());
        ensure!(report.open_by_backend().len() == 3, "b3 keeps what it has");
        let after = anonymous_memory(agent)?;
        println!("the agent's memory: {before} bytes, then {after}");
        ensure!(
            after < before + GROWTH,
            "the agent's memory grew from {before} to {after} bytes"
        );

        // The drain finishes with its last connection.
        let ended = flows.end(|flow| flow.backend == "b3")?;
        ensure!(ended > 0, "nothing was on b3");
        let start = Instant::now();
        site.wait_until_settled()?;
        println!("all slots are stable {:?} after the flood", start.elapsed());
        let status = site.agents[0].status()?;
        let service = &status["services"][0];
        ensure!(service["backends"][2]["flows"] == 0, "{service}");
        let report = flows.judge()?;
        let broken: Vec<_> = report.broken().collect();
        ensure!(broken.is_empty(), "{} broke: {broken:#?}", broken.len());
        Ok(())
    });
}

/// Sends it all, and meanwhile drains another backend now and then, so that
/// there are always slots that learn. Returns how many there were each time,
/// just before.
fn flood_while_changing(site: &Site) -> Result<(Vec<u64>, vipd_tests::Flooded)> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let storm = Flood {
        target: (VIP6, 80),
        of_each: OF_EACH,
        pace: PACE,
        seed,
    };
    thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&site.rack.router, storm));
        let mut learning = Vec::new();
        let mut drained = false;
        let mut changed = Instant::now();
        while !flooding.is_finished() {
            thread::sleep(Duration::from_millis(100));
            if changed.elapsed() >= CHANGES && !flooding.is_finished() {
                learning.push(slots_learning(site)?);
                drained = !drained;
                site.drain("web/b2", drained)?;
                changed = Instant::now();
            }
        }
        if drained {
            site.drain("web/b2", false)?;
        }
        let flooded = flooding.join().ok().context("the flood panicked")??;
        Ok((learning, flooded))
    })
}

fn slots_learning(site: &Site) -> Result<u64> {
    let status = site.agents[0].status()?;
    let slots = status.pointer("/services/0/phases/learn");
    let slots = slots.and_then(serde_json::Value::as_u64);
    slots.with_context(|| format!("no slots that learn in {status}"))
}

fn config(rack: &Rack) -> AgentConfig {
    AgentConfig {
        service: "flow_idle = \"8s\"\n".to_owned(),
        ..AgentConfig::default()
    }
    .service("web", VIP6.into(), "ipip", &rack.backends)
}
