//! What BFD says about the way to the peer: it ends a session (RFC 5882,
//! RFC 9384), and in strict mode a session waits for it
//! (draft-ietf-idr-bgp-bfd-strict-mode).
//!
//! A session that waits stays in OpenConfirm and withholds its KEEPALIVE, so
//! that the peer cannot take it for established either, whether or not it
//! knows of strict mode. It waits for the hold time and then starts over.

use std::time::Instant;

use super::connection::{Connection, Stage};
use super::liveness::OPEN_WAIT;
use super::timer::Timer;
use super::{Agreed, Bfd, BfdMode, Direction, Retreat, Session};
use crate::wire::{Code, Notification};

impl Session {
    pub(super) fn on_bfd(&mut self, to: Bfd, now: Instant) {
        let from = std::mem::replace(&mut self.bfd, to.clone());
        match (self.config.bfd, from, to) {
            (BfdMode::Off, ..) => (),
            (BfdMode::On | BfdMode::Strict, Bfd::Up, Bfd::Down(why)) => self.bfd_down(&why, now),
            (BfdMode::On | BfdMode::Strict, ..) => self.stop_waiting(now),
        }
    }

    /// Whether the session must not get established yet.
    pub(super) fn waits_for_bfd(&self) -> bool {
        self.config.bfd == BfdMode::Strict && self.bfd != Bfd::Up
    }

    /// The peer's OPEN is good, and BFD is not up.
    pub(super) fn wait_for_bfd(&mut self, direction: Direction, agreed: &Agreed, now: Instant) {
        let limit = if agreed.hold_time.is_zero() {
            OPEN_WAIT
        } else {
            agreed.hold_time
        };
        self.timers.set(Timer::Hold(direction), now + limit);
    }

    /// Says and does what was withheld, if nothing is to be waited for any
    /// more.
    pub(super) fn stop_waiting(&mut self, now: Instant) {
        if self.waits_for_bfd() {
            return;
        }
        for direction in Direction::ALL {
            let Some(connection) = &mut self.connections[direction as usize] else {
                continue;
            };
            let Stage::OpenConfirm(agreed) = connection.stage.clone() else {
                continue;
            };
            if !std::mem::take(&mut connection.withheld) {
                continue;
            }
            let consented = connection.consented;
            self.restart_hold(direction, &agreed, now);
            self.send_keepalive(direction, now);
            if consented {
                self.establish(direction, agreed, now);
            }
        }
    }

    /// A session that stands is ended, and in strict mode one that has our
    /// consent already. Others have nothing to lose, and BFD may be what is
    /// late.
    ///
    /// The end is final, whether or not BFD on either side shares its fate with
    /// the control plane (the C bit): the way fails before a restart has begun,
    /// so the topology has changed (RFC 5882 sections 4.3.1 and 4.3.2.2), and a
    /// peer that kept our routes would send into the hole.
    fn bfd_down(&mut self, why: &str, now: Instant) {
        let strict = self.config.bfd == BfdMode::Strict;
        let is_hit = |connection: &Connection| match connection.stage {
            Stage::OpenSent => false,
            Stage::OpenConfirm(_) => strict && !connection.withheld,
            Stage::Established(_) => true,
        };
        if self.connections.iter().flatten().any(is_hit) {
            let words = format!("BFD says that packets do not pass: {why}");
            self.cease_all(&Notification::new(Code::BFD_DOWN, []), true, now);
            self.note_error(words.clone(), now);
            self.retreat(Retreat::Active, now, now, &words);
        }
    }
}
