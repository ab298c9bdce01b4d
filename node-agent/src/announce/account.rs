//! What is recorded of announcements: which change came of which decision, and of
//! what was written into the maps. Pure.

use std::{collections::BTreeMap, sync::Arc};

use vipd_control::{
    decide::Desired,
    gate::{GateChange, GateChangeKind},
    model::Vip,
};

use crate::events::{Cause, Event, Origin, Step, Subject, Trail};

/// What one look at everything was made by.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// What is decided.
    pub desired: Arc<Desired>,
    /// Which decision that is.
    pub decided: Trail,
    /// The number of what the data plane has published last.
    pub applied: u64,
    /// The number of the last order about the node as a whole: maintenance, or to
    /// stop.
    pub ordered: u64,
}

/// What was known by the turn before, so that a change is put down to what is new.
#[derive(Debug, Default)]
pub struct Account {
    last: Turn,
    /// When each prefix was last told of, by the number of the turn.
    told: BTreeMap<Vip, u64>,
    /// A decision that is not followed in full yet.
    following: Option<Trail>,
}

impl Account {
    /// What a publication of this turn comes of. `at_rest`: nothing waits for the
    /// data plane or the kernel.
    pub fn origin(
        &mut self,
        trail: Trail,
        turn: &Turn,
        changes: &[GateChange],
        at_rest: bool,
    ) -> Origin {
        let is_new = turn.decided.number != self.last.decided.number;
        if is_new {
            self.following = Some(turn.decided);
        }
        let following = self.following;
        if at_rest {
            self.following = None;
        }
        let is_worse = |change: &GateChange| {
            use GateChangeKind::{Withdrawn, Worsened};
            matches!(change.kind, Withdrawn | Worsened)
        };
        let worse = changes.iter().any(is_worse);
        // What gets worse by a decision does so at once; later it came of something
        // else, though another address may still wait. So did what was ordered.
        let is_by_others = !is_new && (worse || turn.ordered != self.last.ordered);
        Origin {
            trail,
            decided: following.filter(|_| !is_by_others).map(|trail| trail.at),
            worse,
        }
    }

    /// The changes as events.
    pub fn events<'a>(
        &'a self,
        trail: Trail,
        turn: &'a Turn,
        told: &'a [GateChange],
    ) -> impl Iterator<Item = Event> + 'a {
        told.iter().map(move |change| {
            let GateChange { vip, kind, reason } = change;
            let words = match kind {
                GateChangeKind::Entered => "announced",
                GateChangeKind::Improved => "announced better",
                GateChangeKind::Worsened => "announced worse",
                GateChangeKind::Withdrawn => "withdrawn",
                GateChangeKind::Waiting => "not announced",
                GateChangeKind::Held(state) => {
                    &format!("stays announced in the state {}", state.label())
                }
            };
            let subject = Subject::Prefix(*vip);
            Event::new(
                trail,
                subject,
                Step::Announcement,
                format!("{words}: {reason}"),
            )
            .caused_by(self.causes(turn, change))
            .caused_by(inside(trail, *vip, told))
        })
    }

    /// What has come about for the services of an address since the turn before.
    /// What enters may have waited longer, for its unreachable route: since it was
    /// last told of.
    fn causes(&self, turn: &Turn, change: &GateChange) -> Vec<Cause> {
        use GateChangeKind::{Entered, Improved};
        let GateChange { vip, kind, .. } = change;
        let since = match kind {
            Entered => Some(self.told.get(vip).copied().unwrap_or(0)),
            _ => None,
        };
        let cause = |subject, step, last, upto| Cause {
            subject,
            step,
            after: since.unwrap_or(last),
            upto,
        };
        let mut causes = Vec::new();
        if turn.ordered != self.last.ordered {
            causes.push(Cause {
                subject: Subject::Node,
                step: Step::Order,
                after: self.last.ordered,
                upto: turn.ordered,
            });
        }
        let (last, now) = (self.last.decided.number, turn.decided.number);
        let Some(plan) = turn.desired.vips.get(vip) else {
            causes.push(cause(Subject::Node, Step::Configuration, last, now));
            return causes;
        };
        for plan in &plan.services {
            let service = Subject::Service(Arc::clone(&plan.service.name));
            // What gets worse waits for nothing.
            if matches!(kind, Entered | Improved) {
                let (last, now) = (self.last.applied, turn.applied);
                causes.push(cause(service.clone(), Step::Maps, last, now));
            }
            causes.push(cause(service, Step::Decision, last, now));
        }
        causes
    }

    /// Ends the turn.
    pub fn close(&mut self, trail: Trail, turn: Turn, told: &[GateChange]) {
        for change in told {
            let is_gone = change.kind == GateChangeKind::Withdrawn
                && !turn.desired.vips.contains_key(&change.vip);
            match is_gone {
                true => self.told.remove(&change.vip),
                false => self.told.insert(change.vip, trail.number),
            };
        }
        self.last = turn;
    }
}

