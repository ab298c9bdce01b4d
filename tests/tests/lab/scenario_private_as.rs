//! The story of docs/scenarios/floating-ip-private-as.md: three nodes announce
//! one address to a provider with a private AS, over two hops and with a
//! password, in tiers by prepending.
//!
//! ```text
//!   client -- router (BIRD, 169.254.169.254, AS 64515) -- switch -- lb1, lb2, lb3
//!                                                              A    B    C
//! ```
//!
//! The provider's table is 3,000 routes here, and its hold time, after it was
//! seen to be 240 s, 3 s: the numbers of the story would take hours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{Bird, BirdRoute, Host, Machine, Nginx, Rack, Size, Vipd, ask, wait_until};

use crate::support::{PATIENCE, VIP, VIP6, in_lab, wait_for};

const EXAMPLE: &str = include_str!("../../../examples/floating-ip-private-as.toml");
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(VIP), IpAddr::V6(VIP6)];
const ROUTES: u64 = 3000;
const PASSWORD: &str = "swordfish";
/// What the provider sees of each node's announcements.
const PREFIXES: [&str; 2] = ["198.51.100.10/32", "2001:db8:100::/64"];

#[test]
fn a_floating_address_with_a_private_as_has_its_tiers() {
    in_lab(|lab| {
        let size = Size {
            balancers: 3,
            backends: 0,
        };
        let rack = Rack::build(lab, size)?;
        rack.router.ip("addr add 169.254.169.254/32 dev lo\n\
                        addr add 2001:db8:ffff::1/128 dev lo\n")?;
        let provider = Bird::start(&rack.router, &provider(&rack, 240, PASSWORD))?;
        // The kernel here makes no dummy interface: one by its name stands for it.
        rack.balancers[0]
            .host
            .ip("link add vipd0 type veth peer name other\n\
                                   link set vipd0 up\nlink set other up\n")?;
        let nodes = (0..3)
            .map(|index| boot(&rack, index))
            .collect::<Result<Vec<_>>>()?;
        for node in &nodes {
            wait_for_sessions(node)?;
        }

        // Hold time and keepalive as agreed.
        let session = nodes[0].agent.show_bgp(&["provider"])?;
        for words in [
            "240 s agreed",
            "there                  AS 64515",
            "graceful restart",
        ] {
            ensure!(session.contains(words), "no `{words}` in {session}");
        }
        let json = nodes[0].agent.show_bgp(&["provider", "--json"])?;
        ensure!(json.contains("\"keepalive_seconds\": 80.0"), "{json}");

        // From here on a death is noticed after 3 s.
        provider.configure(&self::provider(&rack, 3, PASSWORD))?;
        for node in &nodes {
            wait_for(&node.agent, "provider", "the hold time is 3 s", |peer| {
                peer["state"] == "Established" && peer["hold_time_seconds"] == 3
            })?;
        }
        wait_for_node(&rack, "lb1")?;
        ensure_bound(&nodes)?;
        for node in &nodes {
            for (name, family) in [("provider", "IPv4"), ("provider-v6", "IPv6")] {
                wait_for(&node.agent, name, "one of one is announced", |peer| {
                    peer["wanted"] == 1 && peer["advertised"][format!("{family} unicast")] == 1
                })?;
            }
        }
        ensure_tiers(&rack, &provider)?;
        ensure_nothing_else(&provider)?;
        ensure_spread_without_tiers(&rack, &provider, &nodes)?;
        ensure_counted(&provider, &nodes[0].agent)?;
        let routes = rack.balancers[0].host.run("ip", &["route"])?;
        ensure!(!routes.contains("10.0."), "imported: {routes}");

        // All at A; A dies, B has it; B dies too, C has it; A returns, A has it.
        rack.unplug_silently(&rack.balancers[0])?;
        wait_for_node(&rack, "lb2")?;
        rack.unplug_silently(&rack.balancers[1])?;
        wait_for_node(&rack, "lb3")?;
        rack.plug_in(&rack.balancers[0])?;
        wait_for_node(&rack, "lb1")?;
        rack.plug_in(&rack.balancers[1])?;
        wait_for_sessions(&nodes[1])?;

        // The interface of A goes down, and up again.
        let a = &rack.balancers[0].host;
        a.ip("link set vipd0 down\n")?;
        wait_for_node(&rack, "lb2")?;
        ensure_withdrawn(&provider, "lb1")?;
        ensure_reason(
            &nodes[0],
            "the interface vipd0 is down: `ip link set vipd0 up`",
        )?;
        let sessions = &nodes[0].agent.status()?["sessions"];
        ensure!(sessions["state"] == "healthy", "{sessions}");
        a.ip("link set vipd0 up\n")?;
        wait_for_node(&rack, "lb1")?;

        // Its addresses are taken away, and put back.
        take_away(a)?;
        wait_for_node(&rack, "lb2")?;
        ensure_withdrawn(&provider, "lb1")?;
        ensure_reason(&nodes[0], "somebody has taken the address from vipd0")?;
        a.ip("addr add 198.51.100.10/32 dev vipd0\naddr add 2001:db8:100::10/128 dev vipd0\n")?;
        wait_for_node(&rack, "lb1")?;

        ensure_restart_flaps_nothing(&rack, &provider, nodes)
    });
}

