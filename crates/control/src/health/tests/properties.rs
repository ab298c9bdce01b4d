//! What holds whatever happens to a backend.

use std::collections::BTreeSet;

use proptest::strategy::ValueTree as _;

use super::*;
use crate::schedule::Pace;

/// What can happen to a backend.
#[derive(Clone, Copy, Debug)]
enum Event {
    Checked(CheckCode),
    BfdUp,
    BfdDown,
    BfdSilent,
}

fn event() -> impl Strategy<Value = Event> {
    let good = prop_oneof![Just(CheckCode::L4Ok), Just(CheckCode::L7Ok)];
    let bad = prop_oneof![
        Just(CheckCode::L4Timeout),
        Just(CheckCode::L4Con),
        Just(CheckCode::L7Status),
        Just(CheckCode::ProcErr),
    ];
    prop_oneof![
        8 => good.prop_map(Event::Checked),
        8 => bad.prop_map(Event::Checked),
        1 => Just(Event::Checked(CheckCode::SockErr)),
        1 => Just(Event::BfdUp),
        1 => Just(Event::BfdDown),
        1 => Just(Event::BfdSilent),
    ]
}

fn any_timing() -> impl Strategy<Value = Timing> {
    let on_down = prop_oneof![Just(OnDown::Layer), Just(OnDown::Keep), Just(OnDown::Reset)];
    (1u32..5, 1u32..5, 0u64..20, on_down).prop_map(|(rise, fall, hold_down, on_down)| Timing {
        rise,
        fall,
        hold_down: Duration::from_secs(hold_down),
        on_down,
        fast_interval: Duration::from_millis(200),
        down_interval: Duration::from_secs(3),
        ..Timing::PLAIN
    })
}

fn any_initial() -> impl Strategy<Value = Initial> {
    prop_oneof![
        Just(Initial::Unknown),
        Just(Initial::Up),
        Just(Initial::Down),
        Just(Initial::Failing),
    ]
}

/// Events, each so many seconds after the one before. Clocks of several threads
/// may differ a little, so some come from the past.
fn events() -> impl Strategy<Value = Vec<(i64, Event)>> {
    prop::collection::vec((-1i64..5, event()), 1..120)
}

/// What the machine is expected to know, counted by hand.
struct Known {
    /// The last results that were evidence, all of one kind.
    run: (u32, bool),
    fell: Option<Instant>,
    bfd_down: bool,
}

