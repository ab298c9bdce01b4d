//! Who is on duty, in what state that is, and what the router hears of it: the table of
//! docs/decision.md, with packets.
//!
//! ```text
//!   client ---- router (BIRD) ---- lb1 (vipd) ---- b1 .. b4   active
//!                                              \-- b5         backup
//!                                               \- b6         sorry
//! ```

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{AgentConfig, Nginx, Rack, Site, Size, ask, host_prefix, wait_until};

use crate::support::{PATIENCE, VIP, in_lab};

/// As in docs/decision.md.
const SERVICE: &str = "min_healthy = 2\nrecover_healthy = 3\ndegraded_below = \"75%\"\n";

/// Routers prefer another node meanwhile.
const RULE: &str = "[[bgp.rule]]\nstates = [\"degraded\"]\nmed = 50\n";

/// What the backend of last resort answers.
const SORRY: &str = "sorry";

/// What becomes of the backends, by their numbers, and what follows.
struct Step {
    sentence: &'static str,
    dies: &'static [usize],
    returns: &'static [usize],
    /// Active ones that are healthy then.
    healthy: u32,
    on_duty: &'static [&'static str],
    state: &'static str,
}

#[rustfmt::skip]
const STEPS: &[Step] = &[
    Step { sentence: "all are well", dies: &[], returns: &[],
        healthy: 4, on_duty: &["b1", "b2", "b3", "b4"], state: "up" },
    Step { sentence: "three are enough", dies: &[4], returns: &[],
        healthy: 3, on_duty: &["b1", "b2", "b3"], state: "up" },
    Step { sentence: "two are few", dies: &[3], returns: &[],
        healthy: 2, on_duty: &["b1", "b2"], state: "degraded" },
    Step { sentence: "the spare stands beside the last one", dies: &[2], returns: &[],
        healthy: 1, on_duty: &["b1", "b5"], state: "degraded" },
    Step { sentence: "one alone is too few", dies: &[5], returns: &[],
        healthy: 1, on_duty: &[SORRY], state: "degraded" },
    Step { sentence: "two are too few to be alive again", dies: &[], returns: &[2],
        healthy: 2, on_duty: &[SORRY], state: "degraded" },
    Step { sentence: "three are alive again", dies: &[], returns: &[3],
        healthy: 3, on_duty: &["b1", "b2", "b3"], state: "up" },
    Step { sentence: "nobody is left to be sorry", dies: &[6, 2, 3], returns: &[],
        healthy: 1, on_duty: &[], state: "down" },
    Step { sentence: "two are too few, also without anybody else", dies: &[], returns: &[2],
        healthy: 2, on_duty: &[], state: "down" },
    Step { sentence: "three are alive, without anybody else", dies: &[], returns: &[3],
        healthy: 3, on_duty: &["b1", "b2", "b3"], state: "up" },
];

#[test]
fn the_line_on_duty_serves_and_the_router_hears_of_its_state() {
    in_lab(|lab| {
        let size = Size {
            balancers: 1,
            backends: 6,
        };
        let mut site = Site::without_agents(lab, size, &[VIP.into()])?;
        start(&mut site, 6)?;
        site.start_agents(&config(&site.rack))?;
        site.wait_for_sessions()?;
        for step in STEPS {
            for number in step.dies {
                site.servers[number - 1].kill()?;
            }
            for number in step.returns {
                start(&mut site, *number)?;
            }
            wait_until(step.sentence, PATIENCE, || {
                ensure_decided(&site, step)?;
                ensure_heard(&site, step)?;
                ensure_served(&site, step)
            })?;
        }
        Ok(())
    });
}

/// Starts the web server of a backend anew.
fn start(site: &mut Site, number: usize) -> Result<()> {
    let host = &site.rack.backends[number - 1].host;
    let server = &mut site.servers[number - 1];
    server.kill()?;
    let line = if number == 6 { SORRY } else { host.name() };
    *server = Nginx::saying(host, line)?;
    Ok(())
}

fn config(rack: &Rack) -> AgentConfig {
    let mut config = AgentConfig {
        service: SERVICE.to_owned(),
        ..AgentConfig::default()
    };
    config.peer += RULE;
    let mut config = config.service("web", VIP.into(), "ipip", &rack.backends[..4]);
    for (backend, role) in rack.backends[4..].iter().zip(["backup", "sorry"]) {
        config = config.backend(backend, VIP.into(), 1);
        config.services += &format!("role = \"{role}\"\n");
    }
    config
}

/// The agent shows the state, and whom it is in force for.
fn ensure_decided(site: &Site, step: &Step) -> Result<()> {
    let status = site.agents[0].status()?;
    let service = &status["services"][0];
    let is_so = service["healthy"] == step.healthy && service["state"] == step.state;
    ensure!(is_so, "{service}");
    if !step.on_duty.is_empty() {
        let shown = on_duty(service)?;
        let wanted: BTreeSet<_> = step.on_duty.iter().copied().collect();
        ensure!(service["in_force"] == true && shown == wanted, "{service}");
    }
    Ok(())
}

/// Whom the status shows to get new flows.
fn on_duty(service: &Value) -> Result<BTreeSet<&str>> {
    let backends = service["backends"].as_array().context("no backends")?;
    let on_duty = backends
        .iter()
        .filter(|backend| backend["available"] == true)
        .filter_map(|backend| backend["name"].as_str())
        .map(|name| if name == "b6" { SORRY } else { name });
    Ok(on_duty.collect())
}

/// The router has the route of that state, or none.
fn ensure_heard(site: &Site, step: &Step) -> Result<()> {
    let routes = site.router.routes(&host_prefix(VIP.into()))?;
    let meds: Vec<_> = routes
        .iter()
        .map(|route| route.attribute("BGP.med"))
        .collect();
    let wanted: &[_] = match step.state {
        "down" => &[],
        "degraded" => &[Some("50")],
        _ => &[None],
    };
    ensure!(meds == wanted, "{routes:?}");
    Ok(())
}

/// Clients read the pages of those on duty, and of nobody else.
fn ensure_served(site: &Site, step: &Step) -> Result<()> {
    if step.on_duty.is_empty() {
        return Ok(());
    }
    let mut answered = BTreeSet::new();
    // One of four is missed once in 5,000 times, and asked again.
    for _ in 0..30 {
        answered.insert(ask(&site.rack.client, (VIP, 80).into())?);
    }
    let answered: BTreeSet<_> = answered.iter().map(String::as_str).collect();
    let wanted: BTreeSet<_> = step.on_duty.iter().copied().collect();
    ensure!(answered == wanted, "answered by {answered:?}");
    Ok(())
}
