//! Whether the data plane drops too many packets for reasons of this host's own.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};
use vipd_abi::Verdict;

use super::steady::Steady;
use crate::{config::Dataplane, dataplane::tables::Counters};

/// What is dropped though client and backend are well. Others are the packet's own
/// fault, or can be provoked by whoever sends some.
const OURS: [Verdict; 3] = [
    Verdict::NoNextHop,
    Verdict::NoHeadroom,
    Verdict::Inconsistent,
];

/// Time over which the rate is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long too much still counts. What is withdrawn drops nothing, which says
/// little about whether it would.
const PAUSE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];

/// Publishes why the data plane is not to be relied on, while it is so. Ends when
/// nobody listens.
pub async fn watch(
    counters: Arc<Counters>,
    config: watch::Receiver<Option<Dataplane>>,
    out: watch::Sender<Option<String>>,
) {
    let mut drops = Drops::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !out.is_closed() {
        looks.tick().await;
        let most = config.borrow().as_ref().and_then(|c| c.max_drop_rate);
        let counts = OURS.map(|verdict| counters.sum(verdict as u32).packets);
        let found = drops.look(most, counts, Instant::now());
        out.send_if_modified(|current| {
            let changed = *current != found;
            if changed {
                match &found {
                    Some(words) => warn!("the data plane is not relied on: {words}"),
                    None => info!("the data plane is relied on again"),
                }
                current.clone_from(&found);
            }
            changed
        });
    }
}

/// What was dropped lately.
struct Drops {
    samples: VecDeque<(Instant, [u64; OURS.len()])>,
    /// What was said when it became too much.
    too_much: Option<String>,
    steady: Steady,
}

impl Default for Drops {
    fn default() -> Self {
        Self {
            samples: VecDeque::new(),
            too_much: None,
            steady: Steady::new(PAUSE[0], PAUSE[1]),
        }
    }
}

impl Drops {
    /// Takes in the counts so far. Gives back what is too much, by the bound in
    /// packets per second; once it was, half of that is too much still.
    fn look(
        &mut self,
        most: Option<u32>,
        counts: [u64; OURS.len()],
        now: Instant,
    ) -> Option<String> {
        let Some(most) = most else {
            *self = Self::default();
            return None;
        };
        self.samples.push_back((now, counts));
        // The first that stays is at least as old as the window is long.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| *at + WINDOW <= now)
        {
            self.samples.pop_front();
        }
        let (begun, first) = *self.samples.front()?;
        let seconds = now.duration_since(begun).as_secs_f64();
        if now < begun + WINDOW {
            return self.steady.judge(self.too_much.clone(), now);
        }
        // Counts begin anew with another program.
        let rates = [0, 1, 2].map(|i| counts[i].saturating_sub(first[i]) as f64 / seconds);
        let rate: f64 = rates.iter().sum();
        let bound = f64::from(most) / if self.too_much.is_some() { 2.0 } else { 1.0 };
        if rate <= bound {
            self.too_much = None;
        } else if self.too_much.is_none() {
            let reasons = OURS.iter().zip(rates).filter(|(_, rate)| *rate > 0.0);
            let reasons: Vec<_> = reasons.map(|(verdict, _)| verdict.label()).collect();
            self.too_much = Some(format!(
                "the data plane dropped {rate:.0} packets/s ({}), more than max_drop_rate = {most}",
                reasons.join(", ")
            ));
        }
        self.steady.judge(self.too_much.clone(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_drops_count_until_they_have_been_few_for_a_while() {
        let start = Instant::now();
        let mut drops = Drops::default();
        let mut total = 0;
        let mut second = 0;
        // So many seconds at so many packets per second, and what counts then.
        let mut check = |sentence: &str, most, seconds, rate, expected: Option<&str>| {
            let mut found = None;
            for _ in 0..seconds {
                total += rate;
                second += 1;
                let now = start + Duration::from_secs(second);
                found = drops.look(most, [total, 0, 0], now);
            }
            let fits = match (&found, expected) {
                (None, None) => true,
                (Some(found), Some(words)) => found.contains(words),
                _ => false,
            };
            assert!(fits, "{sentence}: {found:?}");
        };
        let bound = Some(100);
        check("just as many as may be", bound, 30, 100, None);
        check(
            "a burst counts over ten seconds",
            bound,
            1,
            900,
            Some("dropped 180 packets/s (no_next_hop)"),
        );
        check("the end counts later", bound, 30, 0, Some("this is over"));
        check("as long as it was too much", bound, 30, 0, None);
        check("not for long enough", bound, 5, 110, None);
        check(
            "too many",
            bound,
            10,
            200,
            Some("more than max_drop_rate = 100"),
        );
        check(
            "between half and whole: still",
            bound,
            60,
            60,
            Some("max_drop_rate"),
        );
        check("less than half", bound, 60, 40, Some("this is over"));
        check("for twice as long as before", bound, 30, 40, None);
        check("no bound", None, 30, 9000, None);
    }
}
