//! Anycast web nodes behind route servers, by examples/anycast-route-servers.toml:
//! the story of docs/scenarios/anycast-route-servers.md, line by line, with BFD and
//! by timers alone.
//!
//! ```text
//!   rs1 --- r1 ---------- r2 --- client
//!          /  \            |
//!         w1   w2         w3, rs2
//! ```

use std::{collections::BTreeMap, fs, net::Ipv6Addr};

use anyhow::{Result, ensure};
use vipd_tests::{
    BFD_TIMING, BIRD_BFD_TIMING, Bfd, Bird, FRR_BFD_TIMING, Frr, Lab, Nginx, Probes, Segments,
    Vipd, ask, wait_until,
};

use crate::{
    examples::{Node, example},
    support::{PATIENCE, in_lab},
};

/// A node, its address, and the MED it gives each of the service addresses.
const NODES: [(&str, &str, [u32; 3]); 3] = [
    ("w1", "2001:db8:6::11", [102, 101, 100]),
    ("w2", "2001:db8:7::12", [101, 100, 102]),
    ("w3", "2001:db8:8::13", [100, 102, 101]),
];

/// The routers of AS 65003.
const ROUTERS: [&str; 2] = ["2001:db8:1::1", "2001:db8:8::1"];

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

    scene.servers[0].kill()?;
    scene.ensure_table("w1's web server has stopped", [Is::Down, Is::Up, Is::Up])?;
    scene.ensure_answers("::3 is on its second node", ["w3", "w2", "w3"])?;
    let client = scene.net.host("client")?;
    client.run("ping", &["-c", "1", "-W", "2", NODES[0].1])?;
    scene.servers[0] = Nginx::start(scene.net.host("w1")?)?;
    scene.ensure_table("it has started again", [Is::Up; 3])?;
    scene.ensure_answers("::3 has returned", ["w3", "w2", "w1"])?;

    scene.net.unplug("w1")?;
    scene.ensure_table("w1 has crashed", [Is::Away, Is::Up, Is::Up])?;
    scene.ensure_answers("::3 is on its second node", ["w3", "w2", "w3"])?;
    scene.ensure_noticed_by(if bfd { "BFD" } else { "Hold timer" })?;
    scene.net.plug_in("w1")?;
    scene.ensure_table("w1 is back", [Is::Up; 3])?;

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

    scene.ensure_filtered()?;
    scene.ensure_one_route_server_is_enough()
}

/// All hosts, and what runs on them.
struct Scene {
    bird: Option<Bird>,
    frr: Option<Frr>,
    routers: Vec<Bird>,
    agents: Vec<Vipd>,
    servers: Vec<Nginx>,
    _bfd: Vec<Bfd>,
    net: Segments,
}

