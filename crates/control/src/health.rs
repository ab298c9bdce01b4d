//! The health of one backend: rise and fall.
//!
//! ```text
//!                 first check fails
//!     Unknown ----------------------------> Down <------------+
//!        |                                  |  ^              |
//!        | first check                 good |  | bad          | `fall` bad
//!        | succeeds                         v  |              | in a row
//!        |                                GoingUp             |
//!        |        `rise` good in a row,     |                 |
//!        v        `hold_down` is over       |    bad          |
//!        Up <-------------------------------+   +------> GoingDown
//!        |  ^                                   |             |
//!        +--|-----------------------------------+             |
//!           +-------------------------------------------------+
//!                                good
//!
//!     any state -- BFD to the backend goes down --> Down, and stays there
//!                  until BFD is up again, or says nothing any more
//! ```
//! With `fall` 1 GoingDown is skipped, with `rise` 1 GoingUp is. A backend
//! takes traffic in Up and GoingDown: doubt alone moves nothing.
//!
//! Hold-down delays the way up only. A backend that went down stays down for so
//! long at least; successes are counted meanwhile, and the first one after that
//! brings it up if there have been enough.
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
//! does, all of them of the kind that [`OnDown`] names; any sign of life ends
//! it. When BFD goes down the backend is dead at once.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    mem::{discriminant, replace},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    check::{CheckCode, CheckResult},
    doubt::Evidence,
    model::{OnDown, Timing},
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
    /// Fails its checks, or BFD says that packets do not reach it.
    Down,
    /// Was down and has passed so many checks in a row: fewer than `rise`, or
    /// it is held down.
    GoingUp(u32),
}

/// What is believed before the first check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

/// What BFD says of the way to a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Path {
    /// Nothing that is evidence (RFC 5882, sections 3.2 and 4.2): there is no
    /// session, it has not been up yet, somebody holds it down on purpose, or
    /// nobody is reached who could tell.
    #[default]
    Unknown,
    /// Packets pass in both directions.
    Up,
    /// They did, and do not any more; why.
    Down(Arc<str>),
}

/// Health of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    state: State,
    since: Instant,
    last: Option<CheckResult>,
    path: Path,
    /// What the last check that was evidence has heard.
    word: Word,
    /// Whether there is any sign of life.
    answers: bool,
    /// How many checks in a row have given none.
    silent: u32,
    /// When it went down last.
    fell: Option<Instant>,
    /// When it came up, if it was down before.
    returned: Option<Instant>,
}

