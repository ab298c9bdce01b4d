//! A backend is drained: what it serves goes on, what is new goes elsewhere.
//!
//! ```text
//!   client -- router -- lb1 -- b1 b2 b3
//!                              (b2 is drained)
//! ```
//!
//! 1. Held connections go on, new ones go to the others, flows are shown.
//! 2. The agent is killed and started again: it is still drained.
//! 3. The connections end, and the drain with them.
//! 4. Undrained, it gets new connections again.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{AgentConfig, Held, Lab, Probes, Site, Size, wait_until};

use crate::support::{SMALL, VIP, ensure_spread, in_lab};

const PATIENCE: Duration = Duration::from_secs(30);
/// Connections held: that none is on b2 happens once in 10^10 runs.
const HELD: usize = 60;
/// So many questions miss one of three backends once in 10^17 runs.
const QUESTIONS: usize = 100;

#[test]
fn a_drained_backend_keeps_what_it_has_and_gets_nothing_new() {
    in_lab(|lab| {
        let mut site = site(lab)?;
        let held = Held::open(&site.rack.client, (VIP, 80).into(), HELD)?;
        let answer = site.agents[0].drain("web/b2", &[])?;
        ensure!(answer.contains("web/b2 is drained"), "{answer}");
        wait_until("all of it is in force", PATIENCE, || {
            let (service, b2) = b2(&site)?;
            ensure!(service["in_force"] == true, "{service}");
            ensure!(b2["standing"] == "draining", "{b2}");
            ensure!(b2["slots"] == 0, "{b2}");
            Ok(())
        })?;
        ensure_none_new(&site)?;
        wait_until("its flows are shown", PATIENCE, || {
            let (service, b2) = b2(&site)?;
            ensure!(b2["flows"].as_u64() > Some(0), "{b2}");
            let phases = &service["phases"];
            ensure!(phases["stable"] != service["ring_size"], "{service}");
            Ok(())
        })?;
        let page = site.agents[0].metrics("text/plain")?;
        for line in [
            r#"vipd_backend_drained{service="web",backend="b2"} 1"#,
            r#"vipd_backend_standing{service="web",backend="b2",standing="draining"} 1"#,
            r#"vipd_service_slots{service="web",phase="learn"}"#,
            r#"vipd_backend_flows{service="web",backend="b2"}"#,
        ] {
            ensure!(page.contains(line), "no {line} in\n{page}");
        }
        let refusal = site.agents[0].drain("web/b2", &["--wait", "1"]).err();
        let told = format!("{:#}", refusal.context("it waited for nothing")?);
        ensure!(told.contains("flows left"), "{told}");
        ensure!(told.contains("it stays drained"), "{told}");

        site.agents[0].process().kill()?;
        site.agents[0].start_again()?;
        let (_, state) = b2(&site)?;
        ensure!(state["standing"] == "draining", "{state}");
        ensure!(state["drained"] == true, "{state}");
        wait_until("b1 and b3 are up again", PATIENCE, || {
            site.agents[0].ensure_backend("b1", true)?;
            site.agents[0].ensure_backend("b3", true)
        })?;
        ensure_none_new(&site)?;

        let (_, state) = b2(&site)?;
        let report = held.judge()?;
        let broken: Vec<_> = report.broken().collect();
        ensure!(broken.is_empty(), "{broken:?}");
        let on_b2 = report.by_backend().get("b2").copied().unwrap_or(0);
        ensure!(on_b2 > 0, "{:?}", report.by_backend());
        ensure!(
            state["flows"].as_u64() <= Some(on_b2 as u64),
            "{on_b2} were held there: {state}"
        );
        let told = site.agents[0].drain("web/b2", &["--wait", "60"])?;
        ensure!(told.contains("no flow left"), "{told}");
        let (_, state) = b2(&site)?;
        ensure!(state["flows"] == 0, "{state}");

        let answer = site.agents[0].undrain("web/b2")?;
        ensure!(answer.contains("takes new flows again"), "{answer}");
        wait_until("b2 answers again", PATIENCE, || {
            ensure_spread(&site, VIP.into(), QUESTIONS)
        })
    });
}

#[test]
fn the_last_backend_is_drained_only_by_force_and_the_vip_goes_with_it() {
    in_lab(|lab| {
        let site = Site::build(lab, SMALL, &[VIP.into()], &|rack| {
            AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends)
        })?;
        let refused = |target: &str, words: &str| {
            let refusal = site.agents[0].drain(target, &[]).err();
            let told = format!("{:#}", refusal.context("it was obeyed")?);
            ensure!(told.contains(words), "{told}");
            anyhow::Ok(())
        };
        refused("web/b1", "it is the last one that takes flows")?;
        refused("web/b7", "service web has no backend b7; it has b1")?;
        refused("wob/b1", "there is no service wob; there is web")?;
        ensure_spread(&site, VIP.into(), 5)?;

        site.agents[0].drain("web/b1", &["--force"])?;
        site.wait_for_routes(VIP.into(), &[])?;
        site.agents[0].undrain("web/b1")?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
        ensure_spread(&site, VIP.into(), 5)
    });
}

/// One balancer, which gets the packets whether it announces the VIP or not,
/// and three backends. Flows are remembered for three seconds.
fn site(lab: &Lab) -> Result<Site> {
    let size = Size {
        balancers: 1,
        backends: 3,
    };
    let site = Site::build(lab, size, &[VIP.into()], &|rack| {
        let mut config = AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends);
        let idle = "flow_idle = \"3s\"\nmode = ";
        config.services = config.services.replace("mode = ", idle);
        config
    })?;
    let by_hand = format!("{VIP} via {} metric 1", site.rack.balancers[0].ipv4);
    site.rack.router.ip(&format!("route add {by_hand}\n"))?;
    for backend in &site.rack.backends {
        site.wait_for_backend(backend.host.name(), true)?;
    }
    Ok(site)
}

/// The service and its backend b2, by the status.
fn b2(site: &Site) -> Result<(Value, Value)> {
    let status = site.agents[0].status()?;
    let service = status["services"][0].clone();
    let backends = service["backends"].as_array().context("no backends")?;
    let found = backends.iter().find(|backend| backend["name"] == "b2");
    let found = found.context("no b2")?.clone();
    Ok((service, found))
}

/// New connections succeed, on b1 and b3.
fn ensure_none_new(site: &Site) -> Result<()> {
    let probes = Probes::start(&site.rack.client, (VIP, 80).into());
    sleep(Duration::from_secs(1));
    let report = probes.finish()?;
    ensure!(report.failures().count() == 0, "{:?}", report.by_failure());
    let answered: Vec<_> = report.by_backend().into_keys().collect();
    ensure!(answered == ["b1", "b3"], "{answered:?}");
    Ok(())
}
