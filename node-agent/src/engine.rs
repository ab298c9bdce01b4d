//! The engine: changes of health, configuration and the operator's orders in,
//! what is desired out.
//!
//! One task. Probes write the health table themselves and tell the engine what
//! has changed there; it asks the decision when one of the changes that have come,
//! an order or time calls for it. What is desired is published as a state, only
//! when it differs. What has happened is recorded once it is published.

mod account;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};
use tracing::{info, warn};
use vipd_control::{
    decide::{Decider, Desired, Doubted, HealthView},
    doubt::Doubt,
    health::Initial,
    health_table::{Change, HealthTable},
    model::{Backend, Model, Service, Vip},
    slow_start::Share,
    standing::Standing,
};

use crate::{
    config::Bgp,
    disable_files::Present,
    doubt::{self, Doubting},
    events::{Event, Recorder, Step, Subject, Trail},
    leaving::Leaving,
    overrides::{self, Answer, Order, Overrides, Target},
    request,
};

/// What the engine publishes.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// What is to be forwarded, and what is behind each virtual address.
    pub desired: Arc<Desired>,
    /// Virtual addresses that were taken out of the configuration: still
    /// forwarded, no longer announced.
    pub leaving: Arc<BTreeSet<Vip>>,
    /// What is announced to whom. It comes with what it is about, so that no
    /// address is ever announced by rules that do not know it.
    pub bgp: Option<Arc<Bgp>>,
    /// Whether something was known of every backend once: before, what is not
    /// alive may only not have been asked.
    pub known: bool,
    /// Which decision it is.
    pub trail: Trail,
}

/// The health table, for the probes that write it and whoever shows it.
pub type SharedHealth = Arc<Mutex<HealthTable>>;

/// A configuration as the engine sees it.
#[derive(Clone)]
pub struct Plan {
    /// What is served.
    pub model: Arc<Model>,
    /// Keys the fingerprints.
    pub secret: [u8; 16],
    /// How long a removed address is still forwarded.
    pub linger: Duration,
    /// What is announced to whom.
    pub bgp: Option<Arc<Bgp>>,
    /// When our own network is in doubt, if ever.
    pub doubt: doubt::Settings,
}

/// What is believed of each backend at the start.
pub type Beliefs<'a> = &'a dyn Fn(&Service, &Backend) -> Initial;

/// The most changes that are taken in before a decision.
const BATCH: usize = 1024;

/// Observes, decides, publishes.
pub struct Engine {
    plan: Plan,
    decider: Decider,
    health: SharedHealth,
    overrides: Overrides,
    /// The same, for whoever shows or keeps them.
    published: watch::Sender<Arc<Overrides>>,
    leaving: Leaving,
    /// The files that disable services; `None` when nobody looks for them.
    disable_files: Option<Present>,
    doubting: Doubting,
    decision: watch::Sender<Decision>,
    recorder: Recorder,
}

impl Engine {
    /// An engine for a first configuration, with what is believed of its
    /// backends and what the operator has ordered.
    #[must_use]
    pub fn new(plan: Plan, beliefs: Beliefs<'_>, overrides: Overrides, recorder: Recorder) -> Self {
        let mut health = HealthTable::default();
        health.apply(&plan.model, beliefs, Instant::now());
        let mut engine = Self {
            decider: Decider::new(plan.secret),
            overrides,
            published: watch::Sender::default(),
            plan,
            health: Arc::new(Mutex::new(health)),
            leaving: Leaving::default(),
            disable_files: None,
            doubting: Doubting::default(),
            decision: watch::Sender::default(),
            recorder,
        };
        engine.overrides.configure(&engine.plan.model);
        engine.overrides.expire(unix(SystemTime::now()));
        engine.publish_overrides();
        engine.record(
            Subject::Node,
            Step::Configuration,
            "the agent has started".to_owned(),
        );
        engine.decide();
        engine
    }

    /// What the operator has ordered.
    #[must_use]
    pub fn overrides(&self) -> watch::Receiver<Arc<Overrides>> {
        self.published.subscribe()
    }

    /// The same, with an eye on the files that disable services.
    #[must_use]
    pub fn with_disable_files(mut self, present: Present) -> Self {
        self.disable_files = Some(present);
        self.decide();
        self
    }

    /// What is decided.
    #[must_use]
    pub fn decision(&self) -> watch::Receiver<Decision> {
        self.decision.subscribe()
    }

    /// The health table.
    #[must_use]
    pub fn health(&self) -> SharedHealth {
        Arc::clone(&self.health)
    }

