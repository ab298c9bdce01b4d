//! How punctual we are: the worst delay of our own packets.
//!
//! The peer gives us up after a few intervals without a packet. Averages do not
//! matter to it, the longest gap does.

use std::time::{Duration, Instant};

/// The time between two of our packets in a session that is up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// What it was.
    pub real: Duration,
    /// What it should have been.
    pub expected: Duration,
}

/// The worst gaps, ever and of late.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    ever: Gap,
    /// The worst of each slice of time, with the number of the slice.
    slices: [(u64, Gap); SLICES],
    began: Option<Instant>,
}

/// A minute, in slices.
const SLICES: usize = 6;
const SLICE_SECONDS: u64 = 10;

impl Gap {
    /// How much too late the second packet was.
    #[must_use]
    pub fn delay(self) -> Duration {
        self.real.saturating_sub(self.expected)
    }

    /// The one that was longer too late; the longer one if both were in time.
    fn worse(self, other: Self) -> Self {
        let key = |gap: Self| (gap.delay(), gap.real);
        if key(other) > key(self) { other } else { self }
    }
}

impl Gaps {
    pub(super) fn record(&mut self, gap: Gap, now: Instant) {
        self.began.get_or_insert(now);
        self.ever = self.ever.worse(gap);
        let slice = self.slice(now);
        let (number, worst) = &mut self.slices[slice as usize % SLICES];
        *worst = if *number == slice {
            *worst
        } else {
            Gap::default()
        }
        .worse(gap);
        *number = slice;
    }

    pub(super) fn ever(&self) -> Gap {
        self.ever
    }

    /// The worst of the last minute, to ten seconds.
    pub(super) fn last_minute(&self, now: Instant) -> Gap {
        let slice = self.slice(now);
        let young = |&&(number, _): &&(u64, Gap)| number + SLICES as u64 > slice;
        let young = self.slices.iter().filter(young);
        young.fold(Gap::default(), |worst, &(_, gap)| worst.worse(gap))
    }

    fn slice(&self, now: Instant) -> u64 {
        let since = self.began.map(|began| now.saturating_duration_since(began));
        since.unwrap_or_default().as_secs() / SLICE_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_gap_is_kept_for_ever_and_for_a_minute() {
        let start = Instant::now();
        let mut gaps = Gaps::default();
        let gap = |real, expected| Gap {
            real: Duration::from_millis(real),
            expected: Duration::from_millis(expected),
        };
        let at = |seconds| start + Duration::from_secs(seconds);
        gaps.record(gap(100, 100), at(0));
        gaps.record(gap(160, 50), at(5));
        // Longer, but hardly too late.
        gaps.record(gap(1001, 1000), at(10));
        for seconds in [10, 30, 59] {
            assert_eq!(gaps.last_minute(at(seconds)), gap(160, 50), "{seconds} s");
        }
        assert_eq!(gaps.last_minute(at(65)), gap(1001, 1000));
        gaps.record(gap(55, 50), at(75));
        assert_eq!(gaps.last_minute(at(75)), gap(55, 50));
        assert_eq!(gaps.ever(), gap(160, 50));
    }
}
