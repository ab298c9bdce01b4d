//! Rise and fall, hold-down and BFD, as tables; what always holds is in
//! `properties`.

mod properties;

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn timing(rise: u32, fall: u32) -> Timing {
    Timing {
        rise,
        fall,
        ..Timing::PLAIN
    }
}

fn result(success: bool) -> CheckResult {
    coded(if success {
        CheckCode::L4Ok
    } else {
        CheckCode::L4Con
    })
}

fn coded(code: CheckCode) -> CheckResult {
    CheckResult::new(code, Duration::from_millis(1))
}

/// `checks` is a string of `+` (passed), `-` (failed) and `!` (could not be
/// made); `expected` gives the state after each, in letters: U up, d going down, D down, u going up.
#[track_caller]
fn check(sentence: &str, initial: Initial, rise: u32, fall: u32, checks: &str, expected: &str) {
    let mut health = Health::new(initial, Instant::now());
    let mut path = String::new();
    let mut reasons = Vec::new();
    for c in checks.chars() {
        let result = coded(match c {
            '+' => CheckCode::L4Ok,
            '-' => CheckCode::L4Con,
            _ => CheckCode::SockErr,
        });
        let transition = health.observe(result.clone(), &timing(rise, fall), Instant::now());
        assert_eq!(health.last(), Some(&result), "{sentence}");
        reasons.extend(transition.map(|t| t.reason));
        path.push(match health.state() {
            State::Unknown => '?',
            State::Up => 'U',
            State::GoingDown(_) => 'd',
            State::Down => 'D',
            State::GoingUp(_) => 'u',
        });
    }
    assert_eq!(path, expected, "{sentence}: {reasons:#?}");
}

#[test]
fn rise_and_fall() {
    use Initial::{Down, Unknown, Up};
    check("unknown and passed is up at once", Unknown, 3, 3, "+", "U");
    check(
        "unknown and failed is down at once",
        Unknown,
        3,
        3,
        "-",
        "D",
    );
    check("three failures take it down", Up, 2, 3, "---", "ddD");
    check(
        "a success in between starts the count anew",
        Up,
        2,
        3,
        "--+---",
        "ddUddD",
    );
    check("two successes bring it up", Down, 2, 3, "++", "uU");
    check(
        "a failure in between starts the count anew",
        Down,
        2,
        3,
        "+-++",
        "uDuU",
    );
    check(
        "with rise and fall 1 each check decides",
        Unknown,
        1,
        1,
        "+-+-",
        "UDUD",
    );
    check("more of the same changes nothing", Up, 2, 2, "+++", "UUU");
    check("thresholds of 0 mean 1", Up, 0, 0, "-+", "DU");
    check("our own fault takes nothing down", Up, 1, 1, "!!!", "UUU");
    check("nor brings it up", Down, 1, 1, "!!!", "DDD");
    check("nor decides first", Unknown, 1, 1, "!+", "?U");
    check("nor counts", Up, 2, 3, "--!+--!-", "dddUdddD");
}

fn letter(standing: Standing) -> char {
    match standing {
        Standing::Available => 'A',
        Standing::Draining => unreachable!("only the operator drains"),
        Standing::Failing => 'F',
        Standing::Dead => 'D',
    }
}

/// The standing after each check, in letters: A available, F failing, D
/// dead. Rise is 2, fall 3.
#[track_caller]
fn check_standing(sentence: &str, initial: Initial, codes: &[CheckCode], expected: &str) {
    let mut health = Health::new(initial, Instant::now());
    let mut path = String::new();
    for &code in codes {
        health.observe(coded(code), &timing(2, 3), Instant::now());
        path.push(letter(health.standing()));
    }
    assert_eq!(path, expected, "{sentence}: {health:#?}");
}

