//! The gate between the decision and the speaker: which virtual addresses are
//! announced now.
//!
//! - A VIP **enters** only when it is alive and the data plane has acknowledged
//!   what is decided for it now: no router sends a packet before it can be
//!   forwarded.
//! - Once announced it **stays** while the data plane follows further changes:
//!   a slow map write flaps no route.
//! - It **leaves at once** when it is not alive any more, when it is taken out
//!   of the configuration, or when the data plane has failed.
//!
//! The VIPs are judged each by itself: one that cannot be applied holds up no
//! other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    decide::{Desired, VipPlan},
    model::Vip,
};

/// Which VIPs are announced, and why the others are not.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    vips: BTreeMap<Vip, Admission>,
}

/// How one VIP stands at the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is announced.
    Announced,
    /// It is not.
    Withheld(Obstacle),
}

/// Why a VIP is not announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The decision: too few healthy backends, as said here.
    NotAlive(String),
    /// The data plane has not acknowledged the present decision yet.
    NotAcknowledged,
    /// The data plane does not forward, as said here.
    Fault(String),
    /// It is not configured any more.
    Removed,
}

/// A change at the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateChange {
    /// Whom it concerns.
    pub vip: Vip,
    /// What happened.
    pub kind: GateChangeKind,
    /// Why, in plain words.
    pub reason: String,
}

/// What happened to a VIP at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateChangeKind {
    /// It was announced and is not any more.
    Withdrawn,
    /// It is announced from now on.
    Entered,
    /// It was not announced and is not now, for another reason than before.
    Waiting,
}

impl Gate {
    /// Judges all VIPs anew and returns what changed, withdrawals first.
    ///
    /// `acknowledged` holds per VIP the [`VipPlan::fingerprint`] of what the
    /// data plane has applied; `fault` says why it does not forward at all, if
    /// so.
    pub fn update(
        &mut self,
        desired: &Desired,
        acknowledged: &BTreeMap<Vip, u64>,
        fault: Option<&str>,
    ) -> Vec<GateChange> {
        let before = std::mem::take(&mut self.vips);
        let mut changes = Vec::new();
        for (&vip, plan) in &desired.vips {
            let previous = before.get(&vip);
            let announced = previous == Some(&Admission::Announced);
            let applied = acknowledged.get(&vip) == Some(&plan.fingerprint);
            let admission = judge(plan, announced, applied, fault);
            if previous != Some(&admission) {
                let kind = kind(announced, &admission);
                let reason = match &admission {
                    Admission::Announced => plan.reason(),
                    Admission::Withheld(obstacle) => obstacle.to_string(),
                };
                changes.push(GateChange { vip, kind, reason });
            }
            self.vips.insert(vip, admission);
        }
        for (vip, previous) in before {
            if previous == Admission::Announced && !self.vips.contains_key(&vip) {
                changes.push(GateChange {
                    vip,
                    kind: GateChangeKind::Withdrawn,
                    reason: Obstacle::Removed.to_string(),
                });
            }
        }
        changes.sort_by_key(|change| change.kind);
        changes
    }

    /// The VIPs to announce now.
    #[must_use]
    pub fn announced(&self) -> BTreeSet<Vip> {
        let announced = |(&vip, admission): (&Vip, &Admission)| {
            (*admission == Admission::Announced).then_some(vip)
        };
        self.vips.iter().filter_map(announced).collect()
    }

    /// How each configured VIP stands.
    #[must_use]
    pub const fn admissions(&self) -> &BTreeMap<Vip, Admission> {
        &self.vips
    }
}

/// The rules.
fn judge(plan: &VipPlan, announced: bool, applied: bool, fault: Option<&str>) -> Admission {
    if !plan.alive {
        Admission::Withheld(Obstacle::NotAlive(plan.reason()))
    } else if let Some(fault) = fault {
        Admission::Withheld(Obstacle::Fault(fault.to_owned()))
    } else if announced || applied {
        Admission::Announced
    } else {
        Admission::Withheld(Obstacle::NotAcknowledged)
    }
}

