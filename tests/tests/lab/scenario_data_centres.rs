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

mod flaps;
mod routers;
mod sites;
mod upstreams;

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{Bfd, Bird, Decapsulator, Frr, Lab, Nginx, Segments, Vipd, ask, wait_until};

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
/// See [`NARROW`].
const SECOND: &str = "198.18.1.0/24";

/// A death is noticed within this time (the cloud's own check).
const BOUND: Duration = Duration::from_secs(11);
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
    scene.ensure_a_farewell_loses_nothing()?;

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

    let before = scene.birds[0].received("lb1")?;
    scene.net.unplug("lb1")?;
    scene.wait_for_core("all upstreams leave the site", BLOCK, &[64503, 64504])?;
    scene.ensure_answers(WEB, "the other site has the traffic", &["b3", "b4"])?;
    scene.ensure_noticed(&scene.birds[0], "lb1")?;
    // Else a check that was lost on the way would be counted after the return.
    scene.wait_for_state("doubt")?;
    scene.net.plug_in("lb1")?;
    scene.wait_for_core("it is back", BLOCK, &[64501, 64502, 64503, 64504])?;
    scene.wait_for_core("it is back", NARROW, &[64501, 64502])?;
    scene.wait_for_core("it is back", SECOND, &[64501, 64502])?;
    scene.ensure_answers(WEB, "clients are back", &["b1", "b2"])?;
    scene.ensure_back_without_withdrawal(before)?;

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

    /// The first site's balancer goes on with these words of its file replaced.
    fn reload_with(&self, changes: &[(&str, &str)]) -> Result<()> {
        let file = self.net.host("lb1")?.dir().join("vipd.toml");
        let mut text = fs::read_to_string(file)?;
        for (old, new) in changes {
            ensure!(text.contains(old), "{old} in {text}");
            text = text.replace(old, new);
        }
        self.agents[0].reload(&text).map(drop)
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
        let mut counts = BTreeMap::new();
        for _ in 0..questions {
            *counts.entry(ask(client, (vip, 80).into())?).or_insert(0) += 1;
        }
        Ok(counts.into_iter().collect())
    }

    /// Of the first site's own web servers one has twice the weight of the other, and
    /// of what both sites share three of four connections stay.
    fn ensure_shares(&self) -> Result<()> {
        wait_until("the other site's backend is reached", 2 * PATIENCE, || {
            for backend in ["b1", "b2", "b3"] {
                self.agents[0].ensure_backend(backend, true)?;
            }
            // What is decided is told before it is in the maps.
            self.agents[0].ensure_in_force()
        })?;
        self.ensure_share(WEB, ("b1", 2), ("b2", 1))?;
        self.ensure_share(API, ("b2", 3), ("b3", 1))
    }

    /// Of 400 connections each has its share by weight, give or take five standard
    /// deviations.
    fn ensure_share(
        &self,
        vip: Ipv4Addr,
        (heavy, weight): (&str, u32),
        (light, other): (&str, u32),
    ) -> Result<()> {
        const QUESTIONS: u32 = 400;
        let counts = self.ask(vip, QUESTIONS as usize)?;
        let names: Vec<_> = counts.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(names == [heavy, light], "{vip}: {counts:?}");
        let share = f64::from(weight) / f64::from(weight + other);
        let fair = f64::from(QUESTIONS) * share;
        let bound = 5.0 * (fair * (1.0 - share)).sqrt();
        ensure!(
            (counts[0].1 as f64 - fair).abs() < bound,
            "{vip}: {counts:?} is not {weight} to {other}\n{}",
            self.agents[0].command("why", &[&vip.to_string()])?
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
}
