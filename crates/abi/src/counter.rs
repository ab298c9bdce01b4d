//! Packets and bytes, counted by one processor without locks.

use crate::{COUNTERS, Plain, Verdict};

/// Written by one processor only; readers add up the processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames as received, from the Ethernet header on.
    pub bytes: u64,
}

// SAFETY: two u64 without padding.
unsafe impl Plain for Counter {}

impl Counter {
    /// Counters with a lower index belong to the verdicts; the others are
    /// given to backends by the agent.
    pub const FIRST_BACKEND: u32 = 64;

    /// Where processor `cpu` counts what has `index`.
    #[must_use]
    #[inline(always)]
    pub const fn place(cpu: u32, index: u32) -> u32 {
        cpu * COUNTERS + index
    }
}

const _: () = assert!(Verdict::COUNT as u32 <= Counter::FIRST_BACKEND);
