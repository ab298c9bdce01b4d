//! One slot of a ring: which backend its flows belong to.

use crate::Plain;

/// One aligned word `phase:8 | previous:28 | current:28`, written only by the
/// agent. The backend indices point into the backend records; 0 is nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Slot(pub u64);

// SAFETY: a transparent u64.
unsafe impl Plain for Slot {}

/// What a slot is going through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Every flow of the slot belongs to `current`; no table is touched.
    #[default]
    Stable = 0,
    /// The slot has just changed hands: a flow that is not recorded belongs to
    /// `previous`, new flows are recorded for `current`.
    Learn = 1,
    /// All flows of `previous` are recorded: a flow that is not recorded
    /// belongs to `current`.
    Track = 2,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 3] = [Self::Stable, Self::Learn, Self::Track];

    /// Its name for people and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Learn => "learn",
            Self::Track => "track",
        }
    }
}

impl Slot {
    const INDEX_BITS: u32 = 28;
    const INDEX_MASK: u64 = (1 << Self::INDEX_BITS) - 1;
    const PHASE_SHIFT: u32 = 2 * Self::INDEX_BITS;

    /// A slot that has belonged to `current` for long.
    #[must_use]
    #[inline(always)]
    pub const fn stable(current: u32) -> Self {
        Self(current as u64 & Self::INDEX_MASK)
    }

    /// A slot that is being taken from `previous` by `current`.
    #[must_use]
    pub const fn learn(previous: u32, current: u32) -> Self {
        Self::new(Phase::Learn, previous, current)
    }

    /// A slot whose flows that are not `current`'s are all recorded.
    #[must_use]
    pub const fn track(current: u32) -> Self {
        Self::new(Phase::Track, 0, current)
    }

    const fn new(phase: Phase, previous: u32, current: u32) -> Self {
        Self(
            (phase as u64) << Self::PHASE_SHIFT
                | (previous as u64 & Self::INDEX_MASK) << Self::INDEX_BITS
                | current as u64 & Self::INDEX_MASK,
        )
    }

    /// What it is going through. An unknown phase counts as stable.
    #[must_use]
    #[inline(always)]
    pub const fn phase(self) -> Phase {
        match self.0 >> Self::PHASE_SHIFT {
            1 => Phase::Learn,
            2 => Phase::Track,
            _ => Phase::Stable,
        }
    }

    /// Whether no table need be asked; the only question of the fast path.
    #[must_use]
    #[inline(always)]
    pub const fn is_stable(self) -> bool {
        self.0 >> Self::PHASE_SHIFT == 0
    }

    /// Index of the backend record new flows go to; 0 is nobody.
    #[must_use]
    #[inline(always)]
    pub const fn current(self) -> u32 {
        (self.0 & Self::INDEX_MASK) as u32
    }

    /// In [`Phase::Learn`], index of the backend record that flows which are
    /// not recorded belong to; 0 otherwise.
    #[must_use]
    #[inline(always)]
    pub const fn previous(self) -> u32 {
        (self.0 >> Self::INDEX_BITS & Self::INDEX_MASK) as u32
    }
}

/// Beside each slot, written only by the XDP program: when it last met what
/// keeps the slot from moving on. 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Stamp {
    /// [`crate::Tick`] of the last packet that went to anybody but `current`.
    pub foreign: u32,
    /// [`crate::Tick`] of the last flow that could not be recorded, the table
    /// being full.
    pub refused: u32,
}

// SAFETY: two u32 without padding.
unsafe impl Plain for Stamp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_gives_back_its_phase_and_its_backends() {
        for current in [0, 1, 77, crate::BACKENDS - 1, (1 << 28) - 1] {
            let cases = [
                (Slot::stable(current), Phase::Stable, 0),
                (Slot::track(current), Phase::Track, 0),
                (Slot::learn(5, current), Phase::Learn, 5),
                (
                    Slot::learn((1 << 28) - 1, current),
                    Phase::Learn,
                    (1 << 28) - 1,
                ),
            ];
            for (slot, phase, previous) in cases {
                assert_eq!(
                    (slot.phase(), slot.previous(), slot.current()),
                    (phase, previous, current),
                    "{slot:?}"
                );
                assert_eq!(slot.is_stable(), phase == Phase::Stable, "{slot:?}");
            }
        }
    }
}
