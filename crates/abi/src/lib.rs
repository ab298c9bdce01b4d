//! What the kernel side and the user side of vipd must agree on: the layout
//! of the maps, the hashes, the limits, and the reasons a packet met its fate.
//!
//! Both sides compile this same crate, so neither can drift from the other.
//! All maps are plain arrays that the agent maps into its memory; nothing here
//! has padding or pointers. The rules of change:
//!
//! - Whatever packets may be reading changes only by one aligned store of at
//!   most eight bytes (a [`Slot`], a [`NextHop`], the published half).
//! - Anything wider is written where no packet looks, then published by such
//!   a store; its old place is used again only after a grace time.
//!
//! [`LAYOUT`] changes whenever any of this does.

#![no_std]

#[cfg(test)]
extern crate std;

mod backend;
mod counter;
mod decap;
mod hash;
mod maps;
mod next_hop;
mod plain;
mod slot;
mod verdict;
mod vip;

pub use backend::{BackendKind, BackendRecord};
pub use counter::Counter;
pub use decap::DecapVerdict;
pub use hash::{FlowKey, flow_hash};
pub use maps::{
    BACKENDS, COUNTERS, CPUS, LAYOUT, MACS, NEXT_HOPS, RING_SLOTS, UPLINKS, VIP_BUCKETS, VIP_SLOTS,
    map,
};
pub use next_hop::{NextHop, Uplink, mac_bits};
pub use plain::Plain;
pub use slot::{Phase, Slot};
pub use verdict::{Action, Verdict};
pub use vip::{EntryKind, Head, VipEntry, VipKey};
