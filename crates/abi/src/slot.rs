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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Every flow of the slot belongs to `current`.
    #[default]
    Stable = 0,
}

impl Slot {
    const INDEX_BITS: u32 = 28;
    const INDEX_MASK: u64 = (1 << Self::INDEX_BITS) - 1;

    /// A slot that has belonged to `current` for long.
    #[must_use]
    #[inline(always)]
    pub const fn stable(current: u32) -> Self {
        Self(current as u64 & Self::INDEX_MASK)
    }

    /// Index of the backend record new flows go to; 0 is nobody.
    #[must_use]
    #[inline(always)]
    pub const fn current(self) -> u32 {
        (self.0 & Self::INDEX_MASK) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stable_slot_names_its_backend_and_no_other_bit() {
        for index in [0, 1, 77, crate::BACKENDS - 1, (1 << 28) - 1] {
            let slot = Slot::stable(index);
            assert_eq!((slot.current(), slot.0 >> 28), (index, 0), "{slot:?}");
        }
    }
}
