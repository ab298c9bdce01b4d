//! When a check is made, and what its results are taken for, as validated.

use std::time::Duration;

use crate::health::Initial;

/// Rhythm and thresholds of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// From one check to the next of a backend that is up.
    pub interval: Duration,
    /// The same while its state is in doubt: unknown, going up or down
    /// (HAProxy's `fastinter`); not longer than `interval`.
    pub fast_interval: Duration,
    /// The same while it is down (HAProxy's `downinter`).
    pub down_interval: Duration,
    /// A check without an answer for so long has failed. May be longer than
    /// `fast_interval`: two checks never overlap, the next one then starts when
    /// this one has ended.
    pub timeout: Duration,
    /// Successes in a row that bring a backend up.
    pub rise: u32,
    /// Failures in a row that take a backend down.
    pub fall: u32,
    /// How long a backend that went down stays down at least.
    pub hold_down: Duration,
    /// A check starts up to this fraction of the interval before its turn, at
    /// random. In thousandths, 0 to 500.
    pub jitter_permille: u16,
    /// What is believed of a backend that has never been checked.
    pub initial: Initial,
    /// Whether failures end the flows that a backend has.
    pub on_down: OnDown,
}

/// What becomes of established flows when a backend fails its checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDown {
    /// Failures at layer 4 end them, those above keep them.
    #[default]
    Layer,
    /// No failed check ends them.
    Keep,
    /// Failures of any kind end them.
    Reset,
}

impl Timing {
    /// Each second, one result decides, and nothing is left to chance.
    pub const PLAIN: Self = Self {
        interval: Duration::from_secs(1),
        fast_interval: Duration::from_secs(1),
        down_interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
        hold_down: Duration::ZERO,
        jitter_permille: 0,
        initial: Initial::Unknown,
        on_down: OnDown::Layer,
    };
}