    /// Runs until nobody tells of changes any more.
    pub async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut plans: watch::Receiver<Plan>,
        mut orders: mpsc::Receiver<overrides::Request>,
    ) {
        let mut batch = Vec::new();
        loop {
            let next = [self.leaving.next(), self.table().next_step()];
            let next = next.into_iter().flatten().min();
            let deadline = self.overrides.next_deadline();
            tokio::select! {
                count = changes.recv_many(&mut batch, BATCH) => match count {
                    0 => return,
                    _ => self.take_in(batch.drain(..)),
                },
                changed = plans.changed() => match changed {
                    Ok(()) => {
                        let plan = plans.borrow_and_update().clone();
                        self.configure(plan);
                    }
                    Err(_) => return,
                },
                () = changed(&mut self.disable_files) => self.decide(),
                () = self.doubting.stir(&self.plan.doubt) => self.decide(),
                Some((order, answer)) = request::next(&mut orders) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.order(&order));
                }
                () = async { match next {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                } } => {
                    self.leaving.expire(Instant::now());
                    self.decide();
                }
                () = async { match deadline {
                    Some(at) => sleep(until(at)).await,
                    None => std::future::pending().await,
                } } => self.expire(),
            }
        }
    }

    /// Takes in what has changed, and decides once about all of it: while a large
    /// farm comes up, changes come faster than decisions could be made.
    fn take_in(&mut self, changes: impl Iterator<Item = Change>) {
        let mut decide = false;
        let known = self.decision.borrow().known;
        for change in changes {
            self.tell(&change);
            decide |= change.matters() || (change.transition.is_some() && !known);
        }
        if decide {
            self.decide();
        }
    }

    fn order(&mut self, order: &Order) -> Answer {
        let before = Arc::clone(&self.decision.borrow().desired);
        let now = unix(SystemTime::now());
        let outcome = self
            .overrides
            .carry_out(order, &self.plan.model, &before, now);
        match &outcome {
            Ok(message) => {
                info!("{message}");
                self.publish_overrides();
                self.record(
                    order.act.target().map_or(Subject::Node, subject),
                    Step::Order,
                    format!("{}{message}", said_by(&order.by)),
                );
            }
            Err(message) => warn!("{message}"),
        }
        self.decide();
        Answer {
            done: outcome.is_ok(),
            message: outcome.unwrap_or_else(|message| message),
        }
    }

    /// Has those leave whose deadline has come.
    fn expire(&mut self) {
        let expired = self.overrides.expire(unix(SystemTime::now()));
        for target in &expired {
            let words = "the deadline of its drain has come: it leaves, whatever flows remain";
            info!("{target}: {words}");
            self.record(subject(target), Step::Order, words.to_owned());
        }
        if !expired.is_empty() {
            self.publish_overrides();
            self.decide();
        }
    }

    fn configure(&mut self, plan: Plan) {
        let now = Instant::now();
        let before = Arc::clone(&self.decision.borrow().desired);
        self.leaving
            .configure(&before, &plan.model, now + plan.linger);
        let initial = |service: &Service, _: &Backend| service.check.timing.initial;
        self.table().apply(&plan.model, &initial, now);
        self.overrides.configure(&plan.model);
        self.publish_overrides();
        self.decider = Decider::new(plan.secret);
        self.plan = plan;
        self.record(
            Subject::Node,
            Step::Configuration,
            "a new configuration is in force".to_owned(),
        );
        self.decide();
    }

    fn publish_overrides(&self) {
        self.published.send_if_modified(|published| {
            let changed = **published != self.overrides;
            if changed {
                *published = Arc::new(self.overrides.clone());
            }
            changed
        });
    }

    fn decide(&mut self) {
        let (previous, mut known, before) = {
            let decision = self.decision.borrow();
            (
                Arc::clone(&decision.desired),
                decision.known,
                decision.trail,
            )
        };
        let model = self.leaving.extend(&self.plan.model);
        let desired = {
            let mut table = lock(&self.health);
            table.advance(Instant::now());
            known = known || table.is_known();
            let settings = &self.plan.doubt;
            self.doubting.look(&table, settings, Instant::now());
            let view = View {
                health: &table,
                overrides: &self.overrides,
                leaving: &self.leaving,
                disable_files: self.disable_files.as_ref(),
                doubt: self.doubting.doubt(),
                window: settings.terms.window,
            };
            Arc::new(self.decider.decide(&model, &view, &previous))
        };
        let leaving = self.leaving.addresses();
        let trail = self.recorder.trail();
        let changed = self.decision.send_if_modified(|decision| {
            let changed = decision.desired != desired
                || *decision.leaving != leaving
                || decision.bgp != self.plan.bgp
                || decision.known != known;
            if changed {
                *decision = Decision {
                    desired: Arc::clone(&desired),
                    leaving: Arc::new(leaving),
                    bgp: self.plan.bgp.clone(),
                    known,
                    trail,
                };
            }
            changed
        });
        if changed {
            let decided = account::decided(&previous, &desired, before.number, trail);
            self.recorder.record(decided);
        }
    }

    fn table(&self) -> MutexGuard<'_, HealthTable> {
        lock(&self.health)
    }

    /// Logs and records what a check has changed.
    fn tell(&self, change: &Change) {
        let Some(transition) = &change.transition else {
            return;
        };
        let trail = self.recorder.trail();
        let (service, name) = (&change.backend.service, &change.name);
        let reason = &transition.reason;
        match transition.availability() {
            Some(true) => info!("backend {service}/{name} is up: {reason}"),
            Some(false) => warn!("backend {service}/{name} is down: {reason}"),
            None => tracing::debug!("backend {service}/{name}: {reason}"),
        }
        let last = {
            let table = self.table();
            let health = table.backend(service, change.backend.address);
            health.and_then(|health| health.last().cloned())
        };
        let subject = Subject::Backend(Arc::clone(service), Arc::clone(name));
        self.recorder
            .record(account::found(trail, &subject, last.as_ref(), transition));
    }

    fn record(&self, subject: Subject, step: Step, text: String) {
        let event = Event::new(self.recorder.trail(), subject, step, text);
        self.recorder.record([event]);
    }
}

