//! Flow state of slots that are not stable: the rules of `vipd_abi` over the
//! maps.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::bindings::xdp_md;
use vipd_abi::{
    BACKENDS, BackendRecord, FLOW_BUCKETS, FLOWS_PER_BUCKET, FlowBucket, FlowEntry, FlowMemory,
    Plane, RING_SLOTS, Segment, Slot, Stamp, Tick, VipEntry, flow_bucket,
};
use vipd_ebpf::{
    anchor::{anchor, within},
    atomic::compare_and_swap,
    frame::Frame,
    header::UDP,
};

use crate::{lookup::Table, maps, parse::Packet, trace};

/// What a packet has for layer 4, in one word: where it starts, as in
/// [`Packet`], and the protocol.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Layer4(u32);

impl Layer4 {
    #[inline(always)]
    pub fn of(packet: &Packet) -> Self {
        Self(u32::from(packet.protocol) << 16 | packet.transport as u32)
    }

    #[inline(always)]
    fn start(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        (self.0 >> 16) as u8
    }
}

/// The record of the backend that a packet of a slot goes to that is learning
/// or tracking. A function of its own, so that plain packets of stable slots
/// need not carry it along; and all its arguments fit into registers.
#[inline(never)]
pub fn route(ctx: *mut xdp_md, entry: &VipEntry, slot: Slot, hash: u64, layer_4: Layer4) -> u32 {
    let Some(plane) = maps::plane() else {
        return 0;
    };
    let table = Table::published(plane);
    let place = within::<RING_SLOTS>(entry.slot(hash));
    let bucket = within::<FLOW_BUCKETS>(flow_bucket(hash, FLOW_BUCKETS));
    let memory = Memory {
        plane,
        bucket: Bucket::of(anchor(&plane.flows[bucket])),
        stamp: (&raw const plane.stamps[place]).cast_mut(),
        service: entry.service,
    };
    let route = vipd_abi::route(
        &memory,
        slot,
        hash,
        segment(&Frame::new(ctx), layer_4),
        now(plane),
        entry.idle as u16,
        table.head.longest_idle as u16,
    );
    trace::route(&route);
    route.backend
}

/// Where a TCP header has its data offset and, in the byte behind, its flags.
const TCP_OFFSET_FLAGS: usize = 12;

/// What a packet says about its flow; without a transport header it is about the
/// flow only.
#[inline(always)]
fn segment(frame: &Frame, layer_4: Layer4) -> Segment {
    let transport = layer_4.start();
    if transport == 0 {
        return Segment::About;
    }
    if layer_4.protocol() == UDP {
        return Segment::Ongoing;
    }
    // Two bytes: of one alone at a variable place the verifier loses track.
    match frame.read_variable::<u16>((transport & 0x1ff) + TCP_OFFSET_FLAGS) {
        Some(word) => Segment::of_tcp((word >> 8) as u8),
        None => Segment::Odd,
    }
}

/// The present moment by the flows' clock.
#[inline(always)]
fn now(plane: &Plane) -> Tick {
    // SAFETY: the agent stores the word as a whole.
    Tick::from_word(unsafe { addr_of!(plane.clock).read_volatile() })
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
    fn is_ours(&self, backend: u32) -> bool {
        self.plane.records[within::<BACKENDS>(backend)].service == self.service
    }

    #[inline(always)]
    fn serves(&self, backend: u32) -> bool {
        is_alive(&self.plane.records[within::<BACKENDS>(backend)])
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
