//! Flow state, only where it is needed: the rules for packets of a slot that
//! is not stable.
//!
//! The program in the kernel and the model in the tests run this same code,
//! each over its own memory. The agent's half of the rules is
//! `vipd_control::phases`.
//!
//! Invariant: in [`Phase::Learn`] a flow that is not recorded belongs to
//! `previous`, in [`Phase::Track`] to `current`; anything else is recorded
//! before it is forwarded.

use crate::{Phase, Plain, Slot, Tick};

/// Entries in a bucket: one cache line.
pub const FLOWS_PER_BUCKET: usize = 8;

/// A cache line of flow entries, each claimed and changed by one
/// compare-and-swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct FlowBucket(pub [FlowEntry; FLOWS_PER_BUCKET]);

// SAFETY: eight words without padding.
unsafe impl Plain for FlowBucket {}

/// One flow in one word `mark:27 | closing:1 | seen:16 | backend:20`. A
/// backend of 0 is a free place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FlowEntry(pub u64);

// SAFETY: a transparent u64.
unsafe impl Plain for FlowEntry {}

impl FlowEntry {
    /// A free place.
    pub const FREE: Self = Self(0);

    const BACKEND_BITS: u32 = 20;
    const BACKEND_MASK: u64 = (1 << Self::BACKEND_BITS) - 1;
    const CLOSING: u64 = 1 << 36;
    const MARK_SHIFT: u32 = 37;
    /// Entries of another processor may be a little ahead of this one's clock.
    const AHEAD: u16 = 16;

    /// A flow of this hash that belongs to `backend` and was seen at `now`.
    #[must_use]
    #[inline(always)]
    pub const fn new(hash: u64, backend: u32, now: Tick) -> Self {
        Self(
            hash >> Self::MARK_SHIFT << Self::MARK_SHIFT
                | (now.short() as u64) << Self::BACKEND_BITS
                | backend as u64 & Self::BACKEND_MASK,
        )
    }

    /// Whether it is of this hash, so far as its mark tells. With the bucket's 18
    /// bits, two flows share all of it once in 2^45.
    #[must_use]
    #[inline(always)]
    pub const fn is_of(self, hash: u64) -> bool {
        (self.0 ^ hash) >> Self::MARK_SHIFT == 0 && self.backend() != 0
    }

    /// Index of the backend record; 0 is a free place.
    #[must_use]
    #[inline(always)]
    pub const fn backend(self) -> u32 {
        (self.0 & Self::BACKEND_MASK) as u32
    }

    /// Whether a FIN or RST was seen.
    #[must_use]
    #[inline(always)]
    pub const fn is_closing(self) -> bool {
        self.0 & Self::CLOSING != 0
    }

    /// Whether it was used within `idle` ticks.
    #[must_use]
    #[inline(always)]
    pub const fn is_fresh(self, now: Tick, idle: u16) -> bool {
        let age = now.short().wrapping_sub(self.seen());
        age <= idle || age >= u16::MAX - Self::AHEAD
    }

    /// When it was used last, as [`Tick::short`].
    #[must_use]
    #[inline(always)]
    pub const fn seen(self) -> u16 {
        (self.0 >> Self::BACKEND_BITS) as u16
    }

    /// The same flow, seen now, and closing if it was or is.
    #[must_use]
    #[inline(always)]
    pub const fn refreshed(self, now: Tick, closing: bool) -> Self {
        let seen = 0xffff_u64 << Self::BACKEND_BITS;
        let word = self.0 & !seen | (now.short() as u64) << Self::BACKEND_BITS;
        Self(if closing { word | Self::CLOSING } else { word })
    }

    /// The same flow on another record of the same backend.
    #[must_use]
    pub const fn moved_to(self, backend: u32) -> Self {
        Self(self.0 & !Self::BACKEND_MASK | backend as u64 & Self::BACKEND_MASK)
    }
}

/// Index of the bucket that holds flows of this hash, in a table of `buckets`,
/// a power of two.
#[must_use]
#[inline(always)]
pub const fn flow_bucket(hash: u64, buckets: u32) -> u32 {
    // Above the bits of most rings' slots, below those of the mark.
    (hash >> 17) as u32 & (buckets - 1)
}

/// What a packet says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// TCP with SYN and without ACK, RST and FIN: a new flow.
    Open,
    /// UDP, or TCP with ACK and without SYN, RST and FIN: a flow goes on.
    Ongoing,
    /// TCP with FIN or RST: a flow ends.
    Closing,
    /// TCP with any other flags.
    Odd,
    /// About the flow, not of it (ICMP errors): changes nothing.
    About,
}

impl Segment {
    /// By the flags of a TCP header (RFC 9293, section 3.1), the low byte.
    #[must_use]
    #[inline(always)]
    pub const fn of_tcp(flags: u8) -> Self {
        const FIN: u8 = 1;
        const SYN: u8 = 2;
        const RST: u8 = 4;
        const ACK: u8 = 16;
        match flags & (FIN | SYN | RST | ACK) {
            SYN => Self::Open,
            ACK => Self::Ongoing,
            f if f & (FIN | RST) != 0 => Self::Closing,
            _ => Self::Odd,
        }
    }
}

/// Why a packet goes to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Basis {
    /// The slot is stable.
    Stable = 0,
    /// The flow is recorded.
    Recorded = 1,
    /// The flow was recorded by this packet.
    NewlyRecorded = 2,
    /// Learning: the flow could not be recorded and belongs to `previous`.
    Refused = 3,
    /// Learning: the flow is not recorded and belongs to `previous`.
    Previous = 4,
    /// Tracking: the flow is not recorded and belongs to `current`.
    Current = 5,
}

