//! The VIP table: which service a packet is for.

use core::ptr::addr_of;

use vipd_abi::{EntryKind, FILTER_WORDS, Head, VIP_BUCKETS, VIP_SLOTS, Verdict, VipEntry, VipKey};

use crate::maps;

/// The half of the table that is in force.
pub struct Table {
    half: u32,
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
    pub fn published() -> Result<Self, Verdict> {
        let heads = maps::HEADS.get(0).ok_or(Verdict::Inconsistent)?;
        // SAFETY: the agent stores the word as a whole, and it is read once.
        let half = unsafe { addr_of!(heads.published).read_volatile() } as usize & 1;
        Ok(Self {
            half: half as u32,
            head: &heads.halves[half],
        })
    }

    /// The service of a port, or a quick no.
    #[inline(always)]
    pub fn plain(&self, key: &VipKey) -> Found {
        match self.find(key) {
            Some(entry) if entry.kind == EntryKind::Service as u32 => Found::Service(entry),
            _ if self.may_be_vip(key) => Found::Unclear,
            _ => Found::NotVip,
        }
    }

    /// Whether the address may be virtual: with certainty only if it is not.
    #[inline(always)]
    fn may_be_vip(&self, key: &VipKey) -> bool {
        // A prefix is found by its length, which the filter does not know.
        if self.head.lengths_4[0] | self.head.lengths_6[0] != 0 {
            return true;
        }
        let (word, bit) = VipKey::filter_bit(key.address_hash(self.head.seed));
        match maps::FILTER.get(self.half * FILTER_WORDS + word) {
            Some(word) => word & bit != 0,
            None => true,
        }
    }

    /// The entry of a service. Without one: the kernel's packet, or a port
    /// that no service of this virtual address has.
    #[inline(always)]
    pub fn service(&self, key: &VipKey) -> Result<&'static VipEntry, Verdict> {
        match self.find(key) {
            Some(entry) if entry.kind == EntryKind::Service as u32 => Ok(entry),
            _ => Err(self.if_vip(&key.address_only(), Verdict::UnservedPort)),
        }
    }

    /// `verdict` when the address is virtual; otherwise the packet is the
    /// kernel's.
    #[inline(always)]
    pub fn if_vip(&self, address: &VipKey, verdict: Verdict) -> Verdict {
        match self.find(address) {
            Some(entry) if entry.kind == EntryKind::Address as u32 => verdict,
            _ => Verdict::NotVip,
        }
    }

    #[inline(always)]
    fn find(&self, key: &VipKey) -> Option<&'static VipEntry> {
        let hash = key.hash(self.head.seed);
        let seed = *maps::VIP_SEEDS.get(self.half * VIP_BUCKETS + VipKey::bucket(hash))?;
        let entry = maps::VIP_ENTRIES.get(self.half * VIP_SLOTS + VipKey::place(hash, seed))?;
        same(&entry.key, key).then_some(entry)
    }
}

/// Compares word by word: the derived comparison calls `memcmp`.
#[inline(always)]
fn same(a: &VipKey, b: &VipKey) -> bool {
    (a.address[3] ^ b.address[3])
        | (a.service ^ b.service)
        | (a.address[0] ^ b.address[0])
        | (a.address[1] ^ b.address[1])
        | (a.address[2] ^ b.address[2])
        == 0
}
