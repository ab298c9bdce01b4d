//! The rules, word by word, and a model of all of it under random changes.

mod model;

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

use self::model::{Change, Model, Omit, Round};
use super::*;

#[test]
fn a_slot_changes_hands_by_its_phase() {
    let (stable, learn, track) = (Slot::stable, Slot::learn, Slot::track);
    let cases = [
        ("to whom has it", stable(1), 1, true, true, stable(1)),
        ("from the living", stable(1), 2, true, true, learn(1, 2)),
        ("from the dead", stable(1), 2, false, true, stable(2)),
        ("without memory", stable(1), 2, true, false, stable(2)),
        ("tracked", track(1), 2, true, true, learn(1, 2)),
        ("tracked, from the dead", track(1), 2, false, true, track(2)),
        ("tracked, no memory", track(1), 2, true, false, track(2)),
        ("once more", learn(1, 2), 3, true, true, learn(1, 3)),
        ("once more, dead", learn(1, 2), 3, false, true, learn(1, 3)),
        ("back again", learn(1, 2), 1, true, true, track(1)),
        ("back from the dead", learn(1, 2), 1, false, true, track(1)),
        ("from nobody", stable(0), 1, false, true, stable(1)),
    ];
    for (sentence, slot, wanted, can_serve, learns, expected) in cases {
        let found = change(slot, wanted, can_serve, learns);
        assert_eq!(found, expected, "{sentence}");
    }
}

#[test]
fn a_slot_turns_by_what_has_become_of_its_backends() {
    let (stable, learn, track) = (Slot::stable, Slot::learn, Slot::track);
    // 1 to 3 serve, 8 is dead, 9 is 1 under another record.
    let fate = |index| match index {
        8 => Fate::Dead,
        9 => Fate::Moved(1),
        _ => Fate::Serves,
    };
    let cases = [
        ("nobody is left", stable(8), None, stable(8)),
        (
            "nobody is left to learn from",
            learn(8, 1),
            None,
            learn(8, 1),
        ),
        ("the owner died", stable(8), Some(1), stable(1)),
        ("its old owner died", learn(8, 1), Some(1), track(1)),
        ("and it moves on", learn(8, 1), Some(2), learn(1, 2)),
        ("both died", learn(8, 8), Some(2), track(2)),
        ("its heir died", learn(1, 8), Some(2), learn(1, 2)),
        ("another record", stable(9), Some(1), stable(1)),
        (
            "another record, nobody left",
            learn(9, 2),
            None,
            learn(1, 2),
        ),
        (
            "another record, learning",
            learn(9, 2),
            Some(3),
            learn(1, 3),
        ),
        ("another record, and back", learn(9, 2), Some(1), track(1)),
        ("another record, tracked", track(9), Some(2), learn(1, 2)),
        ("nobody", stable(0), Some(2), stable(2)),
    ];
    for (sentence, slot, wanted, expected) in cases {
        assert_eq!(turn(slot, wanted, true, fate), expected, "{sentence}");
    }
}

#[test]
fn a_phase_ends_after_an_idle_time_in_which_nothing_kept_it() {
    let stamp = |foreign, refused| Stamp { foreign, refused };
    let (learn, track, stable) = (Slot::learn(1, 2), Slot::track(2), Slot::stable(2));
    let cases = [
        ("too early", learn, stamp(0, 0), 110, learn),
        ("in time", learn, stamp(0, 0), 111, track),
        (
            "foreign use is no hindrance",
            learn,
            stamp(110, 0),
            111,
            track,
        ),
        ("a refusal is", learn, stamp(0, 105), 115, learn),
        ("until it is over", learn, stamp(0, 105), 116, track),
        ("a stamp of before", learn, stamp(0, 50), 111, track),
        ("tracked too shortly", track, stamp(0, 0), 110, track),
        ("tracked for long enough", track, stamp(0, 0), 111, stable),
        ("used elsewhere", track, stamp(109, 0), 119, track),
        ("no more", track, stamp(109, 0), 120, stable),
        (
            "a refusal is no matter then",
            track,
            stamp(0, 110),
            111,
            stable,
        ),
        ("from the future", track, stamp(112, 0), 111, track),
        ("stable", stable, stamp(0, 0), 999, stable),
    ];
    for (sentence, slot, stamp, now, expected) in cases {
        let since = (Tick(100), stamp);
        let found = advance(slot, since, &evidence(&[1, 2]), Tick(now), 10);
        assert_eq!(found, expected, "{sentence}");
    }
}

