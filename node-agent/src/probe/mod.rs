//! Probes: ask the backends at the moments the schedule names, and hand over
//! what was found. What it means is decided elsewhere.

mod check;
mod exchange;
mod http;
mod lateness;
mod progress;
mod rounds;
mod tcp;
mod tls;

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use vipd_control::{
    check::Observation,
    model::{Model, Service},
};

pub use self::lateness::{Counted, LATE, Lateness};

/// All running probes. They end when it is dropped.
pub struct Probes {
    services: watch::Sender<Vec<Arc<Service>>>,
    lateness: Arc<Lateness>,
    rounds: JoinHandle<()>,
}

impl Probes {
    /// No probes yet; results will go to `observations`.
    #[must_use]
    pub fn new(observations: mpsc::Sender<Observation>) -> Self {
        let (services, configured) = watch::channel(Vec::new());
        let lateness = Arc::<Lateness>::default();
        let rounds = rounds::run(configured, observations, Arc::clone(&lateness));
        Self {
            services,
            lateness,
            rounds: tokio::spawn(rounds),
        }
    }

    /// How many checks have been started, and how many of them late.
    #[must_use]
    pub fn lateness(&self) -> Arc<Lateness> {
        Arc::clone(&self.lateness)
    }

    /// Follows a new configuration. A backend whose check has not changed
    /// keeps its rhythm.
    pub fn configure(&mut self, model: &Model) {
        self.services.send_replace(model.services.clone());
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.rounds.abort();
    }
}
