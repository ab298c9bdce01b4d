//! Damping told second by second, and what holds at any moment.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use State::{Degraded, Down, Up};

fn prefix(last: u8) -> Vip {
    IpAddr::from([192, 0, 2, last]).into()
}

/// A change between two announced states is one of attributes, but for the
/// degraded state, which no rule names here.
fn heard(_: Vip, from: Option<State>, to: Option<State>) -> Heard {
    match (from, to) {
        (None, None) => Heard::Nothing,
        (Some(_), None) => Heard::Withdrawal,
        (None, Some(_)) => Heard::Announcement,
        (Some(from), Some(to)) if from.min(to) >= Degraded => Heard::Nothing,
        (Some(_), Some(_)) => Heard::Attributes,
    }
}

fn held(seconds: u64) -> Terms {
    Terms {
        hold_down: Duration::from_secs(seconds),
        ..Terms::OFF
    }
}

const BUDGET: Terms = Terms {
    budget: true,
    ..Terms::OFF
};

/// One prefix: at so many seconds, what is wanted, and what is announced then
/// with the penalty as a router has it.
#[track_caller]
fn check(sentence: &str, terms: Terms, moments: &[(u64, Option<State>, Option<State>, f64)]) {
    let start = Instant::now();
    let mut damping = Damping::default();
    for (second, wanted, announced, penalty) in moments {
        let now = start + Duration::from_secs(*second);
        let wanted = wanted.map(|state| (prefix(1), state)).into_iter().collect();
        damping.update(&wanted, &terms, heard, now);
        let found = damping.announced().get(&prefix(1)).copied();
        assert_eq!(
            found, *announced,
            "{sentence}, second {second}: {damping:#?}"
        );
        let standing = damping.standings().get(&prefix(1));
        let counted = standing.map_or(0.0, |standing| standing.penalty.value(now));
        assert!(
            (counted - penalty).abs() < 1.0,
            "{sentence}, second {second}: {counted} is not {penalty}"
        );
    }
}

#[test]
fn the_penalty_is_what_a_router_counts() {
    check(
        "withdrawals count 1000 and halve in a quarter of an hour",
        Terms::OFF,
        &[
            (0, Some(Up), Some(Up), 0.0),
            (1, None, None, 1000.0),
            (901, Some(Up), Some(Up), 500.0),
            (901, None, None, 1500.0),
            (1801, Some(Up), Some(Up), 750.0),
        ],
    );
    check(
        "changes of attributes count 500, there and back",
        Terms::OFF,
        &[
            (0, Some(Up), Some(Up), 0.0),
            (1, Some(Down), Some(Down), 500.0),
            (1, Some(Up), Some(Up), 1000.0),
        ],
    );
    check(
        "what nobody hears costs nothing",
        Terms::OFF,
        &[
            (0, Some(Up), Some(Up), 0.0),
            (1, Some(Degraded), Some(Degraded), 0.0),
            (2, Some(Up), Some(Up), 0.0),
        ],
    );
    check(
        "in the end it is forgotten",
        Terms::OFF,
        &[
            (0, Some(Up), Some(Up), 0.0),
            (1, None, None, 1000.0),
            (20_000, None, None, 0.0),
        ],
    );
}

#[test]
fn an_improvement_waits_for_the_hold_down() {
    check(
        "the first announcement waits for nothing",
        held(30),
        &[(0, Some(Up), Some(Up), 0.0)],
    );
    check(
        "a return waits, and a relapse begins the wait anew",
        held(30),
        &[
            (0, Some(Up), Some(Up), 0.0),
            (100, None, None, 1000.0),
            (110, Some(Up), None, 992.0),
            (129, Some(Up), None, 978.0),
            (129, None, None, 978.0),
            (130, Some(Up), None, 977.0),
            (158, Some(Up), None, 956.0),
            (159, Some(Up), Some(Up), 955.0),
        ],
    );
    check(
        "worse is announced at once, in the midst of a wait, too",
        held(30),
        &[
            (0, Some(Up), Some(Up), 0.0),
            (10, Some(Down), Some(Down), 500.0),
            (20, Some(Up), Some(Down), 496.0),
            (21, None, None, 1496.0),
            (22, Some(Down), None, 1494.0),
            (51, Some(Up), Some(Up), 1461.0),
        ],
    );
}

#[test]
fn doubt_takes_back_a_withdrawal_at_once_and_what_follows_waits() {
    check(
        "a service that needs two falls before the network is in doubt",
        held(30),
        &[
            (0, Some(Up), Some(Up), 0.0),
            (100, None, None, 1000.0),
            (101, Some(State::Doubt), Some(State::Doubt), 999.0),
            (110, Some(Up), Some(State::Doubt), 992.0),
            (130, Some(Up), Some(Up), 1477.0),
        ],
    );
}

