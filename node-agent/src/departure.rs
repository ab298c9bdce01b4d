//! `vipd maint`: takes the whole node out of service without losing a packet.
//!
//! Routers are told to prefer other ways (RFC 8326), and followed until they do;
//! only then are the routes withdrawn, and the agent stops. Whoever asks waits
//! and counts: if that is interrupted, the node goes on serving, only worse
//! announced.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{sync::oneshot, time::sleep};
use vipd_abi::Verdict;

use crate::{api::Client, drain::Answer, status::Status, terminal};

/// What the agent is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Announce worse, so that routers prefer other ways.
    Begin,
    /// Announce as before.
    End,
    /// Withdraw everything, forward on for a while, and stop.
    Leave,
}

/// An order, and where its answer goes.
pub type Request = (Order, oneshot::Sender<Answer>);

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_secs(1);

/// The rate is that of so many looks.
const LOOKS: usize = 3;

/// Fewer packets per second than this are stragglers.
const QUIET: f64 = 5.0;

/// How long the agent may take to go beyond its linger.
const GOING: Duration = Duration::from_secs(60);

/// Routers still send to this node.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error(
    "{rate:.0} packets/s still arrive after {seconds} s: no other way has taken over. The node \
     stays in maintenance, announced and forwarding. Do routers act on GRACEFUL_SHUTDOWN, and is \
     there another node? `vipd maint --force` withdraws all the same, `vipd maint --end` goes back"
)]
pub struct Unfollowed {
    /// Packets per second.
    pub rate: f64,
    /// How long was waited.
    pub seconds: u64,
}

impl Unfollowed {
    /// The command's exit code.
    pub const EXIT_CODE: u8 = 3;
}

/// Takes the node out of service.
///
/// # Errors
///
/// [`Unfollowed`] unless forced, when the agent cannot be reached, or nothing can
/// be printed.
pub async fn leave(client: &Client, limit: Duration, force: bool) -> anyhow::Result<()> {
    terminal::line(client.depart(Order::Begin).await?.message)?;
    let begun = Instant::now();
    let mut rate = Rate::default();
    let mut told = None;
    loop {
        let now = rate.look(packets(&client.status().await?), Instant::now());
        if let Some(now) = now
            && told != Some(now.round())
        {
            terminal::line(format_args!("{now:.0} packets/s"))?;
            told = Some(now.round());
        }
        match now {
            Some(now) if now < QUIET => break,
            Some(now) if begun.elapsed() >= limit => {
                let unfollowed = Unfollowed {
                    rate: now,
                    seconds: limit.as_secs(),
                };
                if !force {
                    return Err(unfollowed.into());
                }
                terminal::line(format_args!("{now:.0} packets/s still arrive; going on"))?;
                break;
            }
            _ => sleep(LOOK).await,
        }
    }
    terminal::line(client.depart(Order::Leave).await?.message)?;
    client.gone(GOING).await?;
    Ok(terminal::line(
        "the agent has stopped: nothing is announced or forwarded here",
    )?)
}

/// Packets that were forwarded, by verdict: what services count goes with them.
fn packets(status: &Status) -> u64 {
    let forwarded = [Verdict::Forwarded, Verdict::Redirected].map(Verdict::label);
    let verdicts = status.dataplane.iter().flat_map(|plane| &plane.verdicts);
    let counts = verdicts.filter(|(verdict, _)| forwarded.contains(&verdict.as_str()));
    counts.map(|(_, packets)| packets).sum()
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
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_looks() {
        let start = Instant::now();
        let mut rate = Rate::default();
        let mut look = |second: u64, count| rate.look(count, start + Duration::from_secs(second));
        assert_eq!(look(0, 1000), None);
        assert_eq!(look(1, 2000), None);
        assert_eq!(look(2, 3000), None, "too few looks to be sure");
        assert_eq!(look(3, 4000), Some(1000.0));
        assert_eq!(look(4, 4000), Some(2000.0 / 3.0));
        assert_eq!(look(5, 4000), Some(1000.0 / 3.0));
        assert_eq!(look(6, 4000), Some(0.0), "nothing comes any more");
        assert_eq!(
            look(7, 10),
            None,
            "it counts from the start: that is not quiet"
        );
        assert_eq!(look(8, 1010), None);
        assert_eq!(look(9, 2010), None);
        assert_eq!(look(10, 3010), Some(1000.0));
    }

    #[test]
    fn what_is_forwarded_is_counted_whatever_becomes_of_services() {
        let status = serde_json::json!({
            "node": "lb1", "version": "0", "uptime_seconds": 1.0, "config": "vipd.toml",
            "dataplane": {
                "pin_path": "/pins", "interfaces": [], "fault": null, "faults": {}, "maps": [],
                "verdicts": { "forwarded": 40, "redirected": 2, "not_vip": 1000, "loop": 7 },
            },
            "vips": [], "services": [], "peers": [], "findings": [],
        });
        let status = serde_json::from_value(status).expect("a status");
        assert_eq!(packets(&status), 42);
    }
}
