//! The data plane's memory: all tables of the balancer as one value.
//!
//! A packet looks the map up once and finds everything else by arithmetic: an
//! index masked to the table's size needs no further look, no comparison and
//! no branch. So every table has a power of two of places.

use crate::{
    BACKENDS, BackendRecord, COUNTERS, CPUS, Counter, FILTER_WORDS, FLOW_BUCKETS, FRAGMENT_BUCKETS,
    FlowBucket, Head, NEXT_HOPS, NextHop, PORT_RANGES, PortRange, RING_SLOTS, Slot, Stamp, UPLINKS,
    Uplink, VIP_BUCKETS, VIP_SLOTS, VipEntry,
};

/// The value of the map [`crate::map::PLANE`].
#[repr(C, align(64))]
pub struct Plane {
    /// Which half of the VIP table is in force, 0 or 1.
    pub published: u64,
    /// The present [`crate::Tick`], in the cache line that every packet reads.
    pub clock: u64,
    /// Zero.
    pub reserved: [u64; 6],
    /// What holds for each half of the VIP table.
    pub heads: [Head; 2],
    /// A bit for each virtual address, per half.
    pub filter: [u64; 2 * FILTER_WORDS as usize],
    /// Displacement per bucket, per half.
    pub seeds: [u64; 2 * VIP_BUCKETS as usize],
    /// The VIP table, per half.
    pub entries: [VipEntry; 2 * VIP_SLOTS as usize],
    /// Port ranges, per half.
    pub ranges: [PortRange; 2 * PORT_RANGES as usize],
    /// Interfaces packets leave by.
    pub uplinks: [Uplink; UPLINKS as usize],
    /// What each processor has answered by ICMP lately.
    pub answers: [u64; CPUS as usize],
    /// Where frames go next.
    pub hops: [NextHop; NEXT_HOPS as usize],
    /// Backends, by their ids.
    pub records: [BackendRecord; BACKENDS as usize],
    /// The rings of all services.
    pub ring: [Slot; RING_SLOTS as usize],
    /// One beside each slot.
    pub stamps: [Stamp; RING_SLOTS as usize],
    /// The flow table.
    pub flows: [FlowBucket; FLOW_BUCKETS as usize],
    /// The table of fragmented packets.
    pub fragments: [FlowBucket; FRAGMENT_BUCKETS as usize],
}

const _: () = {
    use core::mem::offset_of;
    // Cache lines that are read as such.
    assert!(offset_of!(Plane, entries).is_multiple_of(64));
    assert!(offset_of!(Plane, records).is_multiple_of(64));
    assert!(offset_of!(Plane, flows).is_multiple_of(64));
    assert!(offset_of!(Plane, fragments).is_multiple_of(64));
    // What the verifier lets an offset into a map's value be.
    assert!(size_of::<Plane>() < 1 << 29);
};

/// What one processor counts: a value of the map [`crate::map::COUNTS`].
#[repr(C)]
pub struct Counts(pub [Counter; COUNTERS as usize]);
