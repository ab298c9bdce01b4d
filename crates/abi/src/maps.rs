//! The maps: their names, their sizes, and the version of all of it.

/// Version of the layout: the name of the directory that holds the pins.
pub const LAYOUT: &str = "v2";

/// Places for (address, protocol, port) in one half of the VIP table.
pub const VIP_SLOTS: u32 = 1 << 14;
/// Buckets of the VIP table's hash in one half, each with a displacement.
pub const VIP_BUCKETS: u32 = 1 << 12;
/// Ring slots of all services together; 8 bytes each.
pub const RING_SLOTS: u32 = 1 << 22;
/// Buckets of the flow table; a power of two.
pub const FLOW_BUCKETS: u32 = 1 << 18;
/// Buckets of the table of fragmented packets; a power of two.
pub const FRAGMENT_BUCKETS: u32 = 1 << 12;
/// Port ranges in one half of the VIP table.
pub const PORT_RANGES: u32 = 1 << 12;
/// Words of one half of the filter of virtual addresses; a power of two.
pub const FILTER_WORDS: u32 = 1 << 10;
/// Backend records; index 0 is never used, so that an unset slot is seen.
pub const BACKENDS: u32 = 1 << 17;
/// Next hops; index 0 is never used.
pub const NEXT_HOPS: u32 = 1 << 16;
/// Interfaces packets may leave by, with their own addresses; 0 is never used.
pub const UPLINKS: u32 = 1 << 8;
/// Counters of one processor: the verdicts first, then one per backend.
pub const COUNTERS: u32 = 1 << 17;
/// Interfaces that can carry the program at the same time.
pub const MACS: usize = 8;
/// Processors the counters have room for. The agent shrinks the map to the
/// machine's own number when it loads the program.
pub const CPUS: u32 = 256;

/// Names of the maps, as in the eBPF object and as pinned.
pub mod map {
    /// `[Heads; 1]`: which half of the VIP table is in force, and what holds for
    /// each.
    pub const HEADS: &str = "HEADS";
    /// `[u64; 2 * VIP_BUCKETS]`: displacement per bucket.
    pub const VIP_SEEDS: &str = "VIP_SEEDS";
    /// `[VipEntry; 2 * VIP_SLOTS]`.
    pub const VIP_ENTRIES: &str = "VIP_ENTRIES";
    /// `[Slot; RING_SLOTS]`: the rings of all services.
    pub const RING: &str = "RING";
    /// `[Stamp; RING_SLOTS]`: one beside each slot.
    pub const STAMPS: &str = "STAMPS";
    /// `[FlowBucket; FLOW_BUCKETS]`.
    pub const FLOWS: &str = "FLOWS";
    /// `[FlowBucket; FRAGMENT_BUCKETS]`.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// `[PortRange; 2 * PORT_RANGES]`.
    pub const PORT_RANGE_RECORDS: &str = "PORT_RANGE_RECORDS";
    /// `[u64; 2 * FILTER_WORDS]`: a bit for each virtual address.
    pub const FILTER: &str = "FILTER";
    /// `[u64; CPUS]`: what each processor may still answer by ICMP.
    pub const ANSWERS: &str = "ANSWERS";
    /// `[BackendRecord; BACKENDS]`.
    pub const BACKEND_RECORDS: &str = "BACKEND_RECORDS";
    /// `[NextHop; NEXT_HOPS]`.
    pub const NEXT_HOP_WORDS: &str = "NEXT_HOP_WORDS";
    /// `[Uplink; UPLINKS]`.
    pub const UPLINK_RECORDS: &str = "UPLINK_RECORDS";
    /// `[Counter; CPUS * COUNTERS]`: all counters of processor 0 first.
    pub const COUNTER_RECORDS: &str = "COUNTER_RECORDS";
    /// Every map of the balancer that is pinned.
    pub const ALL: [&str; 14] = [
        HEADS,
        VIP_SEEDS,
        VIP_ENTRIES,
        RING,
        STAMPS,
        FLOWS,
        FRAGMENTS,
        PORT_RANGE_RECORDS,
        FILTER,
        ANSWERS,
        BACKEND_RECORDS,
        NEXT_HOP_WORDS,
        UPLINK_RECORDS,
        COUNTER_RECORDS,
    ];
    /// `[Trace; 1]`: what the explaining program tells of its last packet.
    pub const TRACES: &str = "TRACES";
    /// `[CaptureFilter; 1]`: what the capturing program captures.
    pub const CAPTURE_FILTER: &str = "CAPTURE_FILTER";
    /// `[CaptureCount; CPUS]`: how much it has captured.
    pub const CAPTURE_COUNTS: &str = "CAPTURE_COUNTS";
    /// Ring buffer of `Captured`.
    pub const CAPTURES: &str = "CAPTURES";
    /// The decapsulator's list of accepted outer source prefixes.
    pub const DECAP_SOURCES: &str = "DECAP_SOURCES";
    /// `[Counter; CPUS * 8]` of the decapsulator, by `DecapVerdict`.
    pub const DECAP_COUNTERS: &str = "DECAP_COUNTERS";
}
