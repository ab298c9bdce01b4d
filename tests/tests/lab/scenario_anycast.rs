//! Anycast web nodes behind route servers, by examples/anycast-route-servers.toml:
//! the story of docs/scenarios/anycast-route-servers.md, line by line, with BFD and
//! by timers alone.
//!
//! ```text
//!   rs1 --- r1 ---------- r2 --- client
//!          /  \            |
//!         w1   w2         w3, rs2
//! ```

mod routers;
mod wire;

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv6Addr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipd::bfd::protocol::State;
use vipd_tests::{BFD_TIMING, Bfd, Bird, Frr, Lab, Nginx, Probes, Segments, Vipd, ask, wait_until};

use self::{
    routers::{bird, frr, router},
    wire::wire,
};
use crate::{
    examples::{Node, example},
    support::{PATIENCE, in_lab, wait_for},
};

/// A node, its address, and the MED it gives each of the service addresses.
const NODES: [(&str, &str, [u32; 3]); 3] = [
    ("w1", "2001:db8:6::11", [102, 101, 100]),
    ("w2", "2001:db8:7::12", [101, 100, 102]),
    ("w3", "2001:db8:8::13", [100, 102, 101]),
];

/// The routers of AS 65003.
const ROUTERS: [&str; 2] = ["2001:db8:1::1", "2001:db8:8::1"];

/// "Within seconds": three failures, the last two asked for sooner.
const WITHIN_SECONDS: Duration = Duration::from_secs(8);
/// BFD gives up after 2 s here.
const WITHIN_BFD: Duration = Duration::from_secs(6);
/// The hold time, and some.
const WITHIN_HOLD_TIME: Duration = Duration::from_secs(12);

/// How a node stands, and what that adds to its MEDs.
#[derive(Clone, Copy, PartialEq)]
enum Is {
    Up,
    Disabled,
    Down,
    Away,
}

#[test]
fn anycast_nodes_behind_route_servers_with_bfd() {
    in_lab(|lab| story(lab, true));
}

#[test]
fn anycast_nodes_behind_route_servers_by_timers_alone() {
    in_lab(|lab| story(lab, false));
}

fn story(lab: &Lab, bfd: bool) -> Result<()> {
    let mut scene = Scene::build(lab, bfd)?;
    scene.ensure_table("all nodes are well", [Is::Up; 3])?;
    scene.ensure_answers("each address is on its best node", ["w3", "w2", "w1"])?;

    scene.ensure_sessions(bfd)?;

    let stopped = Instant::now();
    scene.servers[0].kill()?;
    scene.ensure_table("w1's web server has stopped", [Is::Down, Is::Up, Is::Up])?;
    scene.ensure_answers("::3 is on its second node", ["w3", "w2", "w3"])?;
    let took = stopped.elapsed();
    ensure!(took < WITHIN_SECONDS, "::3 has moved after {took:?}");
    let client = scene.net.host("client")?;
    client.run("ping", &["-c", "1", "-W", "2", NODES[0].1])?;
    scene.servers[0] = Nginx::start(scene.net.host("w1")?)?;
    scene.ensure_table("it has started again", [Is::Up; 3])?;
    scene.ensure_answers("::3 has returned", ["w3", "w2", "w1"])?;

    let crashed = Instant::now();
    scene.net.unplug("w1")?;
    scene.ensure_table("w1 has crashed", [Is::Away, Is::Up, Is::Up])?;
    scene.ensure_answers("::3 is on its second node", ["w3", "w2", "w3"])?;
    let took = crashed.elapsed();
    let bound = if bfd { WITHIN_BFD } else { WITHIN_HOLD_TIME };
    ensure!(took < bound, "::3 has moved after {took:?}");
    scene.ensure_noticed_by(if bfd { "BFD" } else { "Hold timer" })?;
    scene.net.plug_in("w1")?;
    scene.ensure_table("w1 is back", [Is::Up; 3])?;

    // By an operator, then by a file.
    scene.agents[0].command("disable", &["web"])?;
    scene.ensure_table("w1 is disabled by order", [Is::Disabled, Is::Up, Is::Up])?;
    scene.agents[0].command("enable", &["web"])?;
    scene.ensure_table("it is enabled", [Is::Up; 3])?;
    scene.disable(0, true)?;
    scene.ensure_table("w1 is disabled", [Is::Disabled, Is::Up, Is::Up])?;
    scene.ensure_answers("whoever serves is better", ["w3", "w2", "w3"])?;
    scene.servers[1].kill()?;
    scene.servers[2].kill()?;
    let worse = [Is::Disabled, Is::Down, Is::Down];
    scene.ensure_table("the others are down", worse)?;
    scene.ensure_answers("whoever is down is worse", ["w1", "w1", "w1"])?;
    scene.disable(0, false)?;
    scene.ensure_table("w1 alone is well", [Is::Up, Is::Down, Is::Down])?;

    scene.servers[0].kill()?;
    scene.ensure_table("all nodes are down", [Is::Down; 3])?;
    // Nobody listens, but packets still arrive where they would be served first.
    for digit in 1..=3 {
        let client = scene.net.host("client")?;
        let address = address(digit).to_string();
        client.run("ping", &["-c", "1", "-W", "2", &address])?;
    }
    for (server, (name, ..)) in scene.servers.iter_mut().zip(NODES) {
        *server = Nginx::start(scene.net.host(name)?)?;
    }
    scene.ensure_table("all nodes are well again", [Is::Up; 3])?;
    scene.ensure_answers("as in the beginning", ["w3", "w2", "w1"])?;

    scene.ensure_withdrawn_where_so_configured()?;
    scene.ensure_filtered()?;
    scene.ensure_ten_at_most()?;
    scene.ensure_one_route_server_is_enough("rs1", bfd)?;
    scene.ensure_one_route_server_is_enough("rs2", bfd)
}