#[test]
fn trouble_with_the_provider_is_told_plainly() {
    in_lab(|lab| {
        let size = Size {
            balancers: 1,
            backends: 0,
        };
        let rack = Rack::build(lab, size)?;
        rack.router.ip("addr add 169.254.169.254/32 dev lo\n\
                        addr add 2001:db8:ffff::1/128 dev lo\n")?;
        // It knows others there, and not us; by IPv6 it speaks with nobody.
        let others =
            "protocol bgp somebody from balancer { neighbor 192.0.2.99 as 64999; passive; }";
        let others = Bird::router_config(64515) + others;
        let provider = Bird::start(&rack.router, &others)?;
        let text = config(&rack.balancers[0], 0);
        let unsigned = text.replace("password_file = \"provider.md5\"\n", "");
        ensure!(unsigned != text, "{text}");
        let node = start(&rack, 0, &unsigned)?;
        let told_of = |peer: &str, sentence: &str, words: &[&str]| {
            wait_for(&node.agent, peer, sentence, |peer| {
                let of = |key: &str| peer[key].as_str().unwrap_or_default().to_owned();
                let told = of("last_error") + &of("hint");
                words.iter().all(|word| told.contains(word))
            })
        };
        let told = |sentence: &str, words: &[&str]| told_of("provider", sentence, words);
        told("not set up there", &["it may not know us as a neighbour"])?;
        let nobody = "nothing listens on [2001:db8:ffff::1]:179";
        told_of("provider-v6", "no BGP there", &[nobody])?;
        // Signed packets it drops without a word.
        node.agent.reload(&text)?;
        told(
            "not set up there, with a password",
            &[
                "no answer from",
                "differ or be missing there",
                "not be set up",
            ],
        )?;
        provider.configure(&self::provider(&rack, 240, "other"))?;
        told("the wrong password", &["the passwords differ"])?;
        let host = &rack.balancers[0].host;
        host.ip("rule add to 169.254.169.254 ipproto tcp dport 179 prohibit\n")?;
        told("the port is blocked here", &["this host forbids it"])?;
        host.ip("rule flush\nrule add lookup main\n")?;
        provider.configure(&self::provider(&rack, 240, PASSWORD))?;
        wait_for_sessions(&node)?;
        provider.birdc("disable lb1")?;
        wait_for(&node.agent, "provider", "its session has ended", |peer| {
            peer["state"] != "Established"
        })?;
        let nft = |rules: &str| rack.router.run("nft", &[rules]);
        nft("add table inet filter; \
             add chain inet filter input { type filter hook input priority 0; }; \
             add rule inet filter input tcp dport 179 drop; \
             add chain inet filter output { type filter hook output priority 0; }; \
             add rule inet filter output tcp dport 179 drop")?;
        provider.birdc("enable lb1")?;
        told(
            "the port is blocked on the way",
            &["no answer from 169.254.169.254:179", "port 179 is blocked"],
        )?;
        nft("delete table inet filter")?;
        wait_for_sessions(&node)?;
        ensure_told_once(&node)
    });
}

