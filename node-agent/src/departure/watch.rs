//! How `vipd maint` waits until routers send nothing any more.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use thiserror::Error;
use vipd_abi::Verdict;

use crate::status::{Arrivals, Status};

/// The rate is that of so many looks.
const LOOKS: usize = 3;

/// Fewer packets per second than this are stragglers.
const QUIET: f64 = 5.0;

/// How long the agent may take to begin to count.
const OPENING: Duration = Duration::from_secs(3);

/// How long the agent may be silent: it may be starting, or at a reload.
const SILENCE: Duration = Duration::from_secs(60);

/// Why the node has stayed.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Stayed {
    /// Routers still send to it.
    #[error(
        "{rate:.0} packets/s still arrive after {seconds} s: no other way has taken over. The node \
         stays in maintenance, announced and forwarding. Do routers act on GRACEFUL_SHUTDOWN, and \
         is there another node? `vipd maint --force` withdraws all the same, `vipd maint --end` \
         goes back"
    )]
    Unfollowed {
        /// Packets per second.
        rate: f64,
        /// How long was waited.
        seconds: u64,
    },
    /// Nobody knows whether they do.
    #[error(
        "whether packets still arrive could not be told for {seconds} s: {why}. The node stays in \
         maintenance, announced and serving. `vipd maint --force` withdraws all the same, `vipd \
         maint --end` goes back"
    )]
    Uncounted {
        /// Why they are not counted.
        why: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Somebody has ended the maintenance, or the data plane went with a stop.
    #[error("the node is not in maintenance any more, and announced as before")]
    Ended,
    /// The agent has not answered for long.
    #[error(
        "the agent has been silent for {seconds} s: {last}. The node stays in maintenance until \
         `vipd maint --end`, also if the agent is started again"
    )]
    Lost {
        /// How long.
        seconds: u64,
        /// What came instead of its last answer.
        last: String,
    },
}

impl Stayed {
    /// The command's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Ended => 1,
            Self::Unfollowed { .. } | Self::Uncounted { .. } => 3,
            Self::Lost { .. } => 4,
        }
    }
}

/// What the agent's status says.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether the node is in maintenance.
    pub maintenance: bool,
    /// Packets that were forwarded, and those that came to this host itself; or why
    /// that is not known.
    pub packets: Result<u64, String>,
}

impl Seen {
    /// In this status.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        // What services count goes with them.
        let forwarded = [Verdict::Forwarded, Verdict::Redirected].map(Verdict::label);
        let verdicts = status.dataplane.iter().flat_map(|plane| &plane.verdicts);
        let counts = verdicts.filter(|(verdict, _)| forwarded.contains(&verdict.as_str()));
        let forwarded: u64 = counts.map(|(_, packets)| packets).sum();
        let arrived = match &status.arrivals {
            None => Err("the agent has not begun to count them".to_owned()),
            Some(Arrivals {
                fault: Some(fault), ..
            }) => Err(fault.clone()),
            Some(Arrivals { packets, .. }) => Ok(packets),
        };
        Self {
            maintenance: status.maintenance,
            packets: arrived.map(|arrived| arrived + forwarded),
        }
    }
}

/// What has been seen and told so far.
pub struct Watch {
    limit: Duration,
    force: bool,
    begun: Instant,
    /// When the agent answered last.
    heard: Instant,
    /// When it knew a count last.
    counted: Instant,
    rate: Rate,
    told: String,
}

/// What to say now, and how the wait ends if it does: whether the node leaves.
pub type Step = (Option<String>, Option<Result<(), Stayed>>);

impl Watch {
    /// A wait that begins now. After `limit` it ends in any case, well if
    /// `force` says so.
    #[must_use]
    pub fn new(limit: Duration, force: bool, now: Instant) -> Self {
        Self {
            limit,
            force,
            begun: now,
            heard: now,
            counted: now,
            rate: Rate::default(),
            told: String::new(),
        }
    }

    /// Takes in what the agent says, or why it does not.
    #[must_use]
    pub fn look(&mut self, seen: Result<Seen, String>, now: Instant) -> Step {
        let seen = match seen {
            Ok(seen) => seen,
            Err(last) => {
                let words = self.news(format!("{last}; asking again"));
                let silent = now.saturating_duration_since(self.heard);
                let lost = (silent >= SILENCE).then_some(Stayed::Lost {
                    seconds: silent.as_secs(),
                    last,
                });
                return (words, lost.map(Err));
            }
        };
        self.heard = now;
        if !seen.maintenance {
            return (None, Some(Err(Stayed::Ended)));
        }
        let over = now.saturating_duration_since(self.begun) >= self.limit;
        let packets = match seen.packets {
            Ok(packets) => packets,
            Err(why) => return self.uncounted(why, over, now),
        };
        self.counted = now;
        let Some(rate) = self.rate.look(packets, now) else {
            return (None, None);
        };
        match (rate < QUIET, over, self.force) {
            (true, _, _) => (self.news(in_words(rate)), Some(Ok(()))),
            (false, false, _) => (self.news(in_words(rate)), None),
            (false, true, true) => {
                let words = format!("{} still arrive; going on", in_words(rate));
                (Some(words), Some(Ok(())))
            }
            (false, true, false) => {
                let seconds = self.limit.as_secs();
                (None, Some(Err(Stayed::Unfollowed { rate, seconds })))
            }
        }
    }

    /// Nobody knows whether packets still arrive. At first that is no news: the
    /// agent opens its counters.
    fn uncounted(&mut self, why: String, over: bool, now: Instant) -> Step {
        self.rate = Rate::default();
        if now.saturating_duration_since(self.counted) < OPENING {
            return (None, None);
        }
        let words = format!("whether packets still arrive cannot be told: {why}");
        match (over, self.force) {
            (false, _) => (self.news(words), None),
            (true, true) => (Some(format!("{words}; going on")), Some(Ok(()))),
            (true, false) => {
                let seconds = self.limit.as_secs();
                (None, Some(Err(Stayed::Uncounted { why, seconds })))
            }
        }
    }

    fn news(&mut self, words: String) -> Option<String> {
        (words != self.told).then(|| {
            self.told.clone_from(&words);
            words
        })
    }
}

fn in_words(rate: f64) -> String {
    format!("{rate:.0} packets/s")
}

/// How fast a counter rises.
#[derive(Debug, Default)]
struct Rate {
    looks: VecDeque<(u64, Instant)>,
}

impl Rate {
    /// Takes in what a counter says; the rate per second, once it has been looked
    /// at often enough. One that has fallen is another one, and says nothing yet.
    fn look(&mut self, count: u64, now: Instant) -> Option<f64> {
        if self.looks.back().is_some_and(|(before, _)| count < *before) {
            self.looks.clear();
        }
        self.looks.push_back((count, now));
        if self.looks.len() <= LOOKS {
            return None;
        }
        let (before, then) = self.looks.pop_front()?;
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        (seconds > 0.0).then(|| (count - before) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests;
