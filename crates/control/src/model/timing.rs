//! The rhythm and the thresholds of a check, as validated.

use std::time::Duration;

/// Rhythm and thresholds of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// A check without an answer for so long has failed.
    pub timeout: Duration,
    /// Successes in a row that bring a backend up.
    pub rise: u32,
    /// Failures in a row that take a backend down.
    pub fall: u32,
    /// Each interval is stretched or shrunk by up to this fraction of itself,
    /// so that checks do not fall into step. In thousandths, 0 to 500.
    pub jitter_permille: u16,
}

impl Timing {
    /// Each second, one result decides, and nothing is left to chance.
    pub const PLAIN: Self = Self {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
        jitter_permille: 0,
    };
}
