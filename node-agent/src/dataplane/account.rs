//! Which decisions are to be seen in the maps, until they are. Pure.

use std::{collections::BTreeMap, sync::Arc};

use vipd_control::decide::{Desired, ServicePlan};

use crate::events::{Cause, Event, Step, Subject, Trail};

/// What is decided otherwise than what packets meet.
#[derive(Debug, Default)]
pub struct Account {
    desired: Arc<Desired>,
    expected: BTreeMap<Arc<str>, Arc<ServicePlan>>,
}

impl Account {
    /// Takes over what is decided now.
    pub fn expect(&mut self, desired: &Arc<Desired>) {
        if Arc::ptr_eq(&self.desired, desired) {
            return;
        }
        let before = std::mem::replace(&mut self.desired, Arc::clone(desired));
        for (i, plan) in desired.services.iter().enumerate() {
            let name = &plan.service.name;
            let same_place = before
                .services
                .get(i)
                .filter(|old| old.service.name == *name);
            let old = same_place.or_else(|| before.service(name));
            if !old.is_some_and(|old| Arc::ptr_eq(old, plan)) {
                self.expected.insert(Arc::clone(name), Arc::clone(plan));
            }
        }
        self.expected
            .retain(|name, _| desired.service(name).is_some());
    }

    /// The services whose plans are in the maps now, and were not before.
    pub fn placed(&mut self, is_placed: impl Fn(&Arc<ServicePlan>) -> bool) -> Vec<Arc<str>> {
        let mut placed = Vec::new();
        self.expected.retain(|name, plan| {
            let waits = !is_placed(plan);
            if !waits {
                placed.push(Arc::clone(name));
            }
            waits
        });
        placed
    }

    /// That packets for a service meet the last decision about it, of those up to
    /// this number.
    pub fn event(service: Arc<str>, decided: u64, trail: Trail) -> Event {
        let subject = Subject::Service(service);
        let cause = Cause {
            subject: subject.clone(),
            step: Step::Decision,
            after: 0,
            upto: decided,
        };
        Event::new(trail, subject, Step::Maps, "packets meet what was decided").caused_by([cause])
    }
}

#[cfg(test)]
mod tests {
    use vipd_control::{
        decide::Decider,
        model::{Backend, Model, Service},
    };

    use super::*;

    #[test]
    fn a_service_is_told_of_once_when_its_last_plan_is_in_the_maps() {
        let desired = |services: &[(&str, bool)], before: &Desired| {
            let service = |(name, _): &(&str, bool)| {
                let backends = vec![Backend::new("b1", [192, 0, 2, 1].into(), 1)];
                Arc::new(Service::new(name, vec![], backends))
            };
            let up = |service: &Service, _: &Backend| {
                services
                    .iter()
                    .any(|(name, up)| *name == &*service.name && *up)
            };
            let model = Model {
                services: services.iter().map(service).collect(),
            };
            Arc::new(Decider::new([0; 16]).decide(&model, &up, before))
        };
        let mut account = Account::default();
        let both = desired(&[("api", true), ("web", true)], &Desired::default());
        account.expect(&both);
        assert_eq!(account.placed(|_| false).len(), 0, "nothing is placed");
        let not_web = |plan: &Arc<ServicePlan>| &*plan.service.name != "web";
        assert_eq!(account.placed(not_web), ["api".into()], "web waits");
        let dead = desired(&[("api", true), ("web", false)], &both);
        account.expect(&dead);
        let is_new = |plan: &Arc<ServicePlan>| dead.services.iter().any(|p| Arc::ptr_eq(p, plan));
        assert_eq!(account.placed(is_new), ["web".into()], "its last plan");
        account.expect(&dead);
        assert_eq!(account.placed(|_| true).len(), 0, "nothing is new");
        account.expect(&desired(&[("api", false), ("web", true)], &dead));
        account.expect(&desired(&[("api", false)], &dead));
        assert_eq!(account.placed(|_| true), ["api".into()], "web is gone");
    }
}
