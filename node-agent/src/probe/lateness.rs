//! How many checks started later than they should have: on a host that is too
//! busy, or with more checks under way than there is room for.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A check that starts so long after it was due is late.
pub const LATE: Duration = Duration::from_millis(50);

/// Counts, since the start of the agent.
#[derive(Debug, Default)]
pub struct Lateness {
    ended: AtomicU64,
    late: AtomicU64,
}

/// What has been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Checks that have ended.
    pub ended: u64,
    /// Those among them that had started late, see [`LATE`].
    pub late: u64,
}

impl Lateness {
    /// A check has ended that had started so long after it was due.
    pub fn count(&self, delay: Duration) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        if delay > LATE {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Until now.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted {
            ended: self.ended.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
        }
    }
}
