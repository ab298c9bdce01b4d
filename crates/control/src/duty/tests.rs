//! Lines and marks as tables, and what holds at any moment.

use proptest::prelude::*;

use super::*;
use crate::model::{Mark, Share, tests::service};

/// Backends `a` to `d` are active, `x` and `y` backups, `s` says sorry.
const NAMES: &str = "abcdxys";

fn web(needs: Needs) -> Service {
    let mut web = service(
        "web",
        &[
            ("a", 1, 10),
            ("b", 2, 10),
            ("c", 3, 10),
            ("d", 4, 30),
            ("x", 5, 10),
            ("y", 6, 10),
            ("s", 7, 1),
        ],
    );
    web.needs = needs;
    web.backends[4].role = Role::Backup;
    web.backends[5].role = Role::Backup;
    web.backends[6].role = Role::Sorry;
    web
}

fn flags(names: &str) -> Vec<bool> {
    NAMES.chars().map(|name| names.contains(name)).collect()
}

/// Alive from `minimum`, again from `recovery`, degraded below `good`.
fn needs(minimum: u32, recovery: u32, good: u32) -> Needs {
    Needs {
        minimum: Mark::count(minimum),
        recovery: Mark::count(recovery),
        good: Share::Count(good),
    }
}

/// Moments of a service: who is healthy, and in what line and state it is then.
#[track_caller]
fn check(sentence: &str, needs: Needs, moments: &[(&str, Line, State)]) {
    let web = web(needs);
    let mut before = None;
    for (i, (names, line, state)) in moments.iter().enumerate() {
        let duty = Duty::new(&web, &flags(names), before.as_ref());
        let found = (duty.line, duty.state);
        assert_eq!(found, (*line, *state), "{sentence}, moment {i}: {duty:#?}");
        before = Some(duty);
    }
}

use Line::{Active, Sorry, Together};
use State::{Degraded, Down, Up};

#[test]
fn the_next_line_serves_while_the_one_before_is_too_few() {
    check(
        "the active ones alone, as long as they are enough",
        needs(2, 2, 0),
        &[("abcdxys", Active, Up), ("abxys", Active, Up)],
    );
    check(
        "backups help, and go again",
        needs(2, 2, 0),
        &[
            ("abxy", Active, Up),
            ("axy", Together, Up),
            ("xy", Together, Up),
            ("abxy", Active, Up),
        ],
    );
    check(
        "sorry serves alone, and is degraded",
        needs(2, 2, 0),
        &[
            ("axs", Together, Up),
            ("as", Sorry, Degraded),
            ("s", Sorry, Degraded),
            ("abs", Active, Up),
        ],
    );
    check(
        "whoever is left serves what still arrives",
        needs(3, 3, 0),
        &[("ax", Together, Down), ("", Together, Down)],
    );
}

#[test]
fn what_was_lost_comes_back_at_the_higher_mark() {
    check(
        "down below two, alive again at four",
        needs(2, 4, 0),
        &[
            ("abcd", Active, Up),
            ("ab", Active, Up),
            ("a", Together, Down),
            ("ab", Together, Down),
            ("abc", Together, Down),
            ("abcd", Active, Up),
            ("ab", Active, Up),
        ],
    );
    check(
        "at a start nothing was lost",
        needs(2, 4, 0),
        &[("a", Together, Down), ("ab", Active, Up)],
    );
    check(
        "backups stay until the active ones are well again",
        needs(2, 3, 0),
        &[
            ("abcdxy", Active, Up),
            ("axy", Together, Up),
            ("abxy", Together, Up),
            ("abcxy", Active, Up),
        ],
    );
    check(
        "backups alone that were lost want the higher mark, too",
        needs(2, 3, 0),
        &[
            ("xy", Together, Up),
            ("x", Together, Down),
            ("xy", Together, Down),
            ("axy", Together, Up),
        ],
    );
    check(
        "sorry stays until the others are well again",
        needs(2, 3, 0),
        &[
            ("abs", Active, Up),
            ("as", Sorry, Degraded),
            ("abs", Sorry, Degraded),
            ("abxs", Together, Up),
        ],
    );
}

