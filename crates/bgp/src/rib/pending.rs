//! What is still to be sent: one state per prefix, grouped so that prefixes of
//! equal attributes share an UPDATE.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::Route;
use crate::wire::{Family, wire_len};

type Group = (Family, Arc<Route>);

/// The prefixes whose state the peer does not know yet. A prefix is in
/// `withdrawals`, or in `announcements` and its group, or nowhere.
#[derive(Debug, Default)]
pub(super) struct Pending {
    withdrawals: BTreeSet<IpNet>,
    announcements: BTreeMap<IpNet, Arc<Route>>,
    groups: BTreeMap<Group, BTreeSet<IpNet>>,
}

impl Pending {
    pub(super) fn withdraw(&mut self, prefix: IpNet) {
        self.forget(&prefix);
        self.withdrawals.insert(prefix);
    }

    pub(super) fn announce(&mut self, prefix: IpNet, route: Arc<Route>) {
        self.forget(&prefix);
        self.announcements.insert(prefix, Arc::clone(&route));
        self.groups
            .entry((Family::of(&prefix), route))
            .or_default()
            .insert(prefix);
    }

    pub(super) fn forget(&mut self, prefix: &IpNet) {
        self.withdrawals.remove(prefix);
        let Some(route) = self.announcements.remove(prefix) else {
            return;
        };
        let group = (Family::of(prefix), route);
        if let Some(prefixes) = self.groups.get_mut(&group) {
            prefixes.remove(prefix);
            if prefixes.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.withdrawals.len() + self.announcements.len()
    }

    /// Whether anything of `family` is to be sent. Prefixes are in the order of
    /// their families, of which there are two: the first and the last tell.
    pub(super) fn has(&self, family: Family) -> bool {
        let announcements = &self.announcements;
        [
            self.withdrawals.first(),
            self.withdrawals.last(),
            announcements.first_key_value().map(|(prefix, _)| prefix),
            announcements.last_key_value().map(|(prefix, _)| prefix),
        ]
        .into_iter()
        .flatten()
        .any(|prefix| Family::of(prefix) == family)
    }

    /// The family of the next withdrawal.
    pub(super) fn next_withdrawal(&self) -> Option<Family> {
        self.withdrawals.first().map(Family::of)
    }

    /// The group that is announced next.
    pub(super) fn next_announcement(&self) -> Option<Group> {
        let ((family, route), _) = self.groups.first_key_value()?;
        Some((*family, Arc::clone(route)))
    }

    /// Takes withdrawals of `family` that fit `room` octets together.
    pub(super) fn take_withdrawals(&mut self, family: Family, room: usize) -> Vec<IpNet> {
        let of_family = self
            .withdrawals
            .iter()
            .filter(|prefix| Family::of(prefix) == family);
        let taken = fitting(of_family, room);
        for prefix in &taken {
            self.forget(prefix);
        }
        taken
    }

    /// Takes announcements of a group that fit `room` octets together.
    pub(super) fn take_announcements(
        &mut self,
        family: Family,
        route: &Arc<Route>,
        room: usize,
    ) -> Vec<IpNet> {
        let group = self.groups.get(&(family, Arc::clone(route)));
        let taken = fitting(group.into_iter().flatten(), room);
        for prefix in &taken {
            self.forget(prefix);
        }
        taken
    }
}

fn fitting<'a>(prefixes: impl Iterator<Item = &'a IpNet>, room: usize) -> Vec<IpNet> {
    prefixes
        .scan(room, |room, prefix| {
            *room = room.checked_sub(wire_len(prefix))?;
            Some(*prefix)
        })
        .collect()
}
