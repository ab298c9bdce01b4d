//! One measurement: a program is started, has its time to come to rest, and is
//! watched while it checks.

use std::{
    fmt, process,
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
pub use vipd::probe::LATE;
use vipd_tests::{
    usage::{self, Processors},
    wait_until,
};

use crate::{
    arrivals::Arrival,
    checkers::{Checker, Running},
    farm::Farm,
};

/// Between two checks of a backend.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take until all backends are found up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions for that.
const LOOK: Duration = Duration::from_millis(500);
/// What a program may do for itself after that.
const REST: Duration = Duration::from_secs(5);

/// What came of it.
pub struct Sample {
    /// CPU time by the time that passed.
    pub cores: f64,
    /// Checks in a second.
    pub rate: f64,
    pub punctuality: Punctuality,
    /// The share that was late by the program's own count, where it tells.
    pub late_by_own_count: Option<f64>,
    /// What other programs took of the machine's processors, from 0 to 1.
    pub disturbed: f64,
}

/// How punctual the checks were, as the backends see it.
pub struct Punctuality {
    /// Checks there were.
    pub checks: u64,
    /// Those that were late, or did not come at all.
    pub late: u64,
    /// By how much the latest in a thousand was late, at least.
    pub p999: Duration,
    /// By how much the latest was.
    pub latest: Duration,
}

/// Measures one for so long.
pub fn measure(farm: &Farm, checker: Checker, time: Duration) -> Result<Sample> {
    let mut running = checker.start(farm)?;
    wait_until("all backends are found up", PATIENCE, || {
        // Not too often: to tell of so many backends is work.
        sleep(LOOK);
        running.ensure_up(farm.backends)
    })?;
    let own_before = running.own_count()?;
    sleep(REST);
    farm.arrivals.take();
    // So that each backend has been asked when it begins.
    sleep(INTERVAL + LATE);

    let before = Used::now(&running)?;
    sleep(time.saturating_sub(before.at.elapsed()?));
    let after = Used::now(&running)?;
    let own_after = running.own_count()?;
    let arrivals = farm.arrivals.take();
    running.ensure_up(farm.backends)?;
    running.end()?;

    let passed = after.at.duration_since(before.at)?.as_secs_f64();
    let share = |part: Duration| part.as_secs_f64() / passed;
    let own = after.own - before.own;
    let foreign = (after.busy - before.busy).saturating_sub(own + after.ours - before.ours);
    let punctuality = Punctuality::of(
        &arrivals,
        farm.backends,
        before.at.duration_since(UNIX_EPOCH)?,
        after.at.duration_since(UNIX_EPOCH)?,
    );
    ensure!(punctuality.checks > 0, "no backend has been asked");
    let late_by_own_count = own_before.zip(own_after).map(|(before, after)| {
        let [ended, late] = [0, 1].map(|i| after[i].saturating_sub(before[i]) as f64);
        late / ended
    });
    Ok(Sample {
        cores: share(own),
        rate: punctuality.checks as f64 / passed,
        punctuality,
        late_by_own_count,
        disturbed: foreign.as_secs_f64() / (after.passed - before.passed).as_secs_f64(),
    })
}

/// CPU time until a moment.
struct Used {
    at: SystemTime,
    /// Of the program that is measured.
    own: Duration,
    /// Of this one, which has the backends.
    ours: Duration,
    /// Of everybody on this machine.
    busy: Duration,
    /// Of all processors, idle or not.
    passed: Duration,
}

impl Used {
    fn now(running: &Running) -> Result<Self> {
        let Processors { busy, passed, .. } = Processors::now()?;
        Ok(Self {
            at: SystemTime::now(),
            own: usage::cpu_time(running.pid()).context("it has ended")?,
            ours: usage::cpu_time(process::id())?,
            busy,
            passed,
        })
    }
}

impl Punctuality {
    /// By all arrivals from one interval before `begin`, in the order of their
    /// coming.
    fn of(arrivals: &[Arrival], backends: u32, begin: Duration, end: Duration) -> Self {
        // A backend that was not asked before is due at once.
        let mut last = vec![begin.saturating_sub(INTERVAL); backends as usize];
        let mut delays = Vec::new();
        let (mut checks, mut late) = (0, 0);
        for Arrival { backend, at } in arrivals.iter().filter(|it| it.at < end) {
            let Some(last) = last.get_mut(*backend as usize) else {
                continue;
            };
            let gap = at.saturating_sub(std::mem::replace(last, *at));
            if *at >= begin {
                checks += 1;
                late += late_within(gap);
                delays.push(gap.saturating_sub(INTERVAL));
            }
        }
        for last in last {
            let gap = end.saturating_sub(last);
            late += late_within(gap);
            delays.push(gap.saturating_sub(INTERVAL));
        }
        delays.sort_unstable();
        let rank = (delays.len() * 999).div_ceil(1000).saturating_sub(1);
        Self {
            checks,
            late,
            p999: delays.get(rank).copied().unwrap_or_default(),
            latest: delays.last().copied().unwrap_or_default(),
        }
    }

    /// Those that were late by those that should have been.
    pub fn late_share(&self, backends: u32, time: Duration) -> f64 {
        self.late as f64 / (f64::from(backends) * time.as_secs_f64() / INTERVAL.as_secs_f64())
    }
}

/// How many checks were late, or are missing, between two of a backend.
fn late_within(gap: Duration) -> u64 {
    (gap.saturating_sub(LATE).as_nanos() / INTERVAL.as_nanos()) as u64
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Punctuality {
            checks,
            late,
            latest,
            ..
        } = &self.punctuality;
        write!(
            f,
            "{:.2} cores, {checks} checks, {late} late, the latest by {:.1} ms",
            self.cores,
            latest.as_secs_f64() * 1e3
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_counted_and_so_is_what_never_came() {
        const MS: Duration = Duration::from_millis(1);
        // When a backend was asked, in milliseconds; the watch is from 10 s to 14 s.
        let cases: [(&str, &[u32], u64, u32); 7] = [
            ("in time", &[9_500, 10_500, 11_500, 12_500, 13_500], 0, 0),
            (
                "a bit late",
                &[9_500, 10_549, 11_549, 12_549, 13_549],
                0,
                49,
            ),
            ("late once", &[9_500, 10_551, 11_551, 12_551, 13_551], 1, 51),
            ("one is missing", &[9_500, 10_500, 12_500, 13_500], 1, 1_000),
            ("two are missing", &[9_500, 12_500, 13_500], 2, 2_000),
            (
                "the last one is late",
                &[9_900, 10_900, 11_900, 12_900],
                1,
                100,
            ),
            ("nothing", &[], 4, 4_000),
        ];
        for (sentence, times, late, latest) in cases {
            let arrivals: Vec<Arrival> = times
                .iter()
                .map(|at| Arrival {
                    backend: 0,
                    at: MS * *at,
                })
                .collect();
            let found = Punctuality::of(&arrivals, 1, MS * 10_000, MS * 14_000);
            let expected = (late, MS * latest);
            assert_eq!((found.late, found.latest), expected, "{sentence}");
        }
    }
}
