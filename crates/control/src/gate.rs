//! The gate between the decision and the speaker: which virtual addresses are
//! announced now, and in what [`State`].
//!
//! - A VIP **enters** only when it is alive and the data plane has acknowledged
//!   what is decided for it now: no router sends a packet before it can be
//!   forwarded. The same holds when it is down and gets better.
//! - Once announced it **stays** while the data plane follows further changes:
//!   a slow map write flaps no route.
//! - It **leaves at once**, or takes the worse state at once, when it is not
//!   alive any more. It leaves at once when it is taken out of the
//!   configuration, or when the data plane has failed.
//! - Down or disabled it is announced only where it **fails open**, by the terms.
//!   So, and in doubt, it is announced only while its packets are still sent to
//!   somebody: to those who fell last, when nobody is healthy. That an agent
//!   before has forwarded them will do.
//! - It is not announced at all, in any state, while this host **lacks** something
//!   that a service on it depends on.
//!
//! A VIP that this host serves itself has no data plane: in its place stands
//! whether the address is bound here. It enters when it is, and leaves at once
//! when it is not any more.
//!
//! The VIPs are judged each by itself: one that cannot be applied holds up no
//! other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use crate::{
    announcement::State,
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
    /// It is announced in this state.
    Announced(State),
    /// It is not.
    Withheld(Obstacle),
}

/// Why a VIP is not announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The decision: too few healthy backends, as said here.
    NotAlive(String),
    /// A service on it depends on something that this host lacks, as said here.
    Lacking(String),
    /// The data plane has not acknowledged the present decision yet.
    NotAcknowledged,
    /// The data plane does not forward, as said here.
    Fault(String),
    /// The address is to be served by this host itself, and it is not known yet
    /// whether it is bound here.
    NotBoundYet,
    /// The same, and it is not bound, as said here.
    NotBound(String),
    /// It is not configured any more.
    Removed,
}

/// What the data plane says.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// Per VIP the [`VipPlan::fingerprint`] of what it has applied, with a way to
    /// enough backends.
    pub acknowledged: &'a BTreeMap<Vip, u64>,
    /// The VIPs whose packets it sends to somebody, healthy or not.
    pub forwarded: &'a BTreeSet<Vip>,
    /// Why it does not forward at all, if so.
    pub fault: Option<&'a str>,
    /// What this host lacks that services depend on, by their names.
    pub lacks: &'a BTreeMap<Arc<str>, String>,
    /// The VIPs that this host serves itself: whether each is bound here, or why
    /// not, in plain words. Of who is missing nothing is known yet.
    pub bound: &'a BTreeMap<Vip, Result<(), String>>,
}

/// What stands between a VIP and the packets for it.
enum Footing {
    /// What is decided for it is in force.
    Firm,
    /// It is not yet, or only what was decided before.
    Soft,
    /// Nobody would get its packets.
    None(Obstacle),
}

/// What the gate goes by besides the decision and what the data plane says.
#[derive(Clone, Copy, Debug)]
pub struct Terms<F> {
    /// Whether the host is about to leave.
    pub maintenance: bool,
    /// Whether anybody is told of a VIP in a state in which it
    /// [is withdrawn](State::is_withdrawn) by itself, or of an aggregate for its
    /// sake.
    pub fails_open: F,
}

/// A change at the gate, or of an aggregate behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateChange {
    /// Whom it concerns: a VIP or an aggregate.
    pub vip: Vip,
    /// What happened.
    pub kind: GateChangeKind,
    /// Why, in plain words.
    pub reason: String,
}

/// What happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateChangeKind {
    /// It was announced and is not any more.
    Withdrawn,
    /// It is announced in a worse state than before.
    Worsened,
    /// It is announced in a better state than before.
    Improved,
    /// It is announced from now on.
    Entered,
    /// It was not announced and is not now, for another reason than before.
    Waiting,
    /// It stays announced in that state, though there is another reason: what is
    /// wanted is better, and waits.
    Held(State),
}