/// Whatever was wrong, each peer's log has it once, however often it was tried.
fn ensure_told_once(node: &Node) -> Result<()> {
    let log = node.agent.log();
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("no BGP session")) {
        let (_, words) = line.split_once(" WARN ").unwrap_or(("", line));
        *told.entry(words.to_owned()).or_default() += 1;
    }
    let flood = told.iter().find(|(_, times)| **times > 1);
    ensure!(flood.is_none() && !told.is_empty(), "{flood:?} in {log}");
    for words in [
        "it may not know us as a neighbour",
        "nothing listens on",
        "may differ or be missing there",
        "the passwords differ",
        "this host forbids it",
    ] {
        let kinds = told.keys().filter(|told| told.contains(words)).count();
        ensure!(kinds > 0, "`{words}` is not in {log}");
    }
    Ok(())
}

/// What runs on a node.
struct Node {
    agent: Vipd,
    _server: Nginx,
}

fn boot(rack: &Rack, index: usize) -> Result<Node> {
    start(rack, index, &config(&rack.balancers[index], index))
}

fn start(rack: &Rack, index: usize, config: &str) -> Result<Node> {
    let machine = &rack.balancers[index];
    machine
        .host
        .write_secret("provider.md5", &format!("{PASSWORD}\n"))?;
    Ok(Node {
        _server: Nginx::start(&machine.host)?,
        agent: Vipd::start(&machine.host, config)?,
    })
}

/// The example, as its head says to change it, with places of the lab's own.
fn config(machine: &Machine, index: usize) -> String {
    let number = 11 + index;
    // Busy processors answer late now and then; that is no death.
    let text = EXAMPLE
        .replace("timeout = \"500ms\"", "timeout = \"1s\"")
        .replace(
            "name = \"a\"",
            &format!("name = \"{}\"", ["a", "b", "c"][index]),
        )
        .replace("192.0.2.11", &format!("192.0.2.{number}"))
        .replace("2001:db8:1::11", &format!("2001:db8:1::{number}"))
        .replace("prepend = 0", &format!("prepend = {index}"));
    let dir = machine.host.dir();
    let dir = dir.display();
    format!(
        "{text}\n[control]\nsocket = \"{dir}/vipd.sock\"\n[state]\ndirectory = \"{dir}/state\"\n"
    )
}

/// The provider: a session per node and family, and a table that nobody wants.
fn provider(rack: &Rack, hold_time: u32, password: &str) -> String {
    let mut text = format!(
        "{}template bgp node {{
    hold time {hold_time};
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
    multihop 2;
    password \"{password}\";
}}
protocol static {{
    ipv4;
",
        Bird::router_config(64515)
    );
    for number in 0..ROUTES {
        let address = Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).unwrap_or(0) * 256);
        let _ = writeln!(text, "    route {address}/24 blackhole;");
    }
    text += "}\n";
    for Machine { host, ipv4, ipv6 } in &rack.balancers {
        let name = host.name();
        let _ = write!(
            text,
            "protocol bgp {name} from node {{
    local 169.254.169.254 as 64515;
    neighbor {ipv4} as 64512;
    ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
protocol bgp {name}v6 from node {{
    local 2001:db8:ffff::1 as 64515;
    neighbor {ipv6} as 64512;
    ipv6 {{ import all; export none; }};
}}
"
        );
    }
    text
}

fn wait_for_sessions(node: &Node) -> Result<()> {
    wait_until("both sessions are established", PATIENCE, || {
        let status = node.agent.status()?;
        let sessions = &status["sessions"];
        ensure!(
            sessions["state"] == "healthy",
            "{sessions}: {}",
            status["peers"]
        );
        Ok(())
    })
}

