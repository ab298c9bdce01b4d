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
use vipd_tests::{AgentConfig, Fed, Feed, Held, Lab, Machine, Probes, Site, Size, ask, wait_until};

use crate::support::{SMALL, VIP, ensure_spread, in_lab};

const PATIENCE: Duration = Duration::from_secs(30);
/// Connections held: that none is on b2 happens once in 10^10 runs.
const HELD: usize = 60;
/// Waits longer than any drain here takes.
const WAIT: [&str; 3] = ["--wait", "--timeout", "60"];
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
        let wait = ["--wait", "--timeout", "1"];
        let refusal = site.agents[0].drain("web/b2", &wait).err();
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
        let told = site.agents[0].drain("web/b2", &WAIT)?;
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
fn a_transfer_to_a_client_that_has_closed_its_side_is_waited_for() {
    in_lab(|lab| {
        let site = site(lab)?;
        let backends = site.rack.backends.iter();
        let feeds = backends.map(|backend| Feed::start(&backend.host, 7000));
        let feeds: Vec<Feed> = feeds.collect::<Result<_>>()?;
        let target = (VIP, 7000).into();
        let transfers = (0..HELD).map(|_| Fed::open(&site.rack.client, target));
        let mut transfers: Vec<Fed> = transfers.collect::<Result<_>>()?;
        let on_b2 = transfers.iter().filter(|t| t.backend == "b2").count();
        ensure!(on_b2 > 0, "none is on b2");

        site.agents[0].drain("feed/b2", &[])?;
        let wait_for_flows = |sentence: &str, open: usize, closing: usize| {
            wait_until(sentence, PATIENCE, || {
                let (_, b2) = b2_of(&site, "feed")?;
                ensure!(
                    b2["flows"] == open && b2["flows_closing"] == closing,
                    "{b2}"
                );
                Ok(())
            })
        };
        wait_for_flows("all are recorded", on_b2, 0)?;
        transfers.iter().try_for_each(Fed::half_close)?;
        wait_for_flows("all are half closed", 0, on_b2)?;

        // Longer than flows are remembered, and than nothing is looked at.
        let wait = ["--wait", "--timeout", "12"];
        let refusal = site.agents[0].drain("feed/b2", &wait).err();
        let told = format!("{:#}", refusal.context("it waited for nothing")?);
        let left = format!("no open flow left; {on_b2} closed or half closed");
        ensure!(told.contains(&left), "{told}");
        ensure!(told.contains("exit status: 3"), "{told}");
        transfers.iter_mut().try_for_each(Fed::ensure_alive)?;

        drop((transfers, feeds));
        let told = site.agents[0].drain("feed/b2", &WAIT)?;
        ensure!(told.contains("no flow left"), "{told}");
        Ok(())
    });
}

#[test]
fn what_is_ordered_outlives_a_stop_whether_the_data_plane_stays_or_not() {
    in_lab(|lab| {
        let mut site = site(lab)?;
        let balancer = site.rack.balancers[0].clone();
        let agent = &site.agents[0];
        agent.drain("web/b2", &["--reason", "a new kernel"])?;
        let answer = agent.command("disable", &["web/b3"])?;
        ensure!(answer.contains("its flows end; checks go on"), "{answer}");
        for on_stop in ["remove", "keep"] {
            let mut config = config(&site.rack.backends);
            config.dataplane = format!("on_stop = \"{on_stop}\"\n");
            site.agents[0].reload(&config.text(&balancer))?;
            site.agents[0].process().terminate(PATIENCE)?;
            site.agents[0].start_again()?;
            wait_until("both orders are in force", PATIENCE, || {
                let (_, b2) = b2(&site)?;
                ensure!(b2["standing"] == "draining" && b2["state"] == "up", "{b2}");
                let (_, b3) = backend_of(&site, "web", "b3")?;
                ensure!(b3["disabled"] == true && b3["state"] == "up", "{b3}");
                ensure!(b3["standing"] == "down", "{b3}");
                Ok(())
            })?;
            let told = site.agents[0].command("overrides", &[])?;
            ensure!(told.contains("a new kernel"), "{on_stop}: {told}");
        }
        for _ in 0..QUESTIONS {
            let answered = ask(&site.rack.client, (VIP, 80).into())?;
            ensure!(answered == "b1", "{answered}");
        }
        site.agents[0].command("overrides", &["--clear"])?;
        wait_until("all of them answer again", PATIENCE, || {
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
/// and three backends.
fn site(lab: &Lab) -> Result<Site> {
    let size = Size {
        balancers: 1,
        backends: 3,
    };
    let site = Site::build(lab, size, &[VIP.into()], &|rack| config(&rack.backends))?;
    site.rack
        .route_by_hand(VIP.into(), &site.rack.balancers[0])?;
    for backend in &site.rack.backends {
        site.wait_for_backend(backend.host.name(), true)?;
    }
    Ok(site)
}

/// Web servers, and feeds behind another port that nobody checks. Flows are
/// remembered for three seconds.
fn config(backends: &[Machine]) -> AgentConfig {
    let idle = |text: &str| text.replace("mode = ", "flow_idle = \"3s\"\nmode = ");
    let web = AgentConfig::default().service("web", VIP.into(), "ipip", backends);
    let feed = AgentConfig::default()
        .udp_service("feed", (VIP.into(), 7000), "ipip", backends)
        .services
        .replace("\"udp\"", "\"tcp\"");
    AgentConfig {
        services: idle(&web.services) + &idle(&feed),
        ..web
    }
}

/// The service `web` and its backend b2, by the status.
fn b2(site: &Site) -> Result<(Value, Value)> {
    b2_of(site, "web")
}

fn b2_of(site: &Site, service: &str) -> Result<(Value, Value)> {
    backend_of(site, service, "b2")
}

fn backend_of(site: &Site, service: &str, name: &str) -> Result<(Value, Value)> {
    let named = |values: &Value, name: &str| {
        let found = values.as_array()?.iter().find(|v| v["name"] == name);
        found.cloned()
    };
    let status = site.agents[0].status()?;
    let service = named(&status["services"], service).context("no service")?;
    let found = named(&service["backends"], name).context("no such backend")?;
    Ok((service, found))
}

/// New connections succeed, on b1 and b3.
fn ensure_none_new(site: &Site) -> Result<()> {
    let probes = Probes::start(&site.rack.client, (VIP, 80).into());
    sleep(Duration::from_secs(1));
    let report = probes.finish()?;
    report.ensure_all_answered()?;
    let answered: Vec<_> = report.by_backend().into_keys().collect();
    ensure!(answered == ["b1", "b3"], "{answered:?}");
    Ok(())
}
