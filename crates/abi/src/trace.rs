//! What the program tells of one packet: nothing, unless it was built to
//! explain or to capture.

use crate::{Basis, Plain, Slot, Verdict};

/// How a packet's decision came about, step by step; what was not reached is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Trace {
    /// The flow's hash.
    pub hash: u64,
    /// The slot as it was read.
    pub slot: Slot,
    /// Place of the slot in [`crate::Plane::ring`].
    pub place: u32,
    /// Number of slots of the service's ring, less one.
    pub ring_mask: u32,
    /// Number of the service.
    pub service: u32,
    /// Index of the backend record.
    pub backend: u32,
    /// Why that backend, a [`Basis`].
    pub basis: u32,
    /// Index of the interface it leaves by.
    pub leaves_by: u32,
    /// A [`Verdict`].
    pub verdict: u32,
    /// For the explaining program's own use: the place in a bucket that it would
    /// have freed.
    pub freed: u32,
}

// SAFETY: two u64 and eight u32 without padding.
unsafe impl Plain for Trace {}

const _: () = assert!(size_of::<Trace>() == 48);

impl Trace {
    /// The verdict, if the number is one.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        Verdict::ALL.get(self.verdict as usize).copied()
    }

    /// Number of the slot within the service's ring.
    #[must_use]
    pub const fn slot_number(&self) -> u32 {
        self.hash as u32 & self.ring_mask
    }

    /// Why that backend, if the number is one.
    #[must_use]
    pub fn basis(&self) -> Option<Basis> {
        Basis::ALL.get(self.basis as usize).copied()
    }
}

/// Most bytes of a frame that a capture keeps.
pub const CAPTURED_BYTES: usize = 256;

/// One captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Captured {
    /// How its decision came about.
    pub trace: Trace,
    /// When, in nanoseconds of the monotonic clock; 0 while the packet is not
    /// to be captured.
    pub time: u64,
    /// Index of the interface it came by.
    pub came_by: u32,
    /// Length of the frame as it came.
    pub length_in: u32,
    /// Length of the frame as it leaves; 0 when it is not sent.
    pub length_out: u32,
    /// Zero.
    pub reserved: u32,
    /// Its first bytes as it came.
    pub bytes_in: [u8; CAPTURED_BYTES],
    /// Its first bytes as it leaves.
    pub bytes_out: [u8; CAPTURED_BYTES],
}

// SAFETY: repr(C), 48 + 8 + 4 * 4 + 2 * 256 bytes without padding, integers only.
unsafe impl Plain for Captured {}

const _: () = assert!(size_of::<Captured>() == 72 + 2 * CAPTURED_BYTES);

impl Captured {
    /// Its first bytes as it came.
    #[must_use]
    pub fn came(&self) -> &[u8] {
        &self.bytes_in[..CAPTURED_BYTES.min(self.length_in as usize)]
    }

    /// Its first bytes as it leaves; none when it is not sent.
    #[must_use]
    pub fn left(&self) -> &[u8] {
        &self.bytes_out[..CAPTURED_BYTES.min(self.length_out as usize)]
    }
}

/// What is to be captured. Conditions are joined by "and".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CaptureFilter {
    /// Moment of the monotonic clock, in nanoseconds, after which nothing is
    /// captured: the agent moves it on while somebody listens.
    pub until: u64,
    /// A bit for each verdict; 0 for all.
    pub verdicts: u64,
    /// Source prefix and its mask as words of memory, IPv4 in its mapped form;
    /// a mask of 0 for all.
    pub source: [u32; 4],
    /// See [`CaptureFilter::source`].
    pub source_mask: [u32; 4],
    /// Destination prefix; as the source.
    pub destination: [u32; 4],
    /// See [`CaptureFilter::destination`].
    pub destination_mask: [u32; 4],
    /// Source or destination port in network order; 0 for all.
    pub port: u32,
    /// IP protocol; 0 for all.
    pub protocol: u32,
    /// Number of the service; 0 for all.
    pub service: u32,
    /// One packet in so many is looked at; 0 counts as 1.
    pub sample: u32,
    /// Most packets in a second on one processor.
    pub rate: u32,
    /// Most packets in a second on one processor that are copied to find out
    /// whether they are of a service or verdict that is asked for.
    pub copies: u32,
}

// SAFETY: two u64 and 22 u32 without padding.
unsafe impl Plain for CaptureFilter {}

const _: () = assert!(size_of::<CaptureFilter>() == 104);

/// What one processor has captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CaptureCount {
    /// The second it is in, of the monotonic clock.
    pub second: u64,
    /// Packets captured in that second.
    pub in_second: u64,
    /// Packets copied in that second, whether they were captured or not.
    pub copied: u64,
    /// Packets that were handed over.
    pub captured: u64,
    /// Packets that were not looked at since the rate or the copies were used up.
    pub limited: u64,
    /// Packets that were lost since nobody read fast enough.
    pub lost: u64,
}

// SAFETY: six u64.
unsafe impl Plain for CaptureCount {}