/// An aggregate goes by the addresses inside, which have changed with it.
fn inside(trail: Trail, around: Vip, told: &[GateChange]) -> impl Iterator<Item = Cause> + use<> {
    let all = told.iter().map(|change| change.vip);
    let inside = all.filter(|vip| *vip != around && around.contains(*vip));
    let cause = |vip| Cause {
        subject: Subject::Prefix(vip),
        step: Step::Announcement,
        after: trail.number - 1,
        upto: trail.number,
    };
    inside.map(cause).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use vipd_control::{
        decide::Decider,
        model::{Backend, Model, Service},
    };

    use super::*;

    fn vip() -> Vip {
        std::net::IpAddr::from([198, 51, 100, 10]).into()
    }

    fn turn(decided: u64, applied: u64) -> Turn {
        let backends = vec![Backend::new("b1", [192, 0, 2, 1].into(), 1)];
        let model = Model {
            services: vec![Arc::new(Service::new("web", vec![vip()], backends))],
        };
        let up = |_: &Service, _: &Backend| true;
        let desired = Decider::new([0; 16]).decide(&model, &up, &Desired::default());
        Turn {
            desired: Arc::new(desired),
            decided: trail(decided),
            applied,
            ordered: 0,
        }
    }

    fn trail(number: u64) -> Trail {
        Trail {
            number,
            ..Trail::default()
        }
    }

    fn change(kind: GateChangeKind) -> [GateChange; 1] {
        [GateChange {
            vip: vip(),
            kind,
            reason: String::new(),
        }]
    }

    #[test]
    fn a_change_came_of_what_is_new_in_its_turn() {
        use GateChangeKind::{Entered, Improved, Waiting, Withdrawn};
        let mut account = Account::default();
        // Each: decision and maps that are known, what is told; then of which
        // maps and decisions it came.
        let turns = [
            ((1, 0), 2, Waiting, None, (0, 1)),
            // It has waited for a route since the turn of number 2.
            ((1, 3), 4, Entered, Some((2, 3)), (2, 1)),
            ((5, 3), 6, Withdrawn, None, (1, 5)),
            // Not by a decision: there is none between.
            ((5, 3), 7, Withdrawn, None, (5, 5)),
            ((5, 8), 9, Improved, Some((3, 8)), (5, 5)),
        ];
        for ((decided, applied), number, kind, maps, decisions) in turns {
            let turn = turn(decided, applied);
            let told = change(kind);
            let events: Vec<_> = account.events(trail(number), &turn, &told).collect();
            let expected = |step, (after, upto)| Cause {
                subject: Subject::Service("web".into()),
                step,
                after,
                upto,
            };
            let maps = maps.map(|numbers| expected(Step::Maps, numbers));
            let decision = expected(Step::Decision, decisions);
            let expected: Vec<_> = maps.into_iter().chain([decision]).collect();
            assert_eq!(events[0].causes, expected, "{number}: {events:?}");
            account.close(trail(number), turn, &told);
        }
    }

    #[test]
    fn what_the_operator_has_ordered_of_the_node_is_a_cause_once() {
        use GateChangeKind::{Improved, Withdrawn, Worsened};
        let mut account = Account::default();
        // The last order, what is told, and of which orders it came.
        let turns = [
            (0, Withdrawn, None),
            (3, Worsened, Some((0, 3))),
            (3, Withdrawn, None),
            (7, Improved, Some((3, 7))),
        ];
        for (number, (ordered, kind, expected)) in (10..).zip(turns) {
            let turn = Turn {
                ordered,
                ..turn(1, 0)
            };
            let told = change(kind);
            let events: Vec<_> = account.events(trail(number), &turn, &told).collect();
            let mut causes = events.iter().flat_map(|event| &event.causes);
            let order = causes.find(|cause| cause.step == Step::Order);
            let found = order.map(|cause| (cause.after, cause.upto));
            assert_eq!(found, expected, "{number}: {events:?}");
            assert!(
                order.is_none_or(|cause| cause.subject == Subject::Node),
                "{events:?}"
            );
            account.close(trail(number), turn, &told);
        }
    }

    #[test]
    fn an_aggregate_changes_by_the_addresses_inside() {
        let account = Account::default();
        let around: ipnet::IpNet = "198.51.100.0/24".parse().expect("a prefix");
        let [address] = change(GateChangeKind::Withdrawn);
        let aggregate = GateChange {
            vip: around.into(),
            ..address.clone()
        };
        let told = [address, aggregate];
        let turn = turn(1, 0);
        let aggregate = account.events(trail(5), &turn, &told).nth(1);
        let causes = aggregate.expect("an event").causes;
        let by_address = causes.iter().find(|cause| cause.step == Step::Announcement);
        let found = by_address.map(|cause| (cause.subject.clone(), cause.after, cause.upto));
        assert_eq!(found, Some((Subject::Prefix(vip()), 4, 5)), "{causes:?}");
    }

    #[test]
    fn only_what_follows_a_decision_is_measured_from_it() {
        let mut account = Account::default();
        let mut decided = |number, decided: u64, ordered, told: &[GateChange], at_rest| {
            let turn = Turn {
                ordered,
                ..turn(decided, 0)
            };
            let origin = account.origin(trail(number), &turn, told, at_rest);
            account.close(trail(number), turn, told);
            origin.decided.is_some()
        };
        use GateChangeKind::{Entered, Withdrawn};
        let worse = change(Withdrawn);
        assert!(decided(2, 1, 0, &worse, false), "a decision");
        assert!(
            !decided(3, 1, 0, &worse, false),
            "another address, by itself"
        );
        assert!(!decided(4, 1, 4, &[], false), "maintenance");
        assert!(
            decided(5, 1, 4, &change(Entered), true),
            "it has waited for the maps"
        );
        assert!(!decided(6, 1, 4, &[], true), "something else, long after");
        assert!(decided(8, 7, 4, &[], true), "the next decision");
    }
}
