//! Hooks: programs of the operator's that are run when something changes its state.
//!
//! One task beside everything else: it looks at what the others publish, so nothing
//! that is decided waits for it, and a program that hangs delays other runs of its own
//! hook at most.

mod queue;
mod seen;
mod sources;
pub mod subject;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use futures_util::FutureExt as _;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};
use vipd_control::model::Program;

pub use self::sources::Sources;
use self::{
    queue::{Change, Queue},
    seen::Seen,
    subject::{Kind, Subject, Trigger},
};
use crate::{
    config::Config,
    repeats::Repeats,
    request,
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

/// Somebody waits for all that has changed by now to be told.
pub type Settle = request::Request<(), ()>;

/// A hook and what it is yet to be run for.
struct Running {
    hook: Hook,
    /// Tells it from others that had its name: their runs are not its own.
    number: u64,
    runner: Arc<Runner>,
    queue: Queue,
    tally: Tally,
    failures: Repeats,
}

/// All hooks, and their programs that run.
#[derive(Default)]
struct Hooks {
    all: BTreeMap<Arc<str>, Running>,
    /// How many there have been.
    count: u64,
    runs: JoinSet<Done>,
    /// For which subjects hooks run, by their names.
    under_way: HashSet<(Arc<str>, Subject)>,
}

/// A run that has come to its end.
struct Done {
    hook: Arc<str>,
    number: u64,
    subject: Subject,
    ran: Result<Ran, NotRun>,
}

/// Runs hooks until nothing can change any more.
pub async fn run(
    mut config: watch::Receiver<Arc<Config>>,
    mut sources: Sources,
    tallies: watch::Sender<Tallies>,
    mut settle: mpsc::Receiver<Settle>,
) {
    let mut hooks = Hooks::default();
    let mut seen = Seen::default();
    let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
    loop {
        // First of all what has gone, perhaps with a reload that changes hooks too.
        for change in seen.look(&mut sources, &hooks.kinds()) {
            hooks.note(&change);
        }
        let new = Arc::clone(&config.borrow_and_update());
        if hooks.configure(&new.hooks) {
            // A new one hears of everything, the others know it.
            seen = Seen::default();
            for change in seen.look(&mut sources, &hooks.kinds()) {
                hooks.note(&change);
            }
        }
        hooks.start(&new.node.name());
        publish(&tallies, &hooks.all);
        if hooks.are_idle() {
            for answer in waiting.drain(..) {
                // Whoever has asked may have gone.
                let _ = answer.send(());
            }
        }
        let go_on = tokio::select! {
            changed = config.changed() => {
                hooks.forget_users();
                changed.is_ok()
            }
            go_on = sources.changed(), if !hooks.all.is_empty() => go_on,
            Some(done) = hooks.runs.join_next() => {
                // A run that fails itself is caught.
                if let Ok(done) = done {
                    hooks.take_in(done);
                }
                true
            }
            Some(((), answer)) = request::next(&mut settle) => {
                waiting.push(answer);
                true
            }
            () = sleep(LOOK), if seen.is_waiting() => true,
        };
        if !go_on {
            return;
        }
    }
}

/// Has all that has changed by now told, and waits for it, but not for long.
pub async fn settled(hooks: &mpsc::Sender<Settle>) {
    if timeout(LAST_RUNS, request::ask(hooks, ())).await.is_err() {
        warn!("hooks that have not ended are killed");
    }
}

impl Hooks {
    /// Follows a configuration: a hook that stays as it is keeps what it knows. Gives
    /// back whether there are others now.
    fn configure(&mut self, hooks: &[Hook]) -> bool {
        let mut before = std::mem::take(&mut self.all);
        let mut changed = false;
        for hook in hooks {
            let old = before.remove(&hook.name);
            let kept = old.filter(|old| old.hook == *hook);
            changed |= kept.is_none();
            let now = kept.unwrap_or_else(|| self.make(hook));
            self.all.insert(Arc::clone(&hook.name), now);
        }
        changed
    }

    /// A new hook. What runs under its name already was another's, and no second one is
    /// run for the same subject meanwhile.
    fn make(&mut self, hook: &Hook) -> Running {
        self.count += 1;
        let runs = self.under_way.iter();
        let runs = runs.filter(|(name, _)| *name == hook.name);
        let subjects = runs.map(|(_, subject)| subject.clone());
        Running {
            hook: hook.clone(),
            number: self.count,
            runner: Arc::new(Runner::new(MOST_AT_ONCE)),
            queue: Queue::beside(subjects.collect()),
            tally: Tally::default(),
            failures: Repeats::default(),
        }
    }

    /// What any of them is for.
    fn kinds(&self) -> Vec<Kind> {
        let triggers = || self.all.values().flat_map(|running| &running.hook.on);
        let mut kinds = Kind::ALL.to_vec();
        kinds.retain(|kind| triggers().any(|trigger| trigger.kind == *kind));
        kinds
    }

    fn note(&mut self, change: &Change) {
        for running in self.all.values_mut() {
            running.queue.note(change.clone(), &running.hook.on);
        }
    }

    /// Starts as many runs as may be.
    fn start(&mut self, node: &Arc<str>) {
        for running in self.all.values_mut() {
            while let Some((change, previous)) = running.next() {
                let name = &running.hook.name;
                debug!("hook {name}: {} is {}", change.subject, change.state);
                let subject = change.subject.clone();
                self.under_way.insert((Arc::clone(name), subject));
                let run = running.run(Arc::clone(node), change, previous);
                self.runs.spawn(run);
            }
        }
    }

    /// Takes in a run that has come to its end, maybe of a hook that is not there any
    /// more, or of one that had the name of another.
    fn take_in(&mut self, done: Done) {
        let Done {
            hook,
            number,
            subject,
            ran,
        } = done;
        if let Some(running) = self.all.get_mut(&hook) {
            running.queue.done(&subject);
            if running.number == number {
                running.count(&subject, ran);
            }
        }
        self.under_way.remove(&(hook, subject));
    }

    fn are_idle(&self) -> bool {
        let mut hooks = self.all.values();
        self.runs.is_empty() && hooks.all(|running| running.queue.waiting() == 0)
    }

    /// There is a new configuration: who users are is asked anew.
    fn forget_users(&self) {
        for running in self.all.values() {
            running.runner.forget_users();
        }
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
    /// What it is to be run for now, and what the subject was when it was told of it last.
    fn next(&mut self) -> Option<(Change, &'static str)> {
        let has_room = self.queue.running() < MOST_AT_ONCE;
        has_room.then(|| self.queue.start())?
    }

    /// Runs it once.
    fn run(
        &self,
        node: Arc<str>,
        change: Change,
        previous: &'static str,
    ) -> impl Future<Output = Done> + Send + use<> {
        let (hook, number) = (self.hook.clone(), self.number);
        let runner = Arc::clone(&self.runner);
        async move {
            let environment = environment(&hook, &node, &change, previous);
            let run = runner.run(&hook.program, &environment, hook.timeout);
            let ran = AssertUnwindSafe(run).catch_unwind().await;
            Done {
                hook: hook.name,
                number,
                subject: change.subject,
                ran: ran.unwrap_or_else(|_| {
                    let words = "the run itself has failed, a defect of vipd";
                    Err(NotRun::Unable(words.to_owned()))
                }),
            }
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
