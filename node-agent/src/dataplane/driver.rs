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

use super::apply::{Applied, Applier, Reach, Settings};
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
    thread::Builder::new()
        .name("dataplane".to_owned())
        .spawn(move || run(applier, inputs, &runtime))
}

fn run(mut applier: Applier, mut inputs: Inputs, runtime: &Handle) {
    let mut next_full = Instant::now();
    loop {
        let now = Instant::now();
        let full = now >= next_full;
        if full {
            next_full = now + FULL;
        }
        let settings = *inputs.settings.borrow_and_update();
        applier.configure(settings);
        let desired = Arc::clone(&inputs.decision.borrow_and_update().desired);
        let reach = Reach {
            ways: inputs.ways.borrow_and_update().clone(),
            problems: inputs.problems.borrow_and_update().clone(),
        };
        let applied = applier.apply(&desired, &reach, full, now);
        debug!(full, took = ?now.elapsed(), "applied");
        let retry_at = applied.retry_at;
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
        let again = retry_at.map_or(next_full, |at| at.min(next_full));
        let go_on = runtime.block_on(async {
            tokio::select! {
                stop = inputs.stop.wait_for(|stop| *stop) => { drop(stop); false }
                changed = inputs.decision.changed() => changed.is_ok(),
                changed = inputs.ways.changed() => changed.is_ok(),
                changed = inputs.problems.changed() => changed.is_ok(),
                changed = inputs.settings.changed() => changed.is_ok(),
                () = sleep_until(again.into()) => true,
            }
        });
        if !go_on {
            return;
        }
    }
}
