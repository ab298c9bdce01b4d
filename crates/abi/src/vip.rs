//! The table of virtual addresses: directly indexed by a perfect hash.
//!
//! The agent chooses a displacement for each bucket so that no two keys share
//! a place (hash and displace, Belazzougui et al. 2009). A lookup is two array
//! reads and one comparison. There are two halves; one word says which is in
//! force.

use crate::{
    FILTER_WORDS, FlowKey, MACS, Plain, VIP_BUCKETS, VIP_SLOTS,
    address::{halves, is_mapped, mapped, words},
    hash::mix,
};

/// Odd factors without a pattern: the fractional parts of the square roots of
/// 2, 3 and 5, as 64 bits, made odd.
const SPREAD_1: u64 = 0x6a09_e667_f3bc_c909;
const SPREAD_2: u64 = 0xbb67_ae85_84ca_a73b;
const SPREAD_3: u64 = 0x3c6e_f372_fe94_f82b;

/// What a packet is looked up by: 20 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct VipKey {
    /// Destination address in network order, IPv4 in its mapped form.
    pub address: [u32; 4],
    /// For a service on one port: protocol in bits 16 to 23; destination port,
    /// in network order as read from memory, in the lower half. Zero stands for
    /// the address itself. With bit 24, a prefix of so many bits (IPv4 lengths
    /// as configured, 1 to 32). With bit 25, the number of a service that is
    /// found by a port range.
    pub service: u32,
}

// SAFETY: five u32 without padding.
unsafe impl Plain for VipKey {}

impl VipKey {
    /// An IPv4 destination, its four bytes as read from memory.
    #[must_use]
    #[inline(always)]
    pub const fn v4(address: u32, protocol: u8, port: u16) -> Self {
        Self::v6(mapped(address), protocol, port)
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

    /// An IPv6 destination as two words, as read from memory on a little-endian
    /// machine.
    #[must_use]
    #[inline(always)]
    pub const fn words(address: [u64; 2], protocol: u8, port: u16) -> Self {
        Self::v6(words(address), protocol, port)
    }

    /// A prefix of `length` bits; the address's other bits are zero.
    #[must_use]
    #[inline(always)]
    pub const fn prefix(address: [u32; 4], length: u32) -> Self {
        Self {
            address,
            service: 1 << 24 | length,
        }
    }

    /// Where the entry of a service stands that is found by a port range of
    /// this address or prefix.
    #[must_use]
    pub const fn ranged(address: [u32; 4], service: u32) -> Self {
        Self {
            address,
            service: 1 << 25 | service & 0xff_ffff,
        }
    }

    /// Length of the prefix it stands for, if it does.
    #[must_use]
    pub const fn prefix_length(&self) -> Option<u32> {
        if self.service >> 24 == 1 {
            Some(self.service & 0xff)
        } else {
            None
        }
    }

    /// Whether its address is of IPv4.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        is_mapped(halves(self.address))
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
        // Both products are under way at once: the wait for a hash is a good
        // part of what a packet costs.
        let h = self
            .address_hash(seed)
            .wrapping_add((self.service as u64).wrapping_mul(SPREAD_3));
        h ^ h >> 32
    }

    /// The hash of the address alone: its highest bits find the address's bit
    /// in the filter.
    #[must_use]
    #[inline(always)]
    pub const fn address_hash(&self, seed: u64) -> u64 {
        let [upper, lower] = halves(self.address);
        // What varies most goes to the low end, since a product spreads upwards.
        (seed ^ lower.rotate_left(32))
            .wrapping_mul(SPREAD_1)
            .wrapping_add((seed ^ upper.rotate_left(32)).wrapping_mul(SPREAD_2))
    }

    /// Word within one half of the filter, and bit in it, for that hash of an
    /// address.
    #[must_use]
    #[inline(always)]
    pub const fn filter_bit(address_hash: u64) -> (u32, u64) {
        (
            (address_hash >> 54) as u32 & (FILTER_WORDS - 1),
            1 << (address_hash >> 48 & 63),
        )
    }

