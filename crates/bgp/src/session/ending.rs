//! How connections and sessions end.

use std::time::Instant;

use bytes::Bytes;

use super::connection::Stage;
use super::timer::{Timer, Timers};
use super::{Action, Dialler, Direction, Event, LastError, Retreat, Session, StopReason};
use crate::wire::{Notification, WireError};

impl Session {
    pub(super) fn stop(&mut self, reason: StopReason, text: Option<&str>, now: Instant) {
        let words = reason.code().map_or_else(
            || "for a restart".to_owned(),
            |code| {
                let cease = Notification::with_text(code, text);
                self.cease_all(&cease, reason.is_final(), now);
                code.to_string()
            },
        );
        for direction in Direction::ALL {
            self.close_silently(direction, now);
        }
        self.stop_dialling();
        self.dialler = Dialler::Stopped;
        self.timers = Timers::default();
        self.settle(&format!("stopped: {words}"));
    }

    /// Closes all connections with a Cease. A peer of graceful restart keeps none
    /// of our routes if it is final (it is sent a Hard Reset if it would keep them
    /// over a Cease), and otherwise all of them (it is told nothing if it would
    /// drop them).
    pub(super) fn cease_all(&mut self, cease: &Notification, is_final: bool, now: Instant) {
        for direction in Direction::ALL {
            let restart = self.connections[direction as usize]
                .as_ref()
                .and_then(|connection| connection.stage.agreed()?.restart.as_ref());
            match (restart.map(|restart| restart.notification), is_final) {
                (Some(true), true) => {
                    self.close_with(direction, Notification::hard_reset(cease), now);
                }
                (Some(false), false) => self.close_silently(direction, now),
                (Some(true), false) | (Some(false), true) | (None, _) => {
                    self.close_with(direction, cease.clone(), now);
                }
            }
        }
        if is_final {
            self.kept_until = None;
        }
    }

    /// Closes a connection without a word, if it is there.
    pub(super) fn close_silently(&mut self, direction: Direction, now: Instant) {
        if self.connections[direction as usize].is_some() {
            self.forget(direction, now);
            self.close(direction, Bytes::new());
        }
    }

    /// Ends a connection on which the peer broke the protocol or our terms.
    pub(super) fn reject(&mut self, direction: Direction, error: &WireError, now: Instant) {
        self.close_with(direction, error.notification.clone(), now);
        self.note_error(error.words.clone(), now);
        self.retreat(Retreat::Idle, now, now, &error.words);
    }

    pub(super) fn connection_ended(&mut self, direction: Direction, reason: &str, now: Instant) {
        if self.connections[direction as usize].is_none() {
            return;
        }
        self.forget(direction, now);
        let words = format!("the connection ended: {reason}");
        self.note_error(words.clone(), now);
        self.retreat(Retreat::Active, now, now, &words);
    }

    /// Closes a connection with a NOTIFICATION, if it is there.
    pub(super) fn close_with(
        &mut self,
        direction: Direction,
        notification: Notification,
        now: Instant,
    ) {
        if self.connections[direction as usize].is_none() {
            return;
        }
        self.forget(direction, now);
        self.close(direction, notification.emit());
        self.counters.sent.notification += 1;
        self.events.push_back(Event::NotificationSent {
            direction,
            notification,
        });
    }

    pub(super) fn close(&mut self, direction: Direction, last_words: Bytes) {
        self.actions.push_back(Action::Close {
            direction,
            last_words,
        });
    }

    /// Drops a connection and what hangs on it.
    pub(super) fn forget(&mut self, direction: Direction, now: Instant) {
        let connection = self.connections[direction as usize].take();
        self.timers.stop(Timer::Hold(direction));
        self.timers.stop(Timer::Keepalive(direction));
        self.timers.stop(Timer::SendHold(direction));
        if let Some(Stage::Established(agreed)) = connection.map(|connection| connection.stage) {
            let ours = self.config.graceful_restart.as_ref();
            let restart = ours.filter(|_| agreed.restart.is_some());
            self.kept_until = restart.map(|restart| now + restart.restart_time);
            self.rib.close();
            self.peer_ended.clear();
            self.heard.clear();
            let since = self.established_at.take();
            // A session that falls as soon as it stands must not be tried
            // again at the shortest pause.
            if since.is_some_and(|since| now.duration_since(since) >= self.backoff.max()) {
                self.backoff.reset();
            }
        }
    }

    pub(super) fn note_error(&mut self, words: String, now: Instant) {
        self.last_error = Some(LastError { at: now, words });
    }
}
