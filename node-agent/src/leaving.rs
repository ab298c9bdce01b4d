//! Virtual addresses on their way out: withdrawn, but still forwarded for a
//! while, since packets arrive until every router has heard.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use vipd_control::{
    decide::Desired,
    model::{Model, Service},
};

/// Services that live on only for addresses that are no longer configured.
#[derive(Default)]
pub struct Leaving {
    services: BTreeMap<Arc<str>, Leaver>,
}

struct Leaver {
    service: Arc<Service>,
    /// As it was when the address was taken out; nobody checks any more.
    available: Vec<bool>,
    until: Instant,
}

impl Leaving {
    /// Keeps what `before` forwards and `model` does not know any more.
    pub fn configure(&mut self, before: &Desired, model: &Model, until: Instant) {
        let configured = addresses(model);
        // An address that has come back is not leaving.
        self.services
            .retain(|_, leaver| leaver.service.vips.iter().all(|vip| !configured.contains(vip)));
        for plan in &before.services {
            let service = &plan.service;
            let gone: Vec<IpAddr> = service
                .vips
                .iter()
                .filter(|vip| !configured.contains(vip))
                .copied()
                .collect();
            if gone.is_empty() || self.services.contains_key(&service.name) {
                continue;
            }
            // No configured service can have this name: theirs have no spaces.
            let name: Arc<str> = format!("{} (leaving)", service.name).into();
            let leaver = Leaver {
                service: Arc::new(Service {
                    name: Arc::clone(&name),
                    vips: gone,
                    ..Service::clone(service)
                }),
                available: plan.available.clone(),
                until,
            };
            self.services.insert(name, leaver);
        }
    }

    /// The model with the leaving services in their places.
    #[must_use]
    pub fn extend(&self, model: &Model) -> Model {
        let mut services = model.services.clone();
        services.extend(self.services.values().map(|leaver| Arc::clone(&leaver.service)));
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Model { services }
    }

    /// Availability of a leaving service's backends.
    #[must_use]
    pub fn available(&self, service: &str) -> Option<&[bool]> {
        self.services
            .get(service)
            .map(|leaver| leaver.available.as_slice())
    }

    /// All addresses that are leaving.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.services
            .values()
            .flat_map(|leaver| leaver.service.vips.iter().copied())
            .collect()
    }

    /// When the next one is gone.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.services.values().map(|leaver| leaver.until).min()
    }

    /// Lets go of what has lingered long enough.
    pub fn expire(&mut self, now: Instant) {
        self.services.retain(|_, leaver| leaver.until > now);
    }
}

fn addresses(model: &Model) -> BTreeSet<IpAddr> {
    model
        .services
        .iter()
        .flat_map(|service| service.vips.iter().copied())
        .collect()
}
