//! The health of one backend: rise and fall.
//!
//! ```text
//!                 first check fails
//!     Unknown ----------------------------> Down <------------+
//!        |                                  |  ^              |
//!        | first check                 good |  | bad          | `fall` bad
//!        | succeeds                         v  |              | in a row
//!        |                                GoingUp             |
//!        |                  `rise` good     |                 |
//!        v                    in a row      |    bad          |
//!        Up <-------------------------------+   +------> GoingDown
//!        |  ^                                   |             |
//!        +--|-----------------------------------+             |
//!           +-------------------------------------------------+
//!                                good
//! ```
//! With `fall` 1 GoingDown is skipped, with `rise` 1 GoingUp is. A backend
//! takes traffic in Up and GoingDown: doubt alone moves nothing.
//!
//! A check that could not be made ([`CheckCode::SockErr`]) is neither good nor
//! bad: it says something of this host and nothing of the backend, so it shows
//! as the last result and moves no state and no count. HAProxy counts it as a
//! failure, which takes every backend down at once when this host is short of
//! file descriptors or memory. The price: while no check can be made, for
//! example without the source address of the checks, a backend that dies keeps
//! its traffic; one that was never checked gets none.
//!
//! A backend that is not available is failing or dead ([`Standing`]). Its death
//! ends the flows it has, so it takes as many failures in a row as going down
//! does, all of them at layer 4; any sign of life above ends it.

use std::{
    fmt,
    mem::{discriminant, replace},
    time::Instant,
};

use crate::{
    check::{CheckCode, CheckResult},
    model::Timing,
    standing::Standing,
};

/// What is believed of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not checked yet; takes no traffic, the first result decides.
    Unknown,
    /// Passes its checks.
    Up,
    /// Was up and has failed so many checks in a row, fewer than `fall`.
    GoingDown(u32),
    /// Fails its checks.
    Down,
    /// Was down and has passed so many checks in a row, fewer than `rise`.
    GoingUp(u32),
}

/// What is believed before the first check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Initial {
    /// Nothing: the first result decides at once.
    #[default]
    Unknown,
    /// Up, so that `fall` failures are needed to change it.
    Up,
    /// Down, so that `rise` successes are needed to change it.
    Down,
    /// The same, but it answers at layer 4.
    Failing,
}

/// Health of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    state: State,
    since: Instant,
    last: Option<CheckResult>,
    /// Whether it answers at layer 4.
    answers: bool,
    /// How many checks in a row it has not answered at layer 4.
    silent: u32,
}

/// A change of state and its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// State before.
    pub from: State,
    /// State after, never equal to `from`.
    pub to: State,
    /// The cause in plain words.
    pub reason: String,
}

impl Health {
    /// A backend about which `initial` is believed.
    #[must_use]
    pub const fn new(initial: Initial, now: Instant) -> Self {
        let state = match initial {
            Initial::Unknown => State::Unknown,
            Initial::Up => State::Up,
            Initial::Down | Initial::Failing => State::Down,
        };
        Self {
            state,
            since: now,
            last: None,
            answers: matches!(initial, Initial::Up | Initial::Failing),
            silent: 0,
        }
    }

    /// Takes in the result of a check that ended at `now`.
    pub fn observe(
        &mut self,
        result: CheckResult,
        timing: &Timing,
        now: Instant,
    ) -> Option<Transition> {
        let to = match result.code {
            CheckCode::SockErr => self.state,
            code => {
                self.hear(code, timing);
                next(self.state, code.is_success(), timing)
            }
        };
        let from = replace(&mut self.state, to);
        if discriminant(&from) != discriminant(&to) {
            self.since = now;
        }
        let transition = (from != to).then(|| Transition {
            from,
            to,
            reason: reason(from, to, &result, timing),
        });
        self.last = Some(result);
        transition
    }

    /// What is believed now.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// When the backend entered its present state; counting up or down within
    /// GoingUp or GoingDown does not change it.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// The latest result, if there is one.
    #[must_use]
    pub const fn last(&self) -> Option<&CheckResult> {
        self.last.as_ref()
    }

    /// Whether the backend takes traffic.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        self.state.is_available()
    }

    /// What its state means for flows, as far as checks can tell.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match (self.is_available(), self.answers) {
            (true, _) => Standing::Available,
            (false, true) => Standing::Failing,
            (false, false) => Standing::Dead,
        }
    }

    /// Counts silence at layer 4.
    fn hear(&mut self, code: CheckCode, timing: &Timing) {
        if !code.is_silence() {
            self.silent = 0;
            self.answers = true;
            return;
        }
        self.silent = self.silent.saturating_add(1);
        if self.silent >= timing.fall {
            self.answers = false;
        }
    }
}

