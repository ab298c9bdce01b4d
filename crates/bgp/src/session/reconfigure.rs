//! Another configuration for a session that may be running.

use std::time::Instant;

use super::connection::Stage;
use super::messages::outlet;
use super::timer::Timer;
use super::{ConfigError, Dialler, PeerConfig, Session};
use crate::wire::{Code, Notification};

/// What a new configuration came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconfigured {
    /// The session goes on, or there was none.
    InPlace,
    /// A session, or the way to one, was given up and is tried for anew.
    NewSession,
}

impl Session {
    /// Replaces the configuration.
    ///
    /// What both sides have agreed on by their OPENs needs a new session, which
    /// is tried for at once: the AS numbers, the router id, the hold time, the
    /// families, and whether there is graceful restart. A peer of graceful
    /// restart keeps our routes meanwhile: it is sent a Cease where it survives
    /// that, and otherwise no word; other peers are sent a Cease / Other
    /// Configuration Change.
    ///
    /// All else changes under the session: next hops are sent as UPDATEs, and
    /// what belongs to an OPEN (the restart time and flags, strict BFD) or to a
    /// timer counts from the next one on. A lower limit to prefixes is enforced
    /// at once; where there was none, those that came before are not known. A
    /// higher one, or none, ends the pause of a peer that went beyond.
    ///
    /// # Errors
    /// If the configuration cannot work. Nothing has changed then.
    pub fn reconfigure(
        &mut self,
        config: PeerConfig,
        now: Instant,
    ) -> Result<Reconfigured, ConfigError> {
        config.validate()?;
        let old = std::mem::replace(&mut self.config, config);
        let limits = (self.config.retry_min, self.config.retry_max);
        self.backoff.set_limits(limits.0, limits.1);
        if needs_new_session(&old, &self.config) && self.dialler != Dialler::Stopped {
            self.start_anew(now);
            return Ok(Reconfigured::NewSession);
        }
        match self.config.max_prefixes {
            None => self.heard.clear(),
            Some(limit) => {
                if let Some(family) = self.heard.beyond(limit) {
                    self.too_many_prefixes(family, limit, now);
                }
            }
        }
        self.change_next_hops();
        self.change_seeking(now);
        self.stop_waiting(now);
        Ok(Reconfigured::InPlace)
    }

    /// Ends what there is and tries for a session by the new configuration. A
    /// dial goes on: it has not said anything yet.
    fn start_anew(&mut self, now: Instant) {
        let cease = Notification::new(Code::CONFIGURATION_CHANGE, []);
        self.cease_all(&cease, false, now);
        self.backoff.reset();
        self.timers.stop(Timer::IdleHold);
        let why = "the configuration has changed";
        match self.dialler {
            Dialler::Dialling { .. } if !self.config.passive => self.settle(why),
            Dialler::Dialling { .. }
            | Dialler::Waiting
            | Dialler::Held
            | Dialler::TooMany { .. }
            | Dialler::Stopped => {
                self.stop_dialling();
                self.seek(now, why);
            }
        }
    }

    /// Sends routes again whose next hop is the session's and has changed.
    fn change_next_hops(&mut self) {
        for connection in self.connections.iter().flatten() {
            if let Stage::Established(agreed) = &connection.stage {
                self.rib
                    .change(outlet(&self.config, agreed, connection.local));
            }
        }
    }

    /// Dials or does not dial, as the configuration says now, and waits no
    /// longer than it says.
    fn change_seeking(&mut self, now: Instant) {
        let alone = self.connections.iter().all(Option::is_none);
        match (self.dialler, self.config.passive) {
            (Dialler::Dialling { .. }, true) => {
                self.stop_dialling();
                self.settle("the peer is to dial");
            }
            (Dialler::Waiting, true) => self.timers.stop(Timer::ConnectRetry),
            (Dialler::Waiting, false) if alone => match self.timers.deadline(Timer::ConnectRetry) {
                Some(deadline) => {
                    let deadline = deadline.min(now + self.config.retry_max);
                    self.timers.set(Timer::ConnectRetry, deadline);
                }
                None => self.seek(now, "we are to dial"),
            },
            (Dialler::TooMany { limit }, _)
                if self.config.max_prefixes.is_none_or(|now| now > limit) =>
            {
                self.timers.stop(Timer::IdleHold);
                self.seek(now, "the peer may announce more prefixes now");
            }
            (Dialler::Waiting | Dialler::Dialling { .. }, false)
            | (Dialler::Held | Dialler::TooMany { .. } | Dialler::Stopped, _) => (),
        }
    }
}

/// Whether what is agreed by OPENs differs. Each field is named, so that none
/// that comes later is forgotten.
fn needs_new_session(old: &PeerConfig, new: &PeerConfig) -> bool {
    let PeerConfig {
        local_as,
        peer_as,
        router_id,
        hold_time,
        families,
        graceful_restart,
        send_hold_time: _,
        next_hop_v4: _,
        next_hop_v6: _,
        bfd: _,
        max_prefixes: _,
        max_prefixes_pause: _,
        passive: _,
        connect_timeout: _,
        retry_min: _,
        retry_max: _,
    } = new;
    (*local_as, *peer_as, *router_id, *hold_time)
        != (old.local_as, old.peer_as, old.router_id, old.hold_time)
        || *families != old.families
        || graceful_restart.is_some() != old.graceful_restart.is_some()
}
