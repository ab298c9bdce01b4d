//! Virtual addresses on their way out: withdrawn, but still forwarded for a
//! while, since packets arrive until every router has heard.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use vipd_control::{
    decide::Desired,
    model::{Model, Service, Vip},
    standing::Standing,
};

/// Services that live on only for addresses that are no longer configured.
#[derive(Default)]
pub struct Leaving {
    services: BTreeMap<Arc<str>, Leaver>,
    /// How many there have been.
    count: u64,
}

struct Leaver {
    service: Arc<Service>,
    /// As it was when the address was taken out; nobody checks any more.
    standing: Vec<Standing>,
    until: Instant,
}

impl Leaving {
    /// Keeps what `before` forwards and `model` does not know any more, each
    /// address until its own time.
    pub fn configure(&mut self, before: &Desired, model: &Model, until: Instant) {
        let configured = addresses(model);
        let is_gone = |vip: &Vip| !configured.contains(vip);
        // An address that has come back is not leaving.
        self.services.retain(|_, leaver| {
            if !leaver.service.vips.iter().all(is_gone) {
                Arc::make_mut(&mut leaver.service).vips.retain(is_gone);
            }
            !leaver.service.vips.is_empty()
        });
        for plan in &before.services {
            let service = &plan.service;
            let mut gone = service.vips.clone();
            gone.retain(is_gone);
            if gone.is_empty() || self.services.contains_key(&service.name) {
                continue;
            }
            // A number, since more of the same service can follow while these
            // linger. No configured service can have this name: theirs have no
            // spaces.
            self.count += 1;
            let name: Arc<str> = format!("{} (leaving {})", service.name, self.count).into();
            let leaver = Leaver {
                service: Arc::new(Service {
                    name: Arc::clone(&name),
                    vips: gone,
                    ..Service::clone(service)
                }),
                standing: plan.standing.clone(),
                until,
            };
            self.services.insert(name, leaver);
        }
    }

    /// The model with the leaving services in their places.
    #[must_use]
    pub fn extend(&self, model: &Model) -> Model {
        let mut services = model.services.clone();
        services.extend(
            self.services
                .values()
                .map(|leaver| Arc::clone(&leaver.service)),
        );
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Model { services }
    }

    /// How a leaving service's backends were.
    #[must_use]
    pub fn standing(&self, service: &str) -> Option<&[Standing]> {
        self.services
            .get(service)
            .map(|leaver| leaver.standing.as_slice())
    }

    /// All addresses that are leaving.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<Vip> {
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

fn addresses(model: &Model) -> BTreeSet<Vip> {
    model
        .services
        .iter()
        .flat_map(|service| service.vips.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, num::NonZeroU16, time::Duration};

    use vipd_control::{
        decide::Decider,
        model::{Backend, Ports},
    };

    use super::*;

    fn vip(last: u8) -> Vip {
        IpAddr::from([198, 51, 100, last]).into()
    }

    /// One service on these addresses.
    fn model(vips: &[u8]) -> Model {
        let service = Service {
            ports: Ports::One(NonZeroU16::MIN),
            ring_size: 256,
            idle: Duration::ZERO,
            ..Service::new(
                "web",
                vips.iter().copied().map(vip).collect(),
                vec![Backend::new("a", [192, 0, 2, 21].into(), 1)],
            )
        };
        Model {
            services: vec![Arc::new(service)],
        }
    }

    /// At so many seconds, the addresses that are configured and those that are
    /// leaving then, still forwarded; the linger is 10 s.
    #[track_caller]
    fn check(sentence: &str, reloads: &[(u64, &[u8], &[u8])]) {
        let start = Instant::now();
        let mut leaving = Leaving::default();
        let mut desired = Desired::default();
        let mut before = model(&[]);
        let decide = |leaving: &Leaving, model: &Model, previous: &Desired| {
            let up = |_: &Service, _: &Backend| true;
            Decider::new([0; 16]).decide(&leaving.extend(model), &up, previous)
        };
        for &(second, configured, expected) in reloads {
            let now = start + Duration::from_secs(second);
            leaving.expire(now);
            desired = decide(&leaving, &before, &desired);
            let model = model(configured);
            leaving.configure(&desired, &model, now + Duration::from_secs(10));
            desired = decide(&leaving, &model, &desired);
            before = model;
            let expected: BTreeSet<_> = expected.iter().copied().map(vip).collect();
            let found = leaving.addresses();
            assert_eq!(found, expected, "{sentence}, second {second}: {desired:#?}");
            let forwarded: BTreeSet<_> = desired.vips.keys().copied().collect();
            let configured = configured.iter().copied().map(vip);
            let all: BTreeSet<_> = configured.chain(expected).collect();
            assert_eq!(forwarded, all, "{sentence}, second {second}: {desired:#?}");
        }
    }

    #[test]
    fn each_address_lingers_its_own_time() {
        check(
            "one after the other",
            &[
                (0, &[1, 2, 3], &[]),
                (1, &[2, 3], &[1]),
                (5, &[3], &[1, 2]),
                (10, &[3], &[1, 2]),
                (11, &[3], &[2]),
                (15, &[3], &[]),
            ],
        );
        check(
            "one of two comes back",
            &[
                (0, &[1, 2, 3], &[]),
                (1, &[3], &[1, 2]),
                (2, &[1, 3], &[2]),
                (3, &[3], &[1, 2]),
                (11, &[3], &[1]),
                (13, &[3], &[]),
            ],
        );
    }
}