/// All hosts, and what runs on them.
struct Scene {
    bird: Option<Bird>,
    frr: Option<Frr>,
    routers: Vec<Bird>,
    agents: Vec<Vipd>,
    servers: Vec<Nginx>,
    bfd: Vec<Bfd>,
    net: Segments,
}

impl Scene {
    fn build(lab: &Lab, bfd: bool) -> Result<Self> {
        let net = wire(lab)?;
        let routers = [
            Bird::start(
                net.host("r1")?,
                &router(0, &["8::/64 via 2001:db8:f::2", "c::/64 via 2001:db8:f::2"]),
            )?,
            Bird::start(
                net.host("r2")?,
                &router(
                    1,
                    &[
                        "1::/64 via 2001:db8:f::1",
                        "6::/64 via 2001:db8:f::1",
                        "7::/64 via 2001:db8:f::1",
                    ],
                ),
            )?,
        ];
        let mut scene = Self {
            bird: Some(Bird::start(net.host("rs1")?, &bird(bfd))?),
            frr: Some(start_frr(&net, bfd)?),
            routers: routers.into(),
            agents: Vec::new(),
            servers: Vec::new(),
            bfd: Vec::new(),
            net,
        };
        for number in 0..3 {
            scene.start_node(number, bfd)?;
        }
        Ok(scene)
    }

    fn start_node(&mut self, number: usize, bfd: bool) -> Result<()> {
        let host = self.net.host(NODES[number].0)?;
        let text = config(host, number, bfd)?;
        host.write_secret("rs1.bfd", "as-bird-has-it\n")?;
        self.servers.push(Nginx::start(host)?);
        self.agents.push(Vipd::start(host, &text)?);
        if bfd {
            self.bfd.push(Bfd::start(host, &text)?);
        }
        Ok(())
    }

    /// Writes or removes the node's disable file.
    fn disable(&self, number: usize, disabled: bool) -> Result<()> {
        let file = self.net.host(NODES[number].0)?.dir().join("disabled");
        match disabled {
            true => fs::write(file, "")?,
            false => fs::remove_file(file)?,
        }
        Ok(())
    }

