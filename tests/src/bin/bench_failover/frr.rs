//! The same death seen by FRR, and where its time goes: bfdd has to notice, bgpd
//! to hear of it, and zebra to change the kernel's route, each from the other's
//! queue.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use vipd_tests::{Frr, Lab, Process, Rack, Size, wait_until};

use crate::{
    death::{Death, die},
    pairs::{LOCAL_AS, Pair as _, ROUTER_AS, VipdPair},
};

/// Clocks are compared within so long a time: time zones differ by multiples of
/// it, and FRR writes local time.
const CYCLE: u64 = 15 * 60;
/// A line that tells of a death comes at most so long after it.
const LATEST: Duration = Duration::from_secs(30);
/// How long it may take until the lines are written.
const PATIENCE: Duration = Duration::from_secs(10);

const BFD: &str = "log timestamp precision 6\ndebug bfd peer\nbfd\n profile fast\n  \
                   detect-multiplier 3\n  receive-interval 50\n  transmit-interval 50\n exit\n";

/// A rack whose router is FRR.
pub struct FrrStage {
    pair: VipdPair,
    frr: Frr,
    /// The kernel's word on routes.
    monitor: Process,
    rack: Rack,
}

/// When who had left the dead, counted from the death.
pub struct FrrDeath {
    pub death: Death,
    /// bfdd had noticed.
    pub noticed: Duration,
    /// bgpd had ended the session.
    pub ended: Duration,
    /// The kernel's route was another.
    pub routed: Duration,
}

impl FrrStage {
    pub fn build(lab: &Lab) -> Result<Self> {
        let rack = Rack::build(
            lab,
            Size {
                balancers: 2,
                backends: 2,
            },
        )?;
        let further = ["timers 10 30", "bfd profile fast"];
        let mut config = Frr::router_config(ROUTER_AS, &rack.balancers, LOCAL_AS, &further);
        config += &format!(
            "log timestamp precision 6\nrouter bgp {ROUTER_AS}\n bgp log-neighbor-changes\n"
        );
        let frr = Frr::start_with_bfd(&rack.router, &config, BFD)?;
        let mut monitor = Command::new("ip");
        monitor.args(["-ts", "monitor", "route"]);
        Ok(Self {
            pair: VipdPair::start(&rack, &rack.balancers)?,
            frr,
            monitor: rack.router.spawn("monitor", &mut monitor)?,
            rack,
        })
    }

    /// One of the two dies, and is revived.
    pub fn die(&mut self) -> Result<FrrDeath> {
        let death = die(&self.rack, &mut self.pair)?;
        let dead = death.victim.ipv4.to_string();
        let vip = self.pair.target().ip().to_string();
        let find = |log: &str, words: &[&str], without: &str| {
            first_after(death.at, log, words, without).with_context(|| format!("no {words:?}"))
        };
        wait_until("everybody has told of the death", PATIENCE, || {
            let from_up = ["state-change", &dead, "up -> down"];
            let down = ["%ADJCHANGE", &dead, " Down"];
            Ok((
                find(&self.frr.log("bfdd"), &from_up, "\0")?,
                find(&self.frr.log("bgpd"), &down, "\0")?,
                find(&self.monitor.log(), &[&vip, "via 192.0.2.1"], &dead)?,
            ))
        })
        .map(|(noticed, ended, routed)| FrrDeath {
            death,
            noticed,
            ended,
            routed,
        })
    }
}

/// How long after `at` the first line was written that has all these words, and
/// not that one.
fn first_after(at: SystemTime, log: &str, words: &[&str], without: &str) -> Option<Duration> {
    let at = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let cycle = Duration::from_secs(CYCLE).as_micros();
    let lines = log
        .lines()
        .filter(|line| words.iter().all(|word| line.contains(word)) && !line.contains(without));
    let times = lines.filter_map(|line| {
        let since = within_cycle(line)?.as_micros() + cycle - at.as_micros() % cycle;
        Some(Duration::from_micros((since % cycle) as u64))
    });
    times.filter(|since| *since < LATEST).min()
}

/// The time of day in a line's first words, `2026/01/31 12:34:56.123456` or
/// `[2026-01-31T12:34:56.123456]`, within its [`CYCLE`].
fn within_cycle(line: &str) -> Option<Duration> {
    let (_, time) = line.split_at_checked(11)?;
    let time = time.trim_start_matches('T');
    let mut parts = time.split([':', ' ', ']']);
    let (_hours, minutes) = (parts.next()?, parts.next()?.parse::<u64>().ok()?);
    let seconds = Duration::try_from_secs_f64(parts.next()?.parse().ok()?).ok()?;
    Some(Duration::from_secs(minutes * 60 % CYCLE) + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_words_and_the_time_after_a_death() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(12_345_600_500);
        let log = "2026/01/31 12:19:59.900000 BFD: [A] up -> down\n\
                   2026/01/31 12:20:00.700000 BFD: [B] up -> down\n\
                   [2026-01-31T17:50:00.650000] 198.51.100.10 via 192.0.2.12 dev rack0\n";
        let found = |words: &[&str], without| first_after(at, log, words, without);
        assert_eq!(
            found(&["up -> down"], "\0"),
            Some(Duration::from_millis(200))
        );
        assert_eq!(found(&["via"], "\0"), Some(Duration::from_millis(150)));
        assert_eq!(found(&["via"], "192.0.2.12"), None);
        assert_eq!(found(&["[A]"], "\0"), None);
    }
}
