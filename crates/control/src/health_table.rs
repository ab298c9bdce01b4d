//! The health of every backend of every service: takes in what checks and BFD
//! have found, says who is available. Holds no opinion of its own;
//! [`crate::health`] does.

mod row;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use self::row::Row;
use crate::{
    check::{CheckResult, Observation},
    decide::{Doubted, HealthView},
    doubt::{Doubt, Evidence},
    health::{Health, Initial, Path, Transition},
    model::{Backend, Mode, Model, Service, Tracked},
    schedule::Pace,
    slow_start::Share,
    standing::Standing,
};

/// Health of all backends of a model.
#[derive(Clone, Debug, Default)]
pub struct HealthTable {
    services: HashMap<Arc<str>, Row>,
    /// Who has the health of another, by that one.
    followers: HashMap<Tracked, Vec<Tracked>>,
    /// Services of which a backend may start slowly.
    ramping: BTreeSet<Arc<str>>,
}

/// What has come of an observation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// When the backend is to be asked again; `None` if it is not there, or is
    /// not to be asked.
    pub pace: Option<Pace>,
    /// What has changed, also of those that follow it.
    pub changes: Vec<Change>,
}

/// What has changed of a backend. What it is now the table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The backend.
    pub backend: Tracked,
    /// Its name.
    pub name: Arc<str>,
    /// Its state, and why.
    pub transition: Option<Transition>,
    /// What the state means for flows.
    pub standing: Option<Standing>,
    /// Whether its checks say another thing of the way to it.
    pub evidence: bool,
}

impl Change {
    /// Whether there is something to decide.
    #[must_use]
    pub const fn matters(&self) -> bool {
        self.standing.is_some() || self.evidence
    }
}

/// What is taken in about a backend.
enum News {
    Checked(CheckResult),
    Heard(Path),
}

impl HealthTable {
    /// Follows a new configuration. A backend that was there keeps its health,
    /// also when its name, its service's name, its weight or its check changed, so that a reload
    /// flaps nothing; a new one starts as `initial` says of it, or up when it is
    /// not checked at all. One that follows another has that one's health.
    pub fn apply(
        &mut self,
        model: &Model,
        initial: &dyn Fn(&Service, &Backend) -> Initial,
        now: Instant,
    ) {
        let before = std::mem::take(self).services;
        for service in &model.services {
            let renamed = || before.values().find(|row| row.service().meets(service));
            let old = before.get(&service.name).or_else(renamed);
            let row = Row::new(service, old, initial, now);
            self.services.insert(Arc::clone(&service.name), row);
        }
        for service in &model.services {
            for backend in service.backends.iter().filter(|b| b.track.is_some()) {
                let leader = leader(model, service, backend);
                let followers = self.followers.entry(leader).or_default();
                followers.push(Tracked::of(service, backend));
            }
        }
        for leader in self.followers.keys().cloned().collect::<Vec<_>>() {
            self.lead(&leader, None);
        }
        for service in &model.services {
            self.mark(&service.name);
        }
        self.advance(now);
    }

    /// Takes in one result. A result about a backend that is no longer there,
    /// or is not to be checked, is ignored.
    pub fn observe(&mut self, observation: Observation, now: Instant) -> Observed {
        let backend = Tracked {
            service: observation.service,
            address: observation.backend,
        };
        self.take(&backend, News::Checked(observation.result), now)
            .unwrap_or_default()
    }

    /// Takes in what BFD says of the way to a backend.
    pub fn hear(&mut self, backend: &Tracked, path: Path, now: Instant) -> Vec<Change> {
        let observed = self.take(backend, News::Heard(path), now);
        observed.unwrap_or_default().changes
    }

    fn take(&mut self, backend: &Tracked, news: News, now: Instant) -> Option<Observed> {
        let row = self.services.get_mut(&backend.service)?;
        let place = row.position(backend.address)?;
        let transition = match news {
            News::Checked(result) if row.is_checked(place) => row.observe(place, result, now),
            News::Heard(path) if row.has_bfd(place) => row.hear(place, path, now),
            News::Checked(_) | News::Heard(_) => return None,
        };
        let pace = Pace::of(row.health()[place].state(), &row.service().check.timing);
        let reason = transition.as_ref().map(|t| t.reason.clone());
        let mut changes: Vec<_> = row.settle(place, transition).into_iter().collect();
        if self.followers.contains_key(backend) {
            changes.extend(self.lead(backend, reason.as_deref()));
        }
        for change in changes.iter().filter(|change| change.standing.is_some()) {
            self.mark(&change.backend.service);
        }
        Some(Observed {
            pace: Some(pace),
            changes,
        })
    }

    /// Gives all that follow this backend its health.
    fn lead(&mut self, leader: &Tracked, reason: Option<&str>) -> Vec<Change> {
        let Some(health) = self.backend(&leader.service, leader.address).cloned() else {
            return Vec::new();
        };
        let followers = self.followers.get(leader).into_iter().flatten();
        let changes = followers.filter_map(|follower| {
            let row = self.services.get_mut(&follower.service)?;
            let place = row.position(follower.address)?;
            row.copy(place, &health, reason)
        });
        changes.collect()
    }

