//! How long decisions take to become UPDATEs that the kernel has.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets, in microseconds.
const BOUNDS: [u64; 10] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000,
];

/// What an UPDATE says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Prefixes are withdrawn or announced worse: packets are lost until then.
    Worse,
    /// Prefixes are announced, or announced better. They wait for the maps, and for
    /// the unreachable routes that hold them.
    Better,
}

/// The durations of both ways. Taken in without a lock.
#[derive(Debug, Default)]
pub struct Latencies {
    worse: Histogram,
    better: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    /// By [`BOUNDS`], and the last one what took longer.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// The durations of one way, to be shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// `worse` or `better`.
    pub change: String,
    /// How many.
    pub count: u64,
    /// All together, in seconds.
    pub sum_seconds: f64,
    /// Upper bounds in seconds, and how many were between them and the bound
    /// before. The rest took longer than the last one.
    pub buckets: Vec<(f64, u64)>,
}

impl Latencies {
    /// Takes in a duration.
    pub fn add(&self, way: Way, took: Duration) {
        let histogram = match way {
            Way::Worse => &self.worse,
            Way::Better => &self.better,
        };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        histogram.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        histogram.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Both ways as they are now.
    #[must_use]
    pub fn read(&self) -> Vec<Latency> {
        [("worse", &self.worse), ("better", &self.better)]
            .map(|(change, histogram)| histogram.read(change))
            .into()
    }
}

impl Histogram {
    fn read(&self, change: &str) -> Latency {
        let counts = self.buckets.each_ref().map(|it| it.load(Ordering::Relaxed));
        let seconds = |micros| Duration::from_micros(micros).as_secs_f64();
        Latency {
            change: change.to_owned(),
            count: counts.iter().sum(),
            sum_seconds: seconds(self.micros.load(Ordering::Relaxed)),
            buckets: BOUNDS.map(seconds).into_iter().zip(counts).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_that_it_fits() {
        let latencies = Latencies::default();
        for micros in [0, 100, 101, 1_000, 1_000_000, 1_000_001] {
            latencies.add(Way::Worse, Duration::from_micros(micros));
        }
        let [worse, better] = latencies.read().try_into().expect("two ways");
        let counts: Vec<_> = worse.buckets.iter().map(|bucket| bucket.1).collect();
        assert_eq!(counts, [2, 1, 0, 1, 0, 0, 0, 0, 0, 1], "{worse:?}");
        assert_eq!((worse.count, worse.sum_seconds), (6, 2.001_202));
        assert_eq!((better.count, &*better.change), (0, "better"));
    }
}