    /// Waits until both route servers have every address of every node with the
    /// MED that the node's state gives it, and the routers have the best of them.
    fn ensure_table(&self, sentence: &str, nodes: [Is; 3]) -> Result<()> {
        wait_until(sentence, 2 * PATIENCE, || {
            for digit in 1..=3 {
                let prefix = format!("{}/128", address(digit));
                let wanted = meds(nodes, digit);
                if let Some(bird) = &self.bird {
                    let routes = bird.routes(&prefix)?;
                    let med = |route: &vipd_tests::BirdRoute| {
                        let med = route.attribute("BGP.med")?.parse().ok()?;
                        Some((route.session.clone(), med))
                    };
                    let found: BTreeMap<String, u32> = routes.iter().filter_map(med).collect();
                    ensure!(found == wanted, "BIRD has {prefix} by {found:?}");
                }
                if let Some(frr) = &self.frr {
                    let paths = frr.paths(&prefix)?;
                    let med = |path: &serde_json::Value| {
                        let peer = path["peer"]["peerId"].as_str()?;
                        let (name, ..) = NODES.iter().find(|(_, address, _)| *address == peer)?;
                        Some((
                            (*name).to_owned(),
                            path["metric"].as_u64()?.try_into().ok()?,
                        ))
                    };
                    let found: BTreeMap<String, u32> = paths.iter().filter_map(med).collect();
                    ensure!(found == wanted, "FRR has {prefix} by {found:?}");
                }
                let best = wanted.iter().min_by_key(|(_, med)| **med);
                let best = best.map(|(name, _)| next_hop(name));
                for router in &self.routers {
                    let routes = router.routes(&prefix)?;
                    let hops = routes.iter().map(|r| r.attribute("BGP.next_hop"));
                    let hops: Vec<_> = hops.collect();
                    ensure!(
                        !hops.is_empty() && hops.iter().all(|hop| *hop == best),
                        "a router has {prefix} by {hops:?}"
                    );
                }
            }
            Ok(())
        })
    }

    /// Asks each address once, as a client.
    fn ensure_answers(&self, sentence: &str, wanted: [&str; 3]) -> Result<()> {
        let client = self.net.host("client")?;
        wait_until(sentence, PATIENCE, || {
            for (digit, wanted) in (1..).zip(wanted) {
                let answered = ask(client, (address(digit), 80).into())?;
                ensure!(answered == wanted, "::{digit} is answered by {answered}");
            }
            Ok(())
        })
    }

    /// BIRD has lost w1 for this reason.
    fn ensure_noticed_by(&self, reason: &str) -> Result<()> {
        let Some(bird) = &self.bird else {
            return Ok(());
        };
        let session = bird.session("w1")?;
        let log = bird.log();
        let lines = log.lines().filter(|line| line.contains("w1: "));
        let mut told = lines.filter(|line| line.contains(reason));
        ensure!(told.next().is_some(), "not by {reason}: {session:?} {log}");
        Ok(())
    }

    /// Whatever else a node announces goes no farther than to the route servers: a
    /// host outside of their prefix, and the prefix itself.
    fn ensure_filtered(&self) -> Result<()> {
        let host = self.net.host("w1")?;
        let text = fs::read_to_string(host.dir().join("vipd.toml"))?;
        let unwanted = ["2001:db8:31::1/128", "2001:db8:30::/64"];
        let aggregate = format!("\n[[bgp.aggregate]]\nprefix = \"{}\"\n", unwanted[1]);
        let more = text.replace("vips = [", "vips = [\"2001:db8:31::1\", ") + &aggregate;
        self.agents[0].reload(&more)?;
        self.wait_for_announced(5)?;
        // What is announced after them, and wanted, shows that they have arrived.
        self.agents[0].reload(&serving(&more, 4..=4))?;
        self.wait_for_announced(6)?;
        self.ensure_taken("a fourth is taken", 4..=4)?;
        for prefix in unwanted {
            for bird in self.routers.iter().chain(&self.bird) {
                let routes = bird.routes(prefix)?;
                ensure!(routes.is_empty(), "BIRD has {prefix}: {routes:?}");
            }
            if let Some(frr) = &self.frr {
                let paths = frr.paths(prefix)?;
                ensure!(paths.is_empty(), "FRR has {prefix}: {paths:?}");
            }
        }
        self.agents[0].reload(&text)?;
        self.wait_for_announced(3)
    }

