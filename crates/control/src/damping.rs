//! Damping of our own: improvements of announcements wait, so that routers that
//! damp flapping routes (RFC 2439) never suppress ours.
//!
//! A router keeps a penalty per prefix. Each withdrawal adds to it, and less so
//! each change of attributes; it halves with each half-life. Above the *suppress*
//! limit the router does not use the prefix until the penalty is below the *reuse*
//! limit, however well the prefix is by then. So we count what it would count, and
//! hold improvements back:
//!
//! - **hold-down**: until so long after the last time that something got worse;
//! - **budget**: until the penalty leaves room for one more withdrawal below the
//!   suppress limit, and, if it was exceeded, is below the reuse limit.
//!
//! A worsening or a withdrawal is never delayed, whatever it costs. Nor is doubt
//! about our own network: it takes back what we ourselves have withdrawn. What enters
//! for the first time has no past and does not wait. The penalty is counted
//! whether anything is held back or not.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use crate::{announcement::State, model::Vip};

/// What routers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// For a withdrawal.
    pub withdrawal: u32,
    /// For a change of attributes.
    pub attributes: u32,
    /// A prefix with as much is suppressed.
    pub suppress: u32,
    /// A prefix that was suppressed is used again below this.
    pub reuse: u32,
    /// The penalty halves in this time; not zero.
    pub half_life: Duration,
}

impl Figures {
    /// What most routers do unless told otherwise.
    pub const USUAL: Self = Self {
        withdrawal: 1000,
        attributes: 500,
        suppress: 2000,
        reuse: 750,
        half_life: Duration::from_secs(15 * 60),
    };
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// An improvement waits until so long after the last worsening.
    pub hold_down: Duration,
    /// Whether an improvement waits until the penalty leaves room for it.
    pub budget: bool,
    /// What routers count.
    pub figures: Figures,
}

impl Terms {
    /// Nothing waits; the penalty is counted all the same.
    pub const OFF: Self = Self {
        hold_down: Duration::ZERO,
        budget: false,
        figures: Figures::USUAL,
    };
}

/// What routers hear of a change of state; of several the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// An announcement of what was not announced before. It costs nothing.
    Announcement,
    /// Other attributes.
    Attributes,
    /// A withdrawal.
    Withdrawal,
}

/// The penalty of one prefix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    value: f64,
    at: Instant,
    half_life: Duration,
    /// Whether the suppress limit was reached and the reuse limit was not since.
    exceeded: bool,
    reuse: u32,
}

/// Why an improvement waits, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// When it is over if nothing happens.
    pub until: Instant,
    /// What it waits for.
    pub cause: Cause,
}

/// What an improvement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The hold-down.
    HoldDown,
    /// The budget.
    Budget,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HoldDown => "it has not been well for as long as hold_down says",
            Self::Budget => {
                "it has changed too often: routers that damp would suppress it at the next \
                 withdrawal"
            }
        })
    }
}

/// How one prefix stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The state it is announced in, if it is.
    pub announced: Option<State>,
    /// The state it would be announced in if nothing waited.
    pub wanted: Option<State>,
    /// What keeps it from that.
    pub wait: Option<Wait>,
    /// What a router would have counted.
    pub penalty: Penalty,
    /// When what is wanted has become worse last.
    worsened: Option<Instant>,
}

/// All prefixes that are or were announced not long ago.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Damping {
    prefixes: BTreeMap<Vip, Standing>,
}

/// Below it a penalty is as good as none.
const NEGLIGIBLE: f64 = 1.0;

/// Added to a wait that is calculated, so that it is over when it has passed.
const ROUNDING: Duration = Duration::from_millis(1);

impl Damping {
    /// Takes in what is `wanted` now. `heard` says what routers hear when a prefix
    /// goes from one state to another. Returns the prefixes of which something is
    /// announced otherwise than before, each with the state before.
    pub fn update(
        &mut self,
        wanted: &BTreeMap<Vip, State>,
        terms: &Terms,
        heard: impl Fn(Vip, Option<State>, Option<State>) -> Heard,
        now: Instant,
    ) -> BTreeMap<Vip, Option<State>> {
        let known = self.prefixes.keys().chain(wanted.keys());
        let all: BTreeSet<Vip> = known.copied().collect();
        let mut changed = BTreeMap::new();
        for prefix in all {
            let fresh = || Standing::new(terms, now);
            let standing = self.prefixes.entry(prefix).or_insert_with(fresh);
            let before = standing.announced;
            let heard = |from, to| heard(prefix, from, to);
            standing.update(wanted.get(&prefix).copied(), terms, heard, now);
            if standing.announced != before {
                changed.insert(prefix, before);
            }
        }
        self.prefixes
            .retain(|_, standing| !standing.is_past(terms, now));
        changed
    }

    /// What is announced now.
    #[must_use]
    pub fn announced(&self) -> BTreeMap<Vip, State> {
        let all = self.prefixes.iter();
        all.filter_map(|(prefix, standing)| Some((*prefix, standing.announced?)))
            .collect()
    }

