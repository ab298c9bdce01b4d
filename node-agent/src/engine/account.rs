//! What the engine has to tell of what it did: a check's result and the state it
//! made, and of each service what was decided. Pure.

use std::sync::Arc;

use vipd_control::{
    check::CheckResult,
    decide::{Desired, ServicePlan},
    health::{State, Transition},
};

use crate::events::{Cause, Event, Step, Subject, Trail};

/// Backends of a service that are named one by one.
const NAMED: usize = 8;

/// A check's result and the state that it has made. A state that goes by something
/// else, such as BFD, does not tell of the last result.
pub(super) fn found(
    trail: Trail,
    backend: &Subject,
    result: Option<&CheckResult>,
    transition: &Transition,
) -> impl Iterator<Item = Event> {
    let result = result
        .map(ToString::to_string)
        .filter(|result| transition.reason.contains(result.as_str()));
    let result = result.map(|text| Event::new(trail, backend.clone(), Step::Check, text));
    let cause = |step, after, upto| Cause {
        subject: backend.clone(),
        step,
        after,
        upto,
    };
    let mut causes = vec![cause(Step::Check, trail.number - 1, trail.number)];
    // Counting has begun before.
    if matches!(transition.from, State::GoingDown(_) | State::GoingUp(_)) {
        causes.push(cause(Step::State, 0, trail.number - 1));
    }
    let Transition { from, to, reason } = transition;
    let text = match from.to_string() == to.to_string() {
        true => format!("still {to}: {reason}"),
        false => format!("{to}, was {from}: {reason}"),
    };
    let state = Event::new(trail, backend.clone(), Step::State, text).caused_by(causes);
    result.into_iter().chain([state])
}

/// What is decided otherwise than before, which was the decision of that number.
pub(super) fn decided<'a>(
    before: &'a Desired,
    now: &'a Desired,
    after: u64,
    trail: Trail,
) -> impl Iterator<Item = Event> + 'a {
    let plans = now.services.iter().enumerate();
    plans.filter_map(move |(i, plan)| {
        let same_place = before.services.get(i);
        let old = same_place
            .filter(|old| old.service.name == plan.service.name)
            .or_else(|| before.service(&plan.service.name));
        if old.is_some_and(|old| Arc::ptr_eq(old, plan)) {
            return None;
        }
        Some(of_service(old, plan, after, trail))
    })
}

fn of_service(
    old: Option<&Arc<ServicePlan>>,
    plan: &ServicePlan,
    after: u64,
    trail: Trail,
) -> Event {
    let name = &plan.service.name;
    let cause = |subject, step| Cause {
        subject,
        step,
        after,
        upto: trail.number,
    };
    let moved = moved(old, plan);
    let mut words: Vec<_> = moved.iter().map(|(_, words)| words.clone()).collect();
    if words.len() > NAMED {
        let more = words.len() - NAMED;
        words.truncate(NAMED);
        words.push(format!("{more} more"));
    }
    words.push(plan.reason());
    let of_backends = moved.into_iter().take(NAMED).flat_map(|(backend, _)| {
        let subject = Subject::Backend(Arc::clone(name), backend);
        [
            cause(subject.clone(), Step::State),
            cause(subject, Step::Order),
        ]
    });
    let service = Subject::Service(Arc::clone(name));
    Event::new(trail, service.clone(), Step::Decision, words.join("; "))
        .caused_by(of_backends)
        .caused_by([
            cause(service, Step::Order),
            cause(Subject::Node, Step::Order),
            cause(Subject::Node, Step::Configuration),
        ])
}

