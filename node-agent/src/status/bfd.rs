//! What `vipd status` shows of BFD with a peer.

use serde::{Deserialize, Serialize};

use super::ago;
use crate::bfd::protocol::State;

/// What [`Bfd::state`] can be besides the states of RFC 5880.
pub const BFD_UNKNOWN: &str = "unknown";

/// The BFD session with a peer that is to have one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bfd {
    /// State by RFC 5880, or `unknown` when the BFD process tells nothing of it.
    pub state: String,
    /// Why it is not up; empty when it is.
    pub why: String,
    /// How long it has been in that state, if that is known.
    pub for_seconds: Option<f64>,
    /// Between two of our packets, before up to a quarter is taken off.
    pub transmit_interval_seconds: Option<f64>,
    /// After so long a silence the peer is given up.
    pub detection_time_seconds: Option<f64>,
    /// The worst time between two of our packets in the last minute; none before
    /// the session was up.
    pub transmit_gap_seconds: Option<f64>,
    /// How often it was up and went down, since the BFD process was started.
    pub downs: u64,
    /// Why it last went down; kept while it is up.
    pub last_down: Option<String>,
}

impl Bfd {
    /// One of which nothing is known.
    #[must_use]
    pub fn unknown(why: String, downs: u64) -> Self {
        Self {
            state: BFD_UNKNOWN.to_owned(),
            why,
            for_seconds: None,
            transmit_interval_seconds: None,
            detection_time_seconds: None,
            transmit_gap_seconds: None,
            downs,
            last_down: None,
        }
    }

    /// Whether packets pass both ways.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up.to_string()
    }

    /// The state, for how long, and why it is not up.
    #[must_use]
    pub fn words(&self) -> String {
        let since = self
            .for_seconds
            .map(|seconds| format!(" for {}", ago(seconds)));
        let why = Some(&self.why).filter(|why| !why.is_empty());
        let why = why.map(|why| format!(": {why}"));
        [Some(self.state.clone()), since, why]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Its intervals, and how punctual we are.
    #[must_use]
    pub fn timing(&self) -> String {
        let parts = [
            ("we send every", self.transmit_interval_seconds),
            ("the peer is given up after", self.detection_time_seconds),
            (
                "worst gap of ours in the last minute",
                self.transmit_gap_seconds,
            ),
        ];
        let parts = parts
            .into_iter()
            .filter_map(|(name, seconds)| Some(format!("{name} {:.0} ms", seconds? * 1000.0)));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// How often it went down, and why the last time.
    #[must_use]
    pub fn history(&self) -> String {
        match (self.downs, &self.last_down) {
            (0, _) => String::new(),
            (downs, None) => downs.to_string(),
            (downs, Some(why)) => format!("{downs}, the last time: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_said_and_nothing_else() {
        let up = Bfd {
            state: "Up".to_owned(),
            why: String::new(),
            for_seconds: Some(75.0),
            transmit_interval_seconds: Some(0.1),
            detection_time_seconds: Some(0.3),
            transmit_gap_seconds: Some(0.1042),
            downs: 2,
            last_down: Some("nothing was heard of the peer for 300ms".to_owned()),
        };
        let down = Bfd {
            state: "Down".to_owned(),
            why: "eth0 has no carrier".to_owned(),
            for_seconds: Some(3.0),
            transmit_gap_seconds: None,
            detection_time_seconds: None,
            ..up.clone()
        };
        let unknown = Bfd::unknown("the BFD process is not reached".to_owned(), 0);
        for (bfd, is_up, words, timing, history) in [
            (
                up,
                true,
                "Up for 1m15s",
                "we send every 100 ms, the peer is given up after 300 ms, worst gap of ours in \
                 the last minute 104 ms",
                "2, the last time: nothing was heard of the peer for 300ms",
            ),
            (
                down,
                false,
                "Down for 3s: eth0 has no carrier",
                "we send every 100 ms",
                "2, the last time: nothing was heard of the peer for 300ms",
            ),
            (
                unknown,
                false,
                "unknown: the BFD process is not reached",
                "",
                "",
            ),
        ] {
            assert_eq!(bfd.is_up(), is_up, "{bfd:?}");
            assert_eq!(bfd.words(), words);
            assert_eq!(bfd.timing(), timing);
            assert_eq!(bfd.history(), history);
        }
    }
}