#[test]
fn an_improvement_waits_for_the_budget() {
    check(
        "after two withdrawals there is no room for a third",
        BUDGET,
        &[
            (0, Some(Up), Some(Up), 0.0),
            (10, None, None, 1000.0),
            (20, Some(Up), Some(Up), 992.0),
            (30, None, None, 1985.0),
            (40, Some(Up), None, 1970.0),
            (919, Some(Up), None, 1001.0),
            (930, Some(Up), Some(Up), 992.0),
        ],
    );
    check(
        "once over the limit it waits until routers use it again",
        BUDGET,
        &[
            (0, Some(Up), Some(Up), 0.0),
            (10, None, None, 1000.0),
            (11, Some(Up), Some(Up), 999.0),
            (12, Some(Down), Some(Down), 1498.0),
            (13, None, None, 2497.0),
            (14, Some(Up), None, 2495.0),
            (1200, Some(Up), None, 1001.0),
            (1550, Some(Up), None, 764.0),
            (1577, Some(Up), Some(Up), 749.0),
        ],
    );
}

#[test]
fn suppressed_is_what_has_reached_the_limit_until_it_is_below_reuse() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut penalty = Penalty::none(&Figures::USUAL, start);
    for (second, expected) in [
        (0, false),
        (0, true),
        (900, true),
        (1200, true),
        (1300, false),
    ] {
        if second == 0 {
            penalty.add(Heard::Withdrawal, &Figures::USUAL, at(0));
        }
        penalty.follow(&Figures::USUAL, at(second));
        let found = penalty.is_suppressed(at(second));
        assert_eq!(found, expected, "second {second}: {penalty:?}");
    }
}

fn state() -> impl Strategy<Value = Option<State>> {
    prop::option::weighted(0.8, prop::sample::select(State::ALL.to_vec()))
}

proptest! {
    #[test]
    fn worsening_never_waits_and_improvements_keep_the_terms(
        hold_down in 0..60u64,
        budget: bool,
        moments in prop::collection::vec((0..400u64, prop::array::uniform2(state())), 1..60),
    ) {
        let terms = Terms { budget, ..held(hold_down) };
        let mut now = Instant::now();
        let mut damping = Damping::default();
        let mut worsened = [None; 2];
        let mut last = [None; 2];
        for (pause, states) in moments {
            now += Duration::from_secs(pause);
            let wanted: BTreeMap<_, _> = (0..)
                .zip(states)
                .filter_map(|(i, state)| Some((prefix(i), state?)))
                .collect();
            let before = damping.clone();
            let changed = damping.update(&wanted, &terms, heard, now);
            let (then, announced) = (before.announced(), damping.announced());
            for (i, state) in states.into_iter().enumerate() {
                let vip = prefix(i as u8);
                if state < last[i] {
                    worsened[i] = Some(now);
                }
                last[i] = state;
                let (was, is) = (then.get(&vip).copied(), announced.get(&vip).copied());
                prop_assert!(is <= state, "worse must be told at once: {:?}", damping);
                prop_assert!(is == was || is == state, "no other state than wanted");
                prop_assert_eq!(changed.contains_key(&vip), was != is);
                let wait = damping.standings().get(&vip).and_then(|standing| standing.wait);
                prop_assert_eq!(is < state, wait.is_some(), "it waits or is told");
                let is_doubt = state == Some(State::Doubt);
                prop_assert!(!is_doubt || is == state, "doubt waits for nothing");
                if is > was && !is_doubt {
                    let hold = worsened[i].map(|at: Instant| at + terms.hold_down);
                    prop_assert!(hold.is_none_or(|until| until <= now), "held down");
                    let penalty = damping.standings()[&vip].penalty.value(now);
                    prop_assert!(!budget || penalty + 1000.0 < 2000.0, "room for one: {}", penalty);
                }
            }
            let mut again = damping.clone();
            let changed = again.update(&wanted, &terms, heard, now);
            prop_assert_eq!(changed.len(), 0, "no change without cause");
        }
        // What lasts is told in the end, by the times that are named.
        let wanted: BTreeMap<_, _> = (0..)
            .zip(last)
            .filter_map(|(i, state)| Some((prefix(i), state?)))
            .collect();
        for _ in 0..4 {
            let Some(next) = damping.next() else { break };
            now = next;
            damping.update(&wanted, &terms, heard, now);
        }
        prop_assert_eq!(damping.announced(), wanted);
    }
}
