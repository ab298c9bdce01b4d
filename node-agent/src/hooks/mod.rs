//! Hooks: programs of the operator's that are run when something changes its state.
//!
//! One task beside everything else: it looks at what the others publish, so nothing
//! that is decided waits for it, and a program that hangs delays other runs of its own
//! hook at most.

mod queue;
mod seen;
pub mod subject;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};
use vipd_control::model::Program;

pub use self::seen::Sources;
use self::{
    queue::{Change, Queue},
    seen::Seen,
    subject::{Kind, Subject, Trigger},
};
use crate::{
    config::Config,
    repeats::Repeats,
    run::{Ending, NotRun, Ran, Runner},
};

/// Runs of one hook at once, each for another subject.
const MOST_AT_ONCE: usize = 4;

/// Between two looks for the first result of a check.
const LOOK: Duration = Duration::from_secs(1);

/// How long runs that are under way may take when the agent stops.
const LAST_RUNS: Duration = Duration::from_secs(5);

/// A hook as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Unique among hooks.
    pub name: Arc<str>,
    /// What it is run for, at least one.
    pub on: Vec<Trigger>,
    /// What is run.
    pub program: Program,
    /// How long it may take.
    pub timeout: Duration,
}

/// How a hook is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs that have ended with exit code 0.
    pub succeeded: u64,
    /// Runs that have ended otherwise.
    pub failed: u64,
    /// Runs that were killed at their time-out.
    pub timed_out: u64,
    /// Runs that could not be.
    pub not_run: u64,
    /// Changes that were not told, since another one of the same subject came before
    /// their turn.
    pub superseded: u64,
    /// Changes that wait for their turn.
    pub waiting: usize,
    /// Programs that run.
    pub running: usize,
    /// Why the last run that failed did so.
    pub last_failure: Option<String>,
}

/// All hooks by their names.
pub type Tallies = Arc<BTreeMap<Arc<str>, Tally>>;

/// A hook and what it is yet to be run for.
struct Running {
    hook: Hook,
    runner: Arc<Runner>,
    queue: Queue,
    tally: Tally,
    failures: Repeats,
}

/// A run that has come to its end.
struct Done {
    hook: Arc<str>,
    subject: Subject,
    ran: Result<Ran, NotRun>,
}

/// Runs hooks until nothing can change any more.
pub async fn run(
    mut config: watch::Receiver<Arc<Config>>,
    mut sources: Sources,
    tallies: watch::Sender<Tallies>,
) {
    let mut hooks = BTreeMap::new();
    let mut seen = Seen::default();
    let mut runs = JoinSet::new();
    loop {
        let new = Arc::clone(&config.borrow_and_update());
        if configure(&mut hooks, &new.hooks) {
            // A new one hears of everything, the others know it.
            seen = Seen::default();
        }
        let kinds = kinds(&hooks);
        for change in seen.look(&mut sources, &kinds) {
            for running in hooks.values_mut() {
                running.queue.note(change.clone(), &running.hook.on);
            }
        }
        let node = new.node.name();
        for running in hooks.values_mut() {
            running.start(&node, &mut runs);
        }
        publish(&tallies, &hooks);
        let go_on = tokio::select! {
            changed = config.changed() => changed.is_ok(),
            go_on = sources.changed(), if !hooks.is_empty() => go_on,
            Some(done) = runs.join_next() => {
                if let Ok(done) = done {
                    take_in(&mut hooks, done);
                }
                true
            }
            () = sleep(LOOK), if seen.is_waiting() => true,
        };
        if !go_on {
            return;
        }
    }
}

/// Waits until no hook runs or is to be run, but not for long.
pub async fn settled(mut tallies: watch::Receiver<Tallies>) {
    let is_idle = |tally: &Tally| tally.waiting == 0 && tally.running == 0;
    let idle = tallies.wait_for(|tallies| tallies.values().all(is_idle));
    if timeout(LAST_RUNS, idle).await.is_err() {
        warn!("hooks that have not ended are killed");
    }
}

/// Follows a configuration: a hook that stays as it is keeps what it knows. Gives back
/// whether there are others now.
fn configure(running: &mut BTreeMap<Arc<str>, Running>, hooks: &[Hook]) -> bool {
    let mut before = std::mem::take(running);
    let mut changed = false;
    for hook in hooks {
        let old = before.remove(&hook.name);
        let kept = old.filter(|old| old.hook == *hook);
        changed |= kept.is_none();
        let now = kept.unwrap_or_else(|| Running::new(hook.clone()));
        running.insert(Arc::clone(&hook.name), now);
    }
    changed
}

