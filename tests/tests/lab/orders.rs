//! The operator's orders on nodes that serve an address themselves: a service is
//! disabled and enabled, and a node taken out for maintenance, before a real router
//! and real clients.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{
    BALANCERS_AS, Bird, Lab, Machine, Nginx, Probes, ROUTER_AS, Rack, Size, Vipd, host_prefix,
    wait_until,
};

use crate::support::{PATIENCE, VIP, VIP6, in_lab, wait_for_session};

const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(VIP), IpAddr::V6(VIP6)];

/// The router does what RFC 8326 asks of it.
const OBEYS: &str = "ipv4 { import filter { \
                     if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; }; \
                     export none; }; \
                     ipv6 { import filter { \
                     if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; }; \
                     export none; };";

/// A disabled service is announced all the same, and marked.
const MARKED: &str = "
[[bgp.rule]]
states = [\"disabled\"]
announce = true
med = 700
";

#[test]
fn a_disabled_service_is_withdrawn_until_it_is_enabled_also_by_the_next_agent() {
    in_lab(|lab| {
        let mut scene = Scene::build(lab, 2, "")?;
        let said = scene.agents[0].command("disable", &["web", "--reason", "new release"])?;
        ensure!(said.contains("web is disabled"), "{said}");
        scene.wait_for_routes("lb1 is disabled", &["lb2"])?;

        // A colleague looks: drift from the configuration, by whom, and the way back.
        let agent = &mut scene.agents[0];
        let status = agent.command("status", &[])?;
        ensure!(status.contains("web disabled"), "{status}");
        let drift = agent.command("overrides", &[])?;
        ensure!(
            drift.contains("disabled") && drift.contains("new release"),
            "{drift}"
        );
        let metrics = agent.metrics("text/plain")?;
        let line = metrics
            .lines()
            .find(|line| line.contains("overrides{will=\"disabled\"}"));
        ensure!(line.is_some_and(|line| line.ends_with(" 1.0")), "{line:?}");
        let why = agent.command("why", &[&VIP.to_string()])?;
        for words in [
            "is not announced: web: disabled",
            "; `vipd enable web`",
            "new release",
        ] {
            ensure!(why.contains(words), "no `{words}` in {why}");
        }

        agent.process().kill()?;
        agent.start_again()?;
        wait_for_session(agent, 1)?;
        let disabled = |agent: &Vipd| -> Result<Value> {
            let status = agent.status()?;
            Ok(status["services"][0]["state"].clone())
        };
        ensure!(disabled(agent)? == "disabled", "{}", disabled(agent)?);
        wait_until("the server of lb1 is known to be well", PATIENCE, || {
            let status = scene.agents[0].status()?;
            ensure!(status["services"][0]["healthy"] == 1, "{status}");
            Ok(())
        })?;
        scene.ensure_routes(&["lb2"])?;

        let said = scene.agents[0].command("enable", &["web"])?;
        ensure!(said.contains("web is enabled again"), "{said}");
        scene.wait_for_routes("both serve again", &["lb1", "lb2"])?;
        let drift = scene.agents[0].command("overrides", &["--json"])?;
        ensure!(drift.trim() == "[]", "{drift}");
        Ok(())
    });
}

#[test]
fn a_disabled_service_is_announced_as_rules_say() {
    in_lab(|lab| {
        let scene = Scene::build(lab, 1, MARKED)?;
        let med = |expected: Option<&str>| {
            wait_until(&format!("the MED is {expected:?}"), PATIENCE, || {
                for address in ADDRESSES {
                    let routes = scene.router.routes(&host_prefix(address))?;
                    let [route] = routes.as_slice() else {
                        anyhow::bail!("{address}: {routes:?}");
                    };
                    ensure!(route.attribute("BGP.med") == expected, "{route:?}");
                }
                Ok(())
            })
        };
        med(None)?;
        scene.agents[0].command("disable", &["web"])?;
        med(Some("700"))?;
        let state = &scene.agents[0].status()?["vips"][0]["state"];
        ensure!(state == "disabled", "{state}");
        scene.agents[0].command("enable", &["web"])?;
        med(None)
    });
}

#[test]
fn a_node_that_serves_itself_stays_while_clients_still_come_to_it() {
    in_lab(|lab| {
        let mut scene = Scene::build(lab, 1, "")?;
        for address in ADDRESSES {
            let probes = Probes::start(&scene.rack.client, (address, 80).into());
            let said = scene.agents[0].command("maint", &["--timeout", "5"]);
            let said = format!("{:#}", said.err().context("it has left")?);
            ensure!(said.contains("packets/s still arrive after 5 s"), "{said}");
            ensure!(!said.contains(" 0 packets/s"), "{said}");
            scene.wait_for_state("maintenance")?;
            scene.agents[0].command("maint", &["--end"])?;
            scene.wait_for_state("up")?;
            probes.finish()?.ensure_all_answered()?;
        }

        // Whoever asks why is told of the order, and by whom it was given.
        let why = scene.agents[0].command("why", &[&VIP.to_string()])?;
        for words in ["in maintenance: routers are told", "announced worse", "by "] {
            ensure!(why.contains(words), "no `{words}` in {why}");
        }
        let lines: Vec<_> = why.lines().collect();
        let order = lines.iter().position(|line| line.contains("order    "));
        let worse = lines
            .iter()
            .position(|line| line.contains("announced worse"));
        ensure!(order.is_some() && order < worse, "{why}");

        // It outlives an agent that dies, here too where nothing is pinned.
        for (arguments, obeyed, expected) in [
            (["--timeout", "0"].as_slice(), false, "maintenance"),
            (&["--end"], true, "up"),
        ] {
            let probes = Probes::start(&scene.rack.client, (VIP, 80).into());
            let done = scene.agents[0].command("maint", arguments);
            ensure!(done.is_ok() == obeyed, "{arguments:?}: {done:?}");
            drop(probes);
            scene.agents[0].process().kill()?;
            scene.agents[0].start_again()?;
            scene.wait_for_state(expected)?;
        }
        Ok(())
    });
}

#[test]
fn a_node_that_serves_itself_leaves_when_another_has_taken_over() {
    in_lab(|lab| {
        let mut scene = Scene::build(lab, 2, "")?;
        let probes = Probes::start(&scene.rack.client, (VIP, 80).into());
        // Its own checks go on meanwhile, and are nobody's traffic.
        let said = scene.agents[0].command("maint", &["--timeout", "30"])?;
        ensure!(said.contains("0 packets/s\nleaving"), "{said}");
        scene.wait_for_routes("lb1 has left", &["lb2"])?;
        let ended = scene.agents[0].process().wait(PATIENCE)?;
        ensure!(ended.success(), "{ended}");
        drop(probes);

        // Who starts it again wants it to serve.
        scene.agents[0].start_again()?;
        scene.wait_for_routes("lb1 is back", &["lb1", "lb2"])?;
        scene.wait_for_state("up")
    });
}

/// Nodes with a web server each, and their router.
struct Scene {
    agents: Vec<Vipd>,
    router: Bird,
    rack: Rack,
    _servers: Vec<Nginx>,
}

impl Scene {
    /// So many nodes, with further lines behind their peer.
    fn build(lab: &Lab, nodes: u8, further: &str) -> Result<Self> {
        let size = Size {
            balancers: nodes,
            backends: 0,
        };
        let rack = Rack::build(lab, size)?;
        let router = Bird::on_router(&rack, OBEYS)?;
        let machines = rack.balancers.iter();
        let servers = machines.clone().map(|machine| Nginx::start(&machine.host));
        let servers = servers.collect::<Result<_>>()?;
        let agents = machines.map(|machine| Vipd::start(&machine.host, &config(machine, further)));
        let scene = Self {
            agents: agents.collect::<Result<_>>()?,
            router,
            rack,
            _servers: servers,
        };
        let names: Vec<_> = scene
            .rack
            .balancers
            .iter()
            .map(|it| it.host.name())
            .collect();
        scene.wait_for_routes("all nodes serve", &names)?;
        Ok(scene)
    }

    fn wait_for_routes(&self, sentence: &str, nodes: &[&str]) -> Result<()> {
        wait_until(sentence, PATIENCE, || self.ensure_routes(nodes))
    }

    /// Fails unless the router has routes of both addresses from these nodes, and
    /// from nobody else.
    fn ensure_routes(&self, nodes: &[&str]) -> Result<()> {
        for address in ADDRESSES {
            let routes = self.router.routes(&host_prefix(address))?;
            let mut found: Vec<_> = routes.iter().map(|route| &*route.session).collect();
            found.sort_unstable();
            ensure!(found == nodes, "{address}: {found:?}");
        }
        Ok(())
    }

    /// Waits until the first node announces its addresses in this state.
    fn wait_for_state(&self, expected: &str) -> Result<()> {
        wait_until(&format!("it is announced as {expected}"), PATIENCE, || {
            let status = self.agents[0].status()?;
            for vip in status["vips"].as_array().context("no addresses")? {
                ensure!(vip["state"] == expected, "{vip}");
            }
            Ok(())
        })
    }
}

/// A node that serves the addresses itself and forwards nothing.
pub fn config(machine: &Machine, further: &str) -> String {
    let Machine { host, ipv4, ipv6 } = machine;
    let (name, dir) = (host.name(), host.dir());
    let dir = dir.display();
    format!(
        r#"[node]
name = "{name}"

[control]
socket = "{dir}/vipd.sock"

[state]
directory = "{dir}/state"

[stop]
linger = "500ms"

[bgp]
local_as = {BALANCERS_AS}
router_id = "{ipv4}"

[[bgp.peer]]
name = "router"
address = "192.0.2.1"
as = {ROUTER_AS}
source = "{ipv4}"
families = ["ipv4", "ipv6"]
next_hop_ipv6 = "{ipv6}"
hold_time = "3s"
connect_retry = "1s"
{further}
[[service]]
name = "web"
vips = ["{VIP}", "{VIP6}"]
protocol = "tcp"
port = 80
mode = "local"
[service.check]
type = "http"
path = "/healthz"
interval = "1s"
timeout = "1s"
rise = 1
fall = 3
"#
    )
}
