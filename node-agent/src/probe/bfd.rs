//! What BFD says of the way to backends, for their health.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use tokio::sync::{mpsc, watch};
use vipd_control::{
    health_table::Change,
    model::{Service, Tracked},
};

use crate::{bfd::client::States, engine::SharedHealth};

/// Tells the health table what BFD says of the backends of these services, and
/// the engine what has changed by it, until nobody wants to know any more.
pub async fn run(
    mut states: watch::Receiver<States>,
    mut services: watch::Receiver<Vec<Arc<Service>>>,
    health: SharedHealth,
    changes: mpsc::Sender<Change>,
) {
    loop {
        let found = {
            let services = services.borrow_and_update();
            let states = states.borrow_and_update();
            tell(&services, &states, &health)
        };
        for change in found {
            if changes.send(change).await.is_err() {
                return;
            }
        }
        let changed = tokio::select! {
            changed = states.changed() => changed,
            changed = services.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Tells it all: what is known already changes nothing.
fn tell(services: &[Arc<Service>], states: &States, health: &SharedHealth) -> Vec<Change> {
    let mut found = Vec::new();
    for service in services.iter().filter(|service| service.bfd) {
        let mut table = health.lock().unwrap_or_else(PoisonError::into_inner);
        for backend in &service.backends {
            let path = states.path(backend.address);
            let backend = Tracked::of(service, backend);
            found.extend(table.hear(&backend, path, Instant::now()));
        }
    }
    found
}
