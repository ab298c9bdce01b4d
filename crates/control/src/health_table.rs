//! The health of every backend of every service: takes observations in, says
//! who is available. Holds no opinion of its own; [`crate::health`] does.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Instant};

use crate::{
    check::Observation,
    decide::HealthView,
    health::{Health, Initial, State, Transition},
    model::{Backend, CheckKind, Model, Service},
    standing::Standing,
};

/// Health of all backends of a model.
#[derive(Clone, Debug, Default)]
pub struct HealthTable {
    services: HashMap<Arc<str>, Row>,
}

#[derive(Clone, Debug)]
struct Row {
    service: Arc<Service>,
    /// In the order of the service's backends.
    backends: Vec<Health>,
    /// The same in a word each, since decisions read nothing else.
    standing: Vec<Standing>,
}

/// What an observation has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The backend's state, and why.
    pub transition: Option<Transition>,
    /// What the state means for flows; then there is something to decide.
    pub standing: Option<Standing>,
}

impl HealthTable {
    /// Follows a new configuration. A backend that was there keeps its health,
    /// also when its name, its service's name, its weight or its check changed, so that a reload
    /// flaps nothing; a new one starts as `initial` says of it, or up when it is
    /// not checked at all.
    pub fn apply(
        &mut self,
        model: &Model,
        initial: &dyn Fn(&Service, &Backend) -> Initial,
        now: Instant,
    ) {
        let before = std::mem::take(&mut self.services);
        for service in &model.services {
            let renamed = || before.values().find(|row| row.service.meets(service));
            let old = before.get(&service.name).or_else(renamed);
            let row = Row::new(service, old, initial, now);
            self.services.insert(Arc::clone(&service.name), row);
        }
    }

    /// Takes in one result. A result about a backend that is no longer there,
    /// or is not to be checked, is ignored.
    pub fn observe(&mut self, observation: Observation, now: Instant) -> Change {
        let Some(row) = self.services.get_mut(&observation.service) else {
            return Change::default();
        };
        row.observe(observation, now).unwrap_or_default()
    }

    /// Whether something is known of every backend: it has been checked, or
    /// something was believed of it from the start.
    #[must_use]
    pub fn is_known(&self) -> bool {
        let mut backends = self.services.values().flat_map(|row| &row.backends);
        backends.all(|health| health.state() != State::Unknown)
    }

    /// Health of one backend.
    #[must_use]
    pub fn backend(&self, service: &str, address: IpAddr) -> Option<&Health> {
        let row = self.services.get(service)?;
        row.position(address).map(|i| &row.backends[i])
    }

    /// Health of all backends of a service, in the service's order; empty for
    /// a service that is not in the table.
    #[must_use]
    pub fn backends(&self, service: &str) -> &[Health] {
        self.services
            .get(service)
            .map_or(&[], |row| row.backends.as_slice())
    }
}

/// A service is looked up by its name, and its backends by their place: hand
/// in the model that was applied last.
impl HealthView for HealthTable {
    fn standing(&self, service: &Service) -> Vec<Standing> {
        self.services
            .get(&service.name)
            .map_or_else(Vec::new, |row| row.standing.clone())
    }
}

impl Row {
    fn new(
        service: &Arc<Service>,
        old: Option<&Self>,
        initial: &dyn Fn(&Service, &Backend) -> Initial,
        now: Instant,
    ) -> Self {
        let unchecked = service.check.kind == CheckKind::None;
        let health = |backend: &Backend| {
            if unchecked {
                return Health::new(Initial::Up, now);
            }
            old.and_then(|row| {
                row.position(backend.address)
                    .map(|i| row.backends[i].clone())
            })
            .unwrap_or_else(|| Health::new(initial(service, backend), now))
        };
        let backends: Vec<_> = service.backends.iter().map(health).collect();
        Self {
            service: Arc::clone(service),
            standing: backends.iter().map(Health::standing).collect(),
            backends,
        }
    }

    fn observe(&mut self, observation: Observation, now: Instant) -> Option<Change> {
        let i = self.position(observation.backend)?;
        let check = &self.service.check;
        if check.kind == CheckKind::None {
            return None;
        }
        let transition = self.backends[i].observe(observation.result, &check.timing, now);
        let standing = self.backends[i].standing();
        let before = std::mem::replace(&mut self.standing[i], standing);
        Some(Change {
            transition,
            standing: (before != standing).then_some(standing),
        })
    }

