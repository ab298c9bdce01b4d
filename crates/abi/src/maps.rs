//! The maps: their names, their sizes, and the version of all of it.

/// Version of the layout: the name of the directory that holds the pins.
pub const LAYOUT: &str = "v4";

/// Places for (address, protocol, port) in one half of the VIP table.
pub const VIP_SLOTS: u32 = 1 << 16;
/// Buckets of the VIP table's hash in one half, each with a displacement.
pub const VIP_BUCKETS: u32 = 1 << 14;
/// Ring slots of all services together; 8 bytes each.
pub const RING_SLOTS: u32 = 1 << 23;
/// Buckets of the flow table; a power of two.
pub const FLOW_BUCKETS: u32 = 1 << 18;
/// Buckets of the table of fragmented packets; a power of two.
pub const FRAGMENT_BUCKETS: u32 = 1 << 12;
/// Port ranges in one half of the VIP table.
pub const PORT_RANGES: u32 = 1 << 12;
/// Words of one half of the filter of virtual addresses; a power of two.
pub const FILTER_WORDS: u32 = 1 << 10;
/// Backend records; index 0 is never used, so that an unset slot is seen.
pub const BACKENDS: u32 = 1 << 18;
/// Next hops; index 0 is never used.
pub const NEXT_HOPS: u32 = 1 << 16;
/// Interfaces packets may leave by, with their own addresses; 0 is never used.
pub const UPLINKS: u32 = 1 << 8;
/// Counters of one processor: the verdicts first, then one per backend.
pub const COUNTERS: u32 = 1 << 18;
/// Interfaces that can carry the program at the same time.
pub const MACS: usize = 8;
/// Processors the counters have room for. The agent shrinks the map to the
/// machine's own number when it loads the program.
pub const CPUS: u32 = 256;

/// Names of the maps, as in the eBPF object and as pinned.
pub mod map {
    /// `[Plane; 1]`: all tables.
    pub const PLANE: &str = "PLANE";
    /// `[Counts; CPUS]`: a value for each processor.
    pub const COUNTS: &str = "COUNTS";
    /// Every map of the balancer that is pinned.
    pub const ALL: [&str; 2] = [PLANE, COUNTS];
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
