//! The clock that packets go by.

use rustix::time::{ClockId, clock_gettime};
use vipd_abi::Tick;

/// The present moment as the program in the kernel sees it.
#[must_use]
pub fn tick() -> Tick {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Tick::from_nanos(seconds * 1_000_000_000 + nanos)
}
