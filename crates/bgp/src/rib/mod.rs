//! Adj-RIB-Out: what this peer is to know, what it has been told, and the
//! UPDATE messages that close the gap.
//!
//! There is one pending state per prefix, so output that the peer does not
//! take up cannot grow: a prefix that flaps while the socket is full is sent
//! once, in its last state, or not at all. Withdrawals leave before anything
//! else.

mod marks;
mod outlet;
mod pending;
mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;

pub use self::outlet::Unsent;
pub use self::route::{Route, Routes};

pub(crate) use self::outlet::Outlet;

use self::marks::{Mark, Marks};
use self::pending::Pending;
use crate::wire::{Attributes, Family};

/// A message to write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// An UPDATE.
    Update(Bytes),
    /// The UPDATE that is the End-of-RIB of a family.
    EndOfRib(Family, Bytes),
    /// A ROUTE-REFRESH that marks begin or end of the answer to one.
    Refresh(Bytes),
}

/// The routes of one peer.
#[derive(Debug, Default)]
pub(crate) struct AdjRibOut {
    desired: Routes,
    /// What was handed out on this session. `None` stands for a prefix that
    /// the peer has in a state that is to be sent anew.
    written: BTreeMap<IpNet, Option<Arc<Route>>>,
    pending: Pending,
    marks: Marks,
    /// Whether `desired` is all there is to know, so that its end may be told.
    complete: bool,
    /// The terms of the session; `None` while it is not Established.
    outlet: Option<Outlet>,
}

impl AdjRibOut {
    /// Replaces all routes the peer is to know, and says which prefixes that
    /// changes. What is as it was costs a comparison and no message.
    pub(crate) fn set(&mut self, routes: Routes) -> Vec<IpNet> {
        let truncated = routes
            .into_iter()
            .map(|(prefix, route)| (prefix.trunc(), route));
        let before = std::mem::replace(&mut self.desired, truncated.collect());
        let changed: Vec<IpNet> = before
            .keys()
            .chain(self.desired.keys())
            .filter(|prefix| before.get(prefix) != self.desired.get(prefix))
            .copied()
            .collect();
        for prefix in &changed {
            self.settle(*prefix);
        }
        changed
    }

    /// A new session: the peer knows nothing.
    pub(crate) fn open(&mut self, outlet: Outlet) {
        self.close();
        self.outlet = Some(outlet);
        let prefixes: Vec<IpNet> = self.desired.keys().copied().collect();
        for prefix in prefixes {
            self.settle(prefix);
        }
    }

    /// The session goes on with other next hops of its own.
    pub(crate) fn change(&mut self, outlet: Outlet) {
        let Some(old) = self.outlet.take() else {
            return;
        };
        let same = old == outlet;
        self.outlet = Some(outlet);
        if same {
            return;
        }
        let known: BTreeSet<IpNet> = self
            .written
            .keys()
            .chain(self.desired.keys())
            .copied()
            .collect();
        for prefix in known {
            let family = Family::of(&prefix);
            if let (Some(outlet), Some(written)) = (&self.outlet, self.written.get_mut(&prefix))
                && written.as_ref().is_some_and(|route| {
                    old.next_hop(family, route) != outlet.next_hop(family, route)
                })
            {
                *written = None;
            }
            self.settle(prefix);
        }
    }

    /// The session is gone, and with it all that the peer knew.
    pub(crate) fn close(&mut self) {
        self.outlet = None;
        self.written.clear();
        self.pending.clear();
        self.marks = Marks::default();
    }

    /// Whether the routes are all that the peer is to know.
    pub(crate) fn set_complete(&mut self, complete: bool) {
        self.complete = complete;
    }

    /// The peer wants everything of `family` once more. It is taken note of only,
    /// so that requests cost nothing however many come before an answer can be
    /// sent. Says whether one was not waiting already.
    pub(crate) fn refresh(&mut self, family: Family) -> bool {
        self.outlet.is_some() && self.marks.want(family)
    }

    fn resend(&mut self, family: Family) {
        let prefixes: Vec<IpNet> = self
            .written
            .keys()
            .filter(|prefix| Family::of(prefix) == family)
            .copied()
            .collect();
        for prefix in prefixes {
            self.written.insert(prefix, None);
            self.settle(prefix);
        }
    }

