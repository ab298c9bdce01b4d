//! The coarse clock of the flow state.

/// A moment, in units of 2^27 ns (134 ms). Never 0, which stands for "never".
///
/// Flows go by a clock of their own, [`crate::Plane`]'s: the agent moves it on,
/// and reading it costs a packet nothing (to ask the kernel costs more than the
/// whole look at the flow table). It stands still while no agent runs, and never
/// jumps: what nobody could age has not aged. Everything else goes by the
/// kernel's coarse monotonic clock (`bpf_ktime_get_coarse_ns`,
/// `CLOCK_MONOTONIC_COARSE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u32);

impl Tick {
    /// Nanoseconds in a tick, as a power of two.
    pub const SHIFT: u32 = 27;
    /// Longest time without a packet that a flow can be given, in ticks: with
    /// 16 bits of time in an entry, what is older than twice that would look
    /// young again. A little more than an hour.
    pub const LONGEST_IDLE: u16 = 28_000;

    /// From nanoseconds of the kernel's clock.
    #[must_use]
    #[inline(always)]
    pub const fn from_nanos(nanos: u64) -> Self {
        let ticks = (nanos >> Self::SHIFT) as u32;
        Self(if ticks == 0 { 1 } else { ticks })
    }

    /// From the word in which a clock is kept.
    #[must_use]
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word as u32)
    }

    /// Ticks that cover so many nanoseconds, rounded up.
    #[must_use]
    pub const fn covering(nanos: u64) -> u64 {
        nanos.div_ceil(1 << Self::SHIFT)
    }

    /// The part of it that an entry keeps.
    #[must_use]
    #[inline(always)]
    pub const fn short(self) -> u16 {
        self.0 as u16
    }
}