/// What a check has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Nothing.
    None,
    /// What it should.
    Good,
    /// Something else, then.
    Bad(Instant),
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
            path: Path::Unknown,
            word: Word::None,
            answers: matches!(initial, Initial::Up | Initial::Failing),
            silent: 0,
            fell: None,
            returned: None,
        }
    }

    /// Takes in the result of a check that ended at `now`.
    pub fn observe(
        &mut self,
        result: CheckResult,
        timing: &Timing,
        now: Instant,
    ) -> Option<Transition> {
        let is_evidence = result.code != CheckCode::SockErr && !self.path.is_down();
        let to = if is_evidence {
            self.count_silence(result.code, timing);
            self.word = if result.is_success() {
                Word::Good
            } else if result.code.is_silence() && !result.refused {
                Word::None
            } else {
                Word::Bad(now)
            };
            self.next(result.code.is_success(), timing, now)
        } else {
            self.state
        };
        let held = self.held(timing, now);
        let words = |from, to| reason(from, to, &result, timing, held);
        let transition = self.enter(to, now, words);
        self.last = Some(result);
        transition
    }

    /// Takes in what BFD says. It takes a backend down, but brings none up that
    /// is checked: that a host sends packets says nothing of what runs on it.
    pub fn follow(&mut self, path: Path, is_checked: bool, now: Instant) -> Option<Transition> {
        let before = replace(&mut self.path, path);
        let (to, reason) = match (&before, &self.path) {
            (_, Path::Down(why)) => {
                self.answers = false;
                self.word = Word::None;
                (State::Down, format!("BFD: {why}"))
            }
            (Path::Down(_), Path::Up) if !is_checked => (
                State::Up,
                "BFD is up again, and nothing else is asked".to_owned(),
            ),
            (Path::Down(_), Path::Unknown) if !is_checked => (
                State::Up,
                "BFD says nothing any more, and nothing else is asked".to_owned(),
            ),
            (Path::Unknown | Path::Up | Path::Down(_), Path::Unknown | Path::Up) => return None,
        };
        if to.is_available() {
            self.answers = true;
        }
        self.enter(to, now, |_, _| reason)
    }

    /// Takes the health of a backend that this one follows. When both were up and
    /// are, this one goes on with its own slow start.
    pub fn copy(&mut self, leader: &Self) {
        let returned = match (self.is_available(), leader.is_available()) {
            (true, true) => self.returned,
            _ => leader.returned,
        };
        self.clone_from(leader);
        self.returned = returned;
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

    /// When it came up, if it is up and was down before: since then its share
    /// may be growing.
    #[must_use]
    pub const fn returned(&self) -> Option<Instant> {
        self.returned
    }

    /// Gives it its whole share at once: nobody else could take the rest.
    pub fn end_slow_start(&mut self) {
        self.returned = None;
    }

    /// The latest result, if there is one.
    #[must_use]
    pub const fn last(&self) -> Option<&CheckResult> {
        self.last.as_ref()
    }

    /// What BFD says.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
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

    /// What its checks and BFD say of the way to it.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        match (self.word, self.fell) {
            _ if self.is_available() => Evidence::Available,
            (Word::Bad(at), _) => Evidence::Audible(at),
            (Word::Good, Some(fell)) => Evidence::Reviving(fell),
            (Word::None, Some(fell)) => Evidence::Silent(fell),
            (Word::None | Word::Good, None) => Evidence::Unknown,
        }
    }

    /// When it ceased to be available, if it has and is not again.
    #[must_use]
    pub fn fell(&self) -> Option<Instant> {
        self.fell.filter(|_| !self.is_available())
    }

    /// Counts results without a sign of life.
    fn count_silence(&mut self, code: CheckCode, timing: &Timing) {
        let ends_flows = match timing.on_down {
            OnDown::Layer => code.is_silence(),
            OnDown::Keep => false,
            OnDown::Reset => !code.is_success(),
        };
        if ends_flows {
            self.silent = self.silent.saturating_add(1);
            if self.silent >= timing.fall {
                self.answers = false;
            }
        } else if !code.is_silence() {
            self.silent = 0;
            self.answers = true;
        }
    }

    /// The state after one more result. Thresholds below 1 mean 1.
    fn next(&self, success: bool, timing: &Timing, now: Instant) -> State {
        match (self.state, success) {
            (State::Unknown, true) => State::Up,
            (State::Unknown, false) => State::Down,
            (State::Up | State::GoingDown(_), true) => State::Up,
            (State::Up, false) => after_failures(1, timing),
            (State::GoingDown(failures), false) => {
                after_failures(failures.saturating_add(1), timing)
            }
            (State::Down | State::GoingUp(_), false) => State::Down,
            (State::Down, true) => self.after_successes(1, timing, now),
            (State::GoingUp(successes), true) => {
                self.after_successes(successes.saturating_add(1), timing, now)
            }
        }
    }

    fn after_successes(&self, successes: u32, timing: &Timing, now: Instant) -> State {
        if successes >= timing.rise && self.held(timing, now).is_zero() {
            State::Up
        } else {
            State::GoingUp(successes)
        }
    }

    /// How long it is still held down.
    fn held(&self, timing: &Timing, now: Instant) -> Duration {
        self.fell.map_or(Duration::ZERO, |fell| {
            let down = now.saturating_duration_since(fell);
            timing.hold_down.saturating_sub(down)
        })
    }

    /// Enters a state, be it the present one; `reason` says why.
    fn enter(
        &mut self,
        to: State,
        now: Instant,
        reason: impl FnOnce(State, State) -> String,
    ) -> Option<Transition> {
        let from = replace(&mut self.state, to);
        if from == to {
            return None;
        }
        // Observers on several threads may come in another order than they went.
        let now = now.max(self.since);
        if discriminant(&from) != discriminant(&to) {
            self.since = now;
        }
        match (from.is_available(), to.is_available()) {
            (true, false) => (self.fell, self.returned) = (Some(now), None),
            (false, true) => self.returned = (from != State::Unknown).then_some(now),
            (true, true) | (false, false) => (),
        }
        Some(Transition {
            from,
            to,
            reason: reason(from, to),
        })
    }
}

fn after_failures(failures: u32, timing: &Timing) -> State {
    if failures >= timing.fall {
        State::Down
    } else {
        State::GoingDown(failures)
    }
}

fn reason(from: State, to: State, result: &CheckResult, timing: &Timing, held: Duration) -> String {
    match (from, to) {
        (State::Unknown, _) => format!("the first check gave {result}"),
        (_, State::GoingDown(failures)) => {
            format!("failure {failures} of {}: {result}", timing.fall)
        }
        (_, State::GoingUp(successes)) if successes >= timing.rise => {
            let held = held.as_secs_f64();
            format!("success {successes}, held down for {held:.1} s more: {result}")
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

impl Path {
    /// Whether it is evidence against the backend.
    #[must_use]
    pub const fn is_down(&self) -> bool {
        matches!(self, Self::Down(_))
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