    /// Waits until w1 has told both route servers so many routes.
    fn wait_for_announced(&self, count: u64) -> Result<()> {
        for name in ["rs1", "rs2"] {
            let sentence = format!("{count} are announced");
            wait_for(&self.agents[0], name, &sentence, |peer| {
                peer["state"] == "Established" && peer["advertised"]["IPv6 unicast"] == count
            })?;
        }
        Ok(())
    }

    /// Waits until the route servers have these addresses of w1, and the routers too.
    fn ensure_taken(&self, sentence: &str, digits: RangeInclusive<u16>) -> Result<()> {
        wait_until(sentence, PATIENCE, || {
            for digit in digits.clone() {
                let prefix = format!("{}/128", address(digit));
                for bird in self.routers.iter().chain(&self.bird) {
                    let routes = bird.routes(&prefix)?;
                    ensure!(!routes.is_empty(), "BIRD has no {prefix}");
                }
                if let Some(frr) = &self.frr {
                    let paths = frr.paths(&prefix)?;
                    ensure!(!paths.is_empty(), "FRR has no {prefix}");
                }
            }
            Ok(())
        })
    }

    /// The sessions have the times they are to have, and BFD where it runs.
    fn ensure_sessions(&self, bfd: bool) -> Result<()> {
        for (agent, name) in self.agents.iter().zip(NODES.map(|(name, ..)| name)) {
            for peer in ["rs1", "rs2"] {
                let session = agent.show_bgp(&[peer, "--json"])?;
                for words in ["\"hold_time_seconds\": 6,", "\"keepalive_seconds\": 2.0"] {
                    ensure!(session.contains(words), "{name}: no {words} in {session}");
                }
                wait_for(agent, peer, "three of three are announced", |peer| {
                    peer["wanted"] == 3 && peer["advertised"]["IPv6 unicast"] == 3
                })?;
            }
        }
        for bfd in &self.bfd {
            bfd.wait_for("rs1", State::Up)?;
            bfd.wait_for("rs2", State::Up)?;
        }
        ensure!(self.bfd.is_empty() != bfd, "BFD runs where it should");
        Ok(())
    }

    /// Without the rule for `down` the routes of w1 go with its server.
    fn ensure_withdrawn_where_so_configured(&mut self) -> Result<()> {
        let host = self.net.host("w1")?;
        let text = fs::read_to_string(host.dir().join("vipd.toml"))?;
        let rule = "[[bgp.rule]]\nstates = [\"down\"]\nannounce = true\nmed_add = 900\n";
        ensure!(text.contains(rule), "{text}");
        self.agents[0].reload(&text.replace(rule, ""))?;
        self.ensure_table("another rule changes nothing by itself", [Is::Up; 3])?;
        self.servers[0].kill()?;
        self.ensure_table("w1 withdraws", [Is::Away, Is::Up, Is::Up])?;
        self.servers[0] = Nginx::start(self.net.host("w1")?)?;
        self.ensure_table("w1 announces again", [Is::Up; 3])?;
        self.agents[0].reload(&text).map(drop)
    }

    /// Ten routes of a node are taken. More end its sessions, and the node is told why.
    /// FRR 8.4 counts before it adds a route (`bgp_update` in `bgpd/bgp_route.c`), so
    /// that it is the twelfth which finds that there are more than ten.
    fn ensure_ten_at_most(&self) -> Result<()> {
        let host = self.net.host("w1")?;
        let text = fs::read_to_string(host.dir().join("vipd.toml"))?;
        self.agents[0].reload(&serving(&text, 4..=10))?;
        self.wait_for_announced(10)?;
        self.ensure_taken("ten are taken", 1..=10)?;
        let words = "Maximum Number of Prefixes Reached";
        for name in ["rs1", "rs2"] {
            let peer = self.agents[0].peer(name)?;
            ensure!(!peer.to_string().contains(words), "{peer}");
        }
        for (last, peer) in [(11, "rs1"), (12, "rs2")] {
            self.agents[0].reload(&serving(&text, 4..=last))?;
            wait_for(&self.agents[0], peer, words, |peer| {
                let told = peer["notification_received"].as_str().unwrap_or_default();
                told.contains(words)
            })?;
        }
        let table = self.agents[0].show_bgp(&[])?;
        ensure!(table.contains(words), "{table}");
        self.agents[0].reload(&text)?;
        // FRR waits for its operator.
        if let Some(frr) = &self.frr {
            frr.vtysh(&format!("clear bgp ipv6 {}", NODES[0].1))?;
        }
        self.ensure_table("with three it is taken back", [Is::Up; 3])
    }