/// The backends that mean something else for flows than before, and what.
fn moved(old: Option<&Arc<ServicePlan>>, plan: &ServicePlan) -> Vec<(Arc<str>, String)> {
    let Some(old) = old.filter(|old| old.service.backends == plan.service.backends) else {
        return Vec::new();
    };
    let is_presumed = |plan: &ServicePlan, place| plan.presumed.get(place) == Some(&true);
    let of = |plan: &ServicePlan, place: usize| {
        let standing = plan.standing.get(place).copied();
        let drained = plan.drained.get(place).copied();
        (standing, drained, is_presumed(plan, place))
    };
    let backends = plan.service.backends.iter().enumerate();
    let changed = backends.filter(|(place, _)| of(old, *place) != of(plan, *place));
    changed
        .map(|(place, backend)| {
            let takes = plan.standing.get(place).is_some_and(|s| s.takes_flows());
            let words = match (takes, plan.keeps_flows(place)) {
                (true, _) => "takes flows",
                (false, true) if is_presumed(plan, place) => {
                    "fails its checks, packets go there all the same"
                }
                (false, true) => "gets no new flows",
                (false, false) => "serves nothing, its flows end",
            };
            (
                Arc::clone(&backend.name),
                format!("{} {words}", backend.name),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use vipd_control::{
        decide::{Decider, HealthView},
        model::{Backend, Model, Service},
        standing::Standing,
    };

    use super::*;

    fn desired(up: &[&str], before: &Desired) -> Desired {
        let vip = std::net::IpAddr::from([198, 51, 100, 10]).into();
        let names = [("b1", 1), ("b2", 2)];
        let backends = names.map(|(name, last)| Backend::new(name, [192, 0, 2, last].into(), 1));
        let model = Model {
            services: vec![Arc::new(Service::new("web", vec![vip], backends.into()))],
        };
        let is_up = |_: &Service, backend: &Backend| up.contains(&&*backend.name);
        Decider::new([0; 16]).decide(&model, &is_up, before)
    }

    #[test]
    fn a_decision_is_told_with_who_has_moved() {
        let check = |sentence, before: &[&str], now: &[&str], expected: Option<&str>| {
            let before = desired(before, &Desired::default());
            let now = desired(now, &before);
            let events: Vec<_> = decided(&before, &now, 3, Trail::default()).collect();
            let texts: Vec<_> = events.iter().map(|event| &*event.text).collect();
            assert_eq!(texts, Vec::from_iter(expected), "{sentence}");
        };
        check(
            "one dies",
            &["b1", "b2"],
            &["b1"],
            Some("b2 serves nothing, its flows end; web: 1 of 2 backends healthy"),
        );
        check(
            "the last one dies",
            &["b1"],
            &[],
            Some("b1 serves nothing, its flows end; web: 0 of 2 backends healthy, 1 wanted"),
        );
        check(
            "one comes back",
            &[],
            &["b2"],
            Some("b2 takes flows; web: 1 of 2 backends healthy"),
        );
        check("nothing changes", &["b1"], &["b1"], None);
    }

    #[test]
    fn nobody_says_that_flows_end_which_do_not() {
        struct OneFell;
        impl HealthView for OneFell {
            fn standing(&self, _: &Service) -> Vec<Standing> {
                vec![Standing::Dead; 2]
            }

            fn fallen(&self, _: &Service) -> Vec<bool> {
                vec![true, false]
            }
        }
        let before = desired(&["b1", "b2"], &Desired::default());
        let model = Model {
            services: vec![Arc::clone(&before.services[0].service)],
        };
        let now = Decider::new([0; 16]).decide(&model, &OneFell, &before);
        let events: Vec<_> = decided(&before, &now, 3, Trail::default()).collect();
        assert_eq!(
            events[0].text,
            "b1 fails its checks, packets go there all the same; b2 serves nothing, its flows end; \
             web: 0 of 2 backends healthy, 1 wanted"
        );
    }

    #[test]
    fn a_decision_came_of_the_states_and_orders_since_the_one_before() {
        let before = desired(&["b1", "b2"], &Desired::default());
        let now = desired(&["b1"], &before);
        let trail = Trail {
            number: 9,
            ..Trail::default()
        };
        let event = decided(&before, &now, 3, trail).next().expect("an event");
        assert!(
            event
                .causes
                .iter()
                .all(|cause| (cause.after, cause.upto) == (3, 9))
        );
        let of_b2 = Subject::Backend("web".into(), "b2".into());
        let of_b2 = event.causes.iter().filter(|cause| cause.subject == of_b2);
        let steps: Vec<_> = of_b2.map(|cause| cause.step).collect();
        assert_eq!(steps, [Step::State, Step::Order], "{event:?}");
    }
}