impl Gate {
    /// Judges all VIPs anew and returns what changed, withdrawals first.
    pub fn update<F: Fn(Vip, State) -> bool>(
        &mut self,
        desired: &Desired,
        plane: &Plane<'_>,
        terms: &Terms<F>,
    ) -> Vec<GateChange> {
        let before = std::mem::take(&mut self.vips);
        let mut changes = Vec::new();
        for (&vip, plan) in &desired.vips {
            let previous = before.get(&vip);
            let state = previous.and_then(Admission::state);
            let admission = terms.judge(vip, plan, state, plane);
            if previous != Some(&admission) {
                changes.push(GateChange {
                    vip,
                    kind: GateChangeKind::between(state, admission.state()),
                    reason: admission.reason(plan),
                });
            }
            self.vips.insert(vip, admission);
        }
        for (vip, previous) in before {
            if previous.state().is_some() && !self.vips.contains_key(&vip) {
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

    /// The VIPs to announce now, each in its state.
    #[must_use]
    pub fn announced(&self) -> BTreeMap<Vip, State> {
        let vips = self.vips.iter();
        vips.filter_map(|(&vip, admission)| Some((vip, admission.state()?)))
            .collect()
    }

    /// How each configured VIP stands.
    #[must_use]
    pub const fn admissions(&self) -> &BTreeMap<Vip, Admission> {
        &self.vips
    }
}

impl<F: Fn(Vip, State) -> bool> Terms<F> {
    /// The rules. `before` is the state in which the VIP is announced so far.
    fn judge(
        &self,
        vip: Vip,
        plan: &VipPlan,
        before: Option<State>,
        plane: &Plane<'_>,
    ) -> Admission {
        let withheld = Admission::Withheld;
        let mut services = plan.services.iter();
        if let Some(lack) = services.find_map(|plan| plane.lacks.get(&plan.service.name)) {
            return withheld(Obstacle::Lacking(lack.clone()));
        }
        let footing = plane.footing(vip, plan);
        if !plan.is_alive() {
            let told = !plan.state.is_withdrawn() || (self.fails_open)(vip, plan.state);
            return if plane.delivers(vip, plan) && told {
                Admission::Announced(plan.state)
            } else {
                withheld(Obstacle::NotAlive(plan.reason()))
            };
        }
        let wanted = if self.maintenance {
            State::Maintenance
        } else {
            plan.state
        };
        match (footing, before) {
            (Footing::None(obstacle), _) => withheld(obstacle),
            (Footing::Firm, _) => Admission::Announced(wanted),
            // What is announced alive goes on while the data plane follows.
            (Footing::Soft, Some(before)) if before.is_alive() => Admission::Announced(wanted),
            (Footing::Soft, Some(before)) => Admission::Announced(before),
            (Footing::Soft, None) => withheld(Obstacle::NotAcknowledged),
        }
    }
}

impl Plane<'_> {
    fn footing(&self, vip: Vip, plan: &VipPlan) -> Footing {
        if plan.is_local() {
            return match self.bound.get(&vip) {
                Some(Ok(())) => Footing::Firm,
                Some(Err(reason)) => Footing::None(Obstacle::NotBound(reason.clone())),
                None => Footing::None(Obstacle::NotBoundYet),
            };
        }
        match self.fault {
            Some(fault) => Footing::None(Obstacle::Fault(fault.to_owned())),
            None if self.acknowledged.get(&vip) == Some(&plan.fingerprint) => Footing::Firm,
            None => Footing::Soft,
        }
    }

    /// Whether anybody gets the packets of the VIP, healthy or not.
    fn delivers(&self, vip: Vip, plan: &VipPlan) -> bool {
        if plan.is_local() {
            self.bound.get(&vip) == Some(&Ok(()))
        } else {
            self.fault.is_none() && self.forwarded.contains(&vip)
        }
    }
}

impl Admission {
    /// Whether it may be announced as soon as what is decided is in force.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        matches!(
            self,
            Self::Withheld(Obstacle::NotAcknowledged | Obstacle::NotBoundYet)
        )
    }

    /// The state in which it is announced, if it is.
    #[must_use]
    pub const fn state(&self) -> Option<State> {
        match self {
            Self::Announced(state) => Some(*state),
            Self::Withheld(_) => None,
        }
    }

    /// Why, in plain words.
    #[must_use]
    pub fn reason(&self, plan: &VipPlan) -> String {
        match self {
            Self::Announced(state) if plan.is_alive() && !state.is_alive() => {
                format!("{}; {}", plan.reason(), Obstacle::NotAcknowledged)
            }
            Self::Announced(State::Maintenance) => {
                format!("the host is in maintenance; {}", plan.reason())
            }
            Self::Announced(_) => plan.reason(),
            Self::Withheld(obstacle) => obstacle.to_string(),
        }
    }
}

impl GateChangeKind {
    /// What has happened to something that was announced in a state, or not, and
    /// is in another now.
    #[must_use]
    pub fn between(before: Option<State>, now: Option<State>) -> Self {
        match (before, now) {
            (Some(_), None) => Self::Withdrawn,
            (Some(before), Some(now)) if now < before => Self::Worsened,
            (Some(_), Some(_)) => Self::Improved,
            (None, Some(_)) => Self::Entered,
            (None, None) => Self::Waiting,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAlive(reason) | Self::Lacking(reason) => f.write_str(reason),
            Self::NotAcknowledged => f.write_str("the data plane has not applied it yet"),
            Self::Fault(fault) => write!(f, "the data plane does not forward: {fault}"),
            Self::NotBoundYet => f.write_str("the address is about to be bound"),
            Self::NotBound(reason) => f.write_str(reason),
            Self::Removed => f.write_str("no service uses it any more"),
        }
    }
}

#[cfg(test)]
mod tests;