    /// Remembers that the shares of a service may have to change.
    fn mark(&mut self, service: &Arc<str>) {
        let row = self.services.get(service);
        if row.is_some_and(|row| !row.service().slow_start.is_zero()) {
            self.ramping.insert(Arc::clone(service));
        }
    }

    /// When the share of a backend grows next, for [`HealthTable::advance`].
    #[must_use]
    pub fn next_step(&self) -> Option<Instant> {
        let rows = self
            .ramping
            .iter()
            .filter_map(|name| self.services.get(name));
        rows.filter_map(Row::grows).min()
    }

    /// Works out the shares at `now`, which is to be done before they are read:
    /// some grow with time, some follow from what was observed. Whether one has
    /// changed.
    pub fn advance(&mut self, now: Instant) -> bool {
        let mut grown = false;
        self.ramping.retain(|name| {
            let Some(row) = self.services.get_mut(name) else {
                return false;
            };
            grown |= row.advance(now);
            row.grows().is_some()
        });
        grown
    }

    /// Whether something is known of every backend: it has been checked, or
    /// something was believed of it from the start.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.services.values().all(|row| row.unknown() == 0)
    }

    /// What is known of the way to the addresses that checks ask, by those that can
    /// tell silence, and by BFD. Who follows another says nothing of its own, nor
    /// does what this host serves itself.
    pub fn evidence(&self) -> impl Iterator<Item = (IpAddr, Evidence)> + Clone {
        let rows = self.services.values();
        let rows = rows.filter(|row| row.service().mode != Mode::Local);
        rows.flat_map(Row::evidence)
    }

    /// Whom of its service's backends doubt covers, in the service's order, and why
    /// there is doubt; `None` if it covers nobody.
    #[must_use]
    pub fn doubted(&self, service: &Service, doubt: &Doubt) -> Option<Doubted> {
        let row = self.services.get(&service.name)?;
        let reason = |health: &Health| doubt.reason(health.evidence());
        let why = Arc::clone(row.health().iter().find_map(reason)?);
        let backends = row.health().iter().map(|health| reason(health).is_some());
        Some(Doubted {
            why,
            backends: backends.collect(),
        })
    }

    /// Who of a service's backends was available until lately: all that fell within
    /// `window` of the last one, in the service's order.
    #[must_use]
    pub fn fallen(&self, service: &Service, window: Duration) -> Vec<bool> {
        let row = self.services.get(&service.name);
        let health = row.map_or(&[][..], Row::health);
        let last = health.iter().filter_map(Health::fell).max();
        let together = |fell: Instant| last.is_some_and(|last| fell + window >= last);
        let fallen = health
            .iter()
            .map(|health| health.fell().is_some_and(together));
        fallen.collect()
    }

    /// Health of one backend.
    #[must_use]
    pub fn backend(&self, service: &str, address: IpAddr) -> Option<&Health> {
        let row = self.services.get(service)?;
        row.position(address).map(|i| &row.health()[i])
    }

    /// Health of all backends of a service, in the service's order; empty for
    /// a service that is not in the table.
    #[must_use]
    pub fn backends(&self, service: &str) -> &[Health] {
        self.services.get(service).map_or(&[], Row::health)
    }
}

/// A service is looked up by its name, and its backends by their place: hand
/// in the model that was applied last.
impl HealthView for HealthTable {
    fn standing(&self, service: &Service) -> Vec<Standing> {
        let row = self.services.get(&service.name);
        row.map_or_else(Vec::new, |row| row.standing().to_vec())
    }

    fn shares(&self, service: &Service) -> Vec<Share> {
        let row = self.services.get(&service.name);
        row.map_or_else(Vec::new, |row| row.shares().to_vec())
    }
}

/// Whom a backend follows at last, who follows nobody. The configuration has no
/// circles; if it had, each would be left where it began.
fn leader(model: &Model, service: &Service, backend: &Backend) -> Tracked {
    let own = Tracked::of(service, backend);
    let mut at = (own.clone(), backend);
    let backends = model.services.iter().map(|service| service.backends.len());
    for _ in 0..backends.sum() {
        let Some(next) = &at.1.track else { break };
        let service = model.services.iter().find(|s| s.name == next.service);
        let mut backends = service.into_iter().flat_map(|service| &service.backends);
        match backends.find(|b| b.address == next.address) {
            Some(backend) if *next != own => at = (next.clone(), backend),
            _ => break,
        }
    }
    at.0
}

impl Tracked {
    /// This backend of this service.
    #[must_use]
    pub fn of(service: &Service, backend: &Backend) -> Self {
        Self {
            service: Arc::clone(&service.name),
            address: backend.address,
        }
    }
}
