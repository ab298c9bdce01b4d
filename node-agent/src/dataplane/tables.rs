//! All maps of the balancer as memory, and what they hold in the agent's
//! terms.

use std::{collections::BTreeMap, io, net::IpAddr, sync::Arc};

use vipd_abi::{
    BACKENDS, BackendRecord, COUNTERS, Counter, EntryKind, FILTER_WORDS, FLOW_BUCKETS,
    FRAGMENT_BUCKETS, FlowBucket, Head, NEXT_HOPS, NextHop, PORT_RANGES, PortRange, RING_SLOTS,
    Slot, Stamp, UPLINKS, Uplink, VIP_BUCKETS, VIP_SLOTS, VipEntry, VipKey,
};
use vipd_control::model::{Protocol, Vip};

use super::{clock::Clock, mapped::Mapped};

/// The maps of one data plane.
pub struct Tables {
    /// Which half of the VIP table is in force.
    pub published: Mapped<u64>,
    /// The flows' clock; shared with whoever moves it on or goes by it.
    pub clock: Arc<Clock>,
    /// What holds for a whole half.
    pub heads: Mapped<Head>,
    /// Displacements of both halves.
    pub seeds: Mapped<u64>,
    /// Entries of both halves.
    pub entries: Mapped<VipEntry>,
    /// Port ranges of both halves.
    pub ranges: Mapped<PortRange>,
    /// Filters of both halves.
    pub filter: Mapped<u64>,
    /// The rings of all services.
    pub ring: Mapped<Slot>,
    /// What the slots have met.
    pub stamps: Mapped<Stamp>,
    /// The flow table; shared with whoever counts flows.
    pub flows: Arc<Mapped<FlowBucket>>,
    /// The table of fragmented packets; shared with whoever counts flows.
    pub fragments: Arc<Mapped<FlowBucket>>,
    /// Backend records; shared with whoever counts flows.
    pub records: Arc<Mapped<BackendRecord>>,
    /// Next hops.
    pub hops: Mapped<NextHop>,
    /// Interfaces packets leave by.
    pub uplinks: Mapped<Uplink>,
    /// Counters of all processors; shared with whoever shows them.
    pub counters: Arc<Counters>,
}

impl Tables {
    /// Tables that no kernel reads, for tests.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub fn anonymous() -> io::Result<Self> {
        Ok(Self {
            published: Mapped::anonymous(1)?,
            clock: Arc::new(Clock::new(Mapped::anonymous(1)?)),
            heads: Mapped::anonymous(2)?,
            seeds: Mapped::anonymous(2 * VIP_BUCKETS)?,
            entries: Mapped::anonymous(2 * VIP_SLOTS)?,
            ranges: Mapped::anonymous(2 * PORT_RANGES)?,
            filter: Mapped::anonymous(2 * FILTER_WORDS)?,
            ring: Mapped::anonymous(RING_SLOTS)?,
            stamps: Mapped::anonymous(RING_SLOTS)?,
            flows: Arc::new(Mapped::anonymous(FLOW_BUCKETS)?),
            fragments: Arc::new(Mapped::anonymous(FRAGMENT_BUCKETS)?),
            records: Arc::new(Mapped::anonymous(BACKENDS)?),
            hops: Mapped::anonymous(NEXT_HOPS)?,
            uplinks: Mapped::anonymous(UPLINKS)?,
            counters: Arc::new(Counters::new(Mapped::anonymous(COUNTERS)?)),
        })
    }

    /// Index of the half in force.
    #[must_use]
    pub fn half(&self) -> u32 {
        u32::from(self.published.load(0) & 1 == 1)
    }

    /// The entries in force, by key.
    #[must_use]
    pub fn published_entries(&self) -> BTreeMap<VipKey, VipEntry> {
        let start = self.half() * VIP_SLOTS;
        (start..start + VIP_SLOTS)
            .map(|place| self.entries.load(place))
            .filter(|entry| entry.kind != EntryKind::Empty as u32)
            .map(|entry| (entry.key, entry))
            .collect()
    }
}

/// The counters of all processors.
pub struct Counters {
    memory: Mapped<Counter>,
}

impl Counters {
    /// Counters over such memory, one block of `COUNTERS` per processor.
    #[must_use]
    pub fn new(memory: Mapped<Counter>) -> Self {
        Self { memory }
    }

    /// Sum over all processors.
    #[must_use]
    pub fn sum(&self, index: u32) -> Counter {
        let processors = self.memory.len() / COUNTERS;
        (0..processors)
            .map(|cpu| self.memory.load(Counter::place(cpu, index)))
            .fold(Counter::default(), |a, b| Counter {
                packets: a.packets.wrapping_add(b.packets),
                bytes: a.bytes.wrapping_add(b.bytes),
            })
    }

    /// Starts a counter that no packet uses at zero.
    pub(super) fn clear(&self, index: u32) {
        for cpu in 0..self.memory.len() / COUNTERS {
            self.memory
                .store(Counter::place(cpu, index), Counter::default());
        }
    }
}

/// The table's key of a service on a virtual address.
#[must_use]
pub fn service_key(vip: IpAddr, protocol: Protocol, port: u16) -> VipKey {
    VipKey::v6(words(mapped(vip)), protocol.number(), port.to_be())
}

/// The table's key of a virtual address or prefix itself.
#[must_use]
pub fn vip_key(vip: Vip) -> VipKey {
    let address = words(mapped(vip.address()));
    if vip.is_single() {
        VipKey::v6(address, 0, 0)
    } else {
        VipKey::prefix(address, vip.prefix().prefix_len().into())
    }
}

/// The address in a key, without the rest of it.
#[must_use]
pub fn key_address(key: &VipKey) -> IpAddr {
    let [a, b, c, d] = key.address.map(u32::to_ne_bytes);
    unmapped(std::array::from_fn(|i| [a, b, c, d][i / 4][i % 4]))
}

/// An address as sixteen bytes, IPv4 in its mapped form (RFC 4291, 2.5.5.2).
#[must_use]
pub fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The reverse of [`mapped`].
#[must_use]
pub fn unmapped(bytes: [u8; 16]) -> IpAddr {
    IpAddr::from(bytes).to_canonical()
}

fn words(bytes: [u8; 16]) -> [u32; 4] {
    let word = |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    [word(0), word(4), word(8), word(12)]
}