proptest! {
    /// A change has a cause, and a cause its change: up after exactly `rise`
    /// successes in a row and not before `hold_down` is over, down after exactly
    /// `fall` failures in a row or as soon as BFD is down.
    #[test]
    fn nothing_changes_without_cause_or_later_than_it_must(
        timing in any_timing(),
        initial in any_initial(),
        events in events(),
    ) {
        let mut now = Instant::now() + Duration::from_secs(1000);
        let mut health = Health::new(initial, now);
        let mut known = Known { run: (0, false), fell: None, bfd_down: false };
        for (i, (seconds, event)) in events.into_iter().enumerate() {
            now = if seconds < 0 {
                now - Duration::from_secs(1)
            } else {
                now + Duration::from_secs(seconds.unsigned_abs())
            };
            let before = health.clone();
            let (transition, expected) = match event {
                Event::Checked(code) => {
                    let transition = health.observe(coded(code), &timing, now);
                    prop_assert_eq!(health.last(), Some(&coded(code)));
                    (transition, known.checked(code, &before, &timing, now))
                }
                Event::BfdDown => {
                    known.bfd_down = true;
                    known.run = (0, false);
                    (health.follow(Path::Down("gone".into()), true, now), false)
                }
                Event::BfdUp | Event::BfdSilent => {
                    let path = match event {
                        Event::BfdUp => Path::Up,
                        _ => Path::Unknown,
                    };
                    known.bfd_down = false;
                    (health.follow(path, true, now), before.is_available())
                }
            };
            let trace = format!("event {i}, {event:?}: {before:?} -> {health:?}");
            prop_assert_eq!(health.is_available(), expected, "{}", trace);
            if before.is_available() && !health.is_available() {
                known.fell = Some(now.max(before.since()));
                known.run = (0, false);
            }
            // A change is told, and tells what it is.
            prop_assert_eq!(transition.is_some(), before.state() != health.state(), "{}", trace);
            if let Some(told) = transition {
                prop_assert_eq!((told.from, told.to), (before.state(), health.state()));
                let moved = before.is_available() != health.is_available();
                prop_assert_eq!(told.availability(), moved.then_some(expected), "{}", trace);
                prop_assert!(!told.reason.is_empty());
            }
            // What BFD has declared dead is dead until there is better evidence.
            if known.bfd_down {
                prop_assert_eq!(health.state(), State::Down, "{}", trace);
                prop_assert_eq!(health.standing(), Standing::Dead, "{}", trace);
            }
            // Time never runs backwards.
            prop_assert!(health.since() >= before.since(), "{}", trace);
        }
    }

    /// Flows end with a backend only after `fall` results in a row that say so,
    /// or by BFD; and never, by a check, where they are to be kept.
    #[test]
    fn no_flow_ends_for_less_than_it_takes(timing in any_timing(), events in events()) {
        let now = Instant::now();
        let mut health = Health::new(Initial::Up, now);
        let mut silence = 0;
        for (i, (_, event)) in events.into_iter().enumerate() {
            let before = health.standing();
            let by_bfd = match event {
                Event::Checked(code) => {
                    health.observe(coded(code), &timing, now);
                    let ends = match timing.on_down {
                        OnDown::Layer => code.is_silence(),
                        OnDown::Keep => false,
                        OnDown::Reset => !code.is_success(),
                    };
                    if code != CheckCode::SockErr {
                        silence = if ends { silence + 1 } else { 0 };
                    }
                    false
                }
                Event::BfdDown => health.follow(Path::Down("gone".into()), true, now).is_some(),
                Event::BfdUp => health.follow(Path::Up, true, now).is_some(),
                Event::BfdSilent => health.follow(Path::Unknown, true, now).is_some(),
            };
            let died = before != Standing::Dead && health.standing() == Standing::Dead;
            let by_bfd = by_bfd || matches!(health.path(), Path::Down(_));
            prop_assert!(
                !died || by_bfd || silence >= timing.fall,
                "event {}, {:?} after {} silences: {:?}", i, event, silence, health
            );
        }
    }

    /// Doubt is asked about at the fast interval, and nothing else is.
    #[test]
    fn the_pace_is_right_in_every_state(
        timing in any_timing(),
        initial in any_initial(),
        events in events(),
    ) {
        let now = Instant::now();
        let mut health = Health::new(initial, now);
        for (_, event) in events {
            if let Event::Checked(code) = event {
                health.observe(coded(code), &timing, now);
            }
            let expected = match health.state() {
                State::Up => Pace::Turn(timing.interval),
                State::Down => Pace::Turn(timing.down_interval),
                State::Unknown | State::GoingUp(_) | State::GoingDown(_) => {
                    Pace::Doubt(timing.fast_interval)
                }
            };
            prop_assert_eq!(Pace::of(health.state(), &timing), expected);
        }
    }
}

impl Known {
    /// Whether a backend is to be available after this result.
    fn checked(&mut self, code: CheckCode, before: &Health, timing: &Timing, now: Instant) -> bool {
        if code == CheckCode::SockErr || self.bfd_down {
            return before.is_available();
        }
        let success = code.is_success();
        self.run = match self.run {
            (count, same) if same == success => (count + 1, success),
            _ => (1, success),
        };
        match (before.state(), success) {
            (State::Unknown, success) => success,
            (State::Up | State::GoingDown(_), false) => self.run.0 < timing.fall,
            (State::Up | State::GoingDown(_), true) => true,
            (State::Down | State::GoingUp(_), false) => false,
            (State::Down | State::GoingUp(_), true) => {
                let held = self
                    .fell
                    .is_some_and(|fell| now.saturating_duration_since(fell) < timing.hold_down);
                self.run.0 >= timing.rise && !held
            }
        }
    }
}

/// Every state is entered and left, in every way that the diagram shows and in
/// no other.
#[test]
fn every_state_is_reached_and_left() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    let stories = (any_initial(), events());
    for _ in 0..500 {
        let (initial, events) = stories.new_tree(&mut runner).expect("a story").current();
        let now = Instant::now();
        let mut health = Health::new(initial, now);
        for (_, event) in events {
            let transition = match event {
                Event::Checked(code) => health.observe(coded(code), &timing(3, 3), now),
                Event::BfdUp => health.follow(Path::Up, true, now),
                Event::BfdDown => health.follow(Path::Down("gone".into()), true, now),
                Event::BfdSilent => health.follow(Path::Unknown, true, now),
            };
            seen.extend(transition.map(|t| format!("{} -> {}", t.from, t.to)));
        }
    }
    let seen: Vec<_> = seen.iter().map(String::as_str).collect();
    assert_eq!(
        seen,
        [
            "down -> going up",
            "going down -> down",
            "going down -> going down",
            "going down -> up",
            "going up -> down",
            "going up -> going up",
            "going up -> up",
            "unknown -> down",
            "unknown -> up",
            "up -> down",
            "up -> going down",
        ]
    );
}
