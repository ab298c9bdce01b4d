//! Probes: ask the backends at the moments the schedule names, and hand over
//! what was found. What it means is decided elsewhere.

mod check;
mod exchange;
mod http;
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

/// All running probes. They end when it is dropped.
pub struct Probes {
    services: watch::Sender<Vec<Arc<Service>>>,
    rounds: JoinHandle<()>,
}

impl Probes {
    /// No probes yet; results will go to `observations`.
    #[must_use]
    pub fn new(observations: mpsc::Sender<Observation>) -> Self {
        let (services, configured) = watch::channel(Vec::new());
        Self {
            services,
            rounds: tokio::spawn(rounds::run(configured, observations)),
        }
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
