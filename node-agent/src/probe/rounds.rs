//! Who is asked when: one task that keeps the times, and one more for each check
//! that is under way. Between two checks a backend is a few words of memory.
//!
//! A check's task gives its result to the health table itself and learns from
//! there how soon the next one is due. Only what has changed goes on to the
//! engine, so checks that find what they found before cost it nothing.

mod under_way;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    pin::Pin,
    sync::{Arc, PoisonError},
    time::Instant,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Sleep, sleep_until},
};
use tracing::{error, warn};
use vipd_control::{
    check::{CheckCode, CheckResult, Observation},
    health_table::Change,
    model::{Service, Tracked},
    schedule::{Pace, first_check, next_check},
};

use self::under_way::{Ended, UnderWay};
use super::{
    check::{Shared, check, guarded},
    lateness::Lateness,
    targets::{Target, Targets},
};
use crate::{engine::SharedHealth, repeats::Repeats};

/// Checks under way together. Backends that answer take none of it for long; so
/// many that do not answer can be asked once per time-out.
const MOST_AT_ONCE: usize = 8_192;

/// So many that are to be checked at once are taken in together.
const BATCH: usize = 1024;

/// Asks the backends of these services, until nobody wants to know any more.
pub async fn run(
    mut services: watch::Receiver<Vec<Arc<Service>>>,
    mut hastened: mpsc::Receiver<Tracked>,
    health: SharedHealth,
    changes: mpsc::Sender<Change>,
    lateness: Arc<Lateness>,
    shared: Arc<Shared>,
) {
    let mut rounds = Rounds::new(Instant::now(), lateness);
    let mut checks = UnderWay::default();
    let mut urgent = Vec::new();
    let mut alarm: Pin<Box<Sleep>> = Box::pin(sleep_until(Instant::now().into()));
    loop {
        let now = Instant::now();
        while checks.len() < MOST_AT_ONCE
            && let Some(due) = rounds.due(now)
        {
            let (target, shared) = (Arc::clone(&due.target), Arc::clone(&shared));
            let ask = ask(due, shared, Arc::clone(&health), changes.clone());
            checks.start(target, ask);
        }
        // Whoever is due but finds no room waits until a check ends.
        let next = rounds.next().filter(|_| checks.len() < MOST_AT_ONCE);
        if let Some(next) = next {
            alarm.as_mut().reset(next.into());
        }
        tokio::select! {
            changed = services.changed() => match changed {
                Ok(()) => {
                    let services = services.borrow_and_update().clone();
                    shared.forget_users();
                    rounds.configure(&services, Instant::now());
                }
                Err(_) => return,
            },
            1.. = hastened.recv_many(&mut urgent, BATCH) => {
                rounds.hasten(&urgent, Instant::now());
                urgent.clear();
            }
            Some(ended) = checks.ended() => match ended {
                Ended::Asked(asked) => rounds.asked(asked),
                Ended::Lost(target, error) => {
                    error!("a check of {} is lost, a defect of vipd: {error}", target.backend);
                    rounds.lost(target, Instant::now());
                }
                Ended::Unheard => return,
            },
            () = &mut alarm, if next.is_some() => {}
        }
    }
}

/// A check has come to its end.
struct Asked {
    target: Arc<Target>,
    /// When it was to start, when it did, and when it had its result.
    due: Instant,
    started: Instant,
    ended: Instant,
    /// How soon it is due again; `None` if nobody wants it any more.
    pace: Option<Pace>,
    /// Why it was not possible, if so.
    unable: Option<String>,
}

/// Checks once, and hands over what was found; nothing when nobody wants it.
async fn ask(
    due: Due,
    shared: Arc<Shared>,
    health: SharedHealth,
    changes: mpsc::Sender<Change>,
) -> Option<Asked> {
    let started = Instant::now();
    let Due { at, target } = due;
    let result = guarded(check(&target.check, target.subject(), &shared)).await;
    let unable = (result.code == CheckCode::SockErr).then(|| result.detail.clone());
    let (pace, changed) = tell(&target, &result, &health);
    for change in changed {
        changes.send(change).await.ok()?;
    }
    Some(Asked {
        target,
        due: at,
        started,
        ended: Instant::now(),
        pace,
        unable,
    })
}

