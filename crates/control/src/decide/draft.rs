//! What is known of a service before its ring is looked at.

use std::sync::Arc;

use super::{Doubted, HealthView, ServicePlan};
use crate::{
    announcement::State,
    condition::Condition,
    duty::{Duty, Line},
    model::Service,
    slow_start::Share,
    standing::Standing,
};

/// A plan without its ring. Lists are in the service's order.
pub(super) struct Draft<'a> {
    pub(super) service: &'a Arc<Service>,
    pub(super) previous: Option<&'a Arc<ServicePlan>>,
    pub(super) standing: Vec<Standing>,
    pub(super) drained: Vec<bool>,
    pub(super) presumed: Vec<bool>,
    /// Whose backends the ring is made of.
    pub(super) line: Line,
    pub(super) shares: Vec<Share>,
    pub(super) condition: Condition,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        service: &'a Arc<Service>,
        health: &impl HealthView,
        previous: Option<&'a Arc<ServicePlan>>,
    ) -> Self {
        let count = service.backends.len();
        let mut standing = health.standing(service);
        standing.resize(count, Standing::Dead);
        let mut drained = health.drained(service);
        drained.resize(count, false);
        for (standing, drained) in standing.iter_mut().zip(&drained) {
            if *drained {
                *standing = standing.drained();
            }
        }
        let healthy: Vec<_> = standing.iter().map(|s| s.takes_flows()).collect();
        let before = previous.map(|plan| &plan.condition.duty);
        let duty = Duty::new(service, &healthy, before);
        let doubted = health.doubted(service).filter(|_| service.mode.forwards());
        let (why, covered) = match doubted {
            Some(Doubted { why, backends }) => (Some(why), backends),
            None => (None, Vec::new()),
        };
        let doubt = why.filter(|_| duty.state == State::Down);

        let mut backends = service.backends.iter().zip(&healthy);
        let is_served =
            backends.any(|(backend, healthy)| *healthy && duty.line.weight(backend) > 0);
        let (presumed, stand_in) = if is_served {
            // Where those are enough, whom doubt covers only keep what they have.
            let stand_in = doubt.as_ref().map(|_| covered.clone());
            (covered, stand_in)
        } else if covered.contains(&true) {
            (covered.clone(), Some(covered))
        } else if standing.contains(&Standing::Draining) {
            // Better with them than with the dead.
            let draining = standing.iter().map(|s| *s == Standing::Draining);
            (covered, Some(draining.collect()))
        } else {
            let fallen = fallen(service, health, previous);
            (fallen.clone(), Some(fallen))
        };
        let (taking, line) = match stand_in {
            None => (healthy, duty.line),
            Some(stand_in) => {
                let takes = |place: usize| {
                    let may = standing[place] == Standing::Draining || !drained[place];
                    healthy[place] || (may && stand_in.get(place) == Some(&true))
                };
                let taking: Vec<_> = (0..count).map(takes).collect();
                let line = match taking == healthy {
                    true => duty.line,
                    // As if they had never fallen.
                    false => Duty::new(service, &taking, None).line,
                };
                (taking, line)
            }
        };
        Self {
            shares: shares(service, health, line, &taking),
            condition: Condition {
                duty,
                follows: None,
                disabled: health.disabled(service),
                doubt,
            },
            service,
            previous,
            standing,
            drained,
            presumed,
            line,
        }
    }

    /// The plan before, if it still is the plan.
    pub(super) fn unchanged(&self, keyed: u64) -> Option<&'a Arc<ServicePlan>> {
        self.previous.filter(|plan| {
            plan.service == *self.service
                && plan.standing == self.standing
                && plan.drained == self.drained
                && plan.presumed == self.presumed
                && plan.shares == self.shares
                && plan.condition == self.condition
                && plan.keyed == keyed
        })
    }
}

/// Who took flows until nobody did; where nothing is known of that any more, whom they
/// went to before.
fn fallen(
    service: &Service,
    health: &impl HealthView,
    previous: Option<&Arc<ServicePlan>>,
) -> Vec<bool> {
    if !service.mode.forwards() {
        return Vec::new();
    }
    let fallen = health.fallen(service);
    if fallen.contains(&true) {
        return fallen;
    }
    let last = previous.filter(|plan| plan.has_backends_of(service));
    last.map_or_else(Vec::new, |last| last.presumed.clone())
}

/// The share of each that takes flows, nothing for the others. Where all on duty
/// start slowly nobody could take the rest, and each has the whole.
fn shares(service: &Service, health: &impl HealthView, line: Line, taking: &[bool]) -> Vec<Share> {
    let mut shares = health.shares(service);
    shares.resize(service.backends.len(), Share::WHOLE);
    for (share, taking) in shares.iter_mut().zip(taking) {
        if !taking {
            *share = Share::NONE;
        }
    }
    let backends = || {
        service
            .backends
            .iter()
            .map(|backend| line.weight(backend) > 0)
    };
    let mut on_duty = shares.iter().zip(backends());
    if !on_duty.any(|(share, is_on_duty)| is_on_duty && *share == Share::WHOLE) {
        for (share, is_on_duty) in shares.iter_mut().zip(backends()) {
            if is_on_duty && *share > Share::NONE {
                *share = Share::WHOLE;
            }
        }
    }
    shares
}
