//! When a backend is checked next.
//!
//! Every checked backend has a turn of its own: a place in the interval that it
//! keeps for good. While nothing is in doubt it is asked once per interval, at
//! its turn; in doubt it is asked sooner, without regard to turns, and goes back
//! to its turn afterwards. Turns are spread evenly, so checks are too, and stay
//! so: whatever makes many checks start together, such as a host that stood
//! still, is forgotten one interval later.
//!
//! The turn that follows a check is never more than one interval after it, so
//! the way back to the rhythm delays nothing.

use std::time::{Duration, Instant};

use crate::{health::State, model::Timing};

/// So many backends that appear together are asked within a second. More would
/// all wait for each other, and for what their results change.
const FIRST_PER_SECOND: u32 = 5_000;

/// A place in every interval, as a fraction of it in units of 2^-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(u32);

/// How soon a backend is asked again; the sooner, the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Its state is in doubt: so long after the start of the last check.
    Doubt(Duration),
    /// It is not: at its turn, once in such an interval.
    Turn(Duration),
}

impl Turn {
    /// The turn of the `n`th backend. However many there are, they are spread
    /// evenly: each is put into one of the largest gaps of those before (steps
    /// of the golden section).
    #[must_use]
    pub const fn nth(n: u32) -> Self {
        const GOLDEN: u32 = 0x9e37_79b9;
        Self(n.wrapping_mul(GOLDEN))
    }
}

impl Pace {
    /// The pace of a backend in this state.
    #[must_use]
    pub const fn of(state: State, timing: &Timing) -> Self {
        match state {
            State::Unknown | State::GoingDown(_) | State::GoingUp(_) => {
                Self::Doubt(timing.fast_interval)
            }
            State::Up => Self::Turn(timing.interval),
            State::Down => Self::Turn(timing.down_interval),
        }
    }
}

/// When the first check starts of the `n`th of those that are new at `now`: one
/// alone is asked at once, many one after the other.
#[must_use]
pub fn first_check(now: Instant, n: u32) -> Instant {
    now + Duration::from_secs(1) / FIRST_PER_SECOND * n
}

/// When the check starts that follows one that started at `started`. It may lie
/// in the past when that one took long.
///
/// Turns are counted from `epoch`, the same moment each time. `random` is a
/// fresh random number from 0 to 1, by which the jitter of `timing` is taken.
#[must_use]
pub fn next_check(
    epoch: Instant,
    turn: Turn,
    started: Instant,
    pace: Pace,
    timing: &Timing,
    random: f64,
) -> Instant {
    match pace {
        Pace::Doubt(interval) => started + interval,
        Pace::Turn(interval) => {
            // A check that was early by its jitter was that of this turn.
            let jitter = interval / 1000 * u32::from(timing.jitter_permille.min(1000));
            let turn = next_turn(epoch, turn, started + jitter, interval);
            turn - jitter.mul_f64(fraction(random))
        }
    }
}

/// The first turn after `moment`.
fn next_turn(epoch: Instant, turn: Turn, moment: Instant, interval: Duration) -> Instant {
    let interval = interval.as_nanos().max(1);
    let place = (interval * u128::from(turn.0)) >> 32;
    let passed = moment.saturating_duration_since(epoch).as_nanos();
    let left = interval - (passed + interval - place) % interval;
    moment.max(epoch) + Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
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
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn checks_follow_at_their_turn_and_in_doubt_at_once() {
        let epoch = Instant::now();
        let half = Turn(1 << 31);
        let check = |sentence, started, pace, permille, random, expected: u64| {
            let timing = Timing {
                jitter_permille: permille,
                ..Timing::PLAIN
            };
            let started = epoch + Duration::from_millis(started);
            let next = next_check(epoch, half, started, pace, &timing, random);
            assert_eq!((next - epoch).as_millis() as u64, expected, "{sentence}");
        };
        let (turn, doubt) = (Pace::Turn(SECOND), Pace::Doubt(SECOND / 10));
        check("before its turn it waits for it", 200, turn, 0, 0.7, 500);
        check("at its turn, for the next one", 500, turn, 0, 0.7, 1500);
        check("after it, too", 700, turn, 0, 0.7, 1500);
        check("in doubt, so long after the last", 700, doubt, 0, 0.7, 800);
        check("the highest draw is early", 500, turn, 100, 1.0, 1400);
        check("the lowest is on time", 500, turn, 100, 0.0, 1500);
        check("who was early has had its turn", 1400, turn, 100, 0.0, 2500);
        check("in doubt there is no jitter", 700, doubt, 100, 0.9, 800);
        check("a draw out of range is cut", 500, turn, 100, 7.0, 1400);
        check("what is no number is 0", 500, turn, 100, f64::NAN, 1500);
    }

    #[test]
    fn the_pace_follows_from_the_state() {
        let timing = Timing {
            fast_interval: SECOND / 4,
            down_interval: 3 * SECOND,
            ..Timing::PLAIN
        };
        for (state, pace) in [
            (State::Unknown, Pace::Doubt(SECOND / 4)),
            (State::Up, Pace::Turn(SECOND)),
            (State::GoingDown(1), Pace::Doubt(SECOND / 4)),
            (State::Down, Pace::Turn(3 * SECOND)),
            (State::GoingUp(1), Pace::Doubt(SECOND / 4)),
        ] {
            assert_eq!(Pace::of(state, &timing), pace, "{state}");
        }
        let mut paces = [
            Pace::Turn(SECOND),
            Pace::Turn(SECOND / 2),
            Pace::Doubt(SECOND),
        ];
        paces.sort();
        assert_eq!(paces[0], Pace::Doubt(SECOND), "doubt is the most urgent");
        assert_eq!(paces[1], Pace::Turn(SECOND / 2));
    }

    #[test]
    fn one_alone_is_asked_at_once_and_many_one_after_the_other() {
        let now = Instant::now();
        assert_eq!(first_check(now, 0), now);
        assert_eq!(first_check(now, 5_000), now + SECOND);
    }

    #[test]
    fn after_an_outage_checks_are_spread_as_before() {
        let epoch = Instant::now();
        let outage_ends = epoch + 100 * SECOND;
        let turn = |n| {
            let pace = Pace::Turn(SECOND);
            next_check(epoch, Turn::nth(n), outage_ends, pace, &Timing::PLAIN, 0.0)
        };
        let mut hundredths = [0; 100];
        for n in 0..10_000 {
            let after = (turn(n) - outage_ends).as_millis() as usize;
            hundredths[after.min(999) / 10] += 1;
        }
        let (least, most) = (hundredths.iter().min(), hundredths.iter().max());
        assert!(least >= Some(&95) && most <= Some(&105), "{hundredths:?}");
    }

    proptest! {
        /// Whenever a check has started, the next one comes later, and at most
        /// one interval and the jitter later.
        #[test]
        fn no_interval_is_longer_than_it_may_be(
            n: u32,
            started in 0u64..1_000_000_000_000,
            interval in 10_000_000u64..100_000_000_000,
            jitter_permille in 0u16..=500,
            random in 0.0..=1.0f64,
        ) {
            let epoch = Instant::now();
            let started = epoch + Duration::from_nanos(started);
            let interval = Duration::from_nanos(interval);
            let timing = Timing { jitter_permille, ..Timing::PLAIN };
            let next = next_check(
                epoch, Turn::nth(n), started, Pace::Turn(interval), &timing, random,
            );
            prop_assert!(next > started);
            let longest = interval + interval / 1000 * u32::from(jitter_permille);
            prop_assert!(next <= started + longest, "{:?}", next - started);
        }
    }
}
