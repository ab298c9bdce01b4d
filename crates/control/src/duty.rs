//! Who of a service's backends is on duty, and whether they are enough.
//!
//! Backends stand in three lines. The active ones serve. While they are too few
//! the backups serve beside them. While all of those together are too few a sorry
//! backend serves alone, if there is one; otherwise whoever is left serves what
//! still arrives, and the service is down.
//!
//! ```text
//!                      active below minimum
//!      active  ------------------------------------->  active and backups
//!   (up/degraded) <-------------------------------------  (up/degraded)
//!        ^             active at recovery                 |         ^
//!        |                                   together     |         | together
//!        |  active at recovery          below minimum     v         | at recovery
//!        +------------------------------------------  sorry (degraded),
//!                                                   or nobody (down)
//! ```
//!
//! Two marks make the hysteresis: what has enough loses that below the *minimum*
//! and has enough again at the *recovery*. A line that never had enough, as at a
//! start, needs the minimum only: nothing has been lost yet. Keepalived calls the
//! middle of the two `quorum` and their distance from it `hysteresis`.

#[cfg(test)]
mod tests;

use crate::{
    announcement::State,
    model::{Backend, Needs, Role, Service, Tally},
};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Line {
    /// The active backends.
    #[default]
    Active,
    /// They and the backups.
    Together,
    /// The sorry backends.
    Sorry,
}

impl Line {
    /// Whether backends of that role are on duty.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        match self {
            Self::Active => matches!(role, Role::Active),
            Self::Together => matches!(role, Role::Active | Role::Backup),
            Self::Sorry => matches!(role, Role::Sorry),
        }
    }

    /// A backend's share of the traffic: none while it is off duty.
    #[must_use]
    pub const fn weight(self, backend: &Backend) -> u16 {
        if self.has(backend.role) {
            backend.weight
        } else {
            0
        }
    }
}

/// Who is on duty in a service, and how that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    /// Whose turn it is.
    pub line: Line,
    /// Healthy backends of the first line.
    pub active: Tally,
    /// Healthy backups.
    pub backups: Tally,
    /// All of the first line, healthy or not.
    pub configured: Tally,
    /// Up, degraded or down.
    pub state: State,
    /// Whether the active ones are enough by themselves.
    first: Enough,
    /// Whether they are with the backups.
    together: Enough,
}

/// Whether something has enough, and what of that it was before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Enough {
    /// It never had.
    #[default]
    NotYet,
    /// It has.
    Held,
    /// It had.
    Lost,
}

impl Enough {
    fn next(self, needs: &Needs, found: Tally, all: Tally) -> Self {
        let mark = match self {
            Self::NotYet | Self::Held => needs.minimum,
            Self::Lost => needs.recovery,
        };
        match self {
            _ if mark.is_reached(found, all) => Self::Held,
            Self::NotYet => Self::NotYet,
            Self::Held | Self::Lost => Self::Lost,
        }
    }
}

impl Duty {
    /// Judges a service of which those backends are healthy whose flag is true,
    /// in the service's order. `before` is how it was.
    #[must_use]
    pub fn new(service: &Service, healthy: &[bool], before: Option<&Self>) -> Self {
        let needs = &service.needs;
        let count = |role, flags: &mut dyn Iterator<Item = bool>| {
            let mut tally = Tally::default();
            let backends = service.backends.iter().zip(flags);
            let chosen = backends.filter(|(backend, flag)| *flag && backend.role == role);
            chosen.for_each(|(backend, _)| tally.add(backend.weight));
            tally
        };
        let found = |role| count(role, &mut healthy.iter().copied());
        let (active, backups) = (found(Role::Active), found(Role::Backup));
        let configured = count(Role::Active, &mut std::iter::repeat(true));

        let (first, together) = before.map_or_else(Default::default, |b| (b.first, b.together));
        let together = together.next(needs, active.plus(backups), configured);
        let first = match together {
            // What all of them have lost, a part of them has.
            Enough::Lost => Enough::Lost,
            Enough::NotYet | Enough::Held => first.next(needs, active, configured),
        };
        let line = match (first, together) {
            (Enough::Held, _) => Line::Active,
            (_, Enough::Held) => Line::Together,
            _ if found(Role::Sorry).backends > 0 => Line::Sorry,
            _ => Line::Together,
        };
        let serving = match line {
            Line::Active => active,
            Line::Together | Line::Sorry => active.plus(backups),
        };
        let is_good = serving.backends >= needs.good.of(configured.backends);
        let state = match (line, together) {
            (Line::Sorry, _) => State::Degraded,
            (_, Enough::Held) if is_good => State::Up,
            (_, Enough::Held) => State::Degraded,
            (_, Enough::NotYet | Enough::Lost) => State::Down,
        };
        Self {
            line,
            active,
            backups,
            configured,
            state,
            first,
            together,
        }
    }

    /// Whether backends that come to `reached` are enough for the state it is in:
    /// of a sorry line one, otherwise the minimum.
    #[must_use]
    pub fn is_enough(&self, needs: &Needs, reached: Tally) -> bool {
        reached.backends > 0
            && (self.line == Line::Sorry || needs.minimum.is_reached(reached, self.configured))
    }

    /// How it is and why, in plain words, for example `1 of 3 backends healthy, 2
    /// wanted`.
    #[must_use]
    pub fn reason(&self, needs: &Needs) -> String {
        let (active, all) = (self.active, self.configured);
        let mut words = format!("{} of {} backends healthy", active.backends, all.backends);
        if self.first != Enough::Held {
            words += &self.lack(needs);
        }
        words += &match (self.line, self.backups.backends) {
            (Line::Sorry, _) => ", a sorry backend serves".to_owned(),
            (Line::Together, 1) => ", and 1 backup".to_owned(),
            (Line::Together, backups @ 2..) => format!(", and {backups} backups"),
            (Line::Active | Line::Together, _) => String::new(),
        };
        if self.state == State::Degraded && self.line != Line::Sorry {
            words += &format!(", degraded below {}", needs.good.of(all.backends));
        }
        words
    }

    /// What the first line lacks.
    fn lack(&self, needs: &Needs) -> String {
        let (found, all) = (self.active, self.configured);
        let (mark, again) = match self.first {
            Enough::Lost if needs.recovery != needs.minimum => {
                (needs.recovery, " to be alive again")
            }
            Enough::Lost | Enough::NotYet | Enough::Held => (needs.minimum, ""),
        };
        let wanted = mark.backends.of(all.backends);
        if found.backends < wanted {
            return format!(", {wanted} wanted{again}");
        }
        let percent = u128::from(found.weight) * 100 / u128::from(all.weight.max(1));
        format!(
            " with {percent} % of the weight, {} % wanted{again}",
            mark.weight
        )
    }
}
