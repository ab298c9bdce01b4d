//! Flow state of slots that are not stable: the rules of `vipd_abi` over the
//! maps.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use vipd_abi::{
    BACKENDS, BackendRecord, FLOW_BUCKETS, FLOWS_PER_BUCKET, FlowBucket, FlowEntry, FlowMemory,
    Plane, Route, Slot, Stamp, Tick, VipEntry, flow_bucket, within,
};
use vipd_ebpf::{atomic::compare_and_swap, frame::Frame};

use crate::{lookup::Table, parse::Packet, trace};

/// Where a packet of a slot goes that is learning or tracking.
#[inline(always)]
pub fn route(
    frame: &Frame,
    packet: &Packet,
    entry: &VipEntry,
    table: &Table,
    place: usize,
    slot: Slot,
    hash: u64,
) -> Route {
    let plane = table.plane;
    let memory = Memory {
        plane,
        bucket: Bucket::of(&plane.flows[flow_bucket(hash, FLOW_BUCKETS) as usize]),
        stamp: (&raw const plane.stamps[place]).cast_mut(),
        service: entry.service,
    };
    let route = vipd_abi::route(
        &memory,
        slot,
        hash,
        packet.segment(frame),
        now(),
        entry.idle as u16,
        table.head.longest_idle as u16,
    );
    trace::route(&route);
    route
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
    is_alive(record) && record.service == service
}

/// Whether a backend serves any flow at all.
#[inline(always)]
pub fn is_alive(record: &BackendRecord) -> bool {
    // SAFETY: the agent stores the word as a whole at any time.
    let state = unsafe { addr_of!(record.state).read_volatile() };
    state & BackendRecord::DEAD == 0
}

/// A bucket in a map.
pub struct Bucket(*mut FlowBucket);

impl Bucket {
    /// A bucket that all processors change, word by word.
    #[inline(always)]
    pub fn of(bucket: &FlowBucket) -> Self {
        trace::set_freed(FLOWS_PER_BUCKET);
        Self((&raw const *bucket).cast_mut())
    }

    #[inline(always)]
    fn entry(&self, place: usize) -> *mut u64 {
        let place = place & (FLOWS_PER_BUCKET - 1);
        // SAFETY: the place is within the bucket.
        unsafe { addr_of_mut!((*self.0).0[place]).cast() }
    }

    /// An entry as it is now.
    #[inline(always)]
    pub fn load(&self, place: usize) -> FlowEntry {
        if trace::is_freed(place) {
            return FlowEntry::FREE;
        }
        // SAFETY: map entries stay where they are; others change the word as a
        // whole.
        FlowEntry(unsafe { self.entry(place).read_volatile() })
    }

    /// Replaces an entry if it is still `old`; says whether it did.
    #[inline(always)]
    pub fn swap(&self, place: usize, old: FlowEntry, new: FlowEntry) -> bool {
        if trace::DRY {
            if new == FlowEntry::FREE {
                trace::set_freed(place);
            }
            return true;
        }
        // SAFETY: as above, and the entry is aligned.
        unsafe { compare_and_swap(self.entry(place), old.0, new.0) }
    }
}

/// One bucket, and the stamp of one slot.
struct Memory {
    plane: &'static Plane,
    bucket: Bucket,
    stamp: *mut Stamp,
    service: u32,
}

impl FlowMemory for Memory {
    #[inline(always)]
    fn load(&self, place: usize) -> FlowEntry {
        self.bucket.load(place)
    }

    #[inline(always)]
    fn swap(&self, place: usize, old: FlowEntry, new: FlowEntry) -> bool {
        self.bucket.swap(place, old, new)
    }

    #[inline(always)]
    fn serves(&self, backend: u32) -> bool {
        serves(&self.plane.records[within(backend, BACKENDS)], self.service)
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
