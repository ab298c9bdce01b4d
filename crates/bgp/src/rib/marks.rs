//! What the peer is told of a whole family: that it has all routes of it
//! (End-of-RIB, RFC 4724), and where a refresh begins and ends (RFC 7313).

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Outlet;
use crate::wire::{Dialect, Family, RouteRefresh, Update};

/// Where the peer stands with each family.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// End-of-RIB is sent.
    ended: BTreeSet<Family>,
    /// A refresh is asked for and not begun.
    wanted: BTreeSet<Family>,
    /// A refresh is begun and not ended.
    begun: BTreeSet<Family>,
}

/// Something to tell of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    EndOfRib(Family),
    RefreshBegins(Family),
    RefreshEnds(Family),
}

impl Marks {
    /// The peer wants all of `family` again. Asked for twice before it has
    /// begun is asked for once; says whether this was the first time.
    pub(super) fn want(&mut self, family: Family) -> bool {
        self.wanted.insert(family)
    }

    /// Whether a refresh has not begun.
    pub(super) fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The refreshes that have not begun, which then begin without a mark.
    pub(super) fn take_wanted(&mut self) -> BTreeSet<Family> {
        std::mem::take(&mut self.wanted)
    }

    /// The mark that is due, where `complete` says whether all routes are
    /// known, and `is_pending` whether some of a family are still to be sent.
    pub(super) fn next(
        &self,
        outlet: &Outlet,
        complete: bool,
        is_pending: impl Fn(Family) -> bool,
    ) -> Option<Mark> {
        outlet.families.iter().find_map(|&family| {
            let (ended, begun) = (self.ended.contains(&family), self.begun.contains(&family));
            // One refresh after the other, and between speakers of graceful
            // restart none before the End-of-RIB (RFC 7313 section 4).
            let may_begin = outlet.marks && !begun && (ended || !outlet.restarts);
            if may_begin && self.wanted.contains(&family) {
                return Some(Mark::RefreshBegins(family));
            }
            if is_pending(family) {
                None
            } else if begun {
                Some(Mark::RefreshEnds(family))
            } else {
                (complete && !ended).then_some(Mark::EndOfRib(family))
            }
        })
    }

    /// A mark was handed out.
    pub(super) fn told(&mut self, mark: Mark) {
        match mark {
            Mark::EndOfRib(family) => self.ended.insert(family),
            Mark::RefreshBegins(family) => {
                self.wanted.remove(&family);
                self.begun.insert(family)
            }
            Mark::RefreshEnds(family) => self.begun.remove(&family),
        };
    }

    /// Families whose End-of-RIB is sent.
    pub(super) fn ended(&self) -> &BTreeSet<Family> {
        &self.ended
    }
}

impl Mark {
    pub(super) fn emit(self, dialect: Dialect) -> Bytes {
        match self {
            Self::EndOfRib(family) => Update::end_of_rib(family).emit(dialect),
            Self::RefreshBegins(family) => RouteRefresh::begin(family).emit(),
            Self::RefreshEnds(family) => RouteRefresh::end(family).emit(),
        }
    }
}
