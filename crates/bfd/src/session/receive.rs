//! Taking in a packet of the peer's (RFC 5880 section 6.8.6).

use std::time::Instant;

use super::poll::Answer;
use super::{Cause, Heard, Hold, SeenSequence, Session};
use crate::authentication::Seen;
use crate::packet::{Packet, Received};
use crate::words::{Diagnostic, Discard, State};

impl Session {
    /// Takes in a packet that is for this session.
    ///
    /// # Errors
    /// Why it has no effect; it is counted.
    pub fn receive(&mut self, received: &Received<'_>, now: Instant) -> Result<(), Discard> {
        let taken = self.take(received, now);
        match taken {
            Ok(()) => self.counters.received += 1,
            Err(reason) => self.discarded(reason),
        }
        taken
    }

    /// Counts a packet for this session that was discarded before it came here.
    pub(crate) fn discarded(&mut self, reason: Discard) {
        self.counters.discarded.count(reason);
        self.last_discard = Some(reason);
    }

    fn take(&mut self, received: &Received<'_>, now: Instant) -> Result<(), Discard> {
        let sequence = self.authenticate(received, now)?;
        let packet = received.packet;
        self.heard = Some(Heard { at: now, packet });
        if let (Some(number), Some(time)) = (sequence, self.detection_time()) {
            let until = now + 2 * time;
            self.seen = Some(SeenSequence { number, until });
        }
        if packet.answer && self.poll.answered() == Answer::Agreed {
            (self.min_tx, self.min_rx) = (self.told_min_tx(), self.config.timing.required_min_rx());
        }
        // A Down that crosses our Init says nothing of what comes of it.
        if matches!(packet.state, State::Down | State::AdminDown) && self.state != State::Init {
            self.told_up = false;
        }
        if self.state == State::AdminDown {
            return Err(Discard::AdminDown);
        }
        self.follow(&packet, now);
        self.answer |= packet.poll;
        Ok(())
    }

    /// Checks the authentication; the sequence number, if there is one.
    fn authenticate(&self, received: &Received<'_>, now: Instant) -> Result<Option<u32>, Discard> {
        match (&self.config.authentication, received.authenticated) {
            (None, false) => Ok(None),
            (None, true) => Err(Discard::Authenticated),
            (Some(_), false) => Err(Discard::NotAuthenticated),
            (Some(authentication), true) => {
                let last = self.seen.filter(|seen| seen.until > now);
                let seen = Seen {
                    last: last.map(|seen| seen.number),
                    multiplier: received.packet.multiplier.get(),
                };
                authentication.verify(received.bytes, seen)
            }
        }
    }

    /// Follows the peer's state.
    fn follow(&mut self, packet: &Packet, now: Instant) {
        use State::{AdminDown, Down, Init, Up};

        let cause = Cause::Peer {
            state: packet.state,
            diagnostic: packet.diagnostic,
        };
        match (self.state, packet.state) {
            // The peer is told to stay away.
            (Down, _) if matches!(self.hold, Some(Hold::Down { .. })) => (),
            (Down, Down) => self.enter(Init, cause, now),
            (Down, Init) => self.enter_up(cause, now),
            (Down, AdminDown | Up) => (),

            (Init, Init | Up) => self.enter_up(cause, now),
            (Init, Down) => (),

            (Up, Init | Up) => (),
            (Init | Up, AdminDown) | (Up, Down) => {
                self.diagnostic = Diagnostic::NEIGHBOR_SIGNALED_DOWN;
                self.enter(Down, cause, now);
            }

            // Such packets have been discarded.
            (AdminDown, _) => (),
        }
    }

    fn enter_up(&mut self, cause: Cause, now: Instant) {
        self.diagnostic = Diagnostic::NONE;
        self.enter(State::Up, cause, now);
    }
}
