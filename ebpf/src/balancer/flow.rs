//! Flow state of slots that are not stable: the rules of `vipd_abi` over the
//! maps.

use core::{
    cell::Cell,
    ptr::{addr_of, addr_of_mut},
};

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use vipd_abi::{
    BackendRecord, FLOW_BUCKETS, FLOWS_PER_BUCKET, FlowBucket, FlowEntry, FlowMemory, Head, Route,
    Slot, Stamp, Tick, VipEntry, flow_bucket,
};
use vipd_ebpf::{atomic::compare_and_swap, frame::Frame};

use crate::{maps, parse::Packet, trace};

/// Where a packet of a slot goes that is learning or tracking; `None` when
/// the maps contradict each other.
#[inline(always)]
pub fn route(
    frame: &Frame,
    packet: &Packet,
    entry: &VipEntry,
    head: &Head,
    place: u32,
    slot: Slot,
    hash: u64,
) -> Option<Route> {
    let memory = Memory {
        bucket: maps::FLOWS.get_ptr_mut(flow_bucket(hash, FLOW_BUCKETS))?,
        stamp: maps::STAMPS.get_ptr_mut(place)?,
        service: entry.service,
        freed: Cell::new(FLOWS_PER_BUCKET),
    };
    let route = vipd_abi::route(
        &memory,
        slot,
        hash,
        packet.segment(frame),
        now(),
        entry.idle as u16,
        head.longest_idle as u16,
    );
    trace::route(&route);
    Some(route)
}

/// The present moment.
#[inline(always)]
pub fn now() -> Tick {
    // SAFETY: the helper has no preconditions.
    Tick::from_nanos(unsafe { bpf_ktime_get_coarse_ns() })
}

/// Whether flows that are recorded for a backend still belong to it.
#[inline(always)]
pub fn serves(record: &BackendRecord, service: u32) -> bool {
    // SAFETY: the agent stores the word as a whole at any time.
    let state = unsafe { addr_of!(record.state).read_volatile() };
    state & BackendRecord::DEAD == 0 && record.service == service
}

/// One bucket, and the stamp of one slot.
struct Memory {
    bucket: *mut FlowBucket,
    stamp: *mut Stamp,
    service: u32,
    /// The place that a program which may change nothing takes for freed.
    freed: Cell<usize>,
}

impl Memory {
    #[inline(always)]
    fn entry(&self, place: usize) -> *mut u64 {
        let place = place & (FLOWS_PER_BUCKET - 1);
        // SAFETY: the place is within the bucket.
        unsafe { addr_of_mut!((*self.bucket).0[place]).cast() }
    }
}

impl FlowMemory for Memory {
    #[inline(always)]
    fn load(&self, place: usize) -> FlowEntry {
        if trace::DRY && place == self.freed.get() {
            return FlowEntry::FREE;
        }
        // SAFETY: map entries stay where they are; others change the word as a
        // whole.
        FlowEntry(unsafe { self.entry(place).read_volatile() })
    }

    #[inline(always)]
    fn swap(&self, place: usize, old: FlowEntry, new: FlowEntry) -> bool {
        if trace::DRY {
            if new == FlowEntry::FREE {
                self.freed.set(place);
            }
            return true;
        }
        // SAFETY: as above, and the entry is aligned.
        unsafe { compare_and_swap(self.entry(place), old.0, new.0) }
    }

    #[inline(always)]
    fn serves(&self, backend: u32) -> bool {
        maps::BACKEND_RECORDS
            .get(backend)
            .is_some_and(|record| serves(record, self.service))
    }

    #[inline(always)]
    fn stamp_foreign(&self, now: Tick) {
        // SAFETY: map entries stay where they are; whoever comes last wins,
        // with the same moment.
        unsafe { stamp(addr_of_mut!((*self.stamp).foreign), now) }
    }

    #[inline(always)]
    fn stamp_refused(&self, now: Tick) {
        // SAFETY: as above.
        unsafe { stamp(addr_of_mut!((*self.stamp).refused), now) }
    }
}

/// Stores the moment, if it is another: a store that changes nothing would
/// still take the cache line from the other processors.
///
/// # Safety
///
/// The place is valid and aligned.
#[inline(always)]
unsafe fn stamp(place: *mut u32, now: Tick) {
    if trace::DRY {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        if place.read_volatile() != now.0 {
            place.write_volatile(now.0);
        }
    }
}
