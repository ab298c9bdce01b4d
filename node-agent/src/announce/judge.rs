//! What is to be announced by what is known now: the gate, the aggregates behind
//! it, and damping last.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use vipd_control::{
    aggregate::{self, aggregate},
    announcement::State,
    damping::{Damping, Heard, Terms as DampingTerms, Wait},
    decide::Desired,
    gate::{Gate, GateChange, GateChangeKind, Plane, Terms},
    model::Vip,
};

use super::{Announced, Inputs, Standings, account::Turn};
use crate::{
    config::{Bgp, BgpPeer},
    events::Origin,
};

/// What it remembers from one look to the next.
#[derive(Default)]
pub struct Judge {
    gate: Gate,
    damping: Damping,
    turn: Turn,
}

impl Judge {
    /// What is to be announced, how everything stands, and what is otherwise than
    /// before.
    pub fn look(
        &mut self,
        inputs: &mut Inputs,
        now: Instant,
    ) -> (Announced, Standings, Vec<GateChange>) {
        let decision = inputs.decision.borrow_and_update().clone();
        let applied = Arc::clone(&inputs.applied.borrow_and_update());
        let closing = *inputs.closing.borrow_and_update();
        let maintenance = *inputs.maintenance.borrow_and_update();
        self.turn = Turn {
            desired: Arc::clone(&decision.desired),
            decided: decision.trail,
            applied: applied.trail.number,
            ordered: closing.trail.number.max(maintenance.trail.number),
        };
        let fault = inputs.fault.borrow_and_update().clone();
        let lacks = Arc::clone(&inputs.lacks.borrow_and_update());
        let bgp = decision.bgp;
        let aggregates = bgp.as_ref().map_or(&[][..], |bgp| &bgp.aggregates);
        let prefixes = aggregates.iter().map(|aggregate| aggregate.prefix);
        let told = |prefix, state| is_told(bgp.as_deref(), prefix, state);
        let withdrawn = State::ALL.into_iter().filter(|state| state.is_withdrawn());
        let open: Vec<(Vip, State)> = prefixes
            .flat_map(|prefix| withdrawn.clone().map(move |state| (prefix, state)))
            .filter(|(prefix, state)| told(*prefix, *state))
            .collect();
        let terms = Terms {
            maintenance: maintenance.on,
            // Or an aggregate would have nothing inside it; its rules still keep
            // the address itself from peers.
            fails_open: |vip, state| {
                let mut open = open.iter();
                open.any(|(around, open)| *open == state && around.contains(vip))
                    || told(vip, state)
            },
        };
        let mut desired = Desired::default();
        if !closing.on {
            desired.vips.clone_from(&decision.desired.vips);
            desired
                .vips
                .retain(|vip, _| !decision.leaving.contains(vip));
        }
        let local = Arc::clone(&inputs.local.borrow_and_update());
        let bound = local.standings.iter();
        let bound =
            bound.map(|(vip, standing)| (*vip, standing.as_ref().map(drop).map_err(String::clone)));
        let plane = Plane {
            bound: &bound.collect(),
            acknowledged: &applied.vips,
            forwarded: &applied.forwarded,
            fault: fault.as_deref(),
            lacks: &lacks,
        };
        let mut changes = self.gate.update(&desired, &plane, &terms);
        let admitted = self.gate.announced();
        let mut states = admitted.clone();
        let fails_open = |prefix, state| open.contains(&(prefix, state));
        let standings = aggregate(&mut states, aggregates, fails_open);
        let before = &inputs.standings.borrow().aggregates;
        changes.extend(aggregate::changes(before, &standings));
        let stood_for = |vip, reason| {
            if admitted.contains_key(&vip) && !states.contains_key(&vip) {
                format!("an aggregate stands for it; {reason}")
            } else {
                reason
            }
        };
        let reasons = |prefix: Vip| {
            let plan = desired.vips.get(&prefix);
            let admission = self.gate.admissions().get(&prefix);
            let of_vip = admission.zip(plan).map(|(a, plan)| a.reason(plan));
            let of_vip = of_vip.map(|reason| stood_for(prefix, reason));
            let mut standings = standings.iter();
            let of_aggregate = standings.find(|standing| standing.prefix == prefix);
            of_vip
                .or_else(|| of_aggregate.map(aggregate::Standing::reason))
                .unwrap_or_default()
        };
        for change in &mut changes {
            change.reason = stood_for(change.vip, std::mem::take(&mut change.reason));
        }
        let terms = bgp.as_ref().map_or(DampingTerms::OFF, |bgp| bgp.damping);
        let heard = |prefix, from, to| heard(bgp.as_deref(), prefix, from, to);
        let damped = self.damping.update(&states, &terms, heard, now);
        changes = tell(changes, &damped, &self.damping, reasons, now);
        changes.sort_by_key(|change| change.kind);

        let standings = Standings {
            aggregates: standings,
            vips: self.gate.admissions().clone(),
            damping: self.damping.standings().clone(),
            known: decision.known,
        };
        if closing.on {
            for change in &mut changes {
                "the agent stops".clone_into(&mut change.reason);
            }
        }
        let complete = decision.known && standings.are_applied();
        let announced = Announced {
            states: self.damping.announced(),
            bgp,
            complete,
            origin: Origin::default(),
        };
        (announced, standings, changes)
    }