#[test]
fn the_layer_of_the_failures_tells_the_failing_from_the_dead() {
    use CheckCode::{
        L4Con, L4Ok, L4Timeout, L6Response, L6Timeout, L7Ok, L7Response, L7Status, L7Timeout,
        ProcErr, ProcTimeout, SockErr,
    };
    let check = check_standing;
    let (unknown, up, down) = (Initial::Unknown, Initial::Up, Initial::Down);
    for code in [L4Timeout, L4Con] {
        check("silence takes it away", up, &[code; 4], "AADD");
        check("it was never there", unknown, &[code], "D");
    }
    for code in [
        L6Timeout,
        L6Response,
        L7Timeout,
        L7Response,
        L7Status,
        ProcTimeout,
        ProcErr,
    ] {
        check("it says no, and answers", up, &[code; 4], "AAFF");
        check("it answers for the first time", unknown, &[code], "F");
        check("it answers again", down, &[code], "F");
    }
    check(
        "it refuses for a while before it goes",
        up,
        &[L7Status, L7Status, L7Status, L4Con, L4Con, L4Con],
        "AAFFFD",
    );
    check(
        "one lost packet of a failing host ends no flow",
        up,
        &[
            L7Timeout, L7Timeout, L7Timeout, L4Timeout, L7Timeout, L4Timeout, L4Timeout,
        ],
        "AAFFFFF",
    );
    check("what comes back answers first", down, &[L4Ok, L4Ok], "FA");
    check("so it does at layer 7", down, &[L7Ok, L7Ok], "FA");
    check("our own fault says nothing", down, &[SockErr; 2], "DD");
    check(
        "nor does it of who answers",
        Initial::Failing,
        &[SockErr; 4],
        "FFFF",
    );
    check("nobody has asked yet", unknown, &[SockErr], "D");
}

#[test]
fn a_lowered_threshold_takes_effect_at_the_next_check() {
    let now = Instant::now();
    let mut health = Health::new(Initial::Up, now);
    for _ in 0..3 {
        health.observe(result(false), &timing(1, 9), now);
    }
    assert_eq!(health.state(), State::GoingDown(3));
    let transition = health.observe(result(false), &timing(1, 2), now);
    assert_eq!(health.state(), State::Down, "{transition:?}");
}

#[test]
fn reasons_read_as_sentences() {
    let now = Instant::now();
    let mut health = Health::new(Initial::Unknown, now);
    let mut reasons = Vec::new();
    for success in [true, false, false, true, false, true, true] {
        let transition = health.observe(result(success), &timing(2, 2), now);
        reasons.extend(transition.map(|t| format!("{}: {}", t.to, t.reason)));
    }
    assert_eq!(
        reasons,
        [
            "up: the first check gave L4OK in 1.0 ms",
            "going down: failure 1 of 2: L4CON in 1.0 ms",
            "down: 2 failures in a row, the last L4CON in 1.0 ms",
            "going up: success 1 of 2: L4OK in 1.0 ms",
            "down: failed again: L4CON in 1.0 ms",
            "going up: success 1 of 2: L4OK in 1.0 ms",
            "up: 2 successes in a row, the last L4OK in 1.0 ms",
        ]
    );
}

#[test]
fn since_is_the_entry_into_the_state_and_not_the_last_count() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut health = Health::new(Initial::Up, start);
    health.observe(result(true), &timing(2, 3), at(1));
    assert_eq!(health.since(), at(0));
    health.observe(result(false), &timing(2, 3), at(2));
    health.observe(result(false), &timing(2, 3), at(3));
    assert_eq!(health.since(), at(2), "{health:?}");
    health.observe(result(false), &timing(2, 3), at(4));
    assert_eq!(health.since(), at(4), "{health:?}");
}

/// The standing after each of four results of a kind, in letters; rise is 2,
/// fall 3.
#[test]
fn on_down_says_which_failures_end_flows() {
    use CheckCode::{L4Timeout, L7Ok, L7Status};
    use OnDown::{Keep, Layer, Reset};
    for (on_down, code, expected) in [
        (Layer, L4Timeout, "AADD"),
        (Layer, L7Status, "AAFF"),
        (Keep, L4Timeout, "AAFF"),
        (Keep, L7Status, "AAFF"),
        (Reset, L4Timeout, "AADD"),
        (Reset, L7Status, "AADD"),
        (Reset, L7Ok, "AAAA"),
    ] {
        let mut health = Health::new(Initial::Up, Instant::now());
        let timing = Timing {
            on_down,
            ..timing(2, 3)
        };
        let mut path = String::new();
        for _ in 0..4 {
            health.observe(coded(code), &timing, Instant::now());
            path.push(letter(health.standing()));
        }
        assert_eq!(path, expected, "{on_down:?} and {code}: {health:#?}");
    }
}

