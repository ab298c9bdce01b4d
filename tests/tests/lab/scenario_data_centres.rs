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

mod routers;
mod sites;

use std::{
    fs,
    net::Ipv4Addr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{
    Bfd, Bird, Decapsulator, Frr, Held, Lab, Nginx, Probes, Segments, Vipd, ask, wait_until,
};

use self::{
    routers::{carrier, core, frr},
    sites::{SITES, SitePlan, config, site_address, wire},
};
use crate::support::{PATIENCE, in_lab, wait_for};

const WEB: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
const API: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 10);
/// An address of the block that nobody has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 99);

const BLOCK: &str = "198.18.0.0/23";
/// What only the first site announces.
const NARROW: &str = "198.18.0.0/24";

/// A death is noticed within this time (the cloud's own check).
const BOUND: Duration = Duration::from_secs(11);
/// Nothing is lost so long after a carrier has died: BFD gives up after 2 s, the hold
/// time is 6 s, and routers take a moment.
const LOST_WITH_BFD: Duration = Duration::from_secs(6);
/// See [`LOST_WITH_BFD`].
const LOST_BY_TIMERS: Duration = Duration::from_secs(12);
/// The example has minutes.
const HOLD_DOWN: Duration = Duration::from_secs(30);

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
    scene.ensure_watched()?;
    scene.ensure_steered()?;
    scene.ensure_answers(WEB, "clients are at the preferred site", &["b1", "b2"])?;
    scene.ensure_shares()?;
    scene.ensure_no_circle()?;
    scene.ensure_warned()?;

    let since = scene.core.routes(NARROW)?.first().and_then(|r| r.since);
    scene.kill_server("b1")?;
    scene.ensure_answers(WEB, "a backend has died, the other carries on", &["b2"])?;
    let now = scene.core.routes(NARROW)?.first().and_then(|r| r.since);
    let moved = since.zip(now).context("two times")?;
    ensure!(
        moved.0.abs_diff(moved.1) < Duration::from_millis(100),
        "the route was announced anew: {moved:?}"
    );

    // The last one says nothing any more, which takes longest to notice.
    let died = Instant::now();
    scene.net.unplug("b2")?;
    scene.wait_for_core("no backend of site 1 is left", NARROW, &[])?;
    let (took, worse) = (died.elapsed(), Instant::now());
    ensure!(took <= BOUND, "noticed after {took:?}");
    scene.wait_for_core("nothing inside is alive", BLOCK, &[64503, 64504])?;
    scene.ensure_answers(WEB, "the other site has the traffic", &["b3", "b4"])?;
    scene.ensure_one_improvement_after_hold_down(worse)?;

    scene.ensure_one_carrier_is_enough()?;

    scene.net.unplug("lb1")?;
    scene.wait_for_core("all upstreams leave the site", BLOCK, &[64503, 64504])?;
    scene.ensure_answers(WEB, "the other site has the traffic", &["b3", "b4"])?;
    scene.ensure_noticed(&scene.birds[0], "lb1")?;
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
            birds.push(Bird::start(gateway, &routers::gateway(site, bfd))?);
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

    /// Waits until sixty questions in a row are answered by these alone, and by
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
        self.net.plug_in("b2")?;
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
        let entered = log.matches(&format!("{NARROW} is announced: ")).count();
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

    /// Each session of the balancers is watched by BFD, or none is.
    fn ensure_watched(&self) -> Result<()> {
        for (agent, site) in self.agents.iter().zip(&SITES) {
            for (name, ..) in site.carriers {
                wait_for(agent, name, "it is watched as it should be", |peer| {
                    let bfd = &peer["bfd"];
                    peer["state"] == "Established"
                        && (if self.bfd {
                            bfd["state"] == "Up"
                        } else {
                            bfd.is_null()
                        })
                })?;
            }
        }
        Ok(())
    }

    /// The second carrier is told of a path one longer and of its own community, the
    /// first of neither; so the world comes by the first.
    fn ensure_steered(&self) -> Result<()> {
        let routes = self.birds[0].routes(NARROW)?;
        let plain = routes.iter().find(|route| route.session == "lb1");
        let plain = plain.with_context(|| format!("{routes:?}"))?;
        ensure!(
            plain.attribute("BGP.as_path") == Some("64500")
                && plain.attribute("BGP.community").is_none(),
            "{plain:?}"
        );
        let paths = self.frr.paths(NARROW)?;
        let from = site_address(SITES[0].balancer.1);
        let worse = paths.iter().find(|path| path["peer"]["peerId"] == *from);
        let worse = worse.with_context(|| format!("{paths:?}"))?;
        ensure!(
            worse["aspath"]["string"] == "64500 64500"
                && worse["community"]["string"] == "64502:80",
            "{worse}"
        );
        let routes = self.core.routes(NARROW)?;
        let best = routes.first().context("no route")?;
        ensure!(best.session == "carrier1", "{best:?}");
        Ok(())
    }

    /// `vipd check` warns of what the world filters, and the doctor of a filter that
    /// would eat traffic that comes another way than it goes.
    fn ensure_warned(&self) -> Result<()> {
        let host = self.net.host("lb1")?;
        let text = fs::read_to_string(host.dir().join("vipd.toml"))?;
        let long = text.replace("198.18.0.0/23", "198.18.0.0/25");
        let long = long.replace("\"198.18.0.0/24", "\"198.18.0.128/25");
        let file = host.write("long.toml", &long)?;
        let vipd = Vipd::binary()?;
        let ask = |host: &vipd_tests::Host, words: &str| {
            // Whatever its exit code.
            let command = format!("{} {words} 2>&1 || true", vipd.display());
            host.run("sh", &["-c", &command])
        };
        let said = ask(host, &format!("check {}", file.display()))?;
        ensure!(
            said.contains("will be filtered behind carrier1")
                && said.contains("will be filtered behind carrier2"),
            "{said}"
        );
        // Each carrier by an interface of its own.
        let host = self.net.host("lb2")?;
        host.ip("link add second type veth peer name other\n")?;
        host.sysctl(&[("net/ipv4/conf/site2/rp_filter", "1")])?;
        let text = fs::read_to_string(host.dir().join("vipd.toml"))?;
        let two = text.replace("[\"site2\"]", "[\"site2\", \"second\"]");
        let file = host.write("two.toml", &two)?;
        let said = ask(host, &format!("doctor --json --config {}", file.display()))?;
        host.sysctl(&[("net/ipv4/conf/site2/rp_filter", "0")])?;
        ensure!(said.contains("\"rp-filter\""), "{said}");
        Ok(())
    }

    /// A router has lost its session with that one by what was to notice it.
    fn ensure_noticed(&self, router: &Bird, session: &str) -> Result<()> {
        let cause = if self.bfd { "BFD" } else { "Hold timer" };
        let log = router.log();
        let of_session = format!("{session}: ");
        let mut told = log
            .lines()
            .filter(|line| line.contains(&of_session) && line.contains(cause));
        ensure!(told.next().is_some(), "{session}: not by {cause}: {log}");
        Ok(())
    }

    /// A carrier of the first site dies, silently. For as long as that takes to be
    /// noticed new connections fail; those that are open wait and go on, and then
    /// all is as before, by the other carrier.
    fn ensure_one_carrier_is_enough(&self) -> Result<()> {
        let client = self.net.host("client")?;
        let held = Held::open(client, (WEB, 80).into(), 20)?;
        let probes = Probes::start(client, (WEB, 80).into());
        let many = |sentence: &str, since: Instant| {
            wait_until(sentence, PATIENCE, || {
                let asked = probes.so_far().since(since).attempts.len();
                ensure!(asked > 200, "{asked} times");
                Ok(())
            })
        };
        many("clients ask all the time", Instant::now())?;
        let died = Instant::now();
        self.net.unplug("carrier1")?;
        self.wait_for_core("carrier1 is gone", NARROW, &[64502])?;
        wait_until("the site's own way out has moved", PATIENCE, || {
            self.ask(WEB, 5)
        })?;
        let moved = Instant::now();
        self.ensure_noticed(&self.core, "carrier1")?;
        let cause = if self.bfd { "BFD says" } else { "hold timer" };
        wait_until("the balancer has noticed it as well", PATIENCE, || {
            let log = self.agents[0].log();
            let mut lines = log.lines().filter(|line| line.contains("carrier1"));
            ensure!(
                lines.any(|line| line.contains(cause)),
                "no {cause} in {log}"
            );
            Ok(())
        })?;
        self.ensure_answers(WEB, "by the other", &["b1", "b2"])?;
        many("clients have asked since", moved)?;

        let report = probes.finish()?;
        let before = report.failures().find(|a| a.started + a.took < died);
        ensure!(before.is_none(), "before anything died: {before:?}");
        let last = report.last_failure();
        let last = last.context("carrier1 had no part in it: nothing was lost")?;
        let bound = if self.bfd {
            LOST_WITH_BFD
        } else {
            LOST_BY_TIMERS
        };
        let lost = last.saturating_duration_since(died);
        ensure!(lost <= bound, "still lost {lost:?} after the death");
        // Their segments are sent again after pauses that double each time.
        while died.elapsed() < 2 * lost + Duration::from_secs(2) {
            sleep(Duration::from_millis(100));
        }
        let report = held.judge()?;
        let broken = report.broken().next();
        ensure!(broken.is_none(), "an open connection broke: {broken:?}");

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
