//! What the kernel side and the user side of vipd must agree on: the layout
//! of the maps, the hashes, the limits, and the reasons a packet met its fate.
//!
//! Both sides compile this same crate, so neither can drift from the other.
//! All maps are plain arrays that the agent maps into its memory; nothing here
//! has padding or pointers. The rules of change:
//!
//! - Whatever packets may be reading changes only by one aligned store of at
//!   most eight bytes (a [`Slot`], a [`NextHop`], the published half, a
//!   record's state).
//! - Anything wider is written where no packet looks, then published by such
//!   a store; its old place is used again only after a grace time.
//!
//! [`LAYOUT`] changes whenever any of this does.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod address;
mod backend;
mod counter;
mod decap;
mod flow;
mod hash;
mod maps;
mod next_hop;
mod plain;
mod plane;
mod slot;
mod tick;
mod trace;
mod verdict;
mod vip;

pub use backend::{BackendKind, BackendRecord};
pub use counter::Counter;
pub use decap::{DecapVerdict, GUE_PORT};
pub use flow::{
    Basis, FLOWS_PER_BUCKET, FlowBucket, FlowEntry, FlowMemory, Route, Segment, flow_bucket,
    record, route,
};
pub use hash::{FlowKey, flow_hash};
pub use maps::{
    BACKENDS, COUNTERS, CPUS, FILTER_WORDS, FLOW_BUCKETS, FRAGMENT_BUCKETS, LAYOUT, MACS,
    NEXT_HOPS, PORT_RANGES, RING_SLOTS, UPLINKS, VIP_BUCKETS, VIP_SLOTS, map,
};
pub use next_hop::{NextHop, Uplink, mac_bits};
pub use plain::Plain;
pub use plane::{Counts, Plane};
pub use slot::{Phase, Slot, Stamp};
pub use tick::Tick;
pub use trace::{CAPTURED_BYTES, CaptureCount, CaptureFilter, Captured, Trace};
pub use verdict::{Action, Verdict};
pub use vip::{EntryKind, Head, MOST_LENGTHS, MOST_RANGES, PortRange, VipEntry, VipKey};