/// Waits until both addresses are answered by this node.
fn wait_for_node(rack: &Rack, name: &str) -> Result<()> {
    wait_until(&format!("{name} answers"), Duration::from_secs(30), || {
        for vip in ADDRESSES {
            let found = ask(&rack.client, (vip, 80).into())?;
            ensure!(found == name, "{vip} is answered by {found}");
        }
        Ok(())
    })
}

/// A announces plainly, B prepends its AS once, and C twice; each is itself the next
/// hop.
fn ensure_tiers(rack: &Rack, provider: &Bird) -> Result<()> {
    for (prefix, vip) in PREFIXES.into_iter().zip(ADDRESSES) {
        wait_until(&format!("{prefix} has three tiers"), PATIENCE, || {
            let routes = provider.routes(prefix)?;
            ensure!(routes.len() == 3, "{routes:?}");
            for route in &routes {
                let path = route.attribute("BGP.as_path").context("no path")?;
                let node = route.session.trim_end_matches("v6");
                let tier = match node {
                    "lb1" => 1,
                    "lb2" => 2,
                    _ => 3,
                };
                ensure!(path == vec!["64512"; tier].join(" "), "{route:?}");
                let hop = route.attribute("BGP.next_hop").context("no next hop")?;
                // A link-local address may follow.
                let hop = hop.split_whitespace().next().map(str::parse::<IpAddr>);
                let own = rack.machine(node)?.address_like(vip);
                ensure!(hop == Some(Ok(own)), "{route:?}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A node's own address is all that the provider has of it.
fn ensure_nothing_else(provider: &Bird) -> Result<()> {
    for session in ["lb1", "lb1v6"] {
        let count = provider.birdc(&format!("show route protocol {session} count"))?;
        ensure!(count.starts_with("1 of "), "{session}: {count}");
    }
    Ok(())
}

/// The provider's table is counted and dropped, each time it is sent.
fn ensure_counted(provider: &Bird, agent: &Vipd) -> Result<()> {
    let received = || {
        let peer = agent.peer("provider")?;
        peer["prefixes_received"]
            .as_u64()
            .with_context(|| peer.to_string())
    };
    let before = received()?;
    ensure!(before >= ROUTES, "{before} received");
    provider.birdc("reload out lb1")?;
    wait_until("it is counted again", PATIENCE, || {
        let now = received()?;
        ensure!(now >= before + ROUTES, "{now} received, {before} before");
        Ok(())
    })?;
    let session = agent.show_bgp(&["provider"])?;
    ensure!(session.contains("none is imported"), "{session}");
    Ok(())
}

/// What the node says of its first address.
fn ensure_reason(node: &Node, words: &str) -> Result<()> {
    wait_until(&format!("it says `{words}`"), PATIENCE, || {
        let status = node.agent.status()?;
        let vip = &status["vips"][0];
        let reason = vip["reason"].as_str().unwrap_or_default();
        ensure!(vip["announced"] == false && reason.contains(words), "{vip}");
        Ok(())
    })
}

/// An interface by that name is there on A alone: the others bind on loopback.
fn ensure_bound(nodes: &[Node]) -> Result<()> {
    for (node, interface) in nodes.iter().zip(["vipd0", "lo", "lo"]) {
        let status = node.agent.status()?;
        for vip in status["vips"].as_array().into_iter().flatten() {
            let bound = &vip["bound"];
            ensure!(
                bound["interface"] == interface && bound["by_vipd"] == true,
                "{vip}"
            );
        }
    }
    Ok(())
}

/// The provider has no route of this node.
fn ensure_withdrawn(provider: &Bird, node: &str) -> Result<()> {
    for prefix in PREFIXES {
        let routes = provider.routes(prefix)?;
        let left = routes.iter().find(|r| r.session.starts_with(node));
        ensure!(left.is_none(), "{prefix}: {left:?}");
    }
    Ok(())
}

/// Without tiers all three are equal to the provider: this one spreads.
fn ensure_spread_without_tiers(rack: &Rack, provider: &Bird, nodes: &[Node]) -> Result<()> {
    for (index, node) in nodes.iter().enumerate() {
        let text = config(&rack.balancers[index], index);
        let plain = text.replace(&format!("prepend = {index}"), "prepend = 0");
        node.agent.reload(&plain)?;
    }
    wait_until("all three answer", PATIENCE, || {
        for prefix in PREFIXES {
            let routes = provider.routes(prefix)?;
            let plain = |route: &&BirdRoute| route.attribute("BGP.as_path") == Some("64512");
            let equal = routes.iter().filter(plain).count();
            ensure!(equal == 3, "{routes:?}");
        }
        let mut answered = BTreeSet::new();
        for _ in 0..60 {
            answered.insert(ask(&rack.client, (VIP, 80).into())?);
        }
        ensure!(answered.len() == 3, "answered by {answered:?}");
        Ok(())
    })?;
    for (index, node) in nodes.iter().enumerate() {
        node.agent.reload(&config(&rack.balancers[index], index))?;
    }
    wait_for_node(rack, "lb1")
}

/// Somebody takes the addresses away.
fn take_away(host: &Host) -> Result<()> {
    host.ip("addr del 198.51.100.10/32 dev vipd0\naddr del 2001:db8:100::10/128 dev vipd0\n")
}

/// The agent of A is killed, and started again a moment later, and then it is told
/// to stop: neither its addresses nor its routes go, until it is told to remove
/// them.
fn ensure_restart_flaps_nothing(rack: &Rack, provider: &Bird, nodes: Vec<Node>) -> Result<()> {
    let mut nodes = nodes.into_iter();
    let mut a = nodes.next().context("no node")?;
    let at_a = || {
        for (prefix, session) in PREFIXES.into_iter().zip(["lb1", "lb1v6"]) {
            let routes = provider.routes(prefix)?;
            ensure!(
                routes.iter().any(|route| route.session == session),
                "{routes:?}"
            );
        }
        for vip in ADDRESSES {
            let found = ask(&rack.client, (vip, 80).into())?;
            ensure!(found == "lb1", "{vip} is answered by {found}");
        }
        Ok(())
    };
    at_a()?;
    for killed in [true, false] {
        match killed {
            true => a.agent.process().kill()?,
            false => drop(a.agent.process().terminate(PATIENCE)?),
        }
        for _ in 0..10 {
            at_a()?;
        }
        a.agent.start_again()?;
        // A look that fails is a flap, which is not waited for.
        let until = Instant::now() + PATIENCE;
        loop {
            at_a()?;
            let sessions = &a.agent.status()?["sessions"];
            if sessions["state"] == "healthy" {
                break;
            }
            ensure!(Instant::now() < until, "its sessions: {sessions}");
        }
        // And nothing goes when all that it knows has been told.
        for _ in 0..50 {
            at_a()?;
        }
        let log = a.agent.log();
        let (_, since) = log
            .rsplit_once("they are taken over")
            .context("nothing was taken over")?;
        ensure!(!since.contains("is withdrawn"), "{since}");
    }

    let text = config(&rack.balancers[0], 0);
    let remove = text.replace("local = \"keep\"", "local = \"remove\"");
    ensure!(remove != text, "{text}");
    // What others have put back is theirs: a reload binds it for vipd.
    take_away(&rack.balancers[0].host)?;
    wait_for_node(rack, "lb2")?;
    a.agent.reload(&remove)?;
    wait_for_node(rack, "lb1")?;
    a.agent.process().terminate(PATIENCE)?;
    wait_for_node(rack, "lb2")?;
    ensure_withdrawn(provider, "lb1")?;
    let bound = rack.balancers[0].host.run("ip", &["addr"])?;
    for vip in ADDRESSES {
        ensure!(!bound.contains(&format!(" {vip}/")), "{bound}");
    }
    a.agent.start_again()?;
    wait_for_node(rack, "lb1")
}
