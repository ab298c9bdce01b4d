//! The thread that applies: waits for a change of what is desired, of the
//! ways, or of its settings, and makes one pass. Now and then it has all
//! compared that has not changed, in passes that are short enough for a change
//! to wait for.
//!
//! An operating-system thread of its own, so that no amount of map writing
//! delays a BGP keepalive. Waiting is the runtime's affair and cancel-safe;
//! passes are not interrupted.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::watch::{self, error::RecvError},
    time::sleep_until,
};
use tracing::{debug, error};

use super::{
    apply::{Applied, Applier, Reach, Settings},
    census::{self, Census, Count},
};
use crate::{
    engine::Decision,
    netlink::way::{Problems, Ways},
};

/// Between two comparisons of all that is unchanged with what the maps hold.
const REVIEW: Duration = Duration::from_secs(10);

/// What the thread lives on.
pub struct Inputs {
    /// What is to be.
    pub decision: watch::Receiver<Decision>,
    /// The ways to the backends.
    pub ways: watch::Receiver<Ways>,
    /// Why there are none to others.
    pub problems: watch::Receiver<Problems>,
    /// Settings.
    pub settings: watch::Receiver<Settings>,
    /// Where achievements go.
    pub applied: watch::Sender<Arc<Applied>>,
    /// Ends the thread when it becomes true, or its sender is dropped.
    pub stop: watch::Receiver<bool>,
}

/// Starts the thread.
///
/// # Errors
///
/// When the system has no more threads.
pub fn spawn(applier: Applier, inputs: Inputs, runtime: Handle) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("dataplane".to_owned())
        .spawn(move || run(applier, inputs, &runtime))
}

fn run(mut applier: Applier, mut inputs: Inputs, runtime: &Handle) {
    let (orders, orders_out) = watch::channel(applier.orders());
    let (counts_in, mut counts) = watch::channel(None);
    let census = Census::new(applier.tables());
    // Without it, nothing is given back and no slot waits for it.
    if let Err(error) = census::spawn(census, orders_out, counts_in, runtime.clone()) {
        error!("flows are not counted: {error}");
    }
    // When the comparison begins or goes on, and whether it had to wait.
    let (mut review_at, mut has_waited) = (Instant::now(), false);
    let mut woken = Woken::ByNews;
    let mut reach = Reach::default();
    inputs.ways.mark_changed();
    inputs.problems.mark_changed();
    loop {
        let now = Instant::now();
        // What is new goes first; if there is no end of it, every other time.
        let reviews = now >= review_at && (woken == Woken::ByTime || has_waited);
        has_waited = now >= review_at && !reviews;
        if reviews && applier.review() {
            review_at = now + REVIEW;
        }
        let settings = *inputs.settings.borrow_and_update();
        applier.configure(settings);
        let desired = Arc::clone(&inputs.decision.borrow_and_update().desired);
        // Copied only when it is another, by which the applier knows it.
        if inputs.ways.has_changed().unwrap_or(false) {
            reach.ways = Arc::new(inputs.ways.borrow_and_update().clone());
        }
        if inputs.problems.has_changed().unwrap_or(false) {
            reach.problems = Arc::new(inputs.problems.borrow_and_update().clone());
        }
        if counts.has_changed().unwrap_or(false)
            && let Some(count) = counts.borrow_and_update().clone()
        {
            applier.counted(count);
        }
        let mut applied = applier.apply(&desired, &reach, false, now);
        debug!(reviews, took = ?now.elapsed(), "applied");
        let retry_at = applied.retry_at;
        // Of no interest to anybody else.
        let look_at = applied.look_at.take();
        inputs.applied.send_if_modified(|last| {
            for (subject, fault) in &applied.faults {
                if last.faults.get(subject) != Some(fault) {
                    error!("{subject}: {fault}");
                }
            }
            let changed = **last != applied;
            if changed {
                *last = Arc::new(applied);
            }
            changed
        });
        orders.send_if_modified(|last| {
            let new = applier.orders();
            let changed = *last != new;
            *last = new;
            changed
        });
        let again = [retry_at, look_at].into_iter().flatten().min();
        let again = again.map_or(review_at, |at| at.min(review_at));
        let waiting = inputs.wait(&mut counts, again);
        woken = match runtime.block_on(waiting) {
            Woken::Stopped => return,
            woken => woken,
        };
    }
}

/// What the wait for the next pass has ended by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    ByNews,
    ByTime,
    Stopped,
}

impl Inputs {
    /// Waits for something new, until `again` at most.
    async fn wait(
        &mut self,
        counts: &mut watch::Receiver<Option<Arc<Count>>>,
        again: Instant,
    ) -> Woken {
        let news = |changed: Result<(), RecvError>| match changed {
            Ok(()) => Woken::ByNews,
            Err(_) => Woken::Stopped,
        };
        tokio::select! {
            biased;
            stop = self.stop.wait_for(|stop| *stop) => { drop(stop); Woken::Stopped }
            changed = self.decision.changed() => news(changed),
            changed = self.ways.changed() => {
                self.ways.mark_changed();
                news(changed)
            }
            changed = self.problems.changed() => {
                self.problems.mark_changed();
                news(changed)
            }
            changed = self.settings.changed() => news(changed),
            Ok(()) = counts.changed() => {
                counts.mark_changed();
                Woken::ByNews
            }
            () = sleep_until(again.into()) => Woken::ByTime,
        }
    }
}
