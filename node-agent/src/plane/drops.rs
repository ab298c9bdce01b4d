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
use crate::{config::Dataplane, dataplane::tables::Counters, netlink::way::Ways};

/// What is dropped by a fault of this host. Others are the packet's own, or can be
/// provoked by whoever sends some. A next hop that is missing is a fault of this host
/// only while there is a way to no backend at all: before, it is one of that backend,
/// which all nodes suffer from.
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

/// Publishes why the data plane is not to be relied on, while it is so, by what it
/// counts and the ways to all backends. Ends when nobody listens.
pub async fn watch(
    counters: Arc<Counters>,
    config: watch::Receiver<Option<Dataplane>>,
    ways: watch::Receiver<Ways>,
    out: watch::Sender<Option<String>>,
) {
    let mut drops = Drops::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !out.is_closed() {
        looks.tick().await;
        let most = config.borrow().as_ref().and_then(|c| c.max_drop_rate);
        let counts = OURS.map(|verdict| counters.sum(verdict as u32).packets);
        let has_way = !ways.borrow().is_empty();
        let found = drops.look(most, counts, has_way, Instant::now());
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
    /// The counters at the last look.
    seen: Option<[u64; OURS.len()]>,
    /// What of them counts here, since the first look.
    totals: [u64; OURS.len()],
    samples: VecDeque<(Instant, [u64; OURS.len()])>,
    /// What was said when it became too much.
    too_much: Option<String>,
    steady: Steady,
}

impl Default for Drops {
    fn default() -> Self {
        Self {
            seen: None,
            totals: [0; OURS.len()],
            samples: VecDeque::new(),
            too_much: None,
            steady: Steady::new(PAUSE[0], PAUSE[1]),
        }
    }
}

impl Drops {
    /// Takes in the counts so far, and whether any backend has a way. Gives back what
    /// is too much, by the bound in packets per second; once it was, half of that is
    /// too much still.
    fn look(
        &mut self,
        most: Option<u32>,
        counts: [u64; OURS.len()],
        has_way: bool,
        now: Instant,
    ) -> Option<String> {
        let Some(most) = most else {
            *self = Self::default();
            return None;
        };
        let seen = self.seen.replace(counts).unwrap_or(counts);
        for (place, verdict) in OURS.into_iter().enumerate() {
            if verdict != Verdict::NoNextHop || !has_way {
                // Counts begin anew with another program.
                self.totals[place] += counts[place].saturating_sub(seen[place]);
            }
        }
        self.samples.push_back((now, self.totals));
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
        let rates = [0, 1, 2].map(|i| (self.totals[i] - first[i]) as f64 / seconds);
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
                found = drops.look(most, [total, 0, 0], false, now);
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
    #[test]
    fn a_missing_next_hop_counts_only_while_no_backend_has_a_way() {
        // Half a minute with 1000 packets/s of one kind.
        let check = |sentence: &str, verdict: Verdict, has_way, expected: bool| {
            let start = Instant::now();
            let mut drops = Drops::default();
            let place = OURS.iter().position(|ours| *ours == verdict);
            let place = place.expect("one of ours");
            let mut found = None;
            for second in 0..30 {
                let mut counts = [7; OURS.len()];
                counts[place] += 1000 * second;
                let now = start + Duration::from_secs(second);
                found = drops.look(Some(100), counts, has_way, now);
            }
            assert_eq!(found.is_some(), expected, "{sentence}: {found:?}");
        };
        check("one backend is dead", Verdict::NoNextHop, true, false);
        check("all neighbours are lost", Verdict::NoNextHop, false, true);
        check("no room, always", Verdict::NoHeadroom, true, true);
        check("nonsense, always", Verdict::Inconsistent, true, true);
    }

    #[test]
    fn what_was_excused_does_not_count_when_the_last_way_goes() {
        let start = Instant::now();
        let mut drops = Drops::default();
        let mut look = |second, total, has_way| {
            let now = start + Duration::from_secs(second);
            drops.look(Some(100), [total, 0, 0], has_way, now)
        };
        for second in 0..30 {
            assert_eq!(look(second, 1000 * second, true), None, "{second}");
        }
        assert_eq!(look(30, 29_900, false), None, "900 in ten seconds");
        assert!(look(31, 30_900, false).is_some(), "1900 in ten seconds");
    }
}