/// Tells the health table what was found of all that the check is made for. How
/// soon the most urgent of them wants to know again, and what has changed.
fn tell(
    target: &Target,
    result: &CheckResult,
    health: &SharedHealth,
) -> (Option<Pace>, Vec<Change>) {
    let mut table = health.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let mut pace = None;
    let mut changed = Vec::new();
    for subject in &*target.subjects() {
        let observation = Observation {
            service: Arc::clone(&subject.service),
            backend: subject.address,
            result: result.clone(),
        };
        let observed = table.observe(observation, now);
        pace = pace.into_iter().chain(observed.pace).min();
        changed.extend(observed.changes);
    }
    (pace, changed)
}

/// The times of all checks.
struct Rounds {
    targets: Targets,
    /// Those that wait for their next check, and some that nobody wants.
    waiting: BinaryHeap<Reverse<Due>>,
    /// Turns are counted from here.
    epoch: Instant,
    unable: Unable,
    lateness: Arc<Lateness>,
}

/// The next check of a backend.
struct Due {
    at: Instant,
    target: Arc<Target>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Rounds {
    fn new(now: Instant, lateness: Arc<Lateness>) -> Self {
        Self {
            targets: Targets::default(),
            waiting: BinaryHeap::new(),
            epoch: now,
            unable: Unable::default(),
            lateness,
        }
    }

    /// Follows a configuration. Who is checked as before keeps its rhythm.
    fn configure(&mut self, services: &[Arc<Service>], now: Instant) {
        let new = self.targets.configure(services);
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let mut waiting: Vec<_> = waiting
            .filter(|Reverse(due)| due.target.is_wanted())
            .collect();
        for Reverse(due) in &mut waiting {
            if due.target.take_urgency() {
                due.at = now;
            }
        }
        self.waiting = waiting.into();
        for (n, target) in (0..).zip(new) {
            self.wait(first_check(now, n), target);
        }
    }

    /// Has these backends checked now, but for those whose check is under way.
    fn hasten(&mut self, backends: &[Tracked], now: Instant) {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let mut waiting: Vec<_> = waiting.collect();
        for Reverse(due) in &mut waiting {
            let subjects = due.target.subjects();
            if subjects.iter().any(|subject| backends.contains(subject)) {
                due.at = due.at.min(now);
            }
        }
        self.waiting = waiting.into();
    }

    /// Has a backend whose check was lost asked again: nobody knows what was found.
    fn lost(&mut self, target: Arc<Target>, now: Instant) {
        if target.is_wanted() {
            self.wait(now + target.check.timing.interval, target);
        }
    }

    fn wait(&mut self, at: Instant, target: Arc<Target>) {
        self.waiting.push(Reverse(Due { at, target }));
    }

    /// When the next check is due.
    fn next(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(due)| due.at)
    }

    /// A backend that is to be checked now.
    fn due(&mut self, now: Instant) -> Option<Due> {
        self.next().filter(|at| *at <= now)?;
        self.waiting.pop().map(|Reverse(due)| due)
    }

    /// Times the check after one that has ended.
    fn asked(&mut self, asked: Asked) {
        let Asked {
            target,
            due,
            started,
            ended,
            pace,
            unable,
        } = asked;
        self.lateness.count(started.saturating_duration_since(due));
        if let Some(detail) = unable {
            self.unable.tell(&target, &detail, Instant::now());
        }
        if !target.is_wanted() {
            return;
        }
        let timing = &target.check.timing;
        // It was wanted only after it had been told.
        let pace = pace.unwrap_or(Pace::Doubt(timing.fast_interval));
        let next = next_check(
            self.epoch,
            target.turn,
            started,
            pace,
            timing,
            fastrand::f64(),
        );
        // Checks of a backend never overlap: who was slow is asked again at once.
        self.wait(next.max(ended), target);
    }
}

/// Tells of checks that are not possible, our own fault, each cause without a flood.
#[derive(Default)]
struct Unable(Repeats);

impl Unable {
    fn tell(&mut self, target: &Target, detail: &str, now: Instant) {
        if let Some(line) = self.line(target, detail, now) {
            warn!("{line}");
        }
    }

    /// What there is to be told of it, if anything.
    fn line(&mut self, target: &Target, detail: &str, now: Instant) -> Option<String> {
        let others = match self.0.note(detail, now)? {
            0 => String::new(),
            others => format!(" ({others} more checks since the last such line)"),
        };
        let subjects = target.subjects();
        let services: Vec<_> = subjects.iter().map(|subject| &*subject.service).collect();
        Some(format!(
            "no check of {} in {} is possible: {detail}; it stays in the state it is in{others}",
            target.backend,
            services.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests;
