//! The table of virtual addresses: directly indexed by a perfect hash.
//!
//! The agent chooses a displacement for each bucket so that no two keys share
//! a place (hash and displace, Belazzougui et al. 2009). A lookup is two array
//! reads and one comparison. There are two halves; one word says which is in
//! force.

use crate::{
    FlowKey, MACS, Plain, VIP_BUCKETS, VIP_SLOTS,
    hash::{finish, mix},
};

/// What a packet is looked up by: 20 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct VipKey {
    /// Destination address in network order, IPv4 in its mapped form.
    pub address: [u32; 4],
    /// Protocol in the upper half; destination port, in network order as read
    /// from memory, in the lower. Zero stands for the address itself.
    pub service: u32,
}

// SAFETY: five u32 without padding.
unsafe impl Plain for VipKey {}

impl VipKey {
    /// An IPv4 destination, its four bytes as read from memory.
    #[must_use]
    #[inline(always)]
    pub const fn v4(address: u32, protocol: u8, port: u16) -> Self {
        Self::v6([0, 0, 0xffff_u32.to_be(), address], protocol, port)
    }

    /// An IPv6 destination, its words as read from memory.
    #[must_use]
    #[inline(always)]
    pub const fn v6(address: [u32; 4], protocol: u8, port: u16) -> Self {
        Self {
            address,
            service: (protocol as u32) << 16 | port as u32,
        }
    }

    /// The key that stands for the address alone.
    #[must_use]
    #[inline(always)]
    pub const fn address_only(self) -> Self {
        Self { service: 0, ..self }
    }

    /// The hash that finds bucket and place.
    #[must_use]
    #[inline(always)]
    pub const fn hash(&self, seed: u64) -> u64 {
        let [a, b, c, d] = self.address;
        let upper = (a as u64) | (b as u64) << 32;
        let lower = (c as u64) | (d as u64) << 32;
        let h = mix(seed ^ lower ^ (self.service as u64).rotate_left(17));
        mix(h ^ upper)
    }

    /// Index of the displacement within one half, for that hash.
    #[must_use]
    #[inline(always)]
    pub const fn bucket(hash: u64) -> u32 {
        (hash >> 32) as u32 & (VIP_BUCKETS - 1)
    }

    /// Index of the entry within one half, for that hash and displacement.
    #[must_use]
    #[inline(always)]
    pub const fn place(hash: u64, displacement: u32) -> u32 {
        finish(hash ^ (displacement as u64) << 32) as u32 & (VIP_SLOTS - 1)
    }
}

/// What stands in one place of the table: a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct VipEntry {
    /// Whose entry it is.
    pub key: VipKey,
    /// An [`EntryKind`].
    pub kind: u32,
    /// Number of the service; the same for all its addresses.
    pub service: u32,
    /// First slot of the service's ring.
    pub ring_offset: u32,
    /// Number of slots less one.
    pub ring_mask: u32,
    /// 1 when no backend is available and the ring is the last one that was;
    /// for the agent's own use.
    pub forsaken: u32,
    /// Zero.
    pub reserved: [u32; 6],
}

// SAFETY: repr(C), 16 u32 in all, without padding.
unsafe impl Plain for VipEntry {}

const _: () = assert!(size_of::<VipEntry>() == 64);

/// What an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryKind {
    /// Nothing.
    Empty = 0,
    /// A virtual address: what no service wants ends here.
    Address = 1,
    /// A service to be forwarded.
    Service = 2,
}

/// What holds for a whole half of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Head {
    /// Key of the flow hash.
    pub flow_key: FlowKey,
    /// Seed of the table's own hash.
    pub seed: u64,
    /// Entries in use.
    pub entries: u32,
    /// Zero.
    pub reserved: u32,
    /// MAC addresses of the interfaces with the program, each in the lower 48
    /// bits as in [`crate::NextHop`]; 0 is unused. A frame for another address
    /// was flooded by a switch and is another host's.
    pub macs: [u64; MACS],
}

// SAFETY: repr(C), u64 and two u32 without padding.
unsafe impl Plain for Head {}

const _: () = assert!(size_of::<Head>() == 96);
