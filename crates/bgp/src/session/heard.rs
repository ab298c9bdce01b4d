//! What the peer has announced, to be counted: nothing is imported, and where
//! there is no limit nothing is remembered either.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::wire::{Family, Update};

/// The prefixes of the peer, never more than the limit and one.
#[derive(Debug, Default)]
pub(super) struct Heard(BTreeMap<Family, BTreeSet<IpNet>>);

impl Heard {
    /// Takes in an UPDATE, whose announcements may count as withdrawals
    /// (RFC 7606). Returns a family of more than `limit` prefixes; what follows
    /// in the UPDATE is then left out.
    pub(super) fn update(&mut self, update: &Update, withdraw: bool, limit: u32) -> Option<Family> {
        // A prefix in both counts as announced (RFC 4271 section 4.3).
        for prefix in update.unreachable() {
            self.of(prefix).remove(prefix);
        }
        for prefix in update.reachable() {
            let prefixes = self.of(prefix);
            if withdraw {
                prefixes.remove(prefix);
            } else if prefixes.insert(*prefix) && prefixes.len() > limit as usize {
                return Some(Family::of(prefix));
            }
        }
        None
    }

    /// A family of more than `limit` prefixes.
    pub(super) fn beyond(&self, limit: u32) -> Option<Family> {
        let mut families = self.0.iter();
        let (family, _) = families.find(|(_, prefixes)| prefixes.len() > limit as usize)?;
        Some(*family)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// How many there are of each family.
    pub(super) fn counts(&self) -> BTreeMap<Family, usize> {
        self.0
            .iter()
            .map(|(family, prefixes)| (*family, prefixes.len()))
            .collect()
    }

    fn of(&mut self, prefix: &IpNet) -> &mut BTreeSet<IpNet> {
        self.0.entry(Family::of(prefix)).or_default()
    }
}