impl Scene {
    fn build(lab: &Lab, bfd: bool) -> Result<Self> {
        let net = Segments::build(
            lab,
            &[
                (
                    "s1",
                    &[
                        ("r1", &["2001:db8:1::1/64"]),
                        ("rs1", &["2001:db8:1::4/64"]),
                    ],
                ),
                (
                    "s6",
                    &[
                        ("r1", &["2001:db8:6::1/64"]),
                        ("w1", &["2001:db8:6::11/64"]),
                    ],
                ),
                (
                    "s7",
                    &[
                        ("r1", &["2001:db8:7::1/64"]),
                        ("w2", &["2001:db8:7::12/64"]),
                    ],
                ),
                (
                    "s8",
                    &[
                        ("r2", &["2001:db8:8::1/64"]),
                        ("rs2", &["2001:db8:8::5/64"]),
                        ("w3", &["2001:db8:8::13/64"]),
                    ],
                ),
                (
                    "core",
                    &[("r1", &["2001:db8:f::1/64"]), ("r2", &["2001:db8:f::2/64"])],
                ),
                (
                    "c",
                    &[
                        ("r2", &["2001:db8:c::1/64"]),
                        ("client", &["2001:db8:c::10/64"]),
                    ],
                ),
            ],
        )?;
        net.forward(&["r1", "r2"])?;
        // Everybody's gateway; next hops are never resolved by a default route.
        for (host, gateway) in [
            ("rs1", "2001:db8:1::1"),
            ("w1", "2001:db8:6::1"),
            ("w2", "2001:db8:7::1"),
            ("w3", "2001:db8:8::1"),
            ("rs2", "2001:db8:8::1"),
            ("client", "2001:db8:c::1"),
        ] {
            net.host(host)?.ip(&format!(
                "route add default via {gateway}\nroute add 2001:db8::/44 via {gateway}\n"
            ))?;
        }
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
        let bird = Bird::start(net.host("rs1")?, &bird(bfd))?;
        let (text, timers) = frr(bfd);
        let frr = match bfd {
            true => Frr::start_with_bfd(net.host("rs2")?, &text, &timers)?,
            false => Frr::start(net.host("rs2")?, &text)?,
        };
        let mut scene = Self {
            bird: Some(bird),
            frr: Some(frr),
            routers: routers.into(),
            agents: Vec::new(),
            servers: Vec::new(),
            _bfd: Vec::new(),
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
            self._bfd.push(Bfd::start(host, &text)?);
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

    /// Whatever else a node announces goes no farther than to the route servers.
    fn ensure_filtered(&self) -> Result<()> {
        let host = self.net.host("w1")?;
        let text = fs::read_to_string(host.dir().join("vipd.toml"))?;
        let more = text.replace("vips = [", "vips = [\"2001:db8:31::1\", ");
        self.agents[0].reload(&more)?;
        let peer = wait_until("four are announced", PATIENCE, || {
            let peer = self.agents[0].peer("rs1")?;
            ensure!(peer["advertised"]["IPv6 unicast"] == 4, "{peer}");
            Ok(peer)
        })?;
        ensure!(peer["state"] == "Established", "{peer}");
        if let Some(bird) = &self.bird {
            let routes = bird.routes("2001:db8:31::1/128")?;
            ensure!(routes.is_empty(), "{routes:?}");
        }
        self.agents[0].reload(&text)?;
        Ok(())
    }

    /// Nothing changes for clients when either route server stops.
    fn ensure_one_route_server_is_enough(&mut self) -> Result<()> {
        let probes = Probes::start(self.net.host("client")?, (address(3), 80).into());
        self.frr = None;
        self.ensure_routers_miss_frr()?;
        self.ensure_answers("without FRR", ["w3", "w2", "w1"])?;
        wait_until("clients have asked many times", PATIENCE, || {
            let asked = probes.so_far().attempts.len();
            ensure!(asked > 500, "{asked} times");
            Ok(())
        })?;
        let report = probes.finish()?;
        let all = report.attempts.len();
        let other = (report.attempts.iter()).find(|a| a.outcome.as_deref() != Ok("w1"));
        ensure!(other.is_none(), "of {all}: {other:?}");
        Ok(())
    }

    /// Waits until the routers have lost their session with FRR.
    fn ensure_routers_miss_frr(&self) -> Result<()> {
        wait_until("the routers have noticed", PATIENCE, || {
            self.routers.iter().try_for_each(|router| {
                let session = router.session("rs2")?;
                ensure!(session.info != "Established", "{session:?}");
                Ok(())
            })
        })
    }
}

fn address(digit: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x30, 0, 0, 0, 0, digit)
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

/// A router of AS 65003, which takes what the route servers have, and finds the
/// way to the next hops by its own routes.
fn router(number: usize, routes: &[&str]) -> String {
    let own = ROUTERS[number];
    let routes: String = (routes.iter())
        .map(|route| format!("route 2001:db8:{route}; "))
        .collect();
    let session = |name: &str, address: &str| {
        format!(
            "protocol bgp {name} {{\n\
             local {own} as 65003; neighbor {address} as 65002; multihop 10;\n\
             hold time 6; connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
             ipv6 {{ import all; export none; gateway recursive; }};\n}}\n"
        )
    };
    format!(
        "log stderr all;\nrouter id 192.0.2.10{number};\n\
         timeformat route iso short ms;\ntimeformat protocol iso short ms;\n\
         protocol device {{ }}\nprotocol direct {{ ipv6; }}\n\
         protocol static {{ ipv6; {routes} }}\n\
         protocol kernel {{ ipv6 {{ export where source ~ [RTS_BGP, RTS_STATIC]; }}; }}\n{}{}",
        session("rs1", "2001:db8:1::4"),
        session("rs2", "2001:db8:8::5"),
    )
}

