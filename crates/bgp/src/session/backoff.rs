//! Pauses between attempts: doubling up to a limit, with jitter, so that many
//! sessions that failed together do not come back together.

use std::time::Duration;

/// The pauses of one session.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            failures: 0,
        }
    }

    /// Changes the limits; failures that were counted stay.
    pub(super) fn set_limits(&mut self, min: Duration, max: Duration) {
        (self.min, self.max) = (min, max);
    }

    /// Counts a failure and returns the pause it costs, without jitter.
    pub(super) fn fail(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.min.saturating_mul(factor).min(self.max)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The longest pause.
    pub(super) fn max(&self) -> Duration {
        self.max
    }
}

/// A source of jitter (SplitMix64): good enough to spread timers, and the same
/// for the same seed.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `duration`, shortened by up to a quarter (RFC 4271 section 10).
    pub(super) fn shorten(&mut self, duration: Duration) -> Duration {
        let fraction = (self.next() % 1024) as u32;
        duration - duration / 4096 * fraction
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let pauses: Vec<u64> = (0..6).map(|_| backoff.fail().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        for _ in 0..100 {
            assert_eq!(backoff.fail().as_secs(), 10);
        }
        backoff.reset();
        assert_eq!(backoff.fail().as_secs(), 1);
    }

    #[test]
    fn jitter_takes_up_to_a_quarter_and_differs_by_seed() {
        let second = Duration::from_secs(1);
        let spread = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..1000)
                .map(|_| jitter.shorten(second))
                .collect::<Vec<_>>()
        };
        let spread_1 = spread(1);
        assert!(
            spread_1
                .iter()
                .all(|d| (Duration::from_millis(750)..=second).contains(d))
        );
        assert!(spread_1.iter().max() > spread_1.iter().min());
        assert_eq!(spread_1, spread(1));
        assert_ne!(spread_1, spread(2));
    }
}
