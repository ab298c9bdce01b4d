//! When a backend is checked next.

use std::time::{Duration, Instant};

use crate::model::Timing;

/// Start of the first check of a backend that is new at `now`: within the
/// jitter's share of an interval, so that many backends that appear together
/// are not all asked in the same moment; at once without jitter.
///
/// `random` is a fresh random number from 0 to 1.
#[must_use]
pub fn first_check(now: Instant, timing: &Timing, random: f64) -> Instant {
    now + jitter(timing).mul_f64(fraction(random))
}

/// Start of the check after the one that started at `started`: one interval
/// later, stretched or shrunk by up to the jitter.
///
/// `random` is a fresh random number from 0 to 1. A check that took longer
/// than the interval is followed at once: the result may lie in the past.
#[must_use]
pub fn next_check(started: Instant, timing: &Timing, random: f64) -> Instant {
    let jitter = jitter(timing);
    started + (timing.interval - jitter) + jitter.mul_f64(2.0 * fraction(random))
}

/// The longest an interval may be stretched; never more than the interval.
fn jitter(timing: &Timing) -> Duration {
    timing.interval / 1000 * u32::from(timing.jitter_permille.min(1000))
}

/// Whatever the caller's random source gives, a number from 0 to 1.
fn fraction(random: f64) -> f64 {
    if random.is_nan() {
        0.0
    } else {
        random.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_follow_at_the_interval_give_or_take_the_jitter() {
        let check = |sentence, permille, random, first, next| {
            let timing = Timing {
                jitter_permille: permille,
                ..Timing::PLAIN
            };
            let now = Instant::now();
            let found = (
                (first_check(now, &timing, random) - now).as_millis(),
                (next_check(now, &timing, random) - now).as_millis(),
            );
            assert_eq!(found, (first, next), "{sentence}");
        };
        check("no jitter: at once, then each second", 0, 0.7, 0, 1000);
        check("lowest draw: a tenth early", 100, 0.0, 0, 900);
        check("middle draw: on time", 100, 0.5, 50, 1000);
        check("highest draw: a tenth late", 100, 1.0, 100, 1100);
        check("jitter beyond the interval is cut", 5000, 0.0, 0, 0);
        check("a draw out of range is cut", 100, 7.0, 100, 1100);
        check(
            "a draw that is no number counts as 0",
            100,
            f64::NAN,
            0,
            900,
        );
    }
}
