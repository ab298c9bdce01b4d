//! The engine: changes of health, configuration and the operator's orders in,
//! what is desired out.
//!
//! One task. Probes write the health table themselves and tell the engine what
//! has changed there; it asks the decision when one of the changes that have come,
//! an order or time calls for it. What is desired is published as a state, only
//! when it differs.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};
use tracing::{info, warn};
use vipd_control::{
    decide::{Decider, Desired, HealthView},
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
    drain::{self, Answer, Drains, Order},
    leaving::Leaving,
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
    /// When our own network is in doubt.
    pub doubt: Option<doubt::Settings>,
}

/// What is believed of a backend at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Belief {
    /// Before its first check.
    pub initial: Initial,
    /// The operator has drained it.
    pub drained: bool,
}

/// What is believed of each backend at the start.
pub type Beliefs<'a> = &'a dyn Fn(&Service, &Backend) -> Belief;

/// The most changes that are taken in before a decision.
const BATCH: usize = 1024;

/// Observes, decides, publishes.
pub struct Engine {
    plan: Plan,
    decider: Decider,
    health: SharedHealth,
    drains: Drains,
    leaving: Leaving,
    /// The files that disable services; `None` when nobody looks for them.
    disable_files: Option<Present>,
    doubting: Doubting,
    decision: watch::Sender<Decision>,
}

impl Engine {
    /// An engine for a first configuration, with what is believed of its
    /// backends.
    #[must_use]
    pub fn new(plan: Plan, beliefs: Beliefs<'_>) -> Self {
        let mut health = HealthTable::default();
        let initial = |service: &Service, backend: &Backend| beliefs(service, backend).initial;
        health.apply(&plan.model, &initial, Instant::now());
        let mut engine = Self {
            decider: Decider::new(plan.secret),
            drains: Drains::new(&plan.model, |service, backend| {
                beliefs(service, backend).drained
            }),
            plan,
            health: Arc::new(Mutex::new(health)),
            leaving: Leaving::default(),
            disable_files: None,
            doubting: Doubting::default(),
            decision: watch::Sender::default(),
        };
        engine.decide();
        engine
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
        mut orders: mpsc::Receiver<drain::Request>,
    ) {
        let mut batch = Vec::new();
        loop {
            let next = [self.leaving.next(), self.table().next_step()];
            let next = next.into_iter().flatten().min();
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
                () = self.doubting.stir(self.plan.doubt.as_ref()) => self.decide(),
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
            }
        }
    }

    /// Takes in what has changed, and decides once about all of it: while a large
    /// farm comes up, changes come faster than decisions could be made.
    fn take_in(&mut self, changes: impl Iterator<Item = Change>) {
        let mut decide = false;
        let known = self.decision.borrow().known;
        for change in changes {
            log(&change);
            decide |= change.standing.is_some() || (change.transition.is_some() && !known);
        }
        if decide {
            self.decide();
        }
    }

    fn order(&mut self, order: &Order) -> Answer {
        let before = Arc::clone(&self.decision.borrow().desired);
        let outcome = self.drains.carry_out(order, &self.plan.model, &before);
        match &outcome {
            Ok(message) => info!("{message}"),
            Err(message) => warn!("{message}"),
        }
        self.decide();
        Answer {
            done: outcome.is_ok(),
            message: outcome.unwrap_or_else(|message| message),
        }
    }

    fn configure(&mut self, plan: Plan) {
        let now = Instant::now();
        let before = Arc::clone(&self.decision.borrow().desired);
        self.leaving
            .configure(&before, &plan.model, now + plan.linger);
        let initial = |service: &Service, _: &Backend| service.check.timing.initial;
        self.table().apply(&plan.model, &initial, now);
        self.drains.configure(&self.plan.model, &plan.model);
        self.decider = Decider::new(plan.secret);
        self.plan = plan;
        self.decide();
    }

    fn decide(&mut self) {
        let (previous, mut known) = {
            let decision = self.decision.borrow();
            (Arc::clone(&decision.desired), decision.known)
        };
        let model = self.leaving.extend(&self.plan.model);
        let desired = {
            let mut table = lock(&self.health);
            table.advance(Instant::now());
            known = known || table.is_known();
            let settings = self.plan.doubt.as_ref();
            self.doubting.look(&table, settings, Instant::now());
            let view = View {
                health: &table,
                drains: &self.drains,
                leaving: &self.leaving,
                disable_files: self.disable_files.as_ref(),
                doubt: self.doubting.reason(),
            };
            self.decider.decide(&model, &view, &previous)
        };
        let leaving = self.leaving.addresses();
        self.decision.send_if_modified(|decision| {
            let changed = *decision.desired != desired
                || *decision.leaving != leaving
                || decision.bgp != self.plan.bgp
                || decision.known != known;
            if changed {
                *decision = Decision {
                    desired: Arc::new(desired),
                    leaving: Arc::new(leaving),
                    bgp: self.plan.bgp.clone(),
                    known,
                };
            }
            changed
        });
    }

    fn table(&self) -> MutexGuard<'_, HealthTable> {
        lock(&self.health)
    }
}

fn log(change: &Change) {
    let Some(transition) = &change.transition else {
        return;
    };
    let (service, name) = (&change.backend.service, &change.name);
    let reason = &transition.reason;
    match transition.availability() {
        Some(true) => info!("backend {service}/{name} is up: {reason}"),
        Some(false) => warn!("backend {service}/{name} is down: {reason}"),
        None => tracing::debug!("backend {service}/{name}: {reason}"),
    }
}

fn lock(health: &SharedHealth) -> MutexGuard<'_, HealthTable> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Health of what is checked, the operator's will, and the last word on what is
/// leaving.
struct View<'a> {
    health: &'a HealthTable,
    drains: &'a Drains,
    leaving: &'a Leaving,
    disable_files: Option<&'a Present>,
    doubt: Option<Arc<str>>,
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
        self.leaving
            .standing(&service.name)
            .map_or_else(|| self.health.standing(service), <[Standing]>::to_vec)
    }

    fn drained(&self, service: &Service) -> Vec<bool> {
        self.drains.of(service)
    }

    fn shares(&self, service: &Service) -> Vec<Share> {
        self.health.shares(service)
    }

    fn disabled(&self, service: &Service) -> Option<Arc<str>> {
        let file = service.disable_file.as_ref()?;
        let present = self.disable_files?.borrow();
        present
            .contains(file)
            .then(|| format!("the file {} is there", file.display()).into())
    }

    fn doubt(&self) -> Option<Arc<str>> {
        self.doubt.clone()
    }
}
