//! The operator's will: which backends are drained.

mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use vipd_control::{
    announcement::State,
    decide::{Desired, ServicePlan},
    model::{Backend, Model, Service},
    standing::Standing,
};

pub use self::watch::{Unfinished, wait};
use crate::{config::OnStop, request};

/// A backend by the names of the configuration: `SERVICE/BACKEND`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Name of the service.
    pub service: String,
    /// Name of the backend.
    pub backend: String,
}

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Of whom.
    pub target: Target,
    /// Drained, or not.
    pub drained: bool,
    /// Also if the service then dies.
    pub force: bool,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it is as wanted, be it that it was so before.
    pub done: bool,
    /// What is so now, or why not.
    pub message: String,
}

impl Answer {
    /// Adds what a stop of the agent does to the drain that was ordered.
    #[must_use]
    pub fn warn_of_stop(mut self, order: &Order, on_stop: OnStop) -> Self {
        if self.done && order.drained && on_stop == OnStop::Remove {
            self.message += "; a stop of the agent forgets this (dataplane.on_stop = \"remove\")";
        }
        self
    }
}

/// An order on its way to the engine.
pub type Request = request::Request<Order, Answer>;

/// The backends that are drained: per service, by their addresses, which are
/// their identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drains(BTreeMap<Arc<str>, BTreeSet<IpAddr>>);

impl Drains {
    /// Those of whom `is_drained` says so.
    #[must_use]
    pub fn new(model: &Model, is_drained: impl Fn(&Service, &Backend) -> bool) -> Self {
        let mut drains = Self::default();
        for service in &model.services {
            for backend in &service.backends {
                if is_drained(service, backend) {
                    drains.set(service, backend.address, true);
                }
            }
        }
        drains
    }

    /// Follows a new configuration: whoever is still there stays drained, also
    /// when its name or its service's name has changed.
    pub fn configure(&mut self, before: &Model, model: &Model) {
        let old = std::mem::take(self);
        let named = |name: &str| before.services.iter().find(|s| &*s.name == name);
        *self = Self::new(model, |service, backend| {
            let renamed = || before.services.iter().find(|s| s.meets(service));
            named(&service.name)
                .or_else(renamed)
                .is_some_and(|known| old.has(&known.name, backend.address))
        });
    }

    /// One flag per backend, in the service's order.
    #[must_use]
    pub fn of(&self, service: &Service) -> Vec<bool> {
        let backends = service.backends.iter();
        backends
            .map(|backend| self.has(&service.name, backend.address))
            .collect()
    }

    /// Carries out an order under what is decided now. A refusal says why, and
    /// what there is.
    ///
    /// # Errors
    ///
    /// When there is no such backend, or the service could not do without it.
    pub fn carry_out(
        &mut self,
        order: &Order,
        model: &Model,
        desired: &Desired,
    ) -> Result<String, String> {
        let target = &order.target;
        let (service, place) = find(model, target)?;
        let address = service.backends[place].address;
        let is_drained = self.has(&service.name, address);
        if is_drained == order.drained {
            let not = if is_drained { "" } else { "not " };
            return Ok(format!("{target} is {not}drained already"));
        }
        let plan = desired.service(&service.name);
        if let Some(plan) = plan.filter(|_| order.drained && !order.force) {
            refuse_the_last(target, plan, place)?;
        }
        self.set(service, address, order.drained);
        let standing = plan.and_then(|plan| plan.standing.get(place));
        let answers = match standing {
            Some(Standing::Failing) => ", but fails its checks",
            Some(Standing::Dead) | None => ", but is down",
            Some(Standing::Available | Standing::Draining) => "",
        };
        Ok(if order.drained {
            format!("{target} is drained: it gets no new flows and keeps those it has{answers}")
        } else {
            format!("{target} takes new flows again{answers}")
        })
    }

    fn has(&self, service: &str, address: IpAddr) -> bool {
        self.0
            .get(service)
            .is_some_and(|set| set.contains(&address))
    }

    fn set(&mut self, service: &Service, address: IpAddr, drained: bool) {
        let set = self.0.entry(Arc::clone(&service.name)).or_default();
        if drained {
            set.insert(address);
        } else {
            set.remove(&address);
        }
    }
}

/// Whom the operator has drained, in words; `None` when nobody.
#[must_use]
pub fn drained(desired: &Desired) -> Option<String> {
    let of_plan = |plan: &Arc<ServicePlan>| {
        let backends = plan.service.backends.iter().zip(&plan.drained);
        let names = backends.filter(|(_, drained)| **drained);
        let named = names.map(|(b, _)| format!("{}/{}", plan.service.name, b.name));
        named.collect::<Vec<_>>()
    };
    let all: Vec<_> = desired.services.iter().flat_map(of_plan).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// The service, and the backend's place in it.
fn find<'a>(model: &'a Model, target: &Target) -> Result<(&'a Arc<Service>, usize), String> {
    let Target { service, backend } = target;
    let found = model.services.iter().find(|s| *s.name == **service);
    let found = found.ok_or_else(|| {
        let names = model.services.iter().map(|service| &*service.name);
        format!("there is no service {service}; there is {}", list(names))
    })?;
    let place = found.backends.iter().position(|b| *b.name == **backend);
    let place = place.ok_or_else(|| {
        let names = found.backends.iter().map(|backend| &*backend.name);
        format!(
            "service {service} has no backend {backend}; it has {}",
            list(names)
        )
    })?;
    Ok((found, place))
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// An error when the service would be dead without this backend.
fn refuse_the_last(target: &Target, plan: &ServicePlan, place: usize) -> Result<(), String> {
    let counts = plan.available[place] && plan.service.backends[place].weight > 0;
    let before = plan.condition.duty.state;
    let after = plan.without(place);
    let others = plan.service.backends.iter().zip(&plan.standing).enumerate();
    let is_last = !others.into_iter().any(|(i, (backend, standing))| {
        i != place && standing.takes_flows() && after.line.weight(backend) > 0
    });
    if !counts || (!is_last && (after.state > State::Down || before == State::Down)) {
        return Ok(());
    }
    let left = after.active.backends;
    let needed = plan.service.needs.minimum.backends;
    let needed = needed.of(after.configured.backends);
    let why = if is_last {
        "it is the last one that takes flows: nobody else could take the new ones, so they would \
         still go there"
            .to_owned()
    } else if left >= needed {
        "what would be left has less of the weight than is wanted (min_weight)".to_owned()
    } else {
        format!("{left} healthy backends would be left and {needed} are wanted (min_healthy)")
    };
    Err(format!(
        "{target} is not drained: {why}, and the addresses of {} would be withdrawn unless \
         another service keeps them. Bring another backend up or undrain one first, or drain it \
         all the same with --force",
        target.service
    ))
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((service, backend)) if !service.is_empty() && !backend.is_empty() => Ok(Self {
                service: service.to_owned(),
                backend: backend.to_owned(),
            }),
            _ => Err("a backend is given as SERVICE/BACKEND, for example web/b1"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.backend)
    }
}

#[cfg(test)]
mod tests;
