//! The rules of the gate at random moments.

use proptest::prelude::*;

use super::*;

fn vip() -> impl Strategy<Value = Shown> {
    let acknowledged = prop::option::of(0..3u64);
    (
        prop::bool::weighted(0.9),
        prop::sample::select(vec![
            State::Up,
            State::Up,
            State::Degraded,
            State::Doubt,
            State::Disabled,
            State::Down,
        ]),
        prop::bool::weighted(0.9),
        0..3u64,
        acknowledged,
        prop::bool::weighted(0.3),
        prop::option::weighted(
            0.9,
            prop::result::maybe_err_weighted(0.3, Just(()), Just("gone")),
        ),
    )
        .prop_map(
            |(configured, state, forwarded, decided, acknowledged, local, bound)| Shown {
                configured,
                state,
                forwarded,
                decided,
                acknowledged,
                local,
                bound,
            },
        )
}

fn world() -> impl Strategy<Value = World> {
    (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.7),
    )
        .prop_map(|(fault, lacks, maintenance, fails_open)| World {
            fault: fault.then_some("broken"),
            lacks: lacks.then_some("dark"),
            maintenance,
            fails_open,
        })
}

/// The best state in which a VIP may be announced, if in any.
fn best(vip: &Shown, world: &World) -> Option<State> {
    let (delivered, sound) = match vip.local {
        true => (vip.bound == Some(Ok(())), vip.bound == Some(Ok(()))),
        false => (vip.forwarded, world.fault.is_none()),
    };
    let best = match vip.state {
        State::Down | State::Disabled if !world.fails_open => None,
        State::Down | State::Disabled | State::Doubt => delivered.then_some(vip.state),
        state if world.maintenance => Some(state.min(State::Maintenance)),
        state => Some(state),
    };
    best.filter(|_| vip.configured && sound && world.lacks.is_none())
}

proptest! {
    #[test]
    fn the_rules_hold_at_every_moment(
        moments in prop::collection::vec((prop::array::uniform4(vip()), world()), 1..40),
    ) {
        let mut gate = Gate::default();
        for (vips, world) in moments {
            let before = gate.announced();
            let changes = update(&mut gate, &vips, world);
            let after = gate.announced();
            for (a, vip) in (0..).map(address).zip(&vips) {
                // `None` is worse than any state.
                let (was, is) = (before.get(&a).copied(), after.get(&a).copied());
                let may = best(vip, &world);
                // What is down waits for nothing, nor does what is announced alive.
                let ready = vip.local
                    || vip.acknowledged == Some(vip.decided)
                    || may < Some(State::Maintenance)
                    || was >= Some(State::Maintenance);
                prop_assert!(is <= may, "{} must be worse at once: {:?}", a, &gate);
                prop_assert!(is >= was.min(may), "{} must stay: {:?}", a, &gate);
                prop_assert!(is <= was || ready, "{} got better too early: {:?}", a, &gate);
                prop_assert!(is == may || !ready, "{} is held up: {:?}", a, &gate);
            }
            let told = |kinds: &[GateChangeKind]| -> BTreeSet<Vip> {
                let told = changes.iter().filter(|change| kinds.contains(&change.kind));
                told.map(|change| change.vip).collect()
            };
            let compared = |better: fn(Option<State>, Option<State>) -> bool| -> BTreeSet<Vip> {
                let vips = (0..).map(address).take(vips.len());
                vips.filter(|a| better(before.get(a).copied(), after.get(a).copied())).collect()
            };
            use GateChangeKind::{Entered, Improved, Withdrawn, Worsened};
            prop_assert_eq!(told(&[Entered]), compared(|was, is| was.is_none() && is.is_some()));
            prop_assert_eq!(told(&[Withdrawn]), compared(|was, is| was.is_some() && is.is_none()));
            prop_assert_eq!(told(&[Entered, Improved]), compared(|was, is| is > was));
            prop_assert_eq!(told(&[Withdrawn, Worsened]), compared(|was, is| is < was));
            let again = update(&mut gate, &vips, world);
            prop_assert_eq!(again, [], "the same again is no change");
        }
    }
}