    /// What the last look was made by.
    pub fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// When something that waits may be announced, if nothing happens before.
    pub fn next(&self) -> Option<Instant> {
        self.damping.next()
    }
}

/// What has changed when damping has had its say: an improvement that waits has
/// not happened yet, one that has waited happens with no other cause, and of what
/// damping does not know no router hears.
fn tell(
    changes: Vec<GateChange>,
    damped: &BTreeMap<Vip, Option<State>>,
    damping: &Damping,
    reason: impl Fn(Vip) -> String,
    now: Instant,
) -> Vec<GateChange> {
    let released = damped.keys().filter(|prefix| {
        let mut changes = changes.iter();
        !changes.any(|change| change.vip == **prefix)
    });
    let released = released.map(|prefix| GateChange {
        vip: *prefix,
        kind: GateChangeKind::Waiting,
        reason: reason(*prefix),
    });
    let released: Vec<_> = released.collect();
    let all = changes.into_iter().chain(released).map(|mut change| {
        let standing = damping.standings().get(&change.vip);
        let announced = standing.and_then(|standing| standing.announced);
        change.kind = match (damped.get(&change.vip), announced) {
            (Some(before), _) => GateChangeKind::between(*before, announced),
            (None, Some(state)) => GateChangeKind::Held(state),
            (None, None) => GateChangeKind::Waiting,
        };
        if let Some(wait) = standing.and_then(|standing| standing.wait) {
            change.reason += &format!("; {}", wait_words(&wait, now));
        }
        change
    });
    all.collect()
}

/// Why something waits, and for how long.
#[must_use]
pub fn wait_words(wait: &Wait, now: Instant) -> String {
    let seconds = wait.until.saturating_duration_since(now).as_secs_f64();
    format!("better only in {} s: {}", seconds.ceil(), wait.cause)
}

/// Whether any peer is told of the prefix in that state.
fn is_told(bgp: Option<&Bgp>, prefix: Vip, state: State) -> bool {
    peers(bgp).any(|peer| peer.hears_of(prefix, state))
}

/// The worst that any peer hears when a prefix goes from one state to another.
fn heard(bgp: Option<&Bgp>, prefix: Vip, from: Option<State>, to: Option<State>) -> Heard {
    let by_one = |peer: &BgpPeer| {
        let told = |state| peer.attributes(&peer.case(prefix, state));
        match (from.and_then(told), to.and_then(told)) {
            (from, to) if from == to => Heard::Nothing,
            (Some(_), None) => Heard::Withdrawal,
            (None, _) => Heard::Announcement,
            (Some(_), Some(_)) => Heard::Attributes,
        }
    };
    peers(bgp).map(by_one).max().unwrap_or(Heard::Nothing)
}

fn peers(bgp: Option<&Bgp>) -> impl Iterator<Item = &BgpPeer> {
    bgp.into_iter()
        .flat_map(|bgp| bgp.peers.iter().map(|peer| &**peer))
}
