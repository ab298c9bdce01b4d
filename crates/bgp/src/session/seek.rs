//! Finding the peer: dialling, accepting, and the pause before the next
//! attempt.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;

use super::connection::Connection;
use super::liveness::OPEN_WAIT;
use super::timer::Timer;
use super::{Action, Dialler, Direction, Retreat, Session};

impl Session {
    /// Dials, or if passive waits for the peer to.
    pub(super) fn seek(&mut self, now: Instant, why: &str) {
        if self.config.passive {
            self.dialler = Dialler::Waiting;
            self.timers.stop(Timer::ConnectRetry);
        } else {
            self.dialler = Dialler::Dialling { since: now };
            self.timers
                .set(Timer::ConnectRetry, now + self.config.connect_timeout);
            self.actions.push_back(Action::Connect);
        }
        self.settle(why);
    }

    /// Gives up a dial, if there is one, and waits.
    pub(super) fn stop_dialling(&mut self) {
        if let Dialler::Dialling { .. } = self.dialler {
            self.dialler = Dialler::Waiting;
            self.timers.stop(Timer::ConnectRetry);
            self.close(Direction::Outgoing, Bytes::new());
        }
    }

    pub(super) fn dial_failed(&mut self, reason: &str, now: Instant) {
        let Dialler::Dialling { since } = self.dialler else {
            return;
        };
        self.dialler = Dialler::Waiting;
        self.timers.stop(Timer::ConnectRetry);
        let words = format!("cannot connect: {reason}");
        self.note_error(words.clone(), now);
        // Pauses count from dial to dial: one that took long has had its pause.
        self.retreat(Retreat::Active, since, now, &words);
    }

    pub(super) fn connected(&mut self, direction: Direction, local: IpAddr, now: Instant) {
        if self.connections[direction as usize].is_some() {
            return;
        }
        let dialling = matches!(self.dialler, Dialler::Dialling { .. });
        match direction {
            Direction::Outgoing if dialling => self.dialler = Dialler::Waiting,
            Direction::Outgoing => return self.close(direction, Bytes::new()),
            Direction::Incoming => (),
        }
        if self.dialler == Dialler::Waiting {
            self.timers.stop(Timer::ConnectRetry);
        }
        let connection = Connection::new(local.to_canonical(), self.open());
        self.connections[direction as usize] = Some(connection);
        self.timers.set(Timer::Hold(direction), now + OPEN_WAIT);
        self.settle(match direction {
            Direction::Outgoing => "connected to the peer",
            Direction::Incoming => "the peer connected",
        });
    }

    /// Times the next attempt, counted from `since`, unless another connection
    /// is still good for one, or a dial after what may be over any time. A dial
    /// does not keep a peer in error from its pause: nothing is to be accepted.
    pub(super) fn retreat(&mut self, retreat: Retreat, since: Instant, now: Instant, why: &str) {
        let alone = self.connections.iter().all(Option::is_none);
        if alone && retreat != Retreat::Active {
            self.stop_dialling();
        }
        if alone && !matches!(self.dialler, Dialler::Dialling { .. }) {
            let pause = self.jitter.shorten(self.backoff.fail());
            let deadline = now.max(since + pause);
            self.dialler = match retreat {
                Retreat::Idle => Dialler::Held,
                Retreat::TooMany { limit } => Dialler::TooMany { limit },
                Retreat::Active => Dialler::Waiting,
            };
            match retreat {
                Retreat::Idle => self.timers.set(Timer::IdleHold, deadline),
                Retreat::TooMany { .. } => {
                    let deadline = since + self.config.max_prefixes_pause;
                    self.timers.set(Timer::IdleHold, deadline);
                }
                Retreat::Active if self.config.passive => (),
                Retreat::Active => self.timers.set(Timer::ConnectRetry, deadline),
            }
        }
        self.settle(why);
    }
}
