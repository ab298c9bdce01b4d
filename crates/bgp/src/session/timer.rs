//! The timers of a session, as a table of deadlines.

use std::time::Instant;

use super::Direction;

/// What can become due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// IdleHoldTimer: after an error of protocol or configuration nothing is
    /// tried or accepted until then (RFC 4271 section 8.1.1).
    IdleHold,
    /// ConnectRetryTimer: in Active the next dial, in Connect the end of one.
    ConnectRetry,
    /// HoldTimer of a connection.
    Hold(Direction),
    /// KeepaliveTimer of a connection.
    Keepalive(Direction),
    /// SendHoldTimer of a connection (RFC 9687).
    SendHold(Direction),
}

impl Timer {
    /// Every timer, in the order in which those due at once are handled.
    const ALL: [Self; 8] = [
        Self::Hold(Direction::Outgoing),
        Self::Hold(Direction::Incoming),
        Self::SendHold(Direction::Outgoing),
        Self::SendHold(Direction::Incoming),
        Self::Keepalive(Direction::Outgoing),
        Self::Keepalive(Direction::Incoming),
        Self::IdleHold,
        Self::ConnectRetry,
    ];
}

/// The deadlines of all timers that run.
#[derive(Debug, Default)]
pub(super) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, deadline: Instant) {
        self.put(timer, Some(deadline));
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.put(timer, None);
    }

    pub(super) fn deadline(&self, timer: Timer) -> Option<Instant> {
        self.iter().find(|&(candidate, _)| candidate == timer)?.1
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.iter().filter_map(|(_, deadline)| deadline).min()
    }

    /// Stops and returns a timer that is due.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Timer> {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let (timer, _) = self.iter().find(|&(_, deadline)| due(deadline))?;
        self.stop(timer);
        Some(timer)
    }

    fn iter(&self) -> impl Iterator<Item = (Timer, Option<Instant>)> {
        Timer::ALL.into_iter().zip(self.0)
    }

    fn put(&mut self, timer: Timer, deadline: Option<Instant>) {
        for (slot, candidate) in self.0.iter_mut().zip(Timer::ALL) {
            if candidate == timer {
                *slot = deadline;
            }
        }
    }
}