    /// Index of the displacement within one half, for that hash.
    #[must_use]
    #[inline(always)]
    pub const fn bucket(hash: u64) -> u32 {
        // The highest bits folded with lower ones: by themselves they are a
        // linear function of the key, and heap up where both addresses and
        // ports are in a row.
        (hash >> 20) as u32 & (VIP_BUCKETS - 1)
    }

    /// The displacement that stands in a bucket after `tries` that did not fit:
    /// an odd factor, since of a summand two keys could be indifferent.
    #[must_use]
    pub const fn displacement(tries: u32) -> u64 {
        mix(SPREAD_2.wrapping_mul(tries as u64 + 1)) | 1
    }

    /// Index of the entry within one half, for that hash and displacement.
    #[must_use]
    #[inline(always)]
    pub const fn place(hash: u64, displacement: u64) -> u32 {
        (hash.wrapping_mul(displacement) >> 48) as u32 & (VIP_SLOTS - 1)
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
    /// 1 when no backend is available, and not because our own network is in
    /// doubt: the slots are those of the last who were. For the agent's own use.
    pub forsaken: u32,
    /// How long a flow without a packet is remembered, in ticks; 0 for never:
    /// a change of the slot moves its flows at once.
    pub idle: u32,
    /// For [`EntryKind::Address`]: index of the first of its port ranges within
    /// the half. Entries with the same ranges may share them.
    pub ranges_start: u32,
    /// Number of its port ranges, at most [`MOST_RANGES`]: its own, narrowest
    /// first, then those of the prefixes around it, the longest first. So one
    /// search tells where a packet belongs.
    pub ranges: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

impl VipEntry {
    /// Place in the ring of a flow of the service, by its hash.
    #[must_use]
    #[inline(always)]
    pub const fn slot(&self, hash: u64) -> u32 {
        self.ring_offset + (hash as u32 & self.ring_mask)
    }
}

/// Most port ranges that a packet may be compared with: those of an address or
/// prefix and of all prefixes around it.
pub const MOST_RANGES: usize = 64;
/// Most lengths of prefixes that virtual prefixes of one family can have.
pub const MOST_LENGTHS: usize = 16;

/// Ports of an address or a prefix that belong to one service: 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortRange {
    /// First port, in host order; 0 for any.
    pub first: u16,
    /// Last port, in host order; 65535 for any.
    pub last: u16,
    /// IP protocol number.
    pub protocol: u32,
    /// Place within the half of the service's [`VipEntry`].
    pub place: u32,
    /// [`VipKey::service`] of the address or prefix that it is given for.
    pub whose: u32,
}

// SAFETY: repr(C), 2 + 2 + 4 + 4 + 4 bytes without padding.
unsafe impl Plain for PortRange {}

const _: () = assert!(size_of::<PortRange>() == 16);

// SAFETY: repr(C), 16 u32 in all, without padding.
unsafe impl Plain for VipEntry {}

const _: () = assert!(size_of::<VipEntry>() == 64);

/// What an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryKind {
    /// Nothing.
    Empty = 0,
    /// A virtual address or prefix: what no service wants ends here.
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
    /// Longest [`VipEntry::idle`] of all services, in ticks.
    pub longest_idle: u32,
    /// MAC addresses of the interfaces with the program, each in the lower 48
    /// bits as in [`crate::NextHop`]; 0 is unused. A frame for another address
    /// was flooded by a switch and is another host's.
    pub macs: [u64; MACS],
    /// Lengths of the IPv4 prefixes there are, longest first, ended by 0.
    pub lengths_4: [u8; MOST_LENGTHS],
    /// Lengths of the IPv6 prefixes there are, longest first, ended by 0.
    pub lengths_6: [u8; MOST_LENGTHS],
}

// SAFETY: repr(C), u64, two u32 and bytes by the eight, without padding.
unsafe impl Plain for Head {}

const _: () = assert!(size_of::<Head>() == 128);
