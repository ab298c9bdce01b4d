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
    account::Account,
    apply::{Applied, Applier, Reach, Settings},
    census::{self, Census, Count, Orders},
    clock::Ticker,
};
use crate::{
    engine::Decision,
    events::Recorder,
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
    /// What has happened.
    pub recorder: Recorder,
    /// Ends the thread when it becomes true, or its sender is dropped.
    pub stop: watch::Receiver<bool>,
}

/// Starts the thread, and the census that it lives on.
///
/// # Errors
///
/// When the system has no more threads.
pub fn spawn(applier: Applier, inputs: Inputs, runtime: Handle) -> io::Result<JoinHandle<()>> {
    let ticker = Ticker::start(Arc::clone(&applier.tables().clock))?;
    let (orders, orders_out) = watch::channel(applier.orders());
    let (counts_in, counts) = watch::channel(None);
    let census = Census::new(applier.tables());
    census::spawn(census, orders_out, counts_in, runtime.clone())?;
    thread::Builder::new()
        .name("dataplane".to_owned())
        .spawn(move || {
            run(applier, inputs, &orders, counts, &runtime);
            drop(ticker);
        })
}

/// Ends when it is told to, and when nobody is left to live on or to tell.
fn run(
    mut applier: Applier,
    mut inputs: Inputs,
    orders: &watch::Sender<Orders>,
    mut counts: watch::Receiver<Option<Arc<Count>>>,
    runtime: &Handle,
) {
    // When the comparison begins or goes on, and whether it had to wait.
    let (mut review_at, mut has_waited) = (Instant::now(), false);
    let mut woken = Woken::ByNews;
    let mut reach = Reach::default();
    let mut account = Account::default();
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
        let (desired, decided) = {
            let decision = inputs.decision.borrow_and_update();
            (decision.desired.forwarded(), decision.trail.number)
        };
        account.expect(&desired);
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
        let trail = inputs.recorder.trail();
        applied.trail = trail;
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
        let placed = account.placed(|plan| applier.has_placed(plan));
        let events = placed
            .into_iter()
            .map(|name| Account::event(name, decided, trail));
        inputs.recorder.record(events);
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
            changed = counts.changed() => {
                counts.mark_changed();
                if changed.is_err() {
                    error!("the census has ended; this is a defect of vipd");
                }
                news(changed)
            }
            () = sleep_until(again.into()) => Woken::ByTime,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::tables::Tables;

    /// Ends one of those that the thread lives on, and waits for the thread.
    #[track_caller]
    fn check(sentence: &str, end: impl FnOnce(&mut Others)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let tables = Tables::anonymous().expect("memory");
        let applier = Applier::new(tables, Settings::default());
        let (orders, _orders_out) = watch::channel(Orders::default());
        let (counts_in, counts) = watch::channel(None);
        let (decision_in, decision) = watch::channel(Decision::default());
        let (ways_in, ways) = watch::channel(Ways::default());
        let (problems_in, problems) = watch::channel(Problems::default());
        let (settings_in, settings) = watch::channel(Settings::default());
        let (applied, mut applied_out) = watch::channel(Arc::default());
        let (stop_in, stop) = watch::channel(false);
        let mut others = Others {
            counts: Some(counts_in),
            decision: Some(decision_in),
            ways: Some(ways_in),
            problems: Some(problems_in),
            settings: Some(settings_in),
            stop: Some(stop_in),
        };
        let inputs = Inputs {
            decision,
            ways,
            problems,
            settings,
            applied,
            recorder: Recorder::default(),
            stop,
        };
        let handle = runtime.handle().clone();
        let thread = thread::spawn(move || run(applier, inputs, &orders, counts, &handle));
        runtime.block_on(applied_out.changed()).expect("one pass");
        assert!(!thread.is_finished(), "{sentence}: it has ended before");
        end(&mut others);
        let gone = async { while applied_out.changed().await.is_ok() {} };
        let patience = Duration::from_secs(20);
        let gone = runtime.block_on(async { tokio::time::timeout(patience, gone).await });
        assert!(gone.is_ok(), "{sentence}: it goes on");
        thread.join().expect("it did not panic");
    }

    /// Those that the thread lives on.
    struct Others {
        counts: Option<watch::Sender<Option<Arc<Count>>>>,
        decision: Option<watch::Sender<Decision>>,
        ways: Option<watch::Sender<Ways>>,
        problems: Option<watch::Sender<Problems>>,
        settings: Option<watch::Sender<Settings>>,
        stop: Option<watch::Sender<bool>>,
    }

    #[test]
    fn the_thread_ends_with_each_of_those_it_lives_on() {
        check("the census has died", |others| others.counts = None);
        check("nobody decides", |others| others.decision = None);
        check("nobody finds ways", |others| others.ways = None);
        check("nobody tells why not", |others| others.problems = None);
        check("nobody configures", |others| others.settings = None);
        check("nobody could stop it", |others| others.stop = None);
        check("it is stopped", |others| {
            others.stop.as_ref().unwrap().send_replace(true);
        });
    }
}
