//! The score card: what the client measured, and the bounds.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::screen::Screen;

/// Everything that was measured.
#[derive(Default)]
pub struct ScoreCard {
    /// From the start of the agents to BIRD's word that both sessions stand.
    pub bgp_established: Duration,
    pub backend_kill: BackendKill,
    pub agent_kill: AgentKill,
    pub node_kill: NodeKill,
    pub backend_drain: BackendDrain,
}

/// A backend's web server was killed.
#[derive(Default)]
pub struct BackendKill {
    /// Until both balancers had taken it out.
    pub detected: Duration,
    /// The last new connection that failed was begun so long after the kill.
    pub last_failure: Duration,
    pub attempted: usize,
    pub failed: usize,
    /// Long-lived connections to other backends that broke.
    pub established_on_others_broken: usize,
}

/// The agent on a balancer was killed and started again.
#[derive(Default)]
pub struct AgentKill {
    pub failed: usize,
    pub established_broken: usize,
}

/// A balancer died silently.
#[derive(Default)]
pub struct NodeKill {
    /// Between the beginnings of two successive successful connections.
    pub gap: Duration,
    pub established_total: usize,
    pub established_broken: usize,
}

/// A backend was drained.
#[derive(Default)]
pub struct BackendDrain {
    pub failed: usize,
    pub established_broken: usize,
}

/// A line of the card: its key, what was measured, and the most allowed.
struct Line {
    key: &'static str,
    measured: u64,
    bound: Option<u64>,
}

impl ScoreCard {
    /// Prints the card as a table.
    pub fn show(&self, screen: &Screen) {
        screen.heading("Score card (as the client saw it; times in ms)");
        for line in self.lines() {
            let (bound, mark) = match line.bound {
                Some(bound) => (
                    format!("at most {bound}"),
                    screen.mark(line.measured <= bound),
                ),
                None => (String::new(), String::new()),
            };
            let text = format!(
                "  {:<44}{:>7}   {bound:<13} {mark}",
                line.key, line.measured
            );
            screen.say(text.trim_end());
        }
        let failed = self.failed_bounds();
        if !failed.is_empty() {
            screen.say(&format!("\nBeyond its bound: {}.", failed.join(", ")));
        }
    }

    /// The keys whose bound failed.
    pub fn failed_bounds(&self) -> Vec<&'static str> {
        self.lines()
            .iter()
            .filter(|line| line.bound.is_some_and(|bound| line.measured > bound))
            .map(|line| line.key)
            .collect()
    }

    /// Writes target/demo/scorecard.json and returns its path.
    pub fn write(&self) -> Result<PathBuf> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/demo");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let path = dir.canonicalize()?.join("scorecard.json");
        let text = serde_json::to_string_pretty(&self.json())? + "\n";
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// The lines as one object, nested at the dots of their keys.
    fn json(&self) -> Value {
        let mut card = json!({});
        for line in self.lines() {
            match line.key.split_once('.') {
                Some((scene, key)) => card[scene][key] = line.measured.into(),
                None => card[line.key] = line.measured.into(),
            }
        }
        card
    }

    fn lines(&self) -> Vec<Line> {
        let Self {
            bgp_established,
            backend_kill,
            agent_kill,
            node_kill,
            backend_drain,
        } = self;
        let told = |key, measured| Line {
            key,
            measured,
            bound: None,
        };
        let bounded = |key, measured, bound| Line {
            key,
            measured,
            bound: Some(bound),
        };
        vec![
            told("bgp_established_ms", ms(*bgp_established)),
            told("backend_kill.detected_ms", ms(backend_kill.detected)),
            bounded(
                "backend_kill.last_failure_ms",
                ms(backend_kill.last_failure),
                1000,
            ),
            told("backend_kill.attempted", backend_kill.attempted as u64),
            told("backend_kill.failed", backend_kill.failed as u64),
            bounded(
                "backend_kill.established_on_others_broken",
                backend_kill.established_on_others_broken as u64,
                0,
            ),
            bounded("agent_kill.failed", agent_kill.failed as u64, 0),
            bounded(
                "agent_kill.established_broken",
                agent_kill.established_broken as u64,
                0,
            ),
            bounded("node_kill.gap_ms", ms(node_kill.gap), 4500),
            told(
                "node_kill.established_total",
                node_kill.established_total as u64,
            ),
            told(
                "node_kill.established_broken",
                node_kill.established_broken as u64,
            ),
            bounded("backend_drain.failed", backend_drain.failed as u64, 0),
            bounded(
                "backend_drain.established_broken",
                backend_drain.established_broken as u64,
                0,
            ),
        ]
    }
}

/// Whole milliseconds, rounded up, so that a bound is not met by rounding.
pub fn ms(time: Duration) -> u64 {
    let ms = time.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).unwrap_or(u64::MAX)
}
