//! Whether the peer is still there: hold timer, keepalives and send hold timer
//! of a connection.

use std::time::{Duration, Instant};

use super::connection::Stage;
use super::timer::Timer;
use super::{Agreed, Direction, Retreat, Session, words};
use crate::wire::{Code, Notification};

/// How long a connection may take to its first OPEN; the RFC suggests four
/// minutes, which is long for a peer that is half gone.
pub(super) const OPEN_WAIT: Duration = Duration::from_secs(60);

/// The least time after which a peer that takes nothing in is given up
/// (RFC 9687 section 3.2).
const SEND_HOLD_LEAST: Duration = Duration::from_secs(8 * 60);

impl Session {
    /// The driver has written something of ours, so the peer takes it in. To
    /// be told after each write that got anything rid of: otherwise the session
    /// ends when the send hold timer expires.
    pub fn wrote(&mut self, direction: Direction, now: Instant) {
        let connection = self.connections[direction as usize].as_ref();
        if let Some(Stage::Established(agreed)) = connection.map(|c| c.stage.clone()) {
            self.restart_send_hold(direction, &agreed, now);
        }
    }

    /// Without a hold time nothing is sent regularly, and nothing expected.
    pub(super) fn restart_send_hold(
        &mut self,
        direction: Direction,
        agreed: &Agreed,
        now: Instant,
    ) {
        if !agreed.hold_time.is_zero() {
            let limit = self.send_hold_time(agreed);
            self.timers.set(Timer::SendHold(direction), now + limit);
        }
    }

    fn send_hold_time(&self, agreed: &Agreed) -> Duration {
        let default = SEND_HOLD_LEAST.max(agreed.hold_time * 2);
        self.config.send_hold_time.unwrap_or(default)
    }

    pub(super) fn send_hold_timer_expired(&mut self, direction: Direction, now: Instant) {
        let connection = self.connections[direction as usize].as_ref();
        let Some(agreed) = connection.and_then(|connection| connection.stage.agreed()) else {
            return;
        };
        let words = format!(
            "send hold timer expired: the peer has taken in nothing of ours for {:?}; \
             it is stuck, or the way to it is",
            self.send_hold_time(agreed)
        );
        let notification = Notification::new(Code::SEND_HOLD_TIMER_EXPIRED, []);
        self.close_with(direction, notification, now);
        self.note_error(words.clone(), now);
        self.retreat(Retreat::Active, now, now, &words);
    }

    pub(super) fn restart_hold(&mut self, direction: Direction, agreed: &Agreed, now: Instant) {
        if agreed.hold_time.is_zero() {
            self.timers.stop(Timer::Hold(direction));
        } else {
            self.timers
                .set(Timer::Hold(direction), now + agreed.hold_time);
        }
    }

    /// Has a KEEPALIVE sent and the next one timed. It does not wait for a
    /// pause in the UPDATEs: it goes before them, so that the peer hears from
    /// us however much there is to send.
    pub(super) fn send_keepalive(&mut self, direction: Direction, now: Instant) {
        let Some(connection) = &mut self.connections[direction as usize] else {
            return;
        };
        connection.queue_keepalive();
        let Some(agreed) = connection.stage.agreed() else {
            return;
        };
        if !agreed.keepalive.is_zero() {
            let pause = self.jitter.shorten(agreed.keepalive);
            self.timers.set(Timer::Keepalive(direction), now + pause);
        }
    }

    pub(super) fn hold_timer_expired(&mut self, direction: Direction, now: Instant) {
        let Some(connection) = &self.connections[direction as usize] else {
            return;
        };
        let (code, words) = match &connection.stage {
            Stage::OpenSent => (
                Code::HOLD_TIMER_EXPIRED,
                format!("the peer is connected but sent no OPEN for {OPEN_WAIT:?}"),
            ),
            Stage::OpenConfirm(_) if connection.withheld => {
                (Code::BFD_DOWN, words::strict_wait(&self.bfd))
            }
            Stage::OpenConfirm(agreed) | Stage::Established(agreed) => (
                Code::HOLD_TIMER_EXPIRED,
                format!(
                    "hold timer expired: nothing heard from the peer for {:?}; \
                     it is down, or the way to it is",
                    agreed.hold_time
                ),
            ),
        };
        self.close_with(direction, Notification::new(code, []), now);
        self.note_error(words.clone(), now);
        self.retreat(Retreat::Active, now, now, &words);
    }
}
