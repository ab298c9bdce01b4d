//! How many backends a service needs, and what each of them is there for.

use std::{net::IpAddr, sync::Arc};

/// What a backend is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// It serves.
    #[default]
    Active,
    /// It serves beside the active ones while they are too few.
    Backup,
    /// It serves alone while all others together are too few, for example a page
    /// that says sorry.
    Sorry,
}

impl Role {
    /// A word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Backup => "backup",
            Self::Sorry => "sorry",
        }
    }
}

/// How many of some backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many in a hundred, rounded up.
    Percent(u8),
}

impl Share {
    /// The same of `total`, as a number.
    #[must_use]
    pub fn of(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let share = (u64::from(total) * u64::from(percent)).div_ceil(100);
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
    }
}

/// Some backends, counted. Who has no weight takes no traffic and does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub backends: u32,
    /// Their weights together.
    pub weight: u64,
}

impl Tally {
    /// Adds a backend of that weight.
    pub fn add(&mut self, weight: u16) {
        self.backends += u32::from(weight > 0);
        self.weight += u64::from(weight);
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            backends: self.backends + other.backends,
            weight: self.weight + other.weight,
        }
    }
}

/// A mark that backends reach by their number and by their weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// So many of them.
    pub backends: Share,
    /// With so much of the weight, in percent.
    pub weight: u8,
}

impl Mark {
    /// Reached by so many backends, whatever their weight.
    #[must_use]
    pub const fn count(backends: u32) -> Self {
        Self {
            backends: Share::Count(backends),
            weight: 0,
        }
    }

    /// Whether `found` reach it; shares are shares of `all`.
    #[must_use]
    pub fn is_reached(self, found: Tally, all: Tally) -> bool {
        found.backends >= self.backends.of(all.backends) && self.has_weight(found, all)
    }

    /// Whether `found` have the weight for it.
    #[must_use]
    pub fn has_weight(self, found: Tally, all: Tally) -> bool {
        u128::from(found.weight) * 100 >= u128::from(all.weight) * u128::from(self.weight)
    }
}

/// What this host must have for a service to be announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depends {
    /// Interfaces that must be up and have a carrier, by their names.
    pub interfaces: Vec<Arc<str>>,
    /// Addresses that a route must lead to.
    pub routes: Vec<IpAddr>,
}

/// What a service needs. All shares are shares of the active backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Below it the service is down.
    pub minimum: Mark,
    /// What it must reach to be alive again once it was down; not below the
    /// minimum. The distance between the two is the hysteresis.
    pub recovery: Mark,
    /// Below it the service is degraded.
    pub good: Share,
}

impl Needs {
    /// So many backends, never degraded.
    #[must_use]
    pub const fn count(backends: u32) -> Self {
        Self {
            minimum: Mark::count(backends),
            recovery: Mark::count(backends),
            good: Share::Count(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up() {
        for (share, total, expected) in [
            (Share::Count(2), 10, 2),
            (Share::Percent(50), 4, 2),
            (Share::Percent(50), 3, 2),
            (Share::Percent(1), 3, 1),
            (Share::Percent(100), 7, 7),
            (Share::Percent(50), 0, 0),
        ] {
            assert_eq!(share.of(total), expected, "{share:?} of {total}");
        }
    }

    #[test]
    fn a_mark_wants_both_number_and_weight() {
        let tally = |weights: &[u16]| {
            let mut tally = Tally::default();
            weights.iter().for_each(|weight| tally.add(*weight));
            tally
        };
        let all = tally(&[10, 1, 1, 0]);
        let mark = |backends, weight| Mark { backends, weight };
        let half = Share::Percent(50);
        for (sentence, mark, found, expected) in [
            ("number alone", mark(half, 0), &[1, 1][..], true),
            ("too few", mark(half, 0), &[10], false),
            ("the light ones", mark(half, 50), &[1, 1], false),
            (
                "a heavy one and a light one",
                mark(half, 50),
                &[10, 1],
                true,
            ),
            ("no weight, no backend", mark(half, 0), &[1, 0], false),
            ("all of the weight", mark(half, 100), &[10, 1, 1], true),
        ] {
            assert_eq!(mark.is_reached(tally(found), all), expected, "{sentence}");
        }
    }
}
