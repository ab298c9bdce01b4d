//! What has changed of services and their backends.

use std::{
    collections::HashMap,
    mem::take,
    sync::{Arc, MutexGuard, PoisonError},
};

use vipd_control::{
    announcement::State,
    decide::{Desired, ServicePlan},
    health::{self, Health},
    health_table::HealthTable,
    model::Backend,
    standing::Standing,
};

use super::Found;
use crate::{
    engine::SharedHealth,
    hooks::subject::{Subject, UNKNOWN},
};

/// What was seen of them at the last look.
#[derive(Default)]
pub struct SeenServices {
    desired: Arc<Desired>,
    all: HashMap<Arc<str>, SeenService>,
}

struct SeenService {
    plan: Arc<ServicePlan>,
    state: &'static str,
    backends: Vec<&'static str>,
}

/// What checks say of a backend: as little as is needed, since it is copied while they
/// wait.
#[derive(Clone, Copy)]
struct Checked {
    is_known: bool,
    standing: Standing,
}

impl SeenServices {
    /// Whether there are backends of which nothing is known.
    pub fn are_waiting(&self) -> bool {
        self.all.values().any(SeenService::is_waiting)
    }

    /// Looks at what is decided, and at what checks have found of whom nothing was known.
    pub fn look(&mut self, desired: &Arc<Desired>, health: &SharedHealth, found: &mut Found<'_>) {
        if Arc::ptr_eq(&self.desired, desired) && !self.are_waiting() {
            return;
        }
        self.desired = Arc::clone(desired);
        let mut before = take(&mut self.all);
        for plan in &desired.services {
            let name = &plan.service.name;
            let old = before.remove(name);
            let now = match old {
                Some(old) if Arc::ptr_eq(&old.plan, plan) && !old.is_waiting() => old,
                old => {
                    let checked = checked(health, name);
                    // Nobody checks a service that is leaving, and it has another name.
                    if checked.is_empty() {
                        before.extend(old.map(|old| (Arc::clone(name), old)));
                        continue;
                    }
                    let now = SeenService::new(plan, &checked, old.as_ref());
                    now.compare(old.as_ref(), health, found);
                    now
                }
            };
            self.all.insert(Arc::clone(name), now);
        }
        for (name, old) in before {
            for backend in &old.plan.service.backends {
                let subject = Subject::Backend(Arc::clone(&name), Arc::clone(&backend.name));
                found.removed(subject);
            }
            found.removed(Subject::Service(name));
        }
    }
}

/// What checks say of the backends of a service.
fn checked(health: &SharedHealth, service: &str) -> Vec<Checked> {
    let table = lock(health);
    let backends = table.backends(service).iter();
    let checked = backends.map(|health| Checked {
        is_known: health.state() != health::State::Unknown,
        standing: health.standing(),
    });
    checked.collect()
}

fn lock(health: &SharedHealth) -> MutexGuard<'_, HealthTable> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SeenService {
    fn new(plan: &Arc<ServicePlan>, checked: &[Checked], old: Option<&Self>) -> Self {
        let backends = plan.service.backends.iter().zip(&plan.standing).enumerate();
        let state = |(i, (backend, standing)): (usize, (&Backend, &Standing))| {
            let Some(checked) = checked.get(i).filter(|checked| checked.is_known) else {
                return UNKNOWN;
            };
            // The first decision about it is yet to come.
            let is_undecided = !standing.keeps_flows() && checked.standing.keeps_flows();
            if is_undecided && Self::was(old, i, backend) == UNKNOWN {
                UNKNOWN
            } else {
                standing.label()
            }
        };
        let backends: Vec<_> = backends.map(state).collect();
        let was = old.map_or(UNKNOWN, |old| old.state);
        let state = match plan.condition.state() {
            // It may be up a moment later. Who was known once is down.
            State::Down if was == UNKNOWN && backends.contains(&UNKNOWN) => UNKNOWN,
            state => state.label(),
        };
        Self {
            plan: Arc::clone(plan),
            state,
            backends,
        }
    }

    fn is_waiting(&self) -> bool {
        self.backends.contains(&UNKNOWN)
    }

    /// What a backend was that is the one of that number now.
    fn was(old: Option<&Self>, number: usize, backend: &Backend) -> &'static str {
        let place = |old: &Self| {
            let backends = &old.plan.service.backends;
            // Mostly it is where it was.
            let same = backends.get(number).filter(|it| it.name == backend.name);
            same.map_or_else(
                || backends.iter().position(|it| it.name == backend.name),
                |_| Some(number),
            )
        };
        let state = old.and_then(|old| old.backends.get(place(old)?));
        state.copied().unwrap_or(UNKNOWN)
    }

    /// Tells what is otherwise than it was.
    fn compare(&self, old: Option<&Self>, health: &SharedHealth, found: &mut Found<'_>) {
        let service = &self.plan.service;
        let subject = |backend: &Backend| {
            Subject::Backend(Arc::clone(&service.name), Arc::clone(&backend.name))
        };
        for (i, (backend, now)) in service.backends.iter().zip(&self.backends).enumerate() {
            if *now != UNKNOWN && *now != Self::was(old, i, backend) {
                found.push(subject(backend), now, || self.reason(i, backend, health));
            }
        }
        for backend in old.iter().flat_map(|old| &old.plan.service.backends) {
            if !service.backends.iter().any(|it| it.name == backend.name) {
                found.removed(subject(backend));
            }
        }
        if self.state != UNKNOWN && self.state != old.map_or(UNKNOWN, |old| old.state) {
            let subject = Subject::Service(Arc::clone(&service.name));
            found.push(subject, self.state, || self.plan.reason());
        }
    }

    /// Why a backend is what it is.
    fn reason(&self, number: usize, backend: &Backend, health: &SharedHealth) -> String {
        // Put into words only when checks need not wait any more.
        let last = {
            let table = lock(health);
            let health = table.backend(&self.plan.service.name, backend.address);
            health.and_then(Health::last).cloned()
        };
        let last = last.map_or_else(|| "not checked".to_owned(), |last| last.to_string());
        match self.plan.drained.get(number) {
            Some(true) => format!("drained by the operator; {last}"),
            Some(false) | None => last,
        }
    }
}