const fn kind(announced: bool, now: &Admission) -> GateChangeKind {
    match (announced, now) {
        (_, Admission::Announced) => GateChangeKind::Entered,
        (true, Admission::Withheld(_)) => GateChangeKind::Withdrawn,
        (false, Admission::Withheld(_)) => GateChangeKind::Waiting,
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAlive(reason) => f.write_str(reason),
            Self::NotAcknowledged => f.write_str("the data plane has not applied it yet"),
            Self::Fault(fault) => write!(f, "the data plane does not forward: {fault}"),
            Self::Removed => f.write_str("no service uses it any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{decide::ServicePlan, model::tests::service, ring::RingBase};

    /// What the gate is shown about one VIP; `None` is not configured.
    #[derive(Clone, Copy, Debug)]
    struct Shown {
        configured: bool,
        alive: bool,
        decided: u64,
        acknowledged: Option<u64>,
    }

    fn address(i: u8) -> Vip {
        IpAddr::from([192, 0, 2, i]).into()
    }

    fn plan(vip: &Shown) -> Arc<VipPlan> {
        let mut web = service("web", &[("a", 1, 1), ("b", 2, 1), ("c", 3, 1)]);
        web.ring_size = 4;
        Arc::new(VipPlan {
            alive: vip.alive,
            services: vec![Arc::new(ServicePlan {
                alive: vip.alive,
                standing: Vec::new(),
                drained: Vec::new(),
                available: vec![vip.alive, false, false],
                healthy: vip.alive.into(),
                configured: 3,
                base: Arc::new(RingBase::new(&web)),
                ring: None,
                ring_fingerprint: None,
                fingerprint: vip.decided,
                keyed: 0,
                service: Arc::new(web),
            })],
            fingerprint: vip.decided,
        })
    }

    fn update(gate: &mut Gate, vips: &[Shown], fault: Option<&str>) -> Vec<GateChange> {
        let numbered = || (0..).map(address).zip(vips);
        let configured = numbered().filter(|(_, vip)| vip.configured);
        let desired = Desired {
            services: Vec::new(),
            vips: configured.map(|(a, vip)| (a, plan(vip))).collect(),
        };
        let acknowledged = numbered().filter_map(|(a, vip)| Some((a, vip.acknowledged?)));
        gate.update(&desired, &acknowledged.collect(), fault)
    }

    /// Shows one VIP's moments to a gate, and writes down the changes.
    #[track_caller]
    fn check(sentence: &str, moments: &[(Shown, Option<&str>)], expected: &[&str]) {
        let mut gate = Gate::default();
        let mut found = Vec::new();
        for (vip, fault) in moments {
            let changes = update(&mut gate, &[*vip], *fault);
            found.extend(
                changes
                    .iter()
                    .map(|change| format!("{:?}: {}", change.kind, change.reason)),
            );
        }
        assert_eq!(found, expected, "{sentence}: {gate:#?}");
    }

    const NEW: Shown = Shown {
        configured: true,
        alive: true,
        decided: 1,
        acknowledged: None,
    };
    const APPLIED: Shown = Shown {
        acknowledged: Some(1),
        ..NEW
    };
    const DEAD: Shown = Shown {
        alive: false,
        ..APPLIED
    };
    const CHANGED: Shown = Shown {
        decided: 2,
        ..APPLIED
    };
    const GONE: Shown = Shown {
        configured: false,
        ..APPLIED
    };

    const ENTERED: &str = "Entered: web: 1 of 3 backends healthy";
    const WAITING: &str = "Waiting: the data plane has not applied it yet";
    const DIED: &str = "Withdrawn: web: 0 of 3 backends healthy, 1 wanted";

    #[test]
    fn rules_of_the_gate() {
        check(
            "waits, enters",
            &[(NEW, None), (APPLIED, None)],
            &[WAITING, ENTERED],
        );
        check(
            "an older acknowledgement does not count",
            &[(CHANGED, None)],
            &[WAITING],
        );
        check(
            "stays while the data plane lags",
            &[(APPLIED, None), (CHANGED, None)],
            &[ENTERED],
        );
        check(
            "dies",
            &[(APPLIED, None), (DEAD, None), (DEAD, None)],
            &[ENTERED, DIED],
        );
        check(
            "does not enter dead",
            &[(DEAD, None)],
            &["Waiting: web: 0 of 3 backends healthy, 1 wanted"],
        );
        check(
            "comes back only with an acknowledgement of what is decided then",
            &[
                (APPLIED, None),
                (DEAD, None),
                (CHANGED, None),
                (APPLIED, None),
            ],
            &[ENTERED, DIED, WAITING, ENTERED],
        );
        check(
            "is taken out",
            &[(APPLIED, None), (GONE, None), (GONE, None)],
            &[ENTERED, "Withdrawn: no service uses it any more"],
        );
        check(
            "nobody misses what never entered",
            &[(NEW, None), (GONE, None)],
            &[WAITING],
        );
        check(
            "a fault takes it out, its end lets it in",
            &[
                (APPLIED, None),
                (APPLIED, Some("detached")),
                (APPLIED, None),
            ],
            &[
                ENTERED,
                "Withdrawn: the data plane does not forward: detached",
                ENTERED,
            ],
        );
    }

    #[test]
    fn withdrawals_come_first() {
        let mut gate = Gate::default();
        update(&mut gate, &[NEW, APPLIED, APPLIED], None);
        let changes = update(&mut gate, &[APPLIED, DEAD, GONE, NEW], None);
        let kinds: Vec<_> = changes.iter().map(|change| change.kind).collect();
        use GateChangeKind::{Entered, Waiting, Withdrawn};
        assert_eq!(
            kinds,
            [Withdrawn, Withdrawn, Entered, Waiting],
            "{changes:#?}"
        );
    }

    fn vip() -> impl Strategy<Value = Shown> {
        let acknowledged = prop::option::of(0..3u64);
        (
            prop::bool::weighted(0.9),
            prop::bool::weighted(0.8),
            0..3u64,
            acknowledged,
        )
            .prop_map(|(configured, alive, decided, acknowledged)| Shown {
                configured,
                alive,
                decided,
                acknowledged,
            })
    }

    proptest! {
        #[test]
        fn the_rules_hold_at_every_moment(
            moments in prop::collection::vec(
                (prop::array::uniform4(vip()), prop::bool::weighted(0.1)), 1..40,
            ),
        ) {
            let mut gate = Gate::default();
            for (vips, fault) in moments {
                let before = gate.announced();
                let changes = update(&mut gate, &vips, fault.then_some("broken"));
                let after = gate.announced();
                for (a, vip) in (0..).map(address).zip(&vips) {
                    let (was, is) = (before.contains(&a), after.contains(&a));
                    let may = vip.configured && vip.alive && !fault;
                    let applied = vip.acknowledged == Some(vip.decided);
                    prop_assert!(!is || may, "{} must leave at once: {:?}", a, &gate);
                    prop_assert!(!(was && may) || is, "{} must stay: {:?}", a, &gate);
                    prop_assert!(was || !is || applied, "{} entered too early: {:?}", a, &gate);
                    prop_assert!(!(may && applied) || is, "{} is held up: {:?}", a, &gate);
                }
                let told = |kind| -> BTreeSet<Vip> {
                    changes.iter().filter(|c| c.kind == kind).map(|c| c.vip).collect()
                };
                prop_assert_eq!(told(GateChangeKind::Entered), &after - &before);
                prop_assert_eq!(told(GateChangeKind::Withdrawn), &before - &after);
                let again = update(&mut gate, &vips, fault.then_some("broken"));
                prop_assert_eq!(again, [], "the same again is no change");
            }
        }
    }
}
