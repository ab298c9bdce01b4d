//! Slow start: a backend that has come back gets its share step by step, so
//! that cold caches and empty pools meet a part of the traffic first.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// What part of the slots that are due to a backend it has, in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u8);

impl Share {
    /// So many steps lead to the whole. Each deals slots anew once.
    pub const STEPS: u8 = 10;
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// All of it.
    pub const WHOLE: Self = Self(Self::STEPS);

    /// So many of [`Share::STEPS`] steps; more are the whole.
    #[must_use]
    pub const fn steps(steps: u8) -> Self {
        if steps > Self::STEPS {
            Self::WHOLE
        } else {
            Self(steps)
        }
    }

    /// The share at `now` of a backend that came up at `returned`: the first
    /// step at once, the others at equal intervals, the whole after `over`.
    #[must_use]
    pub fn at(now: Instant, returned: Instant, over: Duration) -> Self {
        let step = (over / u32::from(Self::STEPS)).as_nanos().max(1);
        let steps = now.saturating_duration_since(returned).as_nanos() / step;
        if over.is_zero() || steps >= u128::from(Self::STEPS) {
            return Self::WHOLE;
        }
        Self(u8::try_from(steps).map_or(Self::STEPS, |steps| steps.max(1)))
    }

    /// When the share that it has now grows next; `None` when it is whole.
    #[must_use]
    pub fn grows(self, returned: Instant, over: Duration) -> Option<Instant> {
        let next = u32::from(self.0) + 1;
        (self < Self::WHOLE).then(|| returned + over / u32::from(Self::STEPS) * next)
    }

    /// As a threshold for numbers that are uniform in 64 bits: so many of them
    /// are below it.
    #[must_use]
    pub fn threshold(self) -> u64 {
        u64::MAX / u64::from(Self::STEPS) * u64::from(self.0)
    }

    /// In percent.
    #[must_use]
    pub const fn percent(self) -> u32 {
        // Lossless: `u32::from` is not const.
        self.0 as u32 * 100 / Self::STEPS as u32
    }
}

/// The whole, or nothing.
impl From<bool> for Share {
    fn from(serves: bool) -> Self {
        if serves { Self::WHOLE } else { Self::NONE }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_share_grows_in_steps_to_the_whole() {
        let returned = Instant::now();
        let over = Duration::from_secs(30);
        for (second, percent, grows) in [
            (0, 10, Some(6)),
            (5, 10, Some(6)),
            (6, 20, Some(9)),
            (12, 40, Some(15)),
            (29, 90, Some(30)),
            (30, 100, None),
            (900, 100, None),
        ] {
            let now = returned + Duration::from_secs(second);
            let share = Share::at(now, returned, over);
            let next = share.grows(returned, over);
            let next = next.map(|at| (at - returned).as_secs());
            assert_eq!((share.percent(), next), (percent, grows), "second {second}");
        }
        let none = Duration::ZERO;
        assert_eq!(Share::at(returned, returned, none), Share::WHOLE);
    }

    proptest! {
        /// It never shrinks, never waits for what has passed, and gets there.
        #[test]
        fn each_step_is_larger_and_the_last_one_is_the_whole(over in 10u64..1_000_000_000_000) {
            let returned = Instant::now();
            let over = Duration::from_nanos(over);
            let mut share = Share::at(returned, returned, over);
            prop_assert!(share > Share::NONE);
            let mut steps = 1;
            while let Some(at) = share.grows(returned, over) {
                let next = Share::at(at, returned, over);
                prop_assert!(next > share, "{} after {:?}", next, at - returned);
                prop_assert!(at - returned <= over);
                share = next;
                steps += 1;
            }
            prop_assert_eq!(share, Share::WHOLE);
            prop_assert!(steps <= Share::STEPS);
        }
    }
}
