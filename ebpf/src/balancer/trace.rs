//! What the program tells of a packet.
//!
//! The program is built three times from the same source. The one that
//! forwards tells nothing, and these hooks are empty. The one that explains
//! tells how it decided and leaves no trace elsewhere: it writes no map but its
//! own. The one that captures forwards, and copies what the filter asks for.

use vipd_abi::{BackendRecord, Basis, Route, Slot, Uplink, Verdict, VipEntry};
use vipd_ebpf::frame::Frame;

#[cfg(feature = "capture")]
mod capture;
#[cfg(feature = "capture")]
use capture as variant;
#[cfg(feature = "explain")]
mod explain;
#[cfg(feature = "explain")]
use explain as variant;
#[cfg(not(any(feature = "capture", feature = "explain")))]
mod forward;
#[cfg(not(any(feature = "capture", feature = "explain")))]
use forward as variant;

/// Whether nothing may change that another packet could notice: no counter, no
/// flow, no stamp.
pub const DRY: bool = cfg!(feature = "explain");

/// A packet has come.
#[inline(always)]
pub fn begin(frame: &Frame) {
    variant::begin(frame);
}

/// The packet has met its fate.
#[inline(always)]
pub fn end(frame: &Frame, verdict: Verdict) {
    variant::end(frame, verdict);
}

/// It is for this service and belongs to this slot.
#[inline(always)]
pub fn slot(entry: &VipEntry, place: u32, slot: Slot, hash: u64) {
    variant::tell(|trace| {
        trace.service = entry.service;
        trace.place = place;
        trace.ring_mask = entry.ring_mask;
        trace.slot = slot;
        trace.hash = hash;
        trace.backend = slot.current();
        trace.basis = Basis::Stable as u32;
    });
}

/// The flow table and the slot's phase were asked.
#[inline(always)]
pub fn route(route: &Route) {
    variant::tell(|trace| {
        trace.backend = route.backend;
        trace.basis = route.basis as u32;
    });
}

/// It goes to this backend, for whatever reason.
#[inline(always)]
pub fn backend(index: usize, record: &BackendRecord) {
    variant::tell(|trace| {
        trace.backend = index as u32;
        trace.service = record.service;
    });
}

/// In a program that may change nothing: whether that place of the bucket it
/// looks at is to be taken for freed. It would have freed it.
#[inline(always)]
pub fn is_freed(place: usize) -> bool {
    let mut freed = false;
    if DRY {
        variant::tell(|trace| freed = trace.freed == place as u32);
    }
    freed
}

/// The one place to be taken for freed; none with one that there is not.
#[inline(always)]
pub fn set_freed(place: usize) {
    if DRY {
        variant::tell(|trace| trace.freed = place as u32);
    }
}

/// It leaves by this interface.
#[inline(always)]
pub fn leaves(uplink: &Uplink) {
    variant::tell(|trace| trace.leaves_by = uplink.ifindex);
}
