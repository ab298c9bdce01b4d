//! How a node is taken out of service without a packet being lost.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{AgentConfig, Bird, Lab, Probes, Site, Size, Vipd, host_prefix, wait_until};

use crate::support::{PATIENCE, SMALL, VIP, in_lab};

/// The router does what RFC 8326 asks of it.
const OBEYS: &str = "ipv4 { import filter { \
                     if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; }; \
                     export none; };";

/// Whatever `on_stop` says.
#[test]
fn a_node_in_maintenance_leaves_when_another_has_taken_over_and_no_connection_fails() {
    in_lab(|lab| {
        let size = Size {
            balancers: 2,
            backends: 2,
        };
        let site = obedient(lab, size, "on_stop = \"keep\"\n")?;
        let probes = Probes::start(&site.rack.client, (VIP, 80).into());
        sleep(Duration::from_millis(500));
        // It counts packets for three seconds at least before it withdraws.
        let mut leaving = site.agents[0].spawn("maint", &[])?;
        wait_until("routers are told to prefer other ways", PATIENCE, || {
            let communities = communities(&site)?;
            let told = communities.get("lb1").context("lb1 is gone already")?;
            ensure!(told.contains("(65535,0)"), "{communities:?}");
            ensure!(!communities["lb2"].contains("(65535,0)"), "{communities:?}");
            Ok(())
        })?;
        let ended = leaving.wait(PATIENCE)?;
        sleep(Duration::from_millis(500));
        probes.finish()?.ensure_all_answered()?;
        let said = leaving.log();
        ensure!(ended.success(), "{ended}: {said}");
        ensure!(said.contains("the agent has stopped"), "{said}");
        site.wait_for_routes(VIP.into(), &site.rack.balancers[1..])?;
        let log = site.router.log();
        ensure!(log.contains("vipd leaves for maintenance"), "{log}");
        let pins = site.rack.balancers[0].host.pins().join("vipd");
        ensure!(!pins.exists(), "{} is left", pins.display());
        Ok(())
    });
}

#[test]
fn maintenance_outlives_an_agent_that_dies() {
    in_lab(|lab| {
        let mut site = obedient(lab, SMALL, "")?;
        let agent = &mut site.agents[0];
        for (arguments, obeyed, expected) in [
            (["--timeout", "0"].as_slice(), false, "maintenance"),
            (&["--end"], true, "up"),
        ] {
            let probes = Probes::start(&site.rack.client, (VIP, 80).into());
            let done = agent.command("maint", arguments);
            ensure!(done.is_ok() == obeyed, "{arguments:?}: {done:?}");
            drop(probes);
            agent.process().kill()?;
            agent.start_again()?;
            wait_until("it is announced again", PATIENCE, || {
                let state = state(agent)?;
                ensure!(state == expected, "{arguments:?}: {state}");
                Ok(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_node_that_nobody_can_replace_stays_announced_unless_it_is_forced() {
    in_lab(|lab| {
        let mut site = obedient(lab, SMALL, "")?;
        let probes = Probes::start(&site.rack.client, (VIP, 80).into());
        let said = site.agents[0].command("maint", &["--timeout", "4"]);
        let said = format!("{:#}", said.err().context("it has left")?);
        ensure!(said.contains("packets/s still arrive"), "{said}");
        ensure!(state(&site.agents[0])? == "maintenance");
        let told = communities(&site)?;
        ensure!(told["lb1"].contains("(65535,0)"), "{told:?}");

        site.agents[0].command("maint", &["--end"])?;
        wait_until("it is announced as before", PATIENCE, || {
            ensure!(state(&site.agents[0])? == "up");
            let told = communities(&site)?;
            let told = told.get("lb1").context("its route is gone")?;
            ensure!(!told.contains("(65535,0)"), "{told}");
            Ok(())
        })?;
        let report = probes.finish()?;
        report.ensure_all_answered()?;

        let probes = Probes::start(&site.rack.client, (VIP, 80).into());
        let begun = Instant::now();
        site.agents[0].command("maint", &["--timeout", "4", "--force"])?;
        ensure!(begun.elapsed() >= Duration::from_secs(4), "it did not wait");
        site.wait_for_routes(VIP.into(), &[])?;
        let failed = probes.finish()?.failures().count();
        ensure!(failed > 0, "nobody was there, and nothing has failed");
        let status = site.agents[0].process().wait(PATIENCE)?;
        ensure!(status.success(), "{status}");
        Ok(())
    });
}

/// The state in which the VIP is announced.
fn state(agent: &Vipd) -> Result<String> {
    let status = agent.status()?;
    let state = status["vips"][0]["state"].as_str();
    Ok(state.context("no state")?.to_owned())
}

/// The communities of the VIP's routes, by the balancer.
fn communities(site: &Site) -> Result<BTreeMap<String, String>> {
    let routes = site.router.routes(&host_prefix(VIP.into()))?;
    let told = routes.into_iter().map(|route| {
        let communities = route.attribute("BGP.community").unwrap_or_default();
        (route.session.clone(), communities.to_owned())
    });
    Ok(told.collect())
}

/// A site whose router prefers whoever is not about to leave. The agents have
/// more lines in `[dataplane]`.
fn obedient(lab: &Lab, size: Size, dataplane: &str) -> Result<Site> {
    let mut site = Site::without_agents(lab, size, &[VIP.into()])?;
    let router = Bird::rack_config(&site.rack, OBEYS);
    site.router.configure(&router)?;
    let config = AgentConfig {
        dataplane: dataplane.to_owned(),
        ..AgentConfig::default()
    };
    let config = config.service("web", VIP.into(), "ipip", &site.rack.backends);
    site.start_agents(&config)?;
    site.wait_for_sessions()?;
    site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
    Ok(site)
}
