//! What a farm that comes and goes costs: what routers hear of it, and what the one
//! that damps (FRR) counts.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{BirdReceived, Lab, wait_until};

use super::{BLOCK, HOLD_DOWN, NARROW, SECOND, Scene, WEB};
use crate::support::{PATIENCE, in_lab};

/// What the first site announces.
const ANNOUNCED: [&str; 3] = [BLOCK, NARROW, SECOND];
/// Why an improvement waits, in the words of the status.
const NOT_LONG_ENOUGH: &str = "it has not been well for as long as hold_down says";
/// See [`NOT_LONG_ENOUGH`].
const TOO_OFTEN: &str = "it has changed too often";

/// Makes the balancer take routers for forgetful.
const FORGETFUL: (&str, &str) = ("[bgp.damping]\n", "[bgp.damping]\nhalf_life = \"2s\"\n");

#[test]
fn a_farm_that_keeps_falling_stays_away_before_an_upstream_suppresses_it() {
    in_lab(keep_falling);
}

fn keep_falling(lab: &Lab) -> Result<()> {
    let mut scene = Scene::build(lab, false)?;
    scene.wait_for_core("both sites are up", NARROW, &[64501, 64502])?;
    // FRR forgets in steps of 5 s; with a pause between two falls it forgets some.
    scene.reload_with(&[(&hold_down(), "\"10s\""), ("\"5s\"", "\"2s\"")])?;
    scene.kill_server("b1")?;

    scene.fall("the first fall")?;
    scene.start_server("b2")?;
    scene.wait_for_core("the first return", NARROW, &[64501, 64502])?;
    scene.fall("the second fall")?;
    scene.start_server("b2")?;
    scene.ensure_held("one more fall would be too many", TOO_OFTEN)?;
    scene.fall("it waits, and the third fall is nothing new")?;
    scene.start_server("b2")?;
    scene.ensure_held("it waits on", TOO_OFTEN)?;
    let dampened = scene.dampened()?;
    ensure!(!dampened.contains(NARROW), "{dampened}");

    // Who pays no heed to what routers count is worse off with the next fall.
    scene.reload_with(&[FORGETFUL])?;
    scene.wait_for_core("there is room for it", NARROW, &[64501, 64502])?;
    let dampened = scene.dampened()?;
    ensure!(!dampened.contains(NARROW), "{dampened}");
    scene.fall("one more fall")?;
    scene.start_server("b2")?;
    scene.wait_for_core("carrier2 suppresses it", NARROW, &[64501])?;
    wait_until("carrier2 lists it as suppressed", PATIENCE, || {
        let dampened = scene.dampened()?;
        ensure!(dampened.contains(NARROW), "{dampened}");
        Ok(())
    })
}

/// The hold-down as it is written.
fn hold_down() -> String {
    format!("\"{}s\"", HOLD_DOWN.as_secs())
}

impl Scene {
    /// The last server of the first site falls, and its announcements go.
    fn fall(&mut self, sentence: &str) -> Result<()> {
        self.kill_server("b2")?;
        wait_until(sentence, PATIENCE, || {
            self.agents[0].ensure_backend("b2", false)
        })?;
        self.wait_for_core(sentence, NARROW, &[])
    }

    /// The servers return one after the other: nothing is announced before the
    /// hold-down is over, then everything once.
    pub fn ensure_one_improvement_after_hold_down(&mut self, worse: Instant) -> Result<()> {
        self.wait_for_core("nothing inside is alive", SECOND, &[])?;
        let before = self.birds[0].received("lb1")?;
        self.net.plug_in("b2")?;
        self.ensure_held("the improvement is held down", NOT_LONG_ENOUGH)?;

        self.start_server("b1")?;
        self.wait_for_core("after the hold-down", NARROW, &[64501, 64502])?;
        let took = worse.elapsed();
        ensure!(
            took > HOLD_DOWN - Duration::from_secs(5),
            "already after {took:?}"
        );
        self.wait_for_core("after the hold-down", SECOND, &[64501, 64502])?;
        self.wait_for_core("the block", BLOCK, &[64501, 64502, 64503, 64504])?;
        self.ensure_answers(WEB, "clients are back at the preferred site", &["b1", "b2"])?;
        let now = self.birds[0].received("lb1")?;
        let once = BirdReceived {
            announced: before.announced + ANNOUNCED.len() as u64,
            ..before
        };
        ensure!(now == once, "{now:?} after {before:?}");
        let log = self.agents[0].log();
        for prefix in ANNOUNCED {
            let entered = log.matches(&format!("{prefix} is announced: ")).count();
            ensure!(entered == 2, "{prefix}: {entered} times in {log}");
        }
        // Else the next withdrawal would be one too many for a quarter of an hour.
        self.reload_with(&[FORGETFUL, (&hold_down(), "\"5s\"")])
    }

    /// Waits until the status names this cause why the first site's own prefix is not
    /// announced, and a penalty as FRR has counted it; the world has no route meanwhile.
    fn ensure_held(&self, sentence: &str, cause: &str) -> Result<()> {
        let held = wait_until(sentence, PATIENCE, || {
            let status = self.agents[0].status()?;
            let held = aggregate(&status, NARROW)?.clone();
            let reason = held["reason"].as_str().context("no reason")?;
            ensure!(
                reason.contains("better only in ") && reason.contains(cause),
                "{held}"
            );
            Ok(held)
        })?;
        let routes = self.core.routes(NARROW)?;
        ensure!(routes.is_empty(), "{held}, and yet {routes:?}");
        let ours = held["damping"]["penalty"].as_f64().context("a penalty")?;
        let theirs = self.frr.vtysh(&format!("show bgp ipv4 unicast {NARROW}"))?;
        let theirs = theirs.split("penalty ").nth(1).context("no penalty")?;
        let theirs: f64 = theirs.split(',').next().unwrap_or_default().parse()?;
        ensure!(
            (ours - theirs).abs() < 100.0,
            "{ours} of us, {theirs} of FRR"
        );
        Ok(())
    }

    /// Waits until the first site's prefixes are announced in this state.
    pub fn wait_for_state(&self, state: &str) -> Result<()> {
        wait_until(&format!("all is announced as {state}"), PATIENCE, || {
            let status = self.agents[0].status()?;
            for prefix in ANNOUNCED {
                let aggregate = aggregate(&status, prefix)?;
                ensure!(aggregate["state"] == state, "{aggregate}");
            }
            Ok(())
        })
    }

    /// The first site's balancer was cut off, and is back: all is announced as before,
    /// and carrier1 has heard of no withdrawal. (Whether it counts anew depends on
    /// whether it kept the routes of the session before.)
    pub fn ensure_back_without_withdrawal(&self, before: BirdReceived) -> Result<()> {
        self.wait_for_state("up")?;
        let now = self.birds[0].received("lb1")?;
        ensure!(
            now.withdrawn <= before.withdrawn,
            "{now:?} after {before:?}"
        );
        Ok(())
    }

    /// What carrier2 suppresses.
    fn dampened(&self) -> Result<String> {
        self.frr
            .vtysh("show bgp ipv4 unicast dampening dampened-paths")
    }
}

fn aggregate<'a>(status: &'a Value, prefix: &str) -> Result<&'a Value> {
    let mut all = status["aggregates"].as_array().into_iter().flatten();
    all.find(|aggregate| aggregate["prefix"] == prefix)
        .with_context(|| format!("no {prefix} in {status}"))
}
