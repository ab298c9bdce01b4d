//! What a message does to the session, by the stage of its connection
//! (RFC 4271 section 8.2.2, RFC 6608).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::connection::Stage;
use super::{Agreed, Direction, Event, PeerConfig, Retreat, Session, negotiate, words};
use crate::rib::Outlet;
use crate::wire::{
    Code, Family, Fault, Handling, Message, Notification, Open, RouteRefresh, Update, WireError,
};

impl Session {
    pub(super) fn received(&mut self, direction: Direction, bytes: &[u8], now: Instant) {
        let internal = self.config.is_internal();
        if let Some(connection) = &mut self.connections[direction as usize] {
            connection.receive(bytes);
        }
        // A message may end the connection, and with it what was received.
        while let Some(connection) = &mut self.connections[direction as usize] {
            match connection.next_message(internal) {
                Ok(None) => return,
                Ok(Some(message)) => {
                    let stage = connection.stage.clone();
                    self.on_message(direction, stage, message, now);
                }
                Err(error) => self.reject(direction, &error, now),
            }
        }
    }

    pub(super) fn on_message(
        &mut self,
        direction: Direction,
        stage: Stage,
        message: Message,
        now: Instant,
    ) {
        use Stage::{Established, OpenConfirm, OpenSent};

        self.count(&message);
        match (stage, message) {
            (OpenSent, Message::Open(open)) => self.on_open(direction, &open, now),
            (OpenConfirm(agreed), Message::Keepalive) => self.on_consent(direction, agreed, now),
            (Established(agreed), Message::Keepalive) => {
                self.restart_hold(direction, &agreed, now);
            }
            (Established(agreed), Message::Update(update, faults)) => {
                self.restart_hold(direction, &agreed, now);
                self.on_update(&update, faults, &agreed, now);
            }
            (Established(agreed), Message::RouteRefresh(refresh)) => {
                self.restart_hold(direction, &agreed, now);
                self.on_refresh(refresh, &agreed);
            }
            (OpenSent | OpenConfirm(_) | Established(_), Message::Notification(notification)) => {
                self.on_notification(direction, notification, now);
            }
            (
                stage @ OpenSent,
                message @ (Message::Keepalive | Message::Update(..) | Message::RouteRefresh(_)),
            )
            | (
                stage @ OpenConfirm(_),
                message @ (Message::Open(_) | Message::Update(..) | Message::RouteRefresh(_)),
            )
            | (stage @ Established(_), message @ Message::Open(_)) => {
                self.reject(direction, &unexpected(&stage, &message), now);
            }
        }
    }

    pub(super) fn on_open(&mut self, direction: Direction, open: &Open, now: Instant) {
        let agreed = match negotiate::agree(&self.config, open) {
            Ok(agreed) => Arc::new(agreed),
            Err(error) => return self.reject(direction, &error, now),
        };
        if let Some(loser) = self.collision_loser(direction, &agreed) {
            self.close_with(loser, Notification::new(Code::COLLISION, []), now);
            if loser == direction {
                return self.settle("a second connection was not needed");
            }
        }
        let waits = self.waits_for_bfd();
        if let Some(connection) = &mut self.connections[direction as usize] {
            connection.stage = Stage::OpenConfirm(Arc::clone(&agreed));
            connection.withheld = waits;
        }
        if waits {
            self.wait_for_bfd(direction, &agreed, now);
            return self.settle("the peer's OPEN is good, BFD is waited for");
        }
        self.restart_hold(direction, &agreed, now);
        self.send_keepalive(direction, now);
        self.settle("the peer's OPEN is good");
    }

    /// The peer's first KEEPALIVE: it agrees.
    pub(super) fn on_consent(&mut self, direction: Direction, agreed: Arc<Agreed>, now: Instant) {
        match &mut self.connections[direction as usize] {
            Some(connection) if connection.withheld => connection.consented = true,
            Some(_) | None => self.establish(direction, agreed, now),
        }
    }

    /// Which of two connections to close now that the peer's OPEN came in by
    /// `direction` (RFC 4271 section 6.8): of two that got as far as that, the
    /// one opened by the side of the lower router id, or of the lower AS where
    /// the ids are the same (RFC 6286 section 2.3).
    pub(super) fn collision_loser(
        &self,
        direction: Direction,
        agreed: &Agreed,
    ) -> Option<Direction> {
        let rival = self.connections[direction.other() as usize].as_ref()?;
        let ours = (self.config.router_id, self.config.local_as);
        let theirs = (agreed.peer_router_id, agreed.peer_as);
        match rival.stage {
            Stage::OpenSent => None,
            Stage::OpenConfirm(_) if ours > theirs => Some(Direction::Incoming),
            Stage::OpenConfirm(_) => Some(Direction::Outgoing),
            Stage::Established(_) => Some(direction),
        }
    }

    pub(super) fn establish(&mut self, direction: Direction, agreed: Arc<Agreed>, now: Instant) {
        self.close_with(
            direction.other(),
            Notification::new(Code::COLLISION, []),
            now,
        );
        self.stop_dialling();
        let Some(connection) = &mut self.connections[direction as usize] else {
            return;
        };
        connection.stage = Stage::Established(Arc::clone(&agreed));
        self.rib
            .open(outlet(&self.config, &agreed, connection.local));
        self.established_at = Some(now);
        self.established_count += 1;
        self.kept_until = None;
        self.restart_hold(direction, &agreed, now);
        self.restart_send_hold(direction, &agreed, now);
        self.settle("both sides agree");
        self.events.push_back(Event::Established(agreed));
    }