/// The state after one more result. Thresholds below 1 mean 1.
fn next(state: State, success: bool, timing: &Timing) -> State {
    match (state, success) {
        (State::Unknown, true) => State::Up,
        (State::Unknown, false) => State::Down,
        (State::Up | State::GoingDown(_), true) => State::Up,
        (State::Up, false) => after_failures(1, timing),
        (State::GoingDown(failures), false) => after_failures(failures.saturating_add(1), timing),
        (State::Down | State::GoingUp(_), false) => State::Down,
        (State::Down, true) => after_successes(1, timing),
        (State::GoingUp(successes), true) => after_successes(successes.saturating_add(1), timing),
    }
}

fn after_failures(failures: u32, timing: &Timing) -> State {
    if failures >= timing.fall {
        State::Down
    } else {
        State::GoingDown(failures)
    }
}

fn after_successes(successes: u32, timing: &Timing) -> State {
    if successes >= timing.rise {
        State::Up
    } else {
        State::GoingUp(successes)
    }
}

fn reason(from: State, to: State, result: &CheckResult, timing: &Timing) -> String {
    match (from, to) {
        (State::Unknown, _) => format!("the first check gave {result}"),
        (_, State::GoingDown(failures)) => {
            format!("failure {failures} of {}: {result}", timing.fall)
        }
        (_, State::GoingUp(successes)) => {
            format!("success {successes} of {}: {result}", timing.rise)
        }
        (State::GoingDown(_), State::Up) => format!("passed again: {result}"),
        (State::GoingUp(_), State::Down) => format!("failed again: {result}"),
        (State::GoingDown(failures), _) => {
            format!("{} failures in a row, the last {result}", failures + 1)
        }
        (State::GoingUp(successes), _) => {
            format!("{} successes in a row, the last {result}", successes + 1)
        }
        (State::Up | State::Down, _) => format!("one check is enough: {result}"),
    }
}

impl State {
    /// Whether a backend in this state takes traffic.
    #[must_use]
    pub const fn is_available(self) -> bool {
        match self {
            Self::Up | Self::GoingDown(_) => true,
            Self::Unknown | Self::Down | Self::GoingUp(_) => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::GoingDown(_) => "going down",
            Self::Down => "down",
            Self::GoingUp(_) => "going up",
        })
    }
}

impl Transition {
    /// Whether traffic moves because of this: `Some(true)` when the backend
    /// now takes traffic and did not before, `Some(false)` the other way round.
    #[must_use]
    pub fn availability(&self) -> Option<bool> {
        let now = self.to.is_available();
        (self.from.is_available() != now).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::check::CheckCode;

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

    /// The standing after each check, in letters: A available, F failing, D
    /// dead. Rise is 2, fall 3.
    #[track_caller]
    fn check_standing(sentence: &str, initial: Initial, codes: &[CheckCode], expected: &str) {
        let mut health = Health::new(initial, Instant::now());
        let mut path = String::new();
        for &code in codes {
            health.observe(coded(code), &timing(2, 3), Instant::now());
            path.push(match health.standing() {
                Standing::Available => 'A',
                Standing::Draining => unreachable!("only the operator drains"),
                Standing::Failing => 'F',
                Standing::Dead => 'D',
            });
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

    proptest! {
        /// No change without cause, and no cause without change: a known
        /// backend goes down after exactly `fall` failures in a row and comes
        /// up after exactly `rise` successes in a row.
        #[test]
        fn availability_changes_exactly_at_the_thresholds(
            rise in 1u32..5,
            fall in 1u32..5,
            up_first: bool,
            checks in prop::collection::vec(any::<bool>(), 1..200),
        ) {
            let now = Instant::now();
            let initial = if up_first { Initial::Up } else { Initial::Down };
            let mut health = Health::new(initial, now);
            let mut run = (0, up_first);
            for (i, success) in checks.iter().copied().enumerate() {
                run = if run.1 == success { (run.0 + 1, success) } else { (1, success) };
                let before = health.clone();
                let transition = health.observe(result(success), &timing(rise, fall), now);
                let expected = match (before.is_available(), success) {
                    (true, false) => run.0 < fall,
                    (false, true) => run.0 >= rise,
                    (same, _) => same,
                };
                prop_assert_eq!(health.is_available(), expected, "check {}: {:?}", i, &health);
                prop_assert_eq!(transition.is_some(), before.state() != health.state());
                if let Some(t) = transition {
                    prop_assert_eq!((t.from, t.to), (before.state(), health.state()));
                    let changed = before.is_available() != health.is_available();
                    prop_assert_eq!(t.availability(), changed.then_some(expected));
                }
            }
        }
    }
}
