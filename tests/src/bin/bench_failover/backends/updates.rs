//! How long decisions take to become UPDATEs that the kernel has, by what the agent
//! itself tells.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use vipd_tests::Vipd;

/// The longest that it may take in the median, in milliseconds. The agent counts
/// how many took no longer.
pub const GOAL_MS: f64 = 1.0;

/// What gets worse, and what gets better.
#[derive(Clone, Debug, Default)]
pub struct Updates(pub Vec<Latency>);

/// Of one of them.
#[derive(Clone, Debug)]
pub struct Latency {
    /// `worse` or `better`.
    pub change: String,
    /// How many there were.
    pub count: u64,
    /// All together, in milliseconds.
    pub sum_ms: f64,
    /// Upper bounds in milliseconds, and how many took longer than the bound
    /// before and no longer than this one.
    pub buckets: Vec<(f64, u64)>,
}

impl Updates {
    /// Since the start of the agent.
    pub fn of(agent: &Vipd) -> Result<Self> {
        let status = agent.status()?;
        let told = status["decision_to_update"].as_array();
        let told = told.context("the agent does not tell how long UPDATEs take")?;
        let all = told.iter().map(Latency::read).collect::<Option<_>>();
        all.map(Self)
            .with_context(|| format!("not understood: {told:?}"))
    }

    /// What has come since then.
    pub fn since(mut self, before: &Self) -> Self {
        for latency in &mut self.0 {
            let old = before.0.iter().find(|it| it.change == latency.change);
            if let Some(old) = old {
                latency.combine(old, u64::saturating_sub, |a, b| a - b);
            }
        }
        self
    }

    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        for new in other.0 {
            match self.0.iter_mut().find(|it| it.change == new.change) {
                Some(old) => old.combine(&new, u64::saturating_add, |a, b| a + b),
                None => self.0.push(new),
            }
        }
        self
    }
}

impl Latency {
    fn read(told: &Value) -> Option<Self> {
        let ms = |value: &Value| Some(value.as_f64()? * 1e3);
        let bucket = |value: &Value| Some((ms(&value[0])?, value[1].as_u64()?));
        Some(Self {
            change: told["change"].as_str()?.to_owned(),
            count: told["count"].as_u64()?,
            sum_ms: ms(&told["sum_seconds"])?,
            buckets: told["buckets"]
                .as_array()?
                .iter()
                .map(bucket)
                .collect::<Option<_>>()?,
        })
    }

    fn combine(&mut self, other: &Self, counts: fn(u64, u64) -> u64, times: fn(f64, f64) -> f64) {
        self.count = counts(self.count, other.count);
        self.sum_ms = times(self.sum_ms, other.sum_ms);
        for (bucket, old) in self.buckets.iter_mut().zip(&other.buckets) {
            bucket.1 = counts(bucket.1, old.1);
        }
    }

    pub fn mean_ms(&self) -> f64 {
        self.sum_ms / self.count as f64
    }

    /// Which part took no longer than that.
    pub fn share_within(&self, ms: f64) -> f64 {
        let within = self.buckets.iter().filter(|(bound, _)| *bound <= ms);
        within.map(|(_, count)| count).sum::<u64>() as f64 / self.count as f64
    }

    /// The bound that half of them were within, in milliseconds.
    pub fn median_at_most_ms(&self) -> f64 {
        let mut within = 0;
        for (bound, count) in &self.buckets {
            within += count;
            if 2 * within >= self.count {
                return *bound;
            }
        }
        f64::INFINITY
    }

    /// For a file of results.
    pub fn json(&self) -> Value {
        json!({
            "change": self.change,
            "count": self.count,
            "mean_ms": self.mean_ms(),
            "median_at_most_ms": self.median_at_most_ms(),
            "share_within_goal": self.share_within(GOAL_MS),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_known_by_the_bucket_that_it_is_in() {
        let told = |counts: [u64; 3]| {
            let sum = counts.iter().sum::<u64>() + 1;
            let latency = json!({
                "change": "worse",
                "count": sum,
                "sum_seconds": sum as f64 / 1e3,
                "buckets": [[0.0005, counts[0]], [0.001, counts[1]], [0.0025, counts[2]]],
            });
            Updates(vec![Latency::read(&latency).expect("it is whole")])
        };
        // Each has one more above all bounds, the difference has none.
        let cases = [([3, 1, 0], 0.5), ([1, 3, 0], 1.0), ([1, 2, 4], 2.5)];
        for (counts, median) in cases {
            let difference = told(counts).since(&told([0; 3]));
            let latency = &difference.0[0];
            assert_eq!(latency.median_at_most_ms(), median, "{latency:?}");
            assert_eq!(latency.count, counts.iter().sum::<u64>());
        }
        let sum = told([1, 0, 0]).and(told([0, 1, 0]));
        assert_eq!(sum.0[0].share_within(1.0), 0.5, "two of four: {sum:?}");
    }
}