    fn position(&self, address: IpAddr) -> Option<usize> {
        self.service
            .backends
            .iter()
            .position(|b| b.address == address)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        check::{CheckCode, CheckResult},
        model::tests::service,
        standing::Standing::{Available, Dead, Failing},
    };

    fn table(service: &Service) -> HealthTable {
        let mut table = HealthTable::default();
        apply(&mut table, service);
        table
    }

    fn apply(table: &mut HealthTable, service: &Service) {
        let services = vec![Arc::new(service.clone())];
        table.apply(
            &Model { services },
            &|_, _| Initial::Unknown,
            Instant::now(),
        );
    }

    fn observe(table: &mut HealthTable, last_byte: u8, code: CheckCode) -> Change {
        let observation = Observation {
            service: "web".into(),
            backend: IpAddr::from([198, 51, 100, last_byte]),
            result: CheckResult::new(code, Duration::from_millis(1)),
        };
        table.observe(observation, Instant::now())
    }

    #[test]
    fn observations_reach_their_backend_and_no_other() {
        let web = service("web", &[("a", 1, 1), ("b", 2, 1)]);
        let mut table = table(&web);
        assert_eq!(table.standing(&web), [Dead, Dead], "{table:#?}");
        let change = observe(&mut table, 2, CheckCode::L4Ok);
        assert_eq!(change.standing, Some(Available), "{change:?}");
        assert!(change.transition.is_some(), "{change:?}");
        assert_eq!(table.standing(&web), [Dead, Available], "{table:#?}");
        let change = observe(&mut table, 9, CheckCode::L4Ok);
        assert_eq!(change, Change::default(), "{table:#?}");
        assert_eq!(table.standing(&service("other", &[])), []);
    }

    #[test]
    fn all_is_known_when_every_backend_has_been_checked() {
        let mut table = table(&service("web", &[("a", 1, 1), ("b", 2, 1)]));
        assert!(!table.is_known(), "{table:#?}");
        observe(&mut table, 1, CheckCode::L4Ok);
        assert!(!table.is_known(), "{table:#?}");
        observe(&mut table, 2, CheckCode::L4Con);
        assert!(table.is_known(), "{table:#?}");
    }

    #[test]
    fn a_reload_keeps_the_health_of_whoever_has_the_same_address() {
        let mut table = table(&service("web", &[("a", 1, 1), ("b", 2, 1)]));
        observe(&mut table, 2, CheckCode::L4Ok);
        let mut web = service("web", &[("new", 3, 1), ("renamed", 2, 9)]);
        web.check.timing.fall = 7;
        apply(&mut table, &web);
        assert_eq!(table.standing(&web), [Dead, Available], "{table:#?}");
    }

    #[test]
    fn a_renamed_service_keeps_the_health_of_its_backends() {
        let mut table = table(&service("web", &[("a", 1, 1), ("b", 2, 1)]));
        observe(&mut table, 2, CheckCode::L4Ok);
        let shop = service("shop", &[("a", 1, 1), ("b", 2, 1)]);
        apply(&mut table, &shop);
        assert_eq!(table.standing(&shop), [Dead, Available], "{table:#?}");
    }

    #[test]
    fn a_backend_that_is_not_checked_is_up_whatever_a_late_result_says() {
        let mut web = service("web", &[("a", 1, 1)]);
        web.check.kind = CheckKind::None;
        let mut table = table(&web);
        let change = observe(&mut table, 1, CheckCode::L4Con);
        assert_eq!(change, Change::default(), "{table:#?}");
        assert_eq!(table.backends("web")[0].state(), State::Up, "{table:#?}");
        assert_eq!(table.standing(&web), [Available], "{table:#?}");
    }

    #[test]
    fn a_backend_that_falls_silent_is_decided_about_though_it_was_down() {
        let web = service("web", &[("a", 1, 1)]);
        let mut table = table(&web);
        let mut check = |code, standing| {
            let change = observe(&mut table, 1, code);
            assert_eq!(change.standing, standing, "{code}: {table:#?}");
        };
        check(CheckCode::L7Status, Some(Failing));
        check(CheckCode::L7Status, None);
        check(CheckCode::L4Timeout, None);
        check(CheckCode::L4Timeout, Some(Dead));
        check(CheckCode::L4Timeout, None);
        check(CheckCode::L7Timeout, Some(Failing));
    }
}