    /// The next message: withdrawals, then marks that are due, then
    /// announcements. What is in it counts as written.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        if self.outlet.as_ref().is_some_and(|outlet| !outlet.marks) {
            for family in self.marks.take_wanted() {
                self.resend(family);
            }
        }
        let outlet = self.outlet.as_ref()?;
        if let Some(family) = self.pending.next_withdrawal() {
            let (update, prefixes) =
                outlet.withdrawal(family, |room| self.pending.take_withdrawals(family, room));
            for prefix in &prefixes {
                self.written.remove(prefix);
            }
            return Some(Output::Update(update));
        }
        if let Some(mark) = self.next_mark() {
            let message = mark.emit(outlet.dialect);
            self.marks.told(mark);
            return Some(match mark {
                Mark::EndOfRib(family) => Output::EndOfRib(family, message),
                Mark::RefreshBegins(family) => {
                    self.resend(family);
                    Output::Refresh(message)
                }
                Mark::RefreshEnds(_) => Output::Refresh(message),
            });
        }
        let (family, route) = self.pending.next_announcement()?;
        let (update, prefixes) = outlet.announcement(family, &route, |room| {
            self.pending.take_announcements(family, &route, room)
        });
        for prefix in prefixes {
            self.written.insert(prefix, Some(Arc::clone(&route)));
        }
        Some(Output::Update(update))
    }

    /// Whether nothing waits for [`AdjRibOut::poll`].
    pub(crate) fn is_flushed(&self) -> bool {
        let unmarked = self.outlet.as_ref().is_some_and(|outlet| !outlet.marks);
        let refreshes = unmarked && self.marks.is_wanted();
        self.pending.is_empty() && !refreshes && self.next_mark().is_none()
    }

    /// Whether the routes are all that the peer is to know.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the peer has been sent the End-of-RIB of all families.
    pub(crate) fn is_ended(&self) -> bool {
        let ended = self.marks.ended();
        let outlet = self.outlet.as_ref();
        outlet.is_some_and(|outlet| outlet.families.is_subset(ended))
    }

    /// Families whose End-of-RIB the peer has been sent on this session.
    pub(crate) fn ended(&self) -> &BTreeSet<Family> {
        self.marks.ended()
    }

    fn next_mark(&self) -> Option<Mark> {
        let is_pending = |family| self.pending.has(family);
        self.marks
            .next(self.outlet.as_ref()?, self.complete, is_pending)
    }

    /// Prefixes that wait for [`AdjRibOut::poll`].
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What the peer has been told on this session.
    pub(crate) fn written(&self) -> impl Iterator<Item = (&IpNet, &Route)> {
        self.written
            .iter()
            .filter_map(|(prefix, route)| Some((prefix, route.as_deref()?)))
    }

    /// Whether the peer has been told of a prefix on this session.
    pub(crate) fn has_written(&self, prefix: &IpNet) -> bool {
        self.written.contains_key(prefix)
    }

    /// What the peer has been told on this session, as it was told.
    pub(crate) fn told(&self) -> impl Iterator<Item = (&IpNet, Attributes)> {
        self.written().filter_map(|(prefix, route)| {
            let outlet = self.outlet.as_ref()?;
            Some((prefix, outlet.attributes(Family::of(prefix), route)))
        })
    }

    /// What the peer has been told of `family`, in prefixes.
    pub(crate) fn written_count(&self, family: Family) -> usize {
        self.written
            .keys()
            .filter(|prefix| Family::of(prefix) == family)
            .count()
    }

    /// Routes that this session cannot carry, each with the reason. Empty
    /// while the session is not Established.
    pub(crate) fn unsent(&self) -> impl Iterator<Item = (&IpNet, Unsent)> {
        self.desired.iter().filter_map(|(prefix, route)| {
            let outlet = self.outlet.as_ref()?;
            Some((prefix, outlet.next_hop(Family::of(prefix), route).err()?))
        })
    }

    /// Compares what the peer is to know of `prefix` with what it was told,
    /// and leaves that difference, and no other, pending.
    fn settle(&mut self, prefix: IpNet) {
        let Some(outlet) = &self.outlet else {
            return;
        };
        self.pending.forget(&prefix);
        let family = Family::of(&prefix);
        let wanted = self
            .desired
            .get(&prefix)
            .filter(|route| outlet.next_hop(family, route).is_ok());
        match (wanted, self.written.get(&prefix)) {
            (None, None) => (),
            (None, Some(_)) => self.pending.withdraw(prefix),
            (Some(wanted), Some(Some(written))) if wanted == written => (),
            (Some(wanted), _) => self.pending.announce(prefix, Arc::clone(wanted)),
        }
    }
}