#[test]
fn who_went_down_is_held_down_and_comes_up_with_the_first_success_after_that() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let timing = Timing {
        hold_down: Duration::from_secs(10),
        ..timing(2, 1)
    };
    let mut health = Health::new(Initial::Up, start);
    let mut reasons = Vec::new();
    for (second, success, state) in [
        (1, false, State::Down),
        (2, true, State::GoingUp(1)),
        (3, true, State::GoingUp(2)),
        (4, false, State::Down),
        (9, true, State::GoingUp(1)),
        (10, true, State::GoingUp(2)),
        (11, true, State::Up),
        (12, false, State::Down),
        (13, true, State::GoingUp(1)),
        (21, true, State::GoingUp(2)),
        (23, true, State::Up),
    ] {
        let transition = health.observe(result(success), &timing, at(second));
        assert_eq!(health.state(), state, "second {second}: {reasons:#?}");
        reasons.extend(transition.map(|t| format!("{second}: {}: {}", t.to, t.reason)));
    }
    assert_eq!(
        reasons[2], "3: going up: success 2, held down for 8.0 s more: L4OK in 1.0 ms",
        "{reasons:#?}"
    );
    let first = Health::new(Initial::Unknown, start).observe(result(true), &timing, at(1));
    assert_eq!(first.map(|t| t.to), Some(State::Up), "it never went down");
}

/// What happens to a backend, and its state and standing after each.
#[test]
fn bfd_takes_a_backend_down_at_once_and_brings_none_up_that_is_checked() {
    use State::{Down, GoingUp, Unknown, Up};
    let now = Instant::now();
    let gone = || Path::Down("control detection time expired".into());
    let check = |sentence, initial, steps: &[(Option<Path>, State, char)]| {
        let mut health = Health::new(initial, now);
        for (i, (path, state, standing)) in steps.iter().enumerate() {
            let transition = match path {
                Some(path) => health.follow(path.clone(), true, now),
                None => health.observe(result(true), &timing(2, 2), now),
            };
            let found = (health.state(), letter(health.standing()));
            assert_eq!(
                found,
                (*state, *standing),
                "{sentence}, {i}: {transition:?}"
            );
        }
    };
    let (up, unknown) = (|| Some(Path::Up), || Some(Path::Unknown));
    check(
        "down at once; successes count when BFD is back",
        Initial::Up,
        &[
            (up(), Up, 'A'),
            (Some(gone()), Down, 'D'),
            (None, Down, 'D'),
            (None, Down, 'D'),
            (None, Down, 'D'),
            (up(), Down, 'D'),
            (None, GoingUp(1), 'F'),
            (None, Up, 'A'),
        ],
    );
    check(
        "when BFD falls silent the check decides alone",
        Initial::Up,
        &[
            (Some(gone()), Down, 'D'),
            (unknown(), Down, 'D'),
            (None, GoingUp(1), 'F'),
            (None, Up, 'A'),
            (unknown(), Up, 'A'),
        ],
    );
    check(
        "BFD alone brings nobody up",
        Initial::Unknown,
        &[(up(), Unknown, 'D'), (None, Up, 'A')],
    );
    check(
        "who was only failing is dead",
        Initial::Failing,
        &[(Some(gone()), Down, 'D'), (up(), Down, 'D')],
    );
    let mut health = Health::new(Initial::Up, now);
    let transition = health.follow(gone(), true, now).expect("it goes down");
    assert_eq!(transition.reason, "BFD: control detection time expired");
    assert_eq!(health.follow(gone(), true, now), None, "it is down already");
}

#[test]
fn where_nothing_is_asked_bfd_alone_decides() {
    let now = Instant::now();
    let mut health = Health::new(Initial::Up, now);
    for (path, state, standing) in [
        (Path::Unknown, State::Up, 'A'),
        (Path::Up, State::Up, 'A'),
        (Path::Down("it is gone".into()), State::Down, 'D'),
        (Path::Up, State::Up, 'A'),
        (Path::Down("it is gone".into()), State::Down, 'D'),
        (Path::Unknown, State::Up, 'A'),
    ] {
        health.follow(path.clone(), false, now);
        let found = (health.state(), letter(health.standing()));
        assert_eq!(found, (state, standing), "{path:?}");
    }
}

#[test]
fn only_who_was_down_starts_slowly() {
    let now = Instant::now();
    for (initial, checks, returned) in [
        (Initial::Unknown, "+", false),
        (Initial::Up, "+-+", false),
        (Initial::Unknown, "-++", true),
        (Initial::Up, "--++", true),
        (Initial::Up, "--++--", false),
    ] {
        let mut health = Health::new(initial, now);
        for check in checks.chars() {
            health.observe(result(check == '+'), &timing(2, 2), now);
        }
        let found = health.returned().is_some();
        assert_eq!(found, returned, "{initial:?} {checks}: {health:#?}");
    }
}