    /// How each prefix stands.
    #[must_use]
    pub const fn standings(&self) -> &BTreeMap<Vip, Standing> {
        &self.prefixes
    }

    /// When the next wait is over.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let waits = self.prefixes.values().filter_map(|standing| standing.wait);
        waits.map(|wait| wait.until).min()
    }
}

impl Standing {
    fn new(terms: &Terms, now: Instant) -> Self {
        Self {
            announced: None,
            wanted: None,
            wait: None,
            penalty: Penalty::none(&terms.figures, now),
            worsened: None,
        }
    }

    fn update(
        &mut self,
        wanted: Option<State>,
        terms: &Terms,
        heard: impl Fn(Option<State>, Option<State>) -> Heard,
        now: Instant,
    ) {
        self.penalty.follow(&terms.figures, now);
        // No state is worse than any.
        if wanted < self.wanted {
            self.worsened = Some(now);
        }
        self.wanted = wanted;
        self.wait = None;
        if wanted == self.announced {
            return;
        }
        let heard = heard(self.announced, wanted);
        if wanted > self.announced && wanted != Some(State::Doubt) {
            self.wait = self.must_wait(heard, terms, now);
        }
        if self.wait.is_none() {
            self.announced = wanted;
            self.penalty.add(heard, &terms.figures, now);
        }
    }

    /// Why an improvement of which that is heard must wait.
    fn must_wait(&self, heard: Heard, terms: &Terms, now: Instant) -> Option<Wait> {
        let held = self.worsened.map(|worsened| worsened + terms.hold_down);
        let paid = terms
            .budget
            .then(|| self.penalty.has_room(heard, &terms.figures, now));
        let wait = |until: Option<Instant>, cause| {
            let until = until.filter(|until| *until > now)?;
            Some(Wait { until, cause })
        };
        let waits = [wait(held, Cause::HoldDown), wait(paid, Cause::Budget)];
        waits.into_iter().flatten().max_by_key(|wait| wait.until)
    }

    /// Whether nothing of it matters any more.
    fn is_past(&self, terms: &Terms, now: Instant) -> bool {
        let held = self.worsened.is_some_and(|at| at + terms.hold_down > now);
        self.announced.is_none()
            && self.wanted.is_none()
            && !held
            && self.penalty.value(now) < NEGLIGIBLE
    }
}

impl Penalty {
    const fn none(figures: &Figures, now: Instant) -> Self {
        Self {
            value: 0.0,
            at: now,
            half_life: figures.half_life,
            exceeded: false,
            reuse: figures.reuse,
        }
    }

    /// What a router would have counted at `now`.
    #[must_use]
    pub fn value(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.value * (-passed / self.half_life.as_secs_f64()).exp2()
    }

    /// Whether a router that damps would not use the prefix at `now`.
    #[must_use]
    pub fn is_suppressed(&self, now: Instant) -> bool {
        self.exceeded && self.value(now) >= f64::from(self.reuse)
    }

    /// Brings it to the present, and to the figures in force.
    fn follow(&mut self, figures: &Figures, now: Instant) {
        if self.at == now && self.half_life == figures.half_life && self.reuse == figures.reuse {
            return;
        }
        // What has decayed to nothing is nothing, so that it can be compared.
        let value = self.value(now);
        let exceeded = self.is_suppressed(now);
        if value < NEGLIGIBLE || self.half_life != figures.half_life || exceeded != self.exceeded {
            self.value = if value < NEGLIGIBLE { 0.0 } else { value };
            self.at = now;
        }
        self.half_life = figures.half_life;
        self.exceeded = exceeded;
        self.reuse = figures.reuse;
    }

    fn add(&mut self, heard: Heard, figures: &Figures, now: Instant) {
        let cost = cost(heard, figures);
        if cost == 0 {
            return;
        }
        self.value = self.value(now) + f64::from(cost);
        self.at = now;
        self.exceeded |= self.value >= f64::from(figures.suppress);
    }

    /// When there is room for a change and a withdrawal behind it.
    fn has_room(&self, heard: Heard, figures: &Figures, now: Instant) -> Instant {
        let room = figures
            .suppress
            .saturating_sub(figures.withdrawal)
            .saturating_sub(cost(heard, figures));
        let limit = if self.is_suppressed(now) {
            room.min(figures.reuse)
        } else {
            room
        };
        let (value, limit) = (self.value(now), f64::from(limit.max(1)));
        if value < limit {
            return now;
        }
        let wait = self.half_life.as_secs_f64() * (value / limit).log2();
        now + Duration::from_secs_f64(wait) + ROUNDING
    }
}

/// What routers add for it.
const fn cost(heard: Heard, figures: &Figures) -> u32 {
    match heard {
        Heard::Nothing | Heard::Announcement => 0,
        Heard::Attributes => figures.attributes,
        Heard::Withdrawal => figures.withdrawal,
    }
}
