//! What is logged of a session: each event in a line, and the same trouble once
//! and then now and then with a count, so that a router that is down for a week
//! fills no disk.

use std::time::{Duration, Instant};

use tracing::{debug, info, warn};
use vipd_bgp::{Bfd, Event, LastError, State, Status, wire::Code};

use crate::repeats::Repeats;

/// BFD that is not up is told of when the session has stood for so long without:
/// it may come up a little later than BGP.
const BFD_LATE: Duration = Duration::from_secs(10);

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
    /// The session stands without the BFD that it should have.
    unwatched: Option<Unwatched>,
    /// When the session came into its present state.
    pub since: Instant,
    /// The last NOTIFICATION of the peer's.
    pub received: Option<LastError>,
    /// The last NOTIFICATION of ours.
    pub sent: Option<LastError>,
}

#[derive(Clone, Copy, Debug)]
struct Unwatched {
    since: Instant,
    told: bool,
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
            unwatched: None,
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
                let words = format!("the peer asks for all routes of {family} again");
                match self.repeats.note(&words, now) {
                    None => debug!(peer, "{words}"),
                    Some(_) => info!(peer, "{words}"),
                }
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
        if self.in_danger(status, now) {
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

    /// When there may be something to tell of a status that stays as it is.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let unwatched = self.unwatched.filter(|unwatched| !unwatched.told)?;
        Some(unwatched.since + BFD_LATE)
    }

    /// Whether the dangers of the session are to be told now: once, when it has
    /// been established, and when it has lost BFD; either way not before BFD is up
    /// or late.
    fn in_danger(&mut self, status: &Status, now: Instant) -> bool {
        let Some(established) = status.established_at else {
            self.unwatched = None;
            return false;
        };
        let mut late = false;
        if status.bfd.as_ref().is_none_or(|bfd| *bfd == Bfd::Up) {
            self.unwatched = None;
        } else {
            let (since, told) = (now, false);
            let unwatched = self.unwatched.get_or_insert(Unwatched { since, told });
            if now.duration_since(unwatched.since) < BFD_LATE {
                return false;
            }
            late = !std::mem::replace(&mut unwatched.told, true);
        }
        self.warned.replace(established) != Some(established) || late
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

#[cfg(test)]
mod tests {
    use vipd_bgp::{PeerConfig, Session};

    use super::*;

    #[test]
    fn dangers_are_told_once_and_those_without_bfd_only_when_it_is_late() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let id = [192, 0, 2, 1].into();
        let session = Session::new(PeerConfig::new(64496, 64497, id), 1);
        let session = session.expect("a good configuration");
        let status = |established: Option<u64>, bfd: &Option<Bfd>| Status {
            established_at: established.map(at),
            bfd: bfd.clone(),
            warnings: vec!["danger".to_owned()],
            ..session.status()
        };
        let (up, down) = (Some(Bfd::Up), Some(Bfd::Down("no reason".into())));
        let unknown = Some(Bfd::default());
        let looks = [
            (0, None, &down, false, None),
            (100, None, &down, false, None),
            // Told when it stands; without BFD when that is late.
            (100, Some(100), &down, false, Some(110)),
            (109, Some(100), &down, false, Some(110)),
            (110, Some(100), &down, true, None),
            (500, Some(100), &down, false, None),
            (501, Some(100), &up, false, None),
            // BFD is lost, and in time here again.
            (600, Some(100), &unknown, false, Some(610)),
            (609, Some(100), &up, false, None),
            // It is lost for longer.
            (700, Some(100), &unknown, false, Some(710)),
            (710, Some(100), &down, true, None),
            // The next session, in which it is up at last.
            (800, None, &down, false, None),
            (801, Some(801), &down, false, Some(811)),
            (805, Some(801), &up, true, None),
            (900, Some(801), &up, false, None),
            // The next one, without BFD at all.
            (1000, Some(1000), &None, true, None),
            (1100, Some(1000), &None, false, None),
        ];
        let mut journal = Journal::new("router", start);
        for (now, established, bfd, told, due) in looks {
            let status = status(established, bfd);
            assert_eq!(journal.in_danger(&status, at(now)), told, "at {now}");
            assert_eq!(journal.due(), due.map(at), "at {now}");
        }
    }
}