    /// Nothing is imported: prefixes are counted and dropped.
    pub(super) fn on_update(
        &mut self,
        update: &Update,
        faults: Vec<Fault>,
        agreed: &Agreed,
        now: Instant,
    ) {
        let ended = update.ended_family();
        self.peer_ended
            .extend(ended.filter(|family| agreed.families.contains(family)));
        let withdraw = faults
            .iter()
            .any(|f| f.handling == Handling::TreatAsWithdraw);
        let reachable = update.reachable().count() as u64;
        self.counters.prefixes_withdrawn += update.unreachable().count() as u64;
        if withdraw {
            self.counters.treated_as_withdraw += 1;
            self.counters.prefixes_withdrawn += reachable;
        } else {
            self.counters.attribute_discards += u64::from(!faults.is_empty());
            self.counters.prefixes_reachable += reachable;
        }
        if !faults.is_empty() {
            self.events.push_back(Event::UpdateFaults(faults));
        }
        if let Some(limit) = self.config.max_prefixes
            && let Some(family) = self.heard.update(update, withdraw, limit)
        {
            self.too_many_prefixes(family, limit, now);
        }
    }

    /// For good (RFC 8538 section 5.1): meanwhile we could withdraw nothing.
    pub(super) fn too_many_prefixes(&mut self, family: Family, limit: u32, now: Instant) {
        let pause = self.config.max_prefixes_pause;
        let words = format!(
            "the peer announces more than {limit} prefixes of {family}, which is the limit here: \
             filter there, or raise it here; the next attempt is in {pause:?}"
        );
        self.cease_all(&Notification::maximum_prefixes(family, limit), true, now);
        self.note_error(words.clone(), now);
        self.retreat(Retreat::TooMany { limit }, now, now, &words);
    }

    /// Requests for families not agreed on are ignored (RFC 2918 section 4),
    /// and so are subtypes nobody knows (RFC 7313 section 5). The marks of the
    /// peer's own answers are for those who import routes.
    pub(super) fn on_refresh(&mut self, refresh: RouteRefresh, agreed: &Agreed) {
        let family = refresh
            .family()
            .filter(|family| agreed.families.contains(family));
        if let (Some(family), RouteRefresh::REQUEST) = (family, refresh.subtype)
            && self.rib.refresh(family)
        {
            self.events.push_back(Event::RefreshRequested(family));
        }
    }

    pub(super) fn on_notification(
        &mut self,
        direction: Direction,
        notification: Notification,
        now: Instant,
    ) {
        let words = words::peer_ended(&self.config, &notification);
        let code = notification.code;
        self.close(direction, Bytes::new());
        self.forget(direction, now);
        self.events.push_back(Event::NotificationReceived {
            direction,
            notification,
        });
        if code == Code::COLLISION && self.connections.iter().any(Option::is_some) {
            return self.settle("the peer did not need a second connection");
        }
        self.note_error(words.clone(), now);
        // Header, OPEN, UPDATE and FSM errors come again until one side is
        // corrected; a Cease or a hold timer may be over any time.
        let retreat = match code.code {
            1 | 2 | 3 | 5 => Retreat::Idle,
            _ => Retreat::Active,
        };
        self.retreat(retreat, now, now, &words);
    }

    fn count(&mut self, message: &Message) {
        let received = &mut self.counters.received;
        *match message {
            Message::Open(_) => &mut received.open,
            Message::Update(..) => &mut received.update,
            Message::Notification(_) => &mut received.notification,
            Message::Keepalive => &mut received.keepalive,
            Message::RouteRefresh(_) => &mut received.route_refresh,
        } += 1;
    }
}

/// A message that has no business in this stage (RFC 6608).
fn unexpected(stage: &Stage, message: &Message) -> WireError {
    let code = match stage {
        Stage::OpenSent => Code::UNEXPECTED_IN_OPEN_SENT,
        Stage::OpenConfirm(_) => Code::UNEXPECTED_IN_OPEN_CONFIRM,
        Stage::Established(_) => Code::UNEXPECTED_IN_ESTABLISHED,
    };
    let name = match message {
        Message::Open(_) => "OPEN",
        Message::Update(..) => "UPDATE",
        Message::Notification(_) => "NOTIFICATION",
        Message::Keepalive => "KEEPALIVE",
        Message::RouteRefresh(_) => "ROUTE-REFRESH",
    };
    WireError::plain(
        code,
        format!("the peer sent a {name} where there must be none"),
    )
}

/// The terms on which routes are sent over a connection from `local`.
pub(super) fn outlet(config: &PeerConfig, agreed: &Agreed, local: IpAddr) -> Outlet {
    let (own_v4, own_v6) = match local {
        IpAddr::V4(address) => (Some(address), None),
        IpAddr::V6(address) if address.is_unicast_link_local() => (None, None),
        IpAddr::V6(address) => (None, Some(address)),
    };
    Outlet {
        dialect: agreed.dialect,
        local_as: config.local_as,
        peer_as: config.peer_as,
        families: agreed.families.clone(),
        next_hop_v4: config.next_hop_v4.or(own_v4),
        next_hop_v6: config.next_hop_v6.or(own_v6),
        marks: agreed.enhanced_refresh,
        restarts: config.graceful_restart.is_some(),
    }
}