impl Basis {
    /// Every basis in the order of its number.
    pub const ALL: [Self; 6] = [
        Self::Stable,
        Self::Recorded,
        Self::NewlyRecorded,
        Self::Refused,
        Self::Previous,
        Self::Current,
    ];

    /// In words.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stable => "the slot is stable",
            Self::Recorded => "the flow is recorded",
            Self::NewlyRecorded => "the flow is recorded by this packet",
            Self::Refused => "the flow cannot be recorded, so it stays with the slot's last owner",
            Self::Previous => "the flow is not recorded, so it stays with the slot's last owner",
            Self::Current => "the flow is not recorded, so it belongs to the slot's owner",
        }
    }
}

/// Where a packet goes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the backend record; 0 is nobody.
    pub backend: u32,
    /// Why.
    pub basis: Basis,
}

/// The memory that the rules work on.
pub trait FlowMemory {
    /// An entry of the flow's bucket, `place` below [`FLOWS_PER_BUCKET`].
    fn load(&self, place: usize) -> FlowEntry;
    /// Replaces an entry if it is still `old`; says whether it did.
    fn swap(&self, place: usize, old: FlowEntry, new: FlowEntry) -> bool;
    /// Whether the backend with this record is of the packet's service. If it is
    /// not, the entry is another flow's with the same mark.
    fn is_ours(&self, backend: u32) -> bool;
    /// Whether the backend with this record still serves its flows.
    fn serves(&self, backend: u32) -> bool;
    /// The slot sent a packet to another than its owner.
    fn stamp_foreign(&self, now: Tick);
    /// The slot could not record a flow.
    fn stamp_refused(&self, now: Tick);
}

/// Where a packet of a slot in [`Phase::Learn`] or [`Phase::Track`] goes.
/// `idle` is the service's, in ticks; `longest_idle` that of all services.
#[inline(always)]
pub fn route(
    memory: &impl FlowMemory,
    slot: Slot,
    hash: u64,
    segment: Segment,
    now: Tick,
    idle: u16,
    longest_idle: u16,
) -> Route {
    let learning = matches!(slot.phase(), Phase::Learn);
    let route = match recorded(memory, hash, segment, now, idle) {
        Some(backend) => Route {
            backend,
            basis: Basis::Recorded,
        },
        None if learning => learn(memory, slot, hash, segment, now, longest_idle),
        None => Route {
            backend: slot.current(),
            basis: Basis::Current,
        },
    };
    if route.backend != slot.current() && !matches!(segment, Segment::About) {
        memory.stamp_foreign(now);
    }
    route
}

/// The backend of a live entry, which is refreshed.
#[inline(always)]
fn recorded(
    memory: &impl FlowMemory,
    hash: u64,
    segment: Segment,
    now: Tick,
    idle: u16,
) -> Option<u32> {
    let mut place = 0;
    while place < FLOWS_PER_BUCKET {
        let entry = memory.load(place);
        if entry.is_of(hash) && memory.is_ours(entry.backend()) {
            if !entry.is_fresh(now, idle) || !memory.serves(entry.backend()) {
                // Ended; its place is as good as free.
                memory.swap(place, entry, FlowEntry::FREE);
                return None;
            }
            match segment {
                Segment::About => {}
                Segment::Open if entry.is_closing() => {
                    // The same ports again: a new flow.
                    memory.swap(place, entry, FlowEntry::FREE);
                    return None;
                }
                _ => {
                    let closing = matches!(segment, Segment::Closing);
                    let new = entry.refreshed(now, closing);
                    if new.0 != entry.0 {
                        // Lost against another processor's refresh: as good.
                        memory.swap(place, entry, new);
                    }
                }
            }
            return Some(entry.backend());
        }
        place += 1;
    }
    None
}

/// A flow that is not recorded, while the slot learns.
#[inline(always)]
fn learn(
    memory: &impl FlowMemory,
    slot: Slot,
    hash: u64,
    segment: Segment,
    now: Tick,
    longest_idle: u16,
) -> Route {
    let previous = Route {
        backend: slot.previous(),
        basis: Basis::Previous,
    };
    let owner = match segment {
        Segment::Open => slot.current(),
        Segment::Ongoing => slot.previous(),
        Segment::Closing | Segment::Odd | Segment::About => return previous,
    };
    if owner == 0 {
        return previous;
    }
    if record(memory, FlowEntry::new(hash, owner, now), now, longest_idle) {
        return Route {
            backend: owner,
            basis: Basis::NewlyRecorded,
        };
    }
    memory.stamp_refused(now);
    Route {
        basis: Basis::Refused,
        ..previous
    }
}

/// Claims a place that is free or that nobody has used for longer than any
/// service's idle time. Live entries are never evicted, or a flood would evict
/// the living.
#[inline(always)]
pub fn record(memory: &impl FlowMemory, new: FlowEntry, now: Tick, longest_idle: u16) -> bool {
    let mut place = 0;
    while place < FLOWS_PER_BUCKET {
        let entry = memory.load(place);
        let free = entry.backend() == 0 || !entry.is_fresh(now, longest_idle);
        if free && memory.swap(place, entry, new) {
            return true;
        }
        place += 1;
    }
    false
}

#[cfg(test)]
mod tests;