/// What any of them is for.
fn kinds(hooks: &BTreeMap<Arc<str>, Running>) -> Vec<Kind> {
    let triggers = || hooks.values().flat_map(|running| &running.hook.on);
    let mut kinds = Kind::ALL.to_vec();
    kinds.retain(|kind| triggers().any(|trigger| trigger.kind == *kind));
    kinds
}

fn take_in(hooks: &mut BTreeMap<Arc<str>, Running>, done: Done) {
    // It may have been taken out of the configuration meanwhile.
    if let Some(running) = hooks.get_mut(&done.hook) {
        running.queue.done(&done.subject);
        running.count(&done.subject, done.ran);
    }
}

fn publish(tallies: &watch::Sender<Tallies>, hooks: &BTreeMap<Arc<str>, Running>) {
    let now = hooks
        .iter()
        .map(|(name, running)| (Arc::clone(name), running.tally()));
    let now: BTreeMap<_, _> = now.collect();
    tallies.send_if_modified(|before| {
        let changed = **before != now;
        if changed {
            *before = Arc::new(now);
        }
        changed
    });
}

impl Running {
    fn new(hook: Hook) -> Self {
        Self {
            hook,
            runner: Arc::new(Runner::new(MOST_AT_ONCE)),
            queue: Queue::default(),
            tally: Tally::default(),
            failures: Repeats::default(),
        }
    }

    /// Starts as many runs as may be.
    fn start(&mut self, node: &Arc<str>, runs: &mut JoinSet<Done>) {
        while self.queue.running() < MOST_AT_ONCE
            && let Some((change, previous)) = self.queue.start()
        {
            debug!(
                "hook {}: {} is {}",
                self.hook.name, change.subject, change.state
            );
            let (hook, runner) = (self.hook.clone(), Arc::clone(&self.runner));
            let node = Arc::clone(node);
            runs.spawn(async move {
                let environment = environment(&hook, &node, &change, previous);
                let ran = runner.run(&hook.program, &environment, hook.timeout).await;
                Done {
                    hook: hook.name,
                    subject: change.subject,
                    ran,
                }
            });
        }
    }

    /// Counts a run, and tells if it has failed, without a flood.
    fn count(&mut self, subject: &Subject, ran: Result<Ran, NotRun>) {
        let tally = &mut self.tally;
        let (count, words) = match ran {
            Ok(ran) => match ran.ending {
                Ending::Exited(0) => {
                    tally.succeeded += 1;
                    return;
                }
                Ending::Exited(_) | Ending::Signalled(_) => (&mut tally.failed, ran.to_string()),
                Ending::TimedOut | Ending::Stuck => (&mut tally.timed_out, ran.to_string()),
            },
            Err(error) => (&mut tally.not_run, error.to_string()),
        };
        *count += 1;
        let name = &self.hook.name;
        match self.failures.note(&words, Instant::now()) {
            None => debug!("hook {name} for {subject}: {words}"),
            Some(0) => warn!("hook {name} for {subject}: {words}"),
            Some(times) => warn!(
                "hook {name} for {subject}: {words} (and {times} times since this was last told)"
            ),
        }
        tally.last_failure = Some(format!("{subject}: {words}"));
    }

    fn tally(&self) -> Tally {
        Tally {
            superseded: self.queue.superseded(),
            waiting: self.queue.waiting(),
            running: self.queue.running(),
            ..self.tally.clone()
        }
    }
}

/// What a program is told.
fn environment(
    hook: &Hook,
    node: &str,
    change: &Change,
    previous: &str,
) -> Vec<(&'static str, String)> {
    let since = change.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut environment = vec![
        ("VIPD_HOOK", hook.name.to_string()),
        ("VIPD_NODE", node.to_owned()),
        ("VIPD_SUBJECT", change.subject.kind().label().to_owned()),
        ("VIPD_NAME", change.subject.to_string()),
        ("VIPD_STATE", change.state.to_owned()),
        ("VIPD_PREVIOUS", previous.to_owned()),
        ("VIPD_REASON", change.reason.clone()),
        ("VIPD_TIME", format!("{:.3}", since.as_secs_f64())),
    ];
    match &change.subject {
        Subject::Backend(service, backend) => {
            environment.push(("VIPD_SERVICE", service.to_string()));
            environment.push(("VIPD_BACKEND", backend.to_string()));
        }
        Subject::Service(service) => environment.push(("VIPD_SERVICE", service.to_string())),
        Subject::Vip(_) | Subject::Aggregate(_) | Subject::Peer(_) => {}
    }
    environment
}