#[test]
fn fewer_than_good_is_degraded() {
    check(
        "by number",
        needs(1, 1, 3),
        &[
            ("abc", Active, Up),
            ("ab", Active, Degraded),
            ("", Together, Down),
        ],
    );
    let half = Needs {
        good: Share::Percent(50),
        ..needs(1, 1, 0)
    };
    check(
        "by share",
        half,
        &[("ab", Active, Up), ("a", Active, Degraded)],
    );
    let weight = Needs {
        minimum: Mark {
            backends: Share::Count(1),
            weight: 50,
        },
        ..needs(1, 1, 0)
    };
    check(
        "the heavy one is half of it",
        weight,
        &[
            ("d", Active, Up),
            ("abc", Active, Up),
            ("ab", Together, Down),
        ],
    );
}

#[test]
fn a_reason_says_what_is_lacking() {
    let check = |needs: Needs, moments: &[&str], expected: &str| {
        let web = web(needs);
        let before = moments.iter().fold(None, |before: Option<Duty>, names| {
            Some(Duty::new(&web, &flags(names), before.as_ref()))
        });
        let reason = before.map(|duty| duty.reason(&needs));
        assert_eq!(reason.as_deref(), Some(expected), "{moments:?}");
    };
    check(needs(1, 1, 0), &["ab"], "2 of 4 backends healthy");
    check(needs(1, 1, 0), &[""], "0 of 4 backends healthy, 1 wanted");
    check(
        needs(2, 3, 0),
        &["abc", "a", "ab"],
        "2 of 4 backends healthy, 3 wanted to be alive again",
    );
    check(
        needs(2, 2, 0),
        &["ax"],
        "1 of 4 backends healthy, 2 wanted, and 1 backup",
    );
    check(
        needs(2, 2, 0),
        &["xy"],
        "0 of 4 backends healthy, 2 wanted, and 2 backups",
    );
    check(
        needs(2, 2, 0),
        &["as"],
        "1 of 4 backends healthy, 2 wanted, a sorry backend serves",
    );
    check(
        needs(1, 1, 3),
        &["ab"],
        "2 of 4 backends healthy, degraded below 3",
    );
    let weight = Mark {
        backends: Share::Count(1),
        weight: 50,
    };
    check(
        Needs {
            minimum: weight,
            recovery: weight,
            ..needs(1, 1, 0)
        },
        &["ab"],
        "2 of 4 backends healthy with 33 % of the weight, 50 % wanted",
    );
}

proptest! {
    /// Down only below the minimum, alive again only at the recovery, and the
    /// worse at once.
    #[test]
    fn hysteresis_is_never_violated(
        minimum in 1..4u32,
        above in 0..3u32,
        good in 0..5u32,
        moments in prop::collection::vec(prop::collection::vec(any::<bool>(), NAMES.len()), 1..60),
    ) {
        let needs = needs(minimum, minimum + above, good);
        let web = web(needs);
        let mut before: Option<Duty> = None;
        let mut was_alive = false;
        for mut healthy in moments {
            // Nobody says sorry: what that does is in the tables.
            healthy[6] = false;
            let duty = Duty::new(&web, &healthy, before.as_ref());
            let all = duty.active.plus(duty.backups).backends;
            let (was, is) = (
                before.map_or(Down, |duty| duty.state) > Down,
                duty.state > Down,
            );
            prop_assert!(!is || all >= minimum, "alive below the minimum: {:?}", duty);
            prop_assert!(is || !was || all < minimum, "down for no reason: {:?}", duty);
            prop_assert!(
                !is || was || !was_alive || all >= minimum + above,
                "alive again too early: {:?}",
                duty
            );
            prop_assert!(is || all < minimum + above, "held down at the recovery: {:?}", duty);
            // Backups are on duty only while they are needed.
            let active = duty.active.backends;
            prop_assert!(duty.line != Active || active >= minimum, "{:?}", duty);
            prop_assert!(duty.line == Active || active < minimum + above, "{:?}", duty);
            prop_assert_eq!(
                duty.state == Degraded,
                is && (if duty.line == Active { active } else { all }) < good
            );
            let again = Duty::new(&web, &healthy, Some(&duty));
            prop_assert_eq!(again, duty, "the same again is no change");
            was_alive |= is;
            before = Some(duty);
        }
    }
}