    /// Nothing changes for clients when a route server stops, and when it returns.
    fn ensure_one_route_server_is_enough(&mut self, name: &str, bfd: bool) -> Result<()> {
        let probes = Probes::start(self.net.host("client")?, (address(3), 80).into());
        match name {
            "rs1" => self.bird = None,
            _ => self.frr = None,
        }
        wait_until("the routers have noticed", PATIENCE, || {
            self.routers.iter().try_for_each(|router| {
                let session = router.session(name)?;
                ensure!(session.info != "Established", "{session:?}");
                Ok(())
            })
        })?;
        self.ensure_answers(&format!("without {name}"), ["w3", "w2", "w1"])?;
        match name {
            "rs1" => self.bird = Some(Bird::start(self.net.host(name)?, &bird(bfd))?),
            _ => self.frr = Some(start_frr(&self.net, bfd)?),
        }
        self.ensure_table(&format!("{name} is back"), [Is::Up; 3])?;
        wait_until("clients have asked many times", PATIENCE, || {
            let asked = probes.so_far().attempts.len();
            ensure!(asked > 500, "{asked} times");
            Ok(())
        })?;
        probes.finish()?.ensure_all_answered_by("w1")
    }
}

fn start_frr(net: &Segments, bfd: bool) -> Result<Frr> {
    let (text, timers) = frr(bfd);
    let host = net.host("rs2")?;
    match bfd {
        true => Frr::start_with_bfd(host, &text, &timers),
        false => Frr::start(host, &text),
    }
}

fn address(digit: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x30, 0, 0, 0, 0, digit)
}

/// The configuration with these addresses in addition.
fn serving(text: &str, digits: RangeInclusive<u16>) -> String {
    let more: String = digits
        .map(|digit| format!("\"{}\", ", address(digit)))
        .collect();
    text.replace("vips = [", &format!("vips = [{more}"))
}

fn next_hop(node: &str) -> &'static str {
    let found = NODES.iter().find(|(name, ..)| *name == node);
    found.map_or("", |(_, address, _)| address)
}

/// The MED of each node that announces this address.
fn meds(nodes: [Is; 3], digit: u16) -> BTreeMap<String, u32> {
    let med = |((name, _, meds), is): (&(&str, &str, [u32; 3]), Is)| {
        let more = match is {
            Is::Up => 0,
            Is::Disabled => 400,
            Is::Down => 900,
            Is::Away => return None,
        };
        Some(((*name).to_owned(), meds[usize::from(digit) - 1] + more))
    };
    NODES.iter().zip(nodes).filter_map(med).collect()
}

/// The example, for this node.
fn config(host: &vipd_tests::Host, number: usize, bfd: bool) -> Result<String> {
    let (name, address, _) = NODES[number];
    let disabled = host.dir().join("disabled");
    let text = example("anycast-route-servers", &Node::on(host))?
        .replace("name = \"w1\"", &format!("name = \"{name}\""))
        .replace("2001:db8:6::11", address)
        .replace("192.0.2.11", &format!("192.0.2.1{}", number + 1))
        .replace("med_start = 0", &format!("med_start = {number}"))
        .replace("/etc/vipd/disabled", &disabled.to_string_lossy());
    let with = "[bgp.peer.bfd]\nmultihop = true\n";
    ensure!(text.contains(with) && text.contains(address), "{text}");
    Ok(match bfd {
        true => text.replace(with, &format!("{with}{BFD_TIMING}")),
        false => (text
            .split("\n\n")
            .map(|part| match part.find("[bgp.peer.bfd]") {
                Some(start) => part[..start].to_owned(),
                None => part.to_owned(),
            }))
        .collect::<Vec<_>>()
        .join("\n\n"),
    })
}
