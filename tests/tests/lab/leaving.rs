//! How an agent goes away without a packet being lost: killed or stopped while
//! routers keep its routes, or taken out of service for good.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd::bfd::protocol::State;
use vipd_tests::{
    AgentConfig, Bfd, Bird, Lab, Probes, Rack, Site, Size, Vipd, host_prefix, wait_until,
};

use crate::support::{SMALL, VIP, in_lab};

const PATIENCE: Duration = Duration::from_secs(20);
/// 100 ms five times: a busy machine is not a dead one.
const BFD: &str = "[bgp.peer.bfd]\nmin_tx = \"100ms\"\nmin_rx = \"100ms\"\nmultiplier = 5\n";
const BIRD_BFD: &str = "protocol bfd { interface \"*\" { min rx interval 100 ms; \
                        min tx interval 100 ms; multiplier 5; }; }\n";
/// The router does what RFC 8326 asks of it.
const OBEYS: &str = "ipv4 { import filter { \
                     if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; }; \
                     export none; };";

/// What becomes of an agent before the next one starts.
#[derive(Clone, Copy, Debug)]
enum Going {
    Killed,
    Stopped,
}

#[test]
fn bird_keeps_the_routes_of_an_agent_that_is_killed_and_no_connection_fails() {
    in_lab(|lab| goes_and_comes(lab, Going::Killed));
}

#[test]
fn bird_keeps_the_routes_of_an_agent_that_is_upgraded_and_no_connection_fails() {
    in_lab(|lab| goes_and_comes(lab, Going::Stopped));
}

/// With BFD, which stays up meanwhile.
fn goes_and_comes(lab: &Lab, going: Going) -> Result<()> {
    let mut site = Site::without_agents(lab, SMALL, &[VIP.into()])?;
    let sessions = Bird::sessions(&site.rack.balancers, 64500, "bfd on;");
    site.router
        .configure(&(Bird::router_config(64501) + BIRD_BFD + &sessions))?;
    let mut config = AgentConfig {
        dataplane: "on_stop = \"keep\"\n".to_owned(),
        ..AgentConfig::default()
    };
    config.peer += BFD;
    let config = config.service("web", VIP.into(), "ipip", &site.rack.backends);
    let balancer = &site.rack.balancers[0];
    let bfd = Bfd::start(&balancer.host, &config.text(balancer))?;
    site.start_agents(&config)?;
    site.wait_for_sessions()?;
    site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
    bfd.wait_for("router", State::Up)?;
    wait_until("the router's routes are final", PATIENCE, || {
        let session = site.router.birdc("show protocols all lb1")?;
        ensure!(session.contains("Graceful restart"), "{session}");
        Ok(())
    })?;
    let before = route_since(&site)?;

    let probes = Probes::start(&site.rack.client, (VIP, 80).into());
    sleep(Duration::from_millis(500));
    let agent = &mut site.agents[0];
    match going {
        Going::Killed => agent.process().kill()?,
        Going::Stopped => {
            let status = agent.process().terminate(PATIENCE)?;
            ensure!(status.success(), "{status}");
        }
    }
    // Longer than the hold time: nothing but graceful restart keeps the routes.
    sleep(Duration::from_secs(5));
    site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
    site.agents[0].start_again()?;
    site.wait_for_sessions()?;
    wait_until("the restart is over", PATIENCE, || {
        let log = site.agents[0].peer("router")?;
        ensure!(log["state"] == "Established", "{log}");
        let route = site
            .router
            .birdc(&format!("show route all {}", host_prefix(VIP.into())))?;
        ensure!(
            !route.contains("STALE") && !route.contains("stale"),
            "{route}"
        );
        Ok(())
    })?;
    sleep(Duration::from_secs(1));
    let report = probes.finish()?;
    report.ensure_all_answered()?;
    ensure!(route_since(&site)? == before, "the route has been replaced");
    let session = bfd.ensure("router", State::Up)?;
    ensure!(session.downs == 0, "{session:?}");
    Ok(())
}

/// Since when the router has the route.
fn route_since(site: &Site) -> Result<Option<Duration>> {
    let routes = site.router.routes(&host_prefix(VIP.into()))?;
    let route = routes.first().context("no route")?;
    // BIRD rounds it anew each time.
    Ok(route
        .since
        .map(|since| Duration::from_millis(since.as_millis() as u64 / 10 * 10)))
}

#[test]
fn a_node_in_maintenance_leaves_when_another_has_taken_over_and_no_connection_fails() {
    in_lab(|lab| {
        let size = Size {
            balancers: 2,
            backends: 2,
        };
        // What a stop keeps goes with the node all the same.
        let site = obedient(lab, size, "on_stop = \"keep\"\n")?;
        let router_log = || site.router.log();
        let probes = Probes::start(&site.rack.client, (VIP, 80).into());
        sleep(Duration::from_millis(500));
        let mut maint = site.agents[0].spawn("maint", &[])?;
        wait_until("the route says that it will go", PATIENCE, || {
            let routes = site.router.birdc("show route all protocol lb1")?;
            ensure!(routes.contains("(65535,0)"), "{routes}");
            Ok(())
        })?;
        let ended = maint.wait(PATIENCE)?;
        ensure!(ended.success(), "{ended}: {}", maint.log());
        sleep(Duration::from_millis(500));
        let report = probes.finish()?;
        report.ensure_all_answered()?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers[1..])?;
        let pins = site.rack.balancers[0].host.pins().join("vipd");
        ensure!(!pins.exists(), "{} is still there", pins.display());
        let log = router_log();
        ensure!(log.contains("vipd leaves for maintenance"), "{log}");
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
        let route = site
            .router
            .birdc(&format!("show route all {}", host_prefix(VIP.into())))?;
        ensure!(route.contains("(65535,0)"), "{route}");

        site.agents[0].command("maint", &["--end"])?;
        wait_until("it is announced as before", PATIENCE, || {
            ensure!(state(&site.agents[0])? == "up");
            let route = site
                .router
                .birdc(&format!("show route all {}", host_prefix(VIP.into())))?;
            ensure!(!route.contains("(65535,0)"), "{route}");
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

/// A site whose router prefers whoever is not about to leave. The agents have
/// more lines in `[dataplane]`.
fn obedient(lab: &Lab, size: Size, dataplane: &str) -> Result<Site> {
    let mut site = Site::without_agents(lab, size, &[VIP.into()])?;
    let sessions = Bird::sessions(&site.rack.balancers, 64500, OBEYS);
    site.router
        .configure(&(Bird::router_config(64501) + &sessions))?;
    let Rack { backends, .. } = &site.rack;
    let config = AgentConfig {
        dataplane: dataplane.to_owned(),
        ..AgentConfig::default()
    };
    let config = config.service("web", VIP.into(), "ipip", backends);
    site.start_agents(&config)?;
    site.wait_for_sessions()?;
    site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
    Ok(site)
}
