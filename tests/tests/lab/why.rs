//! `vipd why` and `vipd events`: a service dies, and the agent tells the whole
//! chain, from the check's result to the UPDATE.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{AgentConfig, Site, Size, Vipd, wait_until};

use crate::support::{PATIENCE, VIP, in_lab};

/// Far more than it takes, on a busy machine; `cargo xtask bench failover` has the
/// bound of a quiet one.
const DECISION_TO_UPDATE_US: u64 = 1_000_000;

#[test]
fn the_death_of_a_service_is_told_step_by_step() {
    in_lab(|lab| {
        let size = Size {
            balancers: 1,
            backends: 2,
        };
        let mut site = Site::build(lab, size, &[VIP.into()], &|rack| {
            AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends)
        })?;
        let vip = VIP.to_string();
        for backend in ["b1", "b2"] {
            site.wait_for_backend(backend, true)?;
        }
        let told = site.agents[0].command("why", &[&vip])?;
        let first = told.lines().next().context("nothing")?;
        ensure!(
            first.starts_with(&format!("{vip} is announced: web:")),
            "{told}"
        );

        site.servers[1].kill()?;
        site.wait_for_backend("b2", false)?;
        site.servers[0].kill()?;
        site.wait_for_routes(VIP.into(), &[])?;
        let agent = &site.agents[0];
        // The router may know before the agent has written it down.
        wait_until("the chain is whole", PATIENCE, || ensure_chain(agent, &vip))?;

        let told = agent.command("why", &[&vip, "--last", "1"])?;
        ensure_in_order(
            &told,
            &[
                "198.51.100.10 is not announced: web: 0 of 2 backends healthy, 1 wanted",
                "web must be alive: 0 of 2 backends healthy, 1 wanted",
                "web/b1 is down: L4CON",
                "web/b2 is down: L4CON",
                "check    web/b1",
                "state    web/b1",
                "decision web",
                "announce 198.51.100.10            withdrawn: web: 0 of 2",
                "update   router 198.51.100.10     the kernel has the UPDATE that withdraws it",
            ],
        )?;
        let told = agent.command("why", &["web/b2"])?;
        ensure_in_order(
            &told,
            &[
                "web/b2 is down",
                "state    web/b2",
                "decision web",
                "maps     web",
            ],
        )?;
        let told = agent.command("why", &["router"])?;
        ensure!(told.contains("is Established for"), "{told}");
        ensure!(told.contains("that withdraws it"), "{told}");
        let unknown = agent
            .command("why", &["web/b9"])
            .err()
            .context("it is told")?;
        ensure!(
            format!("{unknown:#}").contains("there is no"),
            "{unknown:#}"
        );

        let page = agent.metrics("text/plain")?;
        let count = "vipd_decision_to_update_seconds_count{change=\"worse\"} ";
        let line = page.lines().find_map(|line| line.strip_prefix(count));
        ensure!(line.is_some_and(|count| count != "0"), "{line:?} in {page}");
        Ok(())
    });
}

/// Follows the causes of the UPDATE that withdraws the address back to the check.
fn ensure_chain(agent: &Vipd, vip: &str) -> Result<()> {
    let lines = agent.command("events", &["--json", "--since", "10m"])?;
    let events: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let with = |step: &str, causes: Option<&Value>| {
        let caused = |event: &&Value| {
            let ids = causes.and_then(Value::as_array);
            event["step"] == step && ids.is_none_or(|ids| ids.contains(&event["id"]))
        };
        let found = events.iter().rev().find(caused);
        found.with_context(|| format!("no {step} among {causes:?} in {lines}"))
    };
    let withdrawn = |event: &&Value| {
        let text = event["text"].as_str().unwrap_or_default();
        event["prefix"] == vip && event["peer"] == "router" && text.contains("withdraws")
    };
    let update = events.iter().rev().find(withdrawn);
    let update = update.with_context(|| format!("no withdrawal in {lines}"))?;
    let announcement = with("announcement", Some(&update["causes"]))?;
    let decision = with("decision", Some(&announcement["causes"]))?;
    let state = with("state", Some(&decision["causes"]))?;
    let check = with("check", Some(&state["causes"]))?;
    ensure!(state["backend"] == "b1", "{state}");
    let steps = [check, state, decision, announcement, update];
    let times: Vec<u64> = steps
        .iter()
        .filter_map(|event| event["monotonic_us"].as_u64())
        .collect();
    ensure!(
        times.len() == 5 && times.is_sorted(),
        "{times:?}: {steps:#?}"
    );
    let took = times[4] - times[2];
    println!("from the decision to the UPDATE: {took} us");
    ensure!(took <= DECISION_TO_UPDATE_US, "{took} us: {steps:#?}");
    Ok(())
}

/// Each text stands behind the one before.
fn ensure_in_order(told: &str, texts: &[&str]) -> Result<()> {
    let mut rest = told;
    for text in texts {
        let (_, behind) = rest
            .split_once(text)
            .with_context(|| format!("no {text:?} in its place in {told}"))?;
        rest = behind;
    }
    Ok(())
}
