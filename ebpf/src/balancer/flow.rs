//! Flow state of slots that are not stable: the rules of `vipd_abi` over the
//! maps.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_ktime_get_coarse_ns};
use vipd_abi::{
    BACKENDS, BackendRecord, FLOW_BUCKETS, FLOWS_PER_BUCKET, FlowBucket, FlowEntry, FlowMemory,
    Plane, RING_SLOTS, Segment, Slot, Stamp, Tick, flow_bucket,
};
use vipd_ebpf::{
    anchor::{anchor, within},
    atomic::compare_and_swap,
    frame::Frame,
    header::UDP,
};

use crate::trace;

/// A packet of a slot that is learning or tracking.
pub struct Question<'a> {
    pub ctx: *mut xdp_md,
    pub plane: &'a Plane,
    /// Number of the service.
    pub service: u32,
    /// Its idle time, and the longest of all services, in ticks.
    pub idle: u16,
    pub longest_idle: u16,
    pub slot: Slot,
    pub hash: u64,
    /// Where the slot is in the ring.
    pub place: u32,
    /// Where the transport header is, as in [`crate::parse::Packet`].
    pub transport: u32,
    pub protocol: u32,
}

/// The record of the backend that it goes to. A function of its own: plain
/// packets of stable slots need not carry it along.
#[inline(never)]
pub fn route(question: &Question<'_>) -> u32 {
    let Question {
        ctx,
        plane,
        service,
        ..
    } = *question;
    let bucket = flow_bucket(question.hash, FLOW_BUCKETS);
    let memory = Memory {
        plane,
        bucket: Bucket::of(anchor(&plane.flows[within(bucket, FLOW_BUCKETS)])),
        stamp: (&raw const plane.stamps[within(question.place, RING_SLOTS)]).cast_mut(),
        service,
    };
    let segment = segment(
        &Frame::new(ctx),
        question.transport as usize,
        question.protocol as u8,
    );
    let route = vipd_abi::route(
        &memory,
        question.slot,
        question.hash,
        segment,
        now(),
        question.idle,
        question.longest_idle,
    );
    trace::route(&route);
    route.backend
}

/// Where a TCP header has its data offset and, in the byte behind, its flags.
const TCP_OFFSET_FLAGS: usize = 12;

/// What a packet says about its flow; without a transport header it is about the
/// flow only.
#[inline(always)]
fn segment(frame: &Frame, transport: usize, protocol: u8) -> Segment {
    if transport == 0 {
        return Segment::About;
    }
    if protocol == UDP {
        return Segment::Ongoing;
    }
    // Two bytes: of one alone at a variable place the verifier loses track.
    match frame.read_variable::<u16>((transport & 0x1ff) + TCP_OFFSET_FLAGS) {
        Some(word) => Segment::of_tcp((word >> 8) as u8),
        None => Segment::Odd,
    }
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
struct Memory<'a> {
    plane: &'a Plane,
    bucket: Bucket,
    stamp: *mut Stamp,
    service: u32,
}

impl FlowMemory for Memory<'_> {
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