/// Of records 1 and 2, and 11, which is the same backend's as 1. Those with these
/// counters have been sent packets.
fn evidence(met: &[u32]) -> Evidence<impl Fn(u32) -> bool> {
    let records = [(1, 1), (2, 2), (11, 1)];
    Evidence::new(records, |counter| met.contains(&counter))
}

#[test]
fn nothing_is_learnt_from_a_backend_that_has_never_been_sent_a_packet() {
    let (learn, track) = (Slot::learn, Slot::track);
    let cases: [(_, _, &[u32], _, _); 6] = [
        ("nobody was", learn(1, 2), &[], 102, track(2)),
        ("only the owner was", learn(1, 2), &[2], 102, track(2)),
        (
            "packets are on their way",
            learn(1, 2),
            &[],
            101,
            learn(1, 2),
        ),
        ("it was", learn(1, 2), &[1], 102, learn(1, 2)),
        (
            "under another record",
            learn(11, 2),
            &[1],
            102,
            learn(11, 2),
        ),
        ("nobody knows it", learn(7, 2), &[], 102, learn(7, 2)),
    ];
    for (sentence, slot, met, now, expected) in cases {
        let since = (Tick(100), Stamp::default());
        let found = advance(slot, since, &evidence(met), Tick(now), 10);
        assert_eq!(found, expected, "{sentence}");
    }
}

#[test]
fn a_slot_is_stable_once_nothing_is_recorded_for_others() {
    let (stable, track) = (Slot::stable, Slot::track);
    let cases: [(_, _, &[u32], _, _); 6] = [
        ("nothing is", track(2), &[], 102, stable(2)),
        ("for its owner only", track(2), &[2], 102, stable(2)),
        ("under another record", track(1), &[11], 102, stable(1)),
        ("for another", track(2), &[2, 11], 102, track(2)),
        ("packets were on their way", track(2), &[], 101, track(2)),
        (
            "while it learns that is no matter",
            Slot::learn(1, 2),
            &[],
            102,
            Slot::learn(1, 2),
        ),
    ];
    for (sentence, slot, named, began, expected) in cases {
        let since = (Tick(100), Stamp::default());
        let names = |record| named.contains(&record);
        let evidence = evidence(&[1, 2]).with_walk(Tick(began), names);
        let found = advance(slot, since, &evidence, Tick(105), 10);
        assert_eq!(found, expected, "{sentence}");
    }
}

#[test]
fn a_ring_of_another_size_takes_over_the_words_of_the_old_one() {
    let (stable, learn, track) = (Slot::stable, Slot::learn, Slot::track);
    let old = [stable(1), learn(1, 2), track(3), stable(4)];
    let grown: Vec<_> = (0..8).map(|slot| inherit(slot, 8, &old)).collect();
    assert_eq!(grown, [old, old].concat());
    let shrunk: Vec<_> = (0..2).map(|slot| inherit(slot, 2, &old)).collect();
    assert_eq!(shrunk, [track(1), learn(1, 2)]);
    assert_eq!(inherit(3, 8, &[]), Slot::default(), "there was none");
}

#[test]
fn the_count_of_a_phase_begins_anew_with_the_phase() {
    let mut unsettled = Unsettled::default();
    let (stable, learn) = (Slot::stable(1), Slot::learn(1, 2));
    unsettled.note(7, stable, learn, Tick(10));
    unsettled.note(7, learn, Slot::learn(1, 3), Tick(15));
    assert_eq!(unsettled.counts(), (1, 0));
    let run = |unsettled: &mut Unsettled, word, now| {
        let load = |_| (word, Stamp::default());
        let mut due = unsettled.due(load, &evidence(&[1, 2]), Tick(now), 10);
        let (slot, old, new) = due.pop()?;
        unsettled.note(slot, old, new, Tick(now));
        Some((slot, new))
    };
    let word = Slot::learn(1, 3);
    assert_eq!(run(&mut unsettled, word, 20), None);
    let track = Slot::track(3);
    assert_eq!(run(&mut unsettled, word, 21), Some((7, track)));
    assert_eq!(unsettled.counts(), (0, 1));
    assert_eq!(run(&mut unsettled, track, 31), None, "it tracks since 21");
    unsettled.restart(Tick(25));
    assert_eq!(run(&mut unsettled, track, 35), None, "counted anew");
    let stable = Slot::stable(3);
    assert_eq!(run(&mut unsettled, track, 36), Some((7, stable)));
    assert!(unsettled.is_empty());
    assert_eq!(unsettled.counts(), (0, 0));
}

