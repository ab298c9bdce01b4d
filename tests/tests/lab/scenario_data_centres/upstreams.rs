//! What the carriers are told and what they say, and what is lost when one of them
//! goes, in order or silently.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{Bird, Held, Host, Probes, Vipd, wait_until};

use super::{
    NARROW, Scene, WEB,
    routers::carrier,
    sites::{SITES, core_address, site_address},
};
use crate::support::{PATIENCE, wait_for};

/// Nothing is lost so long after a carrier has died: BFD gives up after 2 s, the hold
/// time is 6 s, and routers take a moment.
const LOST_WITH_BFD: Duration = Duration::from_secs(6);
/// See [`LOST_WITH_BFD`].
const LOST_BY_TIMERS: Duration = Duration::from_secs(12);

impl Scene {
    /// The first carrier is told of a MED; the second of a path one longer and of its
    /// own community, so the world comes by the first.
    pub fn ensure_steered(&self) -> Result<()> {
        let routes = self.birds[0].routes(NARROW)?;
        let plain = routes.iter().find(|route| route.session == "lb1");
        let plain = plain.with_context(|| format!("{routes:?}"))?;
        ensure!(
            plain.attribute("BGP.as_path") == Some("64500")
                && plain.attribute("BGP.med") == Some("50")
                && plain.attribute("BGP.community").is_none(),
            "{plain:?}"
        );
        let paths = self.frr.paths(NARROW)?;
        let from = site_address(SITES[0].balancer.1);
        let worse = paths.iter().find(|path| path["peer"]["peerId"] == *from);
        let worse = worse.with_context(|| format!("{paths:?}"))?;
        ensure!(
            worse["aspath"]["string"] == "64500 64500"
                && worse["community"]["string"] == "64502:80"
                && worse["metric"].as_u64().unwrap_or(0) == 0,
            "{worse}"
        );
        let routes = self.core.routes(NARROW)?;
        let best = routes.first().context("no route")?;
        ensure!(best.session == "carrier1", "{best:?}");
        Ok(())
    }

    /// `vipd check` warns of what the world filters, and the doctor of a filter that
    /// would eat traffic that comes another way than it goes.
    pub fn ensure_warned(&self) -> Result<()> {
        let host = self.net.host("lb1")?;
        let text = fs::read_to_string(host.dir().join("vipd.toml"))?;
        let long = text.replace("198.18.0.0/23", "198.18.0.0/25");
        let long = long.replace("\"198.18.0.0/24", "\"198.18.0.128/25");
        let file = host.write("long.toml", &long)?;
        let said = vipd(host, &format!("check {} 2>&1", file.display()))?;
        ensure!(
            said.contains("will be filtered behind carrier1")
                && said.contains("will be filtered behind carrier2"),
            "{said}"
        );
        self.ensure_filter_is_found()
    }

    /// The doctor finds strict reverse path filtering where each carrier has an
    /// interface of its own, and what it advises mends it.
    fn ensure_filter_is_found(&self) -> Result<()> {
        let host = self.net.host("lb2")?;
        host.ip("link add second type veth peer name other\n")?;
        host.sysctl(&[("net/ipv4/conf/site2/rp_filter", "1")])?;
        let text = fs::read_to_string(host.dir().join("vipd.toml"))?;
        let two = text.replace("[\"site2\"]", "[\"site2\", \"second\"]");
        ensure!(two != text, "{text}");
        let file = host.write("two.toml", &two)?;
        let words = format!("doctor --json --config {} 2>/dev/null", file.display());
        let found = || {
            let said = vipd(host, &words)?;
            let all: Vec<Value> = serde_json::from_str(&said).with_context(|| said.clone())?;
            let is_it = |f: &Value| f["name"] == "rp-filter" && f["subject"] == "site2";
            anyhow::Ok((all.into_iter().find(is_it), said))
        };
        let (strict, said) = found()?;
        let strict = strict.with_context(|| format!("not found: {said}"))?;
        let fix = strict["fix"].as_str().context("no fix")?;
        host.run("sh", &["-c", fix])?;
        let (strict, said) = found()?;
        ensure!(strict.is_none(), "{fix} has not mended it: {said}");
        Ok(())
    }

