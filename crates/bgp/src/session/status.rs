//! How a session is doing: for `status`, metrics, and the operator who asks why.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::timer::Timer;
use super::{Agreed, Bfd, BfdMode, Dialler, Direction, Session, State, words};
use crate::rib::Unsent;
use crate::wire::{Capability, Family};

/// A snapshot of a session.
#[derive(Debug, Clone)]
pub struct Status {
    /// State by RFC 4271.
    pub state: State,
    /// When the session became Established, if it is.
    pub established_at: Option<Instant>,
    /// How often it became Established.
    pub established_count: u64,
    /// The session has ended, and until then the peer may keep our routes of it
    /// (graceful restart), unless it comes back and is told otherwise.
    pub kept_until: Option<Instant>,
    /// The last thing that went wrong; kept after it is over.
    pub last_error: Option<LastError>,
    /// When we dial again, or accept and dial again, if that is waited for.
    pub retry_at: Option<Instant>,
    /// What we have offered on the connection, or would offer on the next.
    pub local_capabilities: Vec<Capability>,
    /// Who opened the connection that got furthest, and our end of it.
    pub connection: Option<(Direction, IpAddr)>,
    /// When its timers expire.
    pub deadlines: Deadlines,
    /// What is dangerous about the terms of the session and what helps, in
    /// plain words.
    pub warnings: Vec<String>,
    /// The terms of the session, once the peer's OPEN was accepted.
    pub agreed: Option<Arc<Agreed>>,
    /// Messages, and prefixes in them.
    pub counters: Counters,
    /// What BFD says, if there is BFD for this session.
    pub bfd: Option<Bfd>,
    /// Prefixes that the peer has announced, by family, if that is limited.
    pub heard: BTreeMap<Family, usize>,
    /// Prefixes the peer has been told of, by family.
    pub advertised: BTreeMap<Family, usize>,
    /// Prefixes whose last state has not been handed out for sending.
    pub pending: usize,
    /// Whether the routes were said to be complete.
    pub complete: bool,
    /// Families whose End-of-RIB the peer has been sent on this session.
    pub end_of_rib_sent: BTreeSet<Family>,
    /// Families whose End-of-RIB came from the peer on this session.
    pub end_of_rib_received: BTreeSet<Family>,
    /// Routes that this session cannot carry.
    pub unsent: Vec<(IpNet, Unsent)>,
}

/// When the timers of a connection expire, as far as they run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// The peer must be heard before that: its OPEN, or what comes after it.
    pub hold: Option<Instant>,
    /// Our next KEEPALIVE.
    pub keepalive: Option<Instant>,
    /// The peer must have taken something in before that.
    pub send_hold: Option<Instant>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// When.
    pub at: Instant,
    /// What happened and, where known, what helps.
    pub words: String,
}

/// Totals since the session was made, over all its connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages handed out for sending.
    pub sent: Messages,
    /// Messages received.
    pub received: Messages,
    /// Prefixes received as reachable. Nothing is imported.
    pub prefixes_reachable: u64,
    /// Prefixes received as withdrawn, or treated so (RFC 7606).
    pub prefixes_withdrawn: u64,
    /// UPDATEs of which an attribute was ignored (RFC 7606).
    pub attribute_discards: u64,
    /// UPDATEs that were treated as withdrawals (RFC 7606).
    pub treated_as_withdraw: u64,
}

/// Messages by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Messages {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub route_refresh: u64,
}

impl Session {
    /// How the session is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let furthest = Direction::ALL
            .into_iter()
            .filter_map(|direction| {
                Some((direction, self.connections[direction as usize].as_ref()?))
            })
            .max_by_key(|(_, connection)| connection.stage.state());
        let agreed = furthest.and_then(|(_, connection)| connection.stage.agreed().cloned());
        let deadline = |timer: fn(Direction) -> Timer| {
            furthest.and_then(|(direction, _)| self.timers.deadline(timer(direction)))
        };
        Status {
            state: self.state,
            established_at: self.established_at,
            established_count: self.established_count,
            kept_until: self.kept_until,
            last_error: self.last_error.clone(),
            retry_at: match self.dialler {
                Dialler::Held | Dialler::TooMany { .. } => self.timers.deadline(Timer::IdleHold),
                Dialler::Waiting => self.timers.deadline(Timer::ConnectRetry),
                Dialler::Stopped | Dialler::Dialling { .. } => None,
            },
            local_capabilities: furthest.map_or_else(
                || self.capabilities(),
                |(_, connection)| connection.offered.clone(),
            ),
            connection: furthest.map(|(direction, connection)| (direction, connection.local)),
            deadlines: Deadlines {
                hold: deadline(Timer::Hold),
                keepalive: deadline(Timer::Keepalive),
                send_hold: deadline(Timer::SendHold),
            },
            warnings: agreed
                .iter()
                .flat_map(|agreed| words::warnings(&self.config, agreed, &self.bfd))
                .collect(),
            agreed,
            counters: self.counters,
            bfd: (self.config.bfd != BfdMode::Off).then(|| self.bfd.clone()),
            heard: self.heard.counts(),
            advertised: Family::ALL
                .map(|family| (family, self.rib.written_count(family)))
                .into(),
            pending: self.rib.pending(),
            complete: self.rib.is_complete(),
            end_of_rib_sent: self.rib.ended().clone(),
            end_of_rib_received: self.peer_ended.clone(),
            unsent: self
                .rib
                .unsent()
                .map(|(prefix, unsent)| (*prefix, unsent))
                .collect(),
        }
    }
}
