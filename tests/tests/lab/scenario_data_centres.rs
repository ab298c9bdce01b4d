//! Two data centres behind two upstreams each, by examples/data-centres.toml: the
//! story of docs/scenarios/data-centres.md, line by line, with BFD and by timers
//! alone.
//!
//! ```text
//!                 client --- core
//!        +----------+---------+----------+
//!     carrier1  carrier2   carrier3  carrier4     BIRD, FRR, BIRD, BIRD
//!        +----+-----+         +----+-----+
//!      g1, lb1, b1, b2      g2, lb2, b3, b4
//! ```

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{
    BIRD_BFD_TIMING, Bfd, Bird, Decapsulator, FRR_BFD_TIMING, Frr, Lab, Nginx, Probes, Segments,
    Vipd, ask, wait_until,
};

use crate::{
    examples::{Node, example},
    support::{PATIENCE, in_lab, wait_for},
};

const WEB: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
const API: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 10);
/// An address of the block that nobody has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 99);

const BLOCK: &str = "198.18.0.0/23";
/// What only the first site announces.
const NARROW: &str = "198.18.0.0/24";

/// A death is noticed within this time (the cloud's own check).
const BOUND: Duration = Duration::from_secs(11);
/// The example has minutes.
const HOLD_DOWN: Duration = Duration::from_secs(30);

