//! Probes: ask the backends at the moments the schedule names, and hand over
//! what was found. What it means is decided elsewhere.

mod bfd;
mod check;
mod datagram;
mod dns;
mod exchange;
mod file;
mod http;
mod icmp;
mod lateness;
mod program;
mod progress;
mod rounds;
mod targets;
mod tcp;
mod through;
mod tls;
mod udp;
mod words;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::iter};
use tokio::sync::{mpsc, watch};
use vipd_control::{
    check::CheckResult,
    health_table::Change,
    model::{Backend, Model, Service, Tracked},
};

use self::check::{Shared, Subject, check, guarded};
pub use self::{
    lateness::{Counted, LATE, Lateness},
    through::Tunnels,
};
use crate::{bfd::client::States, engine::SharedHealth};

/// Checks that are made at once when all are to be made once.
const ONCE_AT_ONCE: usize = 256;

/// Has backends checked, by two tasks that whoever made it runs: without them every
/// state stays as it is.
pub struct Probes {
    services: watch::Sender<Vec<Arc<Service>>>,
    lateness: Arc<Lateness>,
    health: SharedHealth,
    changes: mpsc::Sender<Change>,
    hastened: mpsc::Sender<Tracked>,
}

impl Probes {
    /// No probes yet; results will go to `health`, and what they change to
    /// `changes`. The task makes the checks, as long as this lives.
    pub fn new(
        health: SharedHealth,
        changes: mpsc::Sender<Change>,
        tunnels: Tunnels,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (services, configured) = watch::channel(Vec::new());
        let (hastened, urgent) = mpsc::channel(1024);
        let lateness = Arc::<Lateness>::default();
        let rounds = rounds::run(
            configured,
            urgent,
            Arc::clone(&health),
            changes.clone(),
            Arc::clone(&lateness),
            Arc::new(Shared::new(tunnels)),
        );
        let probes = Self {
            services,
            lateness,
            health,
            changes,
            hastened,
        };
        (probes, rounds)
    }

    /// How many checks have been started, and how many of them late.
    #[must_use]
    pub fn lateness(&self) -> Arc<Lateness> {
        Arc::clone(&self.lateness)
    }

    /// The task that takes in what BFD says, too, as long as this lives.
    pub fn hear(&self, states: watch::Receiver<States>) -> impl Future<Output = ()> + Send + use<> {
        bfd::run(
            states,
            self.services.subscribe(),
            Arc::clone(&self.health),
            self.changes.clone(),
            self.hastened.clone(),
        )
    }

    /// Follows a new configuration. A backend whose check has not changed
    /// keeps its rhythm.
    pub fn configure(&self, model: &Model) {
        self.services.send_replace(model.services.clone());
    }
}

/// Checks backends of a service once, now, and gives back what was found of each.
pub async fn once(service: &Service, backends: &[&Backend], tunnels: Tunnels) -> Vec<CheckResult> {
    let shared = Shared::new(tunnels);
    let checks = backends.iter().map(|backend| {
        let subject = Subject {
            service: &service.name,
            backend: &backend.name,
            address: backend.address,
        };
        guarded(check(&service.check, subject, &shared))
    });
    iter(checks).buffered(ONCE_AT_ONCE).collect().await
}