    /// A router has lost its session with that one by what was to notice it.
    pub fn ensure_noticed(&self, router: &Bird, session: &str) -> Result<()> {
        let cause = if self.bfd { "BFD" } else { "Hold timer" };
        let of_session = format!("{session}: ");
        wait_until("its log tells how it was noticed", PATIENCE, || {
            let log = router.log();
            let mut lines = log.lines().filter(|line| line.contains(&of_session));
            ensure!(
                lines.any(|line| line.contains(cause)),
                "{session}: not by {cause}: {log}"
            );
            Ok(())
        })
    }

    /// carrier1 is taken down for work on it, session by session, each when nobody needs
    /// it any more: the site's way out, the world's way in, the balancer. It forwards
    /// until then, so nobody notices.
    pub fn ensure_a_farewell_loses_nothing(&self) -> Result<()> {
        let client = self.net.host("client")?;
        let carrier1 = &self.birds[0];
        let ways = [
            (
                SITES[0].gateway.0,
                "203.0.113.10".to_owned(),
                site_address(2),
            ),
            ("core", WEB.to_string(), core_address(64502)),
        ];
        let held = Held::open(client, (WEB, 80).into(), 20)?;
        let probes = Probes::start(client, (WEB, 80).into());
        wait_for_many(&probes, "clients ask all the time", Instant::now())?;
        for (neighbour, to, via) in &ways {
            carrier1.birdc(&format!("disable {neighbour}"))?;
            let host = self.net.host(neighbour)?;
            wait_until(&format!("{neighbour} goes by carrier2"), PATIENCE, || {
                let way = host.run("ip", &["route", "get", to])?;
                ensure!(way.contains(&format!(" via {via} ")), "{way}");
                Ok(())
            })?;
        }
        carrier1.birdc("disable lb1")?;
        wait_for(&self.agents[0], "carrier1", "it is told why", |peer| {
            peer["state"] != "Established" && peer.to_string().contains("Administrative Shutdown")
        })?;
        wait_for_many(&probes, "clients have asked since", Instant::now())?;
        probes.finish()?.ensure_all_answered()?;
        let report = held.judge()?;
        let broken = report.broken().next();
        ensure!(broken.is_none(), "an open connection broke: {broken:?}");

        for session in ["lb1", "core", SITES[0].gateway.0] {
            carrier1.birdc(&format!("enable {session}"))?;
        }
        self.wait_for_core("carrier1 is back", NARROW, &[64501, 64502])?;
        self.ensure_watched()
    }

    /// A carrier of the first site dies, silently. For as long as that takes to be
    /// noticed new connections fail; those that are open wait and go on, and then
    /// all is as before, by the other carrier.
    pub fn ensure_one_carrier_is_enough(&self) -> Result<()> {
        let client = self.net.host("client")?;
        let held = Held::open(client, (WEB, 80).into(), 20)?;
        let probes = Probes::start(client, (WEB, 80).into());
        wait_for_many(&probes, "clients ask all the time", Instant::now())?;
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
        wait_for_many(&probes, "clients have asked since", moved)?;

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
    pub fn ensure_refusals_are_told(&self) -> Result<()> {
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

/// What vipd says, whatever its exit code.
fn vipd(host: &Host, words: &str) -> Result<String> {
    let command = format!("{} {words} || true", Vipd::binary()?.display());
    host.run("sh", &["-c", &command])
}

fn wait_for_many(probes: &Probes, sentence: &str, since: Instant) -> Result<()> {
    wait_until(sentence, PATIENCE, || {
        let asked = probes.so_far().since(since).attempts.len();
        ensure!(asked > 200, "{asked} times");
        Ok(())
    })
}