/// Each site: its balancer, its gateway, its carriers with AS numbers, and its
/// backends, all with the last octets of their addresses.
struct SitePlan {
    name: &'static str,
    balancer: (&'static str, u8),
    gateway: (&'static str, u8),
    carriers: [(&'static str, u8, u32); 2],
    backends: [(&'static str, u8); 2],
}

const SITES: [SitePlan; 2] = [
    SitePlan {
        name: "site1",
        balancer: ("lb1", 11),
        gateway: ("g1", 3),
        carriers: [("carrier1", 1, 64501), ("carrier2", 2, 64502)],
        backends: [("b1", 21), ("b2", 22)],
    },
    SitePlan {
        name: "site2",
        balancer: ("lb2", 139),
        gateway: ("g2", 131),
        carriers: [("carrier3", 129, 64503), ("carrier4", 130, 64504)],
        backends: [("b3", 149), ("b4", 150)],
    },
];

#[test]
fn two_data_centres_behind_two_upstreams_each_with_bfd() {
    in_lab(|lab| story(lab, true));
}

#[test]
fn two_data_centres_behind_two_upstreams_each_by_timers_alone() {
    in_lab(|lab| story(lab, false));
}

fn story(lab: &Lab, bfd: bool) -> Result<()> {
    let mut scene = Scene::build(lab, bfd)?;
    scene.wait_for_core("both sites are up", NARROW, &[64501, 64502])?;
    scene.wait_for_core("both sites are up", BLOCK, &[64501, 64502, 64503, 64504])?;
    scene.ensure_answers(WEB, "clients are at the preferred site", &["b1", "b2"])?;
    scene.ensure_shares()?;
    scene.ensure_no_circle()?;

    let since = scene.core.routes(NARROW)?.first().and_then(|r| r.since);
    scene.kill_server("b1")?;
    scene.ensure_answers(WEB, "a backend has died, the other carries on", &["b2"])?;
    let now = scene.core.routes(NARROW)?.first().and_then(|r| r.since);
    let moved = since.zip(now).context("two times")?;
    ensure!(
        moved.0.abs_diff(moved.1) < Duration::from_millis(100),
        "the route was announced anew: {moved:?}"
    );

    let died = Instant::now();
    scene.kill_server("b2")?;
    scene.wait_for_core("no backend of site 1 is left", NARROW, &[])?;
    let (took, worse) = (died.elapsed(), Instant::now());
    ensure!(took <= BOUND, "noticed after {took:?}");
    scene.ensure_answers(WEB, "the other site has the traffic", &["b3", "b4"])?;
    scene.ensure_one_improvement_after_hold_down(worse)?;

    scene.ensure_one_carrier_is_enough()?;

    scene.net.unplug("lb1")?;
    scene.wait_for_core("all upstreams leave the site", BLOCK, &[64503, 64504])?;
    scene.ensure_answers(WEB, "the other site has the traffic", &["b3", "b4"])?;
    scene.net.plug_in("lb1")?;
    scene.wait_for_core("it is back", BLOCK, &[64501, 64502, 64503, 64504])?;
    scene.ensure_answers(WEB, "clients are back", &["b1", "b2"])?;

    scene.ensure_refusals_are_told()
}

struct Scene {
    core: Bird,
    birds: Vec<Bird>,
    frr: Frr,
    agents: Vec<Vipd>,
    servers: Vec<(&'static str, Nginx)>,
    _bfd: Vec<Bfd>,
    _decapsulators: Vec<Decapsulator>,
    net: Segments,
    bfd: bool,
}

impl Scene {
    fn build(lab: &Lab, bfd: bool) -> Result<Self> {
        let net = wire(lab)?;
        let core = Bird::start(net.host("core")?, &core(bfd))?;
        let mut birds = Vec::new();
        for site in &SITES {
            for (i, (name, ..)) in site.carriers.iter().enumerate() {
                if *name != "carrier2" {
                    birds.push(Bird::start(net.host(name)?, &carrier(site, i, bfd, ""))?);
                }
            }
            let gateway = net.host(site.gateway.0)?;
            birds.push(Bird::start(gateway, &self::gateway(site, bfd))?);
        }
        let (text, timers) = frr(&SITES[0], bfd);
        let carrier2 = net.host("carrier2")?;
        let frr = match bfd {
            true => Frr::start_with_bfd(carrier2, &text, &timers)?,
            false => Frr::start(carrier2, &text)?,
        };
        let mut scene = Self {
            core,
            birds,
            frr,
            agents: Vec::new(),
            servers: Vec::new(),
            _bfd: Vec::new(),
            _decapsulators: Vec::new(),
            net,
            bfd,
        };
        for site in &SITES {
            scene.start_site(site)?;
        }
        Ok(scene)
    }

    fn start_site(&mut self, site: &SitePlan) -> Result<()> {
        for (name, _) in site.backends {
            let host = self.net.host(name)?;
            host.ip(&format!("addr add {WEB} dev lo\naddr add {API} dev lo\n"))?;
            self.servers.push((name, Nginx::start(host)?));
            let sources = SITES.map(|site| site_address(site.balancer.1) + "/32");
            let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
            let decapsulator = Decapsulator::attach_to(host, site.name, &sources)?;
            self._decapsulators.push(decapsulator);
        }
        let host = self.net.host(site.balancer.0)?;
        host.write_secret("cluster.secret", "00112233445566778899aabbccddeeff\n")?;
        let text = config(host, site, self.bfd)?;
        self.agents.push(Vipd::start(host, &text)?);
        if self.bfd {
            self._bfd.push(Bfd::start(host, &text)?);
        }
        Ok(())
    }

    fn kill_server(&mut self, name: &str) -> Result<()> {
        let mut servers = self.servers.iter_mut();
        let found = servers.find(|(of, _)| *of == name).context("no server")?;
        found.1.kill()
    }

    fn start_server(&mut self, name: &'static str) -> Result<()> {
        let server = Nginx::start(self.net.host(name)?)?;
        self.servers.retain(|(of, _)| *of != name);
        self.servers.push((name, server));
        Ok(())
    }

    /// Waits until the core has the prefix by just these carriers.
    fn wait_for_core(&self, sentence: &str, prefix: &str, carriers: &[u32]) -> Result<()> {
        wait_until(&format!("{sentence}: {prefix}"), 4 * PATIENCE, || {
            let routes = self.core.routes(prefix)?;
            let mut by: Vec<u32> = (routes.iter())
                .filter_map(|route| route.attribute("BGP.as_path"))
                .filter_map(|path| path.split(' ').next()?.parse().ok())
                .collect();
            by.sort_unstable();
            ensure!(by == carriers, "the core has it by {by:?}");
            Ok(())
        })
    }

    /// Waits until a hundred questions in a row are answered by these alone, and by
    /// each of them.
    fn ensure_answers(&self, vip: Ipv4Addr, sentence: &str, wanted: &[&str]) -> Result<()> {
        wait_until(sentence, 2 * PATIENCE, || {
            let counts = self.ask(vip, 60)?;
            let names: Vec<_> = counts.iter().map(|(name, _)| name.as_str()).collect();
            ensure!(names == wanted, "{vip} is answered by {counts:?}");
            Ok(())
        })
    }

    /// Who answers so many questions, and how often, by name.
    fn ask(&self, vip: Ipv4Addr, questions: usize) -> Result<Vec<(String, usize)>> {
        let client = self.net.host("client")?;
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..questions {
            *counts.entry(ask(client, (vip, 80).into())?).or_insert(0) += 1;
        }
        Ok(counts.into_iter().collect())
    }

    /// Three of four connections stay at the first site: 300 of 400, give or take
    /// far more than chance does.
    fn ensure_shares(&self) -> Result<()> {
        wait_until("the other site's backend is reached", 2 * PATIENCE, || {
            self.agents[0].ensure_backend("b3", true)?;
            // What is decided is told before it is in the maps.
            self.agents[0].ensure_in_force()
        })?;
        let counts = self.ask(API, 400)?;
        let here = counts.iter().find(|(name, _)| name == "b2");
        let here = here.map_or(0, |(_, count)| *count);
        ensure!(
            counts.len() == 2 && (255..=345).contains(&here),
            "{counts:?}\n{}",
            self.agents[0].command("why", &[&API.to_string()])?
        );
        Ok(())
    }

    /// What is for an address of the block that nobody has ends at the balancer.
    fn ensure_no_circle(&self) -> Result<()> {
        let client = self.net.host("client")?;
        let address = NOBODY.to_string();
        let ping = ["-c", "1", "-W", "2", &address];
        let said = format!("{:#}", client.run("ping", &ping).err().context("answered")?);
        ensure!(
            said.contains("From 198.51.100.11") && !said.contains("Time to live"),
            "{said}"
        );
        Ok(())
    }

    /// The servers return one after the other: nothing is announced before the
    /// hold-down is over, then everything once; and the penalty that the status
    /// shows is the one that FRR has counted.
    fn ensure_one_improvement_after_hold_down(&mut self, worse: Instant) -> Result<()> {
        self.start_server("b2")?;
        let held = wait_until("the improvement is held down", PATIENCE, || {
            let status = self.agents[0].status()?;
            let held = aggregate(&status, NARROW)?["damping"].clone();
            ensure!(held["wait_seconds"].as_f64() > Some(0.0), "{status}");
            Ok(held)
        })?;
        ensure!(self.core.routes(NARROW)?.is_empty(), "held down: {held}");
        let ours = held["penalty"].as_f64().context("a penalty")?;
        let theirs = self.frr.vtysh(&format!("show bgp ipv4 unicast {NARROW}"))?;
        let theirs = theirs.split("penalty ").nth(1).context("no penalty")?;
        let theirs: f64 = theirs.split(',').next().unwrap_or_default().parse()?;
        ensure!(
            (ours - theirs).abs() < 100.0,
            "{ours} of us, {theirs} of FRR"
        );

        self.start_server("b1")?;
        self.wait_for_core("after the hold-down", NARROW, &[64501, 64502])?;
        let took = worse.elapsed();
        ensure!(
            took > HOLD_DOWN - Duration::from_secs(5),
            "already after {took:?}"
        );
        let log = self.agents[0].log();
        let entered = log.matches(&format!("{NARROW} is announced")).count();
        ensure!(
            entered == 2,
            "at the start and now: {entered} times in {log}"
        );
        self.ensure_answers(WEB, "clients are back at the preferred site", &["b1", "b2"])?;
        // Else the next withdrawal would be one too many for a quarter of an hour.
        let text = fs::read_to_string(self.net.host("lb1")?.dir().join("vipd.toml"))?;
        let forgetful = text.replace("[bgp.damping]\n", "[bgp.damping]\nhalf_life = \"2s\"\n");
        ensure!(forgetful != text, "{text}");
        self.agents[0].reload(&forgetful).map(drop)
    }

    /// A carrier of the first site dies, silently: connections go on by the other.
    fn ensure_one_carrier_is_enough(&self) -> Result<()> {
        self.net.unplug("carrier1")?;
        self.wait_for_core("carrier1 is gone", NARROW, &[64502])?;
        wait_until("the site's own way out has moved", PATIENCE, || {
            self.ask(WEB, 5)
        })?;
        let probes = Probes::start(self.net.host("client")?, (WEB, 80).into());
        self.ensure_answers(WEB, "by the other", &["b1", "b2"])?;
        let report = probes.finish()?;
        let lost = report.attempts.iter().find(|a| a.outcome.is_err());
        ensure!(lost.is_none(), "{lost:?}");
        self.net.plug_in("carrier1")?;
        self.wait_for_core("it is back", NARROW, &[64501, 64502])
    }

    /// A carrier that takes fewer prefixes, and one that knows nothing of us.
    fn ensure_refusals_are_told(&self) -> Result<()> {
        let (site, agent) = (&SITES[1], &self.agents[1]);
        let limit = "import limit 0 action disable;";
        let [_, _, carrier3, carrier4, _] = &self.birds[..] else {
            anyhow::bail!("five instances of BIRD");
        };
        carrier3.configure(&carrier(site, 0, self.bfd, limit))?;
        carrier3.birdc("restart lb2")?;
        let told = |name: &str, words: &str| {
            wait_for(agent, name, words, |peer| {
                peer["state"] != "Established" && peer.to_string().contains(words)
            })
        };
        told("carrier3", "Maximum Number of Prefixes Reached")?;
        carrier4.birdc("disable lb2")?;
        told("carrier4", "Administrative Shutdown")?;
        Ok(())
    }
}

fn aggregate<'a>(status: &'a Value, prefix: &str) -> Result<&'a Value> {
    let mut all = status["aggregates"].as_array().into_iter().flatten();
    all.find(|aggregate| aggregate["prefix"] == prefix)
        .with_context(|| format!("no {prefix} in {status}"))
}

fn site_address(octet: u8) -> String {
    Ipv4Addr::new(198, 51, 100, octet).to_string()
}

/// A carrier's address towards the core.
fn core_address(number: u32) -> String {
    format!("192.0.2.{}", number - 64490)
}

fn wire(lab: &Lab) -> Result<Segments> {
    let mut members: Vec<(&str, Vec<(&str, String)>)> = vec![
        (
            "c",
            vec![
                ("core", "203.0.113.1/24".to_owned()),
                ("client", "203.0.113.10/24".to_owned()),
            ],
        ),
        ("x", vec![("core", "192.0.2.1/24".to_owned())]),
    ];
    for site in &SITES {
        let all = [site.balancer, site.gateway].into_iter();
        let all = all.chain(site.backends);
        let all = all.chain(site.carriers.map(|(name, octet, _)| (name, octet)));
        let all = all.map(|(name, octet)| (name, site_address(octet) + "/25"));
        members.push((site.name, all.collect()));
        for (name, _, number) in site.carriers {
            members[1].1.push((name, core_address(number) + "/24"));
        }
    }
    let borrowed: Vec<Vec<(&str, [&str; 1])>> = members
        .iter()
        .map(|(_, hosts)| {
            hosts
                .iter()
                .map(|(host, a)| (*host, [a.as_str()]))
                .collect()
        })
        .collect();
    let lists: Vec<Vec<(&str, &[&str])>> = borrowed
        .iter()
        .map(|hosts| hosts.iter().map(|(host, a)| (*host, &a[..])).collect())
        .collect();
    let segments: Vec<_> = members
        .iter()
        .zip(&lists)
        .map(|((name, _), hosts)| (*name, hosts.as_slice()))
        .collect();
    let net = Segments::build(lab, &segments)?;
    net.forward(&["core", "g1", "g2", "lb1", "lb2"])?;
    net.forward(&["carrier1", "carrier2", "carrier3", "carrier4"])?;
    net.host("client")?
        .ip("route add default via 203.0.113.1\n")?;
    for site in &SITES {
        let gateway = site_address(site.gateway.1);
        for (name, _) in site.backends.into_iter().chain([site.balancer]) {
            let host = net.host(name)?;
            host.ip(&format!("route add default via {gateway}\n"))?;
            host.sysctl(&[
                ("net/ipv4/conf/all/arp_ignore", "1"),
                ("net/ipv4/conf/all/arp_announce", "2"),
            ])?;
        }
    }
    Ok(net)
}

/// The example, for this site.
fn config(host: &vipd_tests::Host, site: &SitePlan, bfd: bool) -> Result<String> {
    let mut text = example("data-centres", &Node::forwarding(host))?
        .replace("\"2m\"", &format!("\"{}s\"", HOLD_DOWN.as_secs()));
    let timing = match bfd {
        true => "bfd = { min_tx = \"100ms\", min_rx = \"100ms\", multiplier = 20 }",
        false => "bfd = false",
    };
    text = text.replace("bfd = true", timing);
    if site.name == "site2" {
        let backend = |name, octet| format!("\"{name}\"\naddress = \"{}\"\n", site_address(octet));
        let narrow = |prefix| format!("[[bgp.aggregate]]\nprefix = \"{prefix}\"\n");
        for (old, new) in [
            (narrow(NARROW), String::new()),
            (narrow("198.18.1.0/24"), String::new()),
            (
                "peers = [\"carrier2\"]\nprepend = 1".into(),
                "prepend = 2".into(),
            ),
            ("64502:80".into(), "64500:80".into()),
            ("\"lb1\"".into(), "\"lb2\"".into()),
            ("\"site1\"".into(), "\"site2\"".into()),
            ("\"carrier1\"".into(), "\"carrier3\"".into()),
            ("\"carrier2\"".into(), "\"carrier4\"".into()),
            ("as = 64501".into(), "as = 64503".into()),
            ("as = 64502".into(), "as = 64504".into()),
            ("\"198.51.100.1\"".into(), "\"198.51.100.129\"".into()),
            ("\"198.51.100.2\"".into(), "\"198.51.100.130\"".into()),
            ("\"198.51.100.11\"".into(), "\"198.51.100.139\"".into()),
            (
                backend("b2", 22) + "weight = 3",
                backend("b3", 149) + "weight = 3 ",
            ),
            (
                backend("b3", 149) + "weight = 1",
                backend("b2", 22) + "weight = 1 ",
            ),
            (backend("b1", 21), backend("b4", 150)),
            (backend("b2", 22) + "\n", backend("b3", 149) + "\n"),
        ] {
            ensure!(text.contains(&old), "{old} in {text}");
            text = text.replace(&old, &new);
        }
    }
    Ok(text)
}

const SHORT: &str = "hold time 6; connect delay time 1; connect retry time 1; \
    error wait time 1, 2; debug { states, events };";

fn head(router_id: &str, bfd: bool) -> String {
    let watched = match bfd {
        true => format!("protocol bfd {{ interface \"*\" {{ {BIRD_BFD_TIMING} }}; }}\n"),
        false => String::new(),
    };
    format!(
        "log stderr all;\nrouter id {router_id};\n\
         timeformat route iso short ms;\ntimeformat protocol iso short ms;\n\
         protocol device {{ }}\nprotocol direct {{ ipv4; }}\n\
         protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}\n{watched}"
    )
}

fn watched(bfd: bool) -> &'static str {
    if bfd { "bfd on;" } else { "" }
}

/// The world behind the carriers.
fn core(bfd: bool) -> String {
    let carriers = SITES.iter().flat_map(|site| site.carriers);
    let sessions: String = carriers
        .map(|(name, _, number)| {
            format!(
                "protocol bgp {name} {{ local 192.0.2.1 as 64496; neighbor {} as {number};\n\
                 {SHORT} {} ipv4 {{ import all; export where net ~ [ 203.0.113.0/24, 198.51.100.0/24+ ]; }}; }}\n",
                core_address(number),
                watched(bfd)
            )
        })
        .collect();
    head("203.0.113.1", bfd) + &sessions
}

/// A carrier that takes nothing longer than /24 of a site.
fn carrier(site: &SitePlan, index: usize, bfd: bool, limit: &str) -> String {
    let (_, octet, number) = site.carriers[index];
    let own = site_address(octet);
    let watched = watched(bfd);
    let ((balancer, lb), (gateway, g)) = (site.balancer, site.gateway);
    let (lb, g) = (site_address(lb), site_address(g));
    head(&own, bfd)
        + &format!(
            "protocol bgp core {{ local {} as {number}; neighbor 192.0.2.1 as 64496;\n\
             {SHORT} {watched} ipv4 {{ import all; next hop self; export where source ~ [RTS_BGP, RTS_DEVICE]; }}; }}\n\
             protocol bgp {balancer} {{ local {own} as {number}; neighbor {lb} as 64500;\n\
             {SHORT} {watched} ipv4 {{ {limit} import where net.len <= 24; export none; }}; }}\n\
             protocol bgp {gateway} {{ local {own} as {number}; neighbor {g} as 64510;\n\
             {SHORT} {watched} ipv4 {{ import none; next hop self; export where source = RTS_BGP; }}; }}\n",
            core_address(number)
        )
}

/// The way out of a site, by either carrier.
fn gateway(site: &SitePlan, bfd: bool) -> String {
    let own = site_address(site.gateway.1);
    let sessions: String = (site.carriers.iter())
        .map(|(name, octet, number)| {
            format!(
                "protocol bgp {name} {{ local {own} as 64510; neighbor {} as {number};\n\
                 {SHORT} {} ipv4 {{ import all; export none; }}; }}\n",
                site_address(*octet),
                watched(bfd)
            )
        })
        .collect();
    head(&own, bfd) + &sessions
}

/// A carrier that damps routes that flap, and its BFD.
fn frr(site: &SitePlan, bfd: bool) -> (String, String) {
    let (_, octet, number) = site.carriers[1];
    let neighbours = [
        ("192.0.2.1".to_owned(), 64496),
        (site_address(site.balancer.1), 64500),
        (site_address(site.gateway.1), 64510),
    ];
    let mut sessions = String::new();
    let mut activated = String::new();
    for (address, number) in &neighbours {
        sessions += &format!(
            " neighbor {address} remote-as {number}\n neighbor {address} timers 2 6\n \
             neighbor {address} timers connect 1\n neighbor {address} advertisement-interval 0\n"
        );
        if bfd {
            sessions += &format!(" neighbor {address} bfd profile all\n");
        }
        activated += &format!("  neighbor {address} activate\n");
    }
    activated += &format!("  neighbor {} prefix-list short in\n", neighbours[1].0);
    let timers = match bfd {
        true => format!("bfd\n profile all\n{FRR_BFD_TIMING} !\n!\n"),
        false => String::new(),
    };
    let text = format!(
        "{timers}ip prefix-list short seq 5 permit 0.0.0.0/0 le 24\n\
         router bgp {number}\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n{sessions} address-family ipv4 unicast\n  \
         bgp dampening 15 750 2000 60\n  redistribute connected\n{activated} exit-address-family\n",
        site_address(octet)
    );
    (text, timers)
}
