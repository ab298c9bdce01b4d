//! The thread that applies: waits for a change of what is desired, of the
//! ways, or of its settings, and makes one pass.
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

use tokio::{runtime::Handle, sync::watch, time::sleep_until};
use tracing::{debug, error};

use super::{
    apply::{Applied, Applier, Reach, Settings},
    census::{self, Census},
    clock::Ticker,
};
use crate::{
    engine::Decision,
    netlink::way::{Problems, Ways},
};

/// Between full comparisons with what the maps hold.
const FULL: Duration = Duration::from_secs(10);

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
    let ticker = Ticker::start(Arc::clone(&applier.tables().clock))?;
    thread::Builder::new()
        .name("dataplane".to_owned())
        .spawn(move || {
            run(applier, inputs, &runtime);
            drop(ticker);
        })
}

fn run(mut applier: Applier, mut inputs: Inputs, runtime: &Handle) {
    let (orders, orders_out) = watch::channel(applier.orders());
    let (counts_in, mut counts) = watch::channel(None);
    let census = Census::new(applier.tables());
    // Without it, nothing is given back and no slot waits for it.
    if let Err(error) = census::spawn(census, orders_out, counts_in, runtime.clone()) {
        error!("flows are not counted: {error}");
    }
    let mut next_full = Instant::now();
    let mut reach = Reach::default();
    inputs.ways.mark_changed();
    inputs.problems.mark_changed();
    loop {
        let now = Instant::now();
        let full = now >= next_full;
        if full {
            next_full = now + FULL;
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
        let mut applied = applier.apply(&desired, &reach, full, now);
        debug!(full, took = ?now.elapsed(), "applied");
        orders.send_if_modified(|last| {
            let new = applier.orders();
            let changed = *last != new;
            *last = new;
            changed
        });
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
        let again = [retry_at, look_at].into_iter().flatten().min();
        let again = again.map_or(next_full, |at| at.min(next_full));
        let go_on = runtime.block_on(async {
            tokio::select! {
                stop = inputs.stop.wait_for(|stop| *stop) => { drop(stop); false }
                changed = inputs.decision.changed() => changed.is_ok(),
                changed = inputs.ways.changed() => {
                    inputs.ways.mark_changed();
                    changed.is_ok()
                }
                changed = inputs.problems.changed() => {
                    inputs.problems.mark_changed();
                    changed.is_ok()
                }
                changed = inputs.settings.changed() => changed.is_ok(),
                Ok(()) = counts.changed() => {
                    counts.mark_changed();
                    true
                }
                () = sleep_until(again.into()) => true,
            }
        });
        if !go_on {
            return;
        }
    }
}
