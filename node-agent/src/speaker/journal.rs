//! What is logged of a session: each event in a line, and the same trouble once
//! and then now and then with a count, so that a router that is down for a week
//! fills no disk.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};
use vipd_bgp::{Event, LastError, State, Status, wire::Code};

/// Trouble that goes on is told again after this time.
const AGAIN: Duration = Duration::from_secs(5 * 60);

/// Kinds of trouble that are remembered at once.
const KINDS: usize = 8;

/// The log of one session.
#[derive(Debug)]
pub struct Journal {
    peer: Box<str>,
    repeats: Repeats,
    /// The error that was told last, and what the loss of the session was.
    error_told: Option<Instant>,
    lost: String,
    /// When the session was established of which the dangers were told.
    warned: Option<Instant>,
    /// When the session came into its present state.
    pub since: Instant,
    /// The last NOTIFICATION of the peer's.
    pub received: Option<LastError>,
    /// The last NOTIFICATION of ours.
    pub sent: Option<LastError>,
}

impl Journal {
    /// An empty one.
    #[must_use]
    pub fn new(peer: &str, now: Instant) -> Self {
        Self {
            peer: peer.into(),
            repeats: Repeats::default(),
            error_told: None,
            lost: String::new(),
            warned: None,
            since: now,
            received: None,
            sent: None,
        }
    }

    /// Takes in an event.
    pub fn event(&mut self, event: &Event, now: Instant) {
        let peer = &*self.peer;
        match event {
            Event::StateChanged { from, to, why } => self.state_changed(*from, *to, why, now),
            Event::Established(agreed) => debug!(peer, ?agreed, "agreed"),
            Event::NotificationSent { notification, .. } => {
                let words = notification.to_string();
                match notification.code {
                    Code::COLLISION => debug!(peer, "sent NOTIFICATION: {words}"),
                    _ => self.warn(&format!("sent NOTIFICATION: {words}"), now),
                }
                self.sent = Some(LastError { at: now, words });
            }
            Event::NotificationReceived { notification, .. } => {
                let words = notification.to_string();
                debug!(peer, "received NOTIFICATION: {words}");
                self.received = Some(LastError { at: now, words });
            }
            Event::EndOfRib(family) => debug!(peer, ?family, "the peer has all routes"),
            Event::RefreshRequested(family) => {
                info!(peer, ?family, "the peer asks for all routes again");
            }
            Event::UpdateFaults(faults) => {
                for fault in faults {
                    debug!(peer, ?fault, "malformed UPDATE survived (RFC 7606)");
                }
            }
        }
    }

    /// Tells what has gone wrong last and what is dangerous about the session,
    /// unless that was told.
    pub fn status(&mut self, status: &Status, now: Instant) {
        if std::mem::replace(&mut self.warned, status.established_at) != status.established_at {
            for warning in &status.warnings {
                self.warn(warning, now);
            }
        }
        let Some(error) = &status.last_error else {
            return;
        };
        if self.error_told.replace(error.at) == Some(error.at) || self.lost == error.words {
            return;
        }
        self.warn(&format!("no BGP session: {}", error.words), now);
    }

    fn state_changed(&mut self, from: State, to: State, why: &str, now: Instant) {
        let peer = &*self.peer;
        self.since = now;
        self.lost.clear();
        if to == State::Established {
            info!(peer, "BGP session established (was {from}): {why}");
        } else if from == State::Established {
            self.lost = why.to_owned();
            self.warn(&format!("BGP session lost, now {to}: {why}"), now);
        } else {
            debug!(peer, "{from} -> {to}: {why}");
        }
    }

    fn warn(&mut self, words: &str, now: Instant) {
        let peer = &*self.peer;
        match self.repeats.note(words, now) {
            None => debug!(peer, "{words}"),
            Some(0) => warn!(peer, "{words}"),
            Some(times) => warn!(peer, "{words} (and {times} times since this was last told)"),
        }
    }
}

/// Which words have been told, and how often they came since.
#[derive(Debug, Default)]
struct Repeats(VecDeque<Told>);

#[derive(Debug)]
struct Told {
    words: String,
    at: Instant,
    since: u64,
}

impl Repeats {
    /// Takes in words. `None`: not to be told again yet. Otherwise how often
    /// they came without being told.
    fn note(&mut self, words: &str, now: Instant) -> Option<u64> {
        if let Some(told) = self.0.iter_mut().find(|told| told.words == words) {
            if now.duration_since(told.at) < AGAIN {
                told.since += 1;
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.since));
        }
        if self.0.len() == KINDS {
            self.0.pop_front();
        }
        self.0.push_back(Told {
            words: words.to_owned(),
            at: now,
            since: 0,
        });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_that_goes_on_is_told_once_and_again_after_a_while_with_a_count() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        let mut told = Vec::new();
        for second in 0..601 {
            let now = start + Duration::from_secs(second);
            for words in ["no answer", "reset"] {
                if let Some(times) = repeats.note(words, now) {
                    told.push((second, words, times));
                }
            }
        }
        let expected = [
            (0, "no answer", 0),
            (0, "reset", 0),
            (300, "no answer", 299),
            (300, "reset", 299),
            (600, "no answer", 299),
            (600, "reset", 299),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        for number in 0..1000 {
            assert_eq!(repeats.note(&number.to_string(), now), Some(0));
        }
        assert_eq!(repeats.0.len(), KINDS);
        assert_eq!(repeats.note("999", now), None);
    }
}