/// Who has given an order, in front of what came of it.
pub(crate) fn said_by(by: &str) -> String {
    match by {
        "" => String::new(),
        by => format!("by {by}: "),
    }
}

/// Whom an order is about.
fn subject(target: &Target) -> Subject {
    let service = Arc::clone(&target.service);
    match &target.backend {
        Some(backend) => Subject::Backend(service, Arc::clone(backend)),
        None => Subject::Service(service),
    }
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// How long until then; nothing if that is over.
fn until(unix: u64) -> Duration {
    let then = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(unix));
    // Beyond what can be counted it is never.
    then.map_or(Duration::MAX, |then| {
        then.duration_since(SystemTime::now()).unwrap_or_default()
    })
}

fn lock(health: &SharedHealth) -> MutexGuard<'_, HealthTable> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Health of what is checked, the operator's will, and the last word on what is
/// leaving.
struct View<'a> {
    health: &'a HealthTable,
    overrides: &'a Overrides,
    leaving: &'a Leaving,
    disable_files: Option<&'a Present>,
    doubt: &'a Doubt,
    /// Who falls within it falls together.
    window: Duration,
}

impl View<'_> {
    /// The same without those whose drain is over.
    fn staying(&self, service: &Service, mut backends: Vec<bool>) -> Vec<bool> {
        let ended = self.overrides.ended(service);
        for (backend, ended) in backends.iter_mut().zip(ended) {
            *backend &= !ended;
        }
        backends
    }
}

/// Ends when another file has come or one has gone, if anybody looks.
async fn changed(present: &mut Option<Present>) {
    if let Some(files) = present
        && files.changed().await.is_err()
    {
        *present = None;
    }
    if present.is_none() {
        std::future::pending::<()>().await;
    }
}

impl HealthView for View<'_> {
    fn standing(&self, service: &Service) -> Vec<Standing> {
        if let Some(standing) = self.leaving.standing(&service.name) {
            return standing.to_vec();
        }
        let mut standing = self.health.standing(service);
        let ended = self.overrides.ended(service);
        for (standing, _) in standing.iter_mut().zip(ended).filter(|(_, ended)| *ended) {
            *standing = Standing::Dead;
        }
        standing
    }

    fn drained(&self, service: &Service) -> Vec<bool> {
        self.overrides.drained(service)
    }

    fn shares(&self, service: &Service) -> Vec<Share> {
        self.health.shares(service)
    }

    fn disabled(&self, service: &Service) -> Option<Arc<str>> {
        let by_file = || {
            let file = service.disable_file.as_ref()?;
            let present = self.disable_files?.borrow();
            present
                .contains(file)
                .then(|| format!("the file {} is there", file.display()).into())
        };
        self.overrides.disabled(service).or_else(by_file)
    }

    fn doubted(&self, service: &Service) -> Option<Doubted> {
        let doubted = self.health.doubted(service, self.doubt)?;
        Some(Doubted {
            backends: self.staying(service, doubted.backends),
            ..doubted
        })
    }

    fn fallen(&self, service: &Service) -> Vec<bool> {
        self.staying(service, self.health.fallen(service, self.window))
    }
}
