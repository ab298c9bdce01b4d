//! The VIP table: which service a packet is for.

use core::ptr::addr_of;

use vipd_abi::{
    EntryKind, FILTER_WORDS, Head, Plane, VIP_BUCKETS, VIP_SLOTS, VipEntry, VipKey, address::halves,
};

use vipd_ebpf::anchor::{anchor, within};

use crate::parse::Family;

/// The half of the table that is in force.
pub struct Table {
    pub plane: &'static Plane,
    pub half: u32,
    pub head: &'static Head,
}

/// What the short way through the table comes to.
pub enum Found {
    /// The service of just this port.
    Service(&'static VipEntry),
    /// The address is not virtual.
    NotVip,
    /// It takes a longer look.
    Unclear,
}

impl Table {
    /// The half the agent has published last.
    #[inline(always)]
    pub fn published(plane: &'static Plane) -> Self {
        // SAFETY: the agent stores the word as a whole, and it is read once.
        let half = unsafe { addr_of!(plane.published).read_volatile() } as usize & 1;
        Self {
            plane,
            half: half as u32,
            head: anchor(&plane.heads[half]),
        }
    }

    /// One of the halves.
    #[inline(always)]
    pub fn of_half(plane: &'static Plane, half: u32) -> Self {
        let half = half & 1;
        Self {
            plane,
            half,
            head: anchor(&plane.heads[half as usize]),
        }
    }

    /// The service of a port, or a quick no.
    #[inline(always)]
    pub fn plain(&self, key: &VipKey, family: Family) -> Found {
        match self.find(key) {
            Some(entry) if entry.kind == EntryKind::Service as u32 => Found::Service(entry),
            _ if self.may_be_vip(key, family) => Found::Unclear,
            _ => Found::NotVip,
        }
    }

    /// Whether the address may be virtual: with certainty only if it is not.
    #[inline(always)]
    fn may_be_vip(&self, key: &VipKey, family: Family) -> bool {
        // A prefix is found by its length, which the filter does not know.
        let longest = match family {
            Family::V4 => self.head.lengths_4[0],
            Family::V6 => self.head.lengths_6[0],
        };
        if longest != 0 {
            return true;
        }
        let (word, bit) = VipKey::filter_bit(key.address_hash(self.head.seed));
        self.plane.filter[within::<{ 2 * FILTER_WORDS }>(self.half * FILTER_WORDS + word)] & bit
            != 0
    }

    /// Whether frames to this MAC address are for one of our interfaces.
    #[inline(always)]
    pub fn is_for(&self, destination: u64) -> bool {
        // Places that are not in use hold 0, which is nobody's address.
        destination != 0 && self.head.macs.contains(&destination)
    }

    /// The entry of just this key.
    #[inline(always)]
    pub fn find(&self, key: &VipKey) -> Option<&'static VipEntry> {
        let entry = self.entry(self.place(key));
        same(&entry.key, key).then_some(entry)
    }

    /// Where the entry of this key is, if there is one.
    #[inline(always)]
    pub fn place(&self, key: &VipKey) -> u32 {
        let hash = key.hash(self.head.seed);
        let bucket = self.half * VIP_BUCKETS + VipKey::bucket(hash);
        let seed = self.plane.seeds[within::<{ 2 * VIP_BUCKETS }>(bucket)];
        self.half * VIP_SLOTS + VipKey::place(hash, seed)
    }

    /// The entry at a place of either half.
    #[inline(always)]
    pub fn entry(&self, place: u32) -> &'static VipEntry {
        anchor(&self.plane.entries[within::<{ 2 * VIP_SLOTS }>(place)])
    }
}

/// Compares word by word: the derived comparison calls `memcmp`.
#[inline(always)]
pub fn same(a: &VipKey, b: &VipKey) -> bool {
    let ([a_0, a_1], [b_0, b_1]) = (halves(a.address), halves(b.address));
    a_1 == b_1 && a.service == b.service && a_0 == b_0
}
