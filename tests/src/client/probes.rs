//! New connections at a steady pace, to see what a newcomer meets.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{PATIENCE, ask_within, runtime};
use crate::host::Host;

/// A new connection each 4 ms, so that with a late tick it still is at least
/// one every 5.
const PACE: Duration = Duration::from_millis(4);

/// Opens a connection every few milliseconds, asks once by each, and gives
/// each one second; many may be waiting at the same time.
#[derive(Debug)]
pub struct Probes {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Result<()>>>,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it was begun.
    pub started: Instant,
    /// How long it took to its end, good or bad.
    pub took: Duration,
    /// The backend that answered, or what went wrong.
    pub outcome: Result<String, String>,
}

/// All attempts, in the order of their beginning.
#[derive(Clone, Debug, Default)]
pub struct ProbeReport {
    /// Each connection.
    pub attempts: Vec<Attempt>,
}

impl Probes {
    /// Begins at once.
    pub fn start(host: &Host, target: SocketAddr) -> Self {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (host, attempts, stop) = (host.clone(), Arc::clone(&attempts), Arc::clone(&stop));
            move || host.enter(|| runtime()?.block_on(probe(target, &attempts, &stop)))
        });
        Self {
            attempts,
            stop,
            thread: Some(thread),
        }
    }

    /// What has ended so far.
    pub fn so_far(&self) -> ProbeReport {
        ProbeReport::sorted(lock(&self.attempts).clone())
    }

    /// Opens no more, waits for those under way, and reports.
    pub fn finish(mut self) -> Result<ProbeReport> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok().context("the probes panicked")??;
        }
        Ok(self.so_far())
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its findings are not wanted any more.
            let _ = thread.join();
        }
    }
}

impl ProbeReport {
    fn sorted(mut attempts: Vec<Attempt>) -> Self {
        attempts.sort_by_key(|attempt| attempt.started);
        Self { attempts }
    }

    /// Those begun at `instant` or later.
    pub fn since(&self, instant: Instant) -> Self {
        let begun_later = |attempt: &&Attempt| attempt.started >= instant;
        Self {
            attempts: self.attempts.iter().filter(begun_later).cloned().collect(),
        }
    }

    /// Those that failed.
    pub fn failures(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.attempts.iter().filter(|a| a.outcome.is_err())
    }

    /// Fails, telling what went wrong, unless connections were opened and all
    /// of them answered.
    pub fn ensure_all_answered(&self) -> Result<()> {
        ensure!(!self.attempts.is_empty(), "no connection was opened");
        let failures = self.by_failure();
        ensure!(
            failures.is_empty(),
            "of {} connections failed {failures:?}",
            self.attempts.len()
        );
        Ok(())
    }

    /// The same, and each by this backend.
    pub fn ensure_all_answered_by(&self, backend: &str) -> Result<()> {
        self.ensure_all_answered()?;
        let answers = self.by_backend();
        ensure!(answers.keys().eq([backend]), "answered by {answers:?}");
        Ok(())
    }

    /// Those that were answered.
    pub fn successes(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.attempts.iter().filter(|a| a.outcome.is_ok())
    }

    /// When the last one that failed was begun.
    pub fn last_failure(&self) -> Option<Instant> {
        self.failures().next_back().map(|attempt| attempt.started)
    }

    /// The longest time between the beginnings of two successive successful
    /// connections.
    pub fn longest_gap(&self) -> Duration {
        self.successes()
            .zip(self.successes().skip(1))
            .map(|(earlier, later)| later.started - earlier.started)
            .max()
            .unwrap_or_default()
    }

    /// Answers per backend.
    pub fn by_backend(&self) -> BTreeMap<String, usize> {
        count(self.attempts.iter().filter_map(|a| a.outcome.as_ref().ok()))
    }

    /// Failures per reason.
    pub fn by_failure(&self) -> BTreeMap<String, usize> {
        count(
            self.attempts
                .iter()
                .filter_map(|a| a.outcome.as_ref().err()),
        )
    }
}

async fn probe(
    target: SocketAddr,
    attempts: &Arc<Mutex<Vec<Attempt>>>,
    stop: &AtomicBool,
) -> Result<()> {
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let attempts = Arc::clone(attempts);
        under_way.spawn(async move {
            let started = Instant::now();
            let outcome = ask_within(target, PATIENCE).await;
            lock(&attempts).push(Attempt {
                started,
                took: started.elapsed(),
                outcome: outcome.map_err(|error| format!("{error:#}")),
            });
        });
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
    Ok(())
}

fn count<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.clone()).or_default() += 1;
    }
    counts
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