/// What may happen within one tick.
fn round() -> impl Strategy<Value = Round> {
    let backend = 0..5_usize;
    let change = prop_oneof![
        12 => Just(Change::Nothing),
        2 => backend.clone().prop_map(Change::Drain),
        3 => backend.clone().prop_map(Change::Restore),
        2 => backend.clone().prop_map(Change::Die),
        2 => (backend.clone(), 0..4_u8).prop_map(|(b, w)| Change::Weigh(b, w)),
        1 => backend.clone().prop_map(Change::Replace),
        1 => backend.clone().prop_map(Change::Renew),
        1 => backend.clone().prop_map(Change::Cut),
        2 => backend.prop_map(Change::Mend),
        1 => Just(Change::Grow),
        1 => Just(Change::RestartAgent),
    ];
    let flood = prop_oneof![4 => Just(0_u8), 1 => 1..30_u8];
    let some = || prop_oneof![3 => Just(0_u32), 1 => any::<u32>()];
    (change, flood, any::<u32>(), some(), some(), any::<bool>()).prop_map(
        |(change, flood, send, close, late, census)| Round {
            change,
            flood,
            send,
            close,
            late,
            census,
        },
    )
}

/// A service as it starts.
#[derive(Clone, Debug)]
struct Start {
    buckets: u32,
    /// The flow table is full of others.
    full: bool,
    /// Backends available.
    up: usize,
    /// Rounds until the first packet.
    silence: usize,
    /// The flows there are: with few, some backends are never sent a packet.
    flows: u32,
}

fn start() -> impl Strategy<Value = Start> {
    let few = vec(0..32_u32, 1..4).prop_map(|flows| flows.iter().fold(0, |all, n| all | 1 << n));
    let flows = prop_oneof![3 => Just(u32::MAX), 1 => few];
    let up = prop_oneof![3 => Just(5_usize), 1 => 1..5_usize];
    let silence = prop_oneof![3 => Just(0_usize), 1 => 1..30_usize];
    (0..3_u32, any::<bool>(), up, silence, flows).prop_map(|(log, full, up, silence, flows)| {
        Start {
            buckets: 1 << log,
            full,
            up,
            silence,
            flows,
        }
    })
}

fn play(omit: Omit, start: &Start, rounds: Vec<Round>) -> Result<(), TestCaseError> {
    let mut model = Model::new(omit, start.buckets, start.up);
    if start.full {
        model.fill();
    }
    for (n, mut round) in rounds.into_iter().enumerate() {
        let silent = n < start.silence;
        let flows = if silent { 0 } else { start.flows };
        round.send &= flows;
        round.late &= flows;
        round.flood *= u8::from(!silent && start.flows == u32::MAX);
        model.round(&round).map_err(TestCaseError::fail)?;
    }
    Ok(())
}

/// Plays random rounds, always the same, and says what broke first.
fn search(omit: Omit, cases: u32) -> Option<String> {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let strategy = (start(), vec(round(), 150));
    TestRunner::new_with_rng(config, rng)
        .run(&strategy, |(start, rounds)| play(omit, &start, rounds))
        .err()
        .map(|error| match error {
            TestError::Fail(reason, rounds) => format!("{reason}\n{rounds:?}"),
            TestError::Abort(reason) => reason.to_string(),
        })
}

#[test]
fn no_flow_leaves_a_backend_that_can_serve_it() {
    assert_eq!(search(Omit::Nothing, 500), None);
}

#[test]
fn without_any_of_the_rules_some_flow_does() {
    for omit in [
        Omit::RefusedToPrevious,
        Omit::RefusalProlongs,
        Omit::NewRecord,
        Omit::TrackAfterDeath,
        Omit::Learning,
        Omit::Counting,
        Omit::Walking,
        Omit::SharedCounter,
        Omit::Grace,
    ] {
        let broken = search(omit, 5000);
        assert!(broken.is_some(), "{omit:?} left out, and nothing broke");
    }
}