/// The route server rs1: hosts of 2001:db8:30::/64 only, ten of each node, and the
/// best of them for the routers.
fn bird(bfd: bool) -> String {
    let mut text = "log stderr all;\nrouter id 192.0.2.4;\n\
        timeformat route iso short ms;\ntimeformat protocol iso short ms;\n\
        protocol device { }\nprotocol direct { ipv6; }\n\
        protocol static { ipv6; route 2001:db8::/44 via 2001:db8:1::1; }\n\
        template bgp session {\n\
        debug { states, events }; local 2001:db8:1::4 as 65002; multihop 10; rs client;\n\
        hold time 6; keepalive time 2;\n\
        connect delay time 1; connect retry time 1; error wait time 1, 2;\n}\n"
        .to_owned();
    let mut watched = String::new();
    if bfd {
        let auth = "authentication meticulous keyed sha1; password \"as-bird-has-it\" { id 1; };";
        text += &format!("protocol bfd {{ multihop {{ {BIRD_BFD_TIMING} {auth} }}; }}\n");
        watched += "bfd on;";
    }
    for (name, address, _) in NODES {
        text += &format!(
            "protocol bgp {name} from session {{ neighbor {address} as 65001; {watched}\n\
             ipv6 {{ import limit 10 action restart;\n\
             import where net ~ [ 2001:db8:30::/64{{128,128}} ]; export none; }}; }}\n"
        );
    }
    for (number, address) in ROUTERS.iter().enumerate() {
        text += &format!(
            "protocol bgp r{number} from session {{ neighbor {address} as 65003;\n\
             ipv6 {{ import none; export where source = RTS_BGP; }}; }}\n"
        );
    }
    text
}

/// The same for rs2, and the BFD of it.
fn frr(bfd: bool) -> (String, String) {
    let mut neighbours = String::new();
    let mut activated = String::new();
    let nodes = NODES.iter().map(|(_, address, _)| (*address, 65001));
    for (address, number) in nodes.chain(ROUTERS.map(|router| (router, 65003))) {
        neighbours += &format!(
            " neighbor {address} remote-as {number}\n neighbor {address} ebgp-multihop 10\n \
             neighbor {address} timers 2 6\n neighbor {address} timers connect 1\n \
             neighbor {address} advertisement-interval 0\n"
        );
        activated +=
            &format!("  neighbor {address} activate\n  neighbor {address} route-server-client\n");
        if number == 65001 {
            activated += &format!(
                "  neighbor {address} prefix-list services in\n  \
                 neighbor {address} maximum-prefix 10\n"
            );
            if bfd {
                neighbours += &format!(" neighbor {address} bfd profile nodes\n");
            }
        }
    }
    let timers = match bfd {
        true => format!("bfd\n profile nodes\n{FRR_BFD_TIMING} !\n!\n"),
        false => String::new(),
    };
    let text = format!(
        "{timers}ipv6 prefix-list services seq 5 permit 2001:db8:30::/64 ge 128\n\
         router bgp 65002\n bgp router-id 192.0.2.5\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n{neighbours} address-family ipv6 unicast\n{activated} \
         exit-address-family\n"
    );
    (text, timers)
}
