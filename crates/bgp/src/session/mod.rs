//! The session with one peer: the finite state machine of RFC 4271 section 8.
//!
//! ```text
//!                  Start, IdleHold over
//!          .------.  (passive)     .--------.  retry timer   .---------.
//!          | Idle |--------------->| Active |--------------->| Connect |
//!          '------'                '--------'<---------------'---------'
//!            ^  |                    |   ^     dial failed       ^  |
//!            |  |                    |   |                       |  |
//!            |  '--------------------|---|-----------------------'  |
//!            |    Start, IdleHold    |   | TCP closed,              |
//!            |    over (dial)        |   | hold timer, Cease        |
//!            |                       |   |                          |
//!            |        peer connected v   |          dial connected  |
//!            |   error             .----------.                     |
//!            |<--------------------| OpenSent |<--------------------'
//!            |                     '----------'
//!            |                          | good OPEN received, KEEPALIVE sent
//!            |                          v
//!            |   error             .-------------.
//!            |<--------------------| OpenConfirm |
//!            |                     '-------------'
//!            |                          | KEEPALIVE received
//!            |   error                  v
//!            |   (or Stop,         .-------------.
//!            '---from any state)---| Established |
//!                                  '-------------'
//! ```
//!
//! Two things need a word beside the RFC's:
//!
//! - The states from OpenSent on belong to a connection, and until a collision
//!   is resolved there may be two ([`Direction`]). The session's own state is
//!   that of its connection that got furthest; without one it is what the
//!   dialler does: dialling (Connect), waiting (Active), nothing (Idle).
//! - In Idle nothing is accepted. So only errors that will not go away by
//!   themselves (a malformed message, a wrong AS) lead there, for a pause that
//!   grows (IdleHoldTimer). After anything else the session waits in Active,
//!   where a peer that is back is let in at once.

mod backoff;
mod bfd;
mod config;
mod connection;
mod ending;
mod heard;
mod io;
mod liveness;
mod looking;
mod messages;
mod negotiate;
mod reconfigure;
mod seek;
mod status;
mod timer;
mod words;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use ipnet::IpNet;

pub use self::config::{BfdMode, ConfigError, GracefulRestart, PeerConfig};
pub use self::io::{Action, Bfd, Direction, Event, Input, StopReason};
pub use self::negotiate::{Agreed, AgreedRestart};
pub use self::reconfigure::Reconfigured;
pub use self::status::{Counters, Deadlines, LastError, Messages, Status};

use self::backoff::{Backoff, Jitter};
use self::connection::{Connection, Stage};
use self::heard::Heard;
use self::timer::{Timer, Timers};
use crate::rib::{AdjRibOut, Output, Route, Routes};
use crate::wire::{Capability, Family, Open};

/// State of a session (RFC 4271 section 8.2.2), in the order of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing is tried and nothing accepted.
    Idle,
    /// Waiting for the peer, or for the next dial.
    Active,
    /// Dialling.
    Connect,
    /// Connected; waiting for the peer's OPEN.
    OpenSent,
    /// OPENs exchanged; waiting for the peer's consent.
    OpenConfirm,
    /// Routes flow.
    Established,
}

/// The session with one peer. See the [crate] for how to drive it.
#[derive(Debug)]
pub struct Session {
    config: PeerConfig,
    state: State,
    dialler: Dialler,
    /// By [`Direction`].
    connections: [Option<Connection>; 2],
    timers: Timers,
    backoff: Backoff,
    jitter: Jitter,
    rib: AdjRibOut,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    counters: Counters,
    established_at: Option<Instant>,
    established_count: u64,
    /// See [`Status::kept_until`].
    kept_until: Option<Instant>,
    last_error: Option<LastError>,
    /// The End-of-RIB of all families has been sent once: if this process
    /// follows a restart, that is over.
    restarted: bool,
    /// Families whose End-of-RIB the peer has sent on this session.
    peer_ended: BTreeSet<Family>,
    /// What the peer has announced on this session, if that is limited.
    heard: Heard,
    bfd: Bfd,
}

/// What is done to get a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialler {
    /// Nothing, until Start.
    Stopped,
    /// Nothing, until the IdleHoldTimer expires.
    Held,
    /// The same, since the peer has announced more prefixes than this limit.
    TooMany { limit: u32 },
    /// The peer may connect; we dial when the ConnectRetryTimer expires, which
    /// does not run while there is a connection.
    Waiting,
    /// A dial is under way, until the ConnectRetryTimer expires.
    Dialling { since: Instant },
}

/// Where a session without a connection waits for its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retreat {
    Idle,
    /// Like Idle, for the pause of a peer that has announced more prefixes than
    /// this limit.
    TooMany {
        limit: u32,
    },
    Active,
}

impl Session {
    /// A session that is Idle until [`Input::Start`]. `seed` spreads its
    /// timers; give each session another.
    ///
    /// # Errors
    /// If the configuration cannot work.
    pub fn new(config: PeerConfig, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            state: State::Idle,
            dialler: Dialler::Stopped,
            connections: [None, None],
            timers: Timers::default(),
            backoff: Backoff::new(config.retry_min, config.retry_max),
            jitter: Jitter::new(seed),
            rib: AdjRibOut::default(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            established_at: None,
            established_count: 0,
            kept_until: None,
            last_error: None,
            restarted: false,
            peer_ended: BTreeSet::new(),
            heard: Heard::default(),
            bfd: Bfd::default(),
            config,
        })
    }

    /// Takes in what happened outside.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        use State::{Active, Connect, Established, Idle, OpenConfirm, OpenSent};

        match (self.state, input) {
            (Idle, Input::Start) => {
                self.backoff.reset();
                self.timers.stop(Timer::IdleHold);
                self.seek(now, "started");
            }
            (Connect | Active | OpenSent | OpenConfirm | Established, Input::Start) => (),

            (
                Idle | Connect | Active | OpenSent | OpenConfirm | Established,
                Input::Stop { reason, text },
            ) => self.stop(reason, text.as_deref(), now),

            (Idle | Connect | Active | OpenSent | OpenConfirm | Established, Input::Bfd(state)) => {
                self.on_bfd(state, now);
            }

            (Idle, Input::TcpConnected { direction, .. }) => self.close(direction, Bytes::new()),
            (
                Connect | Active | OpenSent | OpenConfirm | Established,
                Input::TcpConnected { direction, local },
            ) => self.connected(direction, local, now),

            (Idle | Active, Input::TcpFailed { .. }) => (),
            (Connect | OpenSent | OpenConfirm | Established, Input::TcpFailed { reason }) => {
                self.dial_failed(&reason, now);
            }

            (Idle | Connect | Active, Input::TcpClosed { .. } | Input::Received { .. }) => (),
            (OpenSent | OpenConfirm | Established, Input::TcpClosed { direction, reason }) => {
                self.connection_ended(direction, &reason, now);
            }
            (OpenSent | OpenConfirm | Established, Input::Received { direction, bytes }) => {
                self.received(direction, bytes, now);
            }
        }
    }

    /// Takes in that time has passed. Hand over what the sockets hold first: a
    /// driver that was held up must not take its own delay for the peer's.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::IdleHold => self.seek(now, "the pause after the error is over"),
                Timer::ConnectRetry => match self.dialler {
                    Dialler::Stopped | Dialler::Held | Dialler::TooMany { .. } => (),
                    Dialler::Waiting => self.seek(now, "time for the next attempt"),
                    Dialler::Dialling { .. } => {
                        self.close(Direction::Outgoing, Bytes::new());
                        let reason = format!("no answer within {:?}", self.config.connect_timeout);
                        self.dial_failed(&reason, now);
                    }
                },
                Timer::Hold(direction) => self.hold_timer_expired(direction, now),
                Timer::SendHold(direction) => self.send_hold_timer_expired(direction, now),
                Timer::Keepalive(direction) => self.send_keepalive(direction, now),
            }
        }
    }

    /// Replaces all routes the peer is to know; only what differs is sent.
    /// Withdrawals are handed out by the next [`Session::poll_transmit`]. Gives
    /// back the prefixes whose routes are other ones than before.
    pub fn set_routes(&mut self, routes: Routes) -> Vec<IpNet> {
        self.rib.set(routes)
    }

    /// Says whether the routes set are all there is to know, as far as that can
    /// be known: the state of every VIP is, or the time to wait for it is over.
    /// A new session is told the end (End-of-RIB, RFC 4724) only then; a peer
    /// of graceful restart drops what it has kept and was not sent again. It
    /// holds for later sessions too, until it is taken back. Where graceful
    /// restart is offered a marked refresh waits for it too (RFC 7313).
    pub fn set_complete(&mut self, complete: bool) {
        self.rib.set_complete(complete);
    }

    /// When [`Session::handle_timeout`] is due. May be in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// What the driver is to do next. Ask until there is nothing more.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next message to write on a connection. Ask only for what its socket
    /// takes: what is not asked for is not queued, but brought up to date.
    pub fn poll_transmit(&mut self, direction: Direction) -> Option<Bytes> {
        let connection = self.connections[direction as usize].as_mut()?;
        if let Some(message) = connection.poll_transmit(&mut self.counters.sent) {
            return Some(message);
        }
        match connection.stage {
            Stage::OpenSent | Stage::OpenConfirm(_) => None,
            Stage::Established(_) => self.poll_routes(),
        }
    }

    fn poll_routes(&mut self) -> Option<Bytes> {
        let sent = &mut self.counters.sent;
        Some(match self.rib.poll()? {
            Output::Update(message) => {
                sent.update += 1;
                message
            }
            Output::Refresh(message) => {
                sent.route_refresh += 1;
                message
            }
            Output::EndOfRib(family, message) => {
                sent.update += 1;
                self.events.push_back(Event::EndOfRib(family));
                self.restarted |= self.rib.is_ended();
                message
            }
        })
    }

    /// The next thing worth a log line.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether everything the peer is to know has been handed out by
    /// [`Session::poll_transmit`], so that a stop can go on to its next step.
    /// True without an Established session: then there is nobody to tell.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.rib.is_flushed()
    }

    /// Whether a connection of the peer's is of use. If not, the driver closes
    /// it right after accept and does not report it.
    #[must_use]
    pub fn admits_incoming(&self) -> bool {
        self.state != State::Idle && self.connections[Direction::Incoming as usize].is_none()
    }

    /// The state of the session.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The configuration of the session.
    #[must_use]
    pub fn config(&self) -> &PeerConfig {
        &self.config
    }

    /// The routes that were handed out for the peer, as they were.
    pub fn advertised(&self) -> impl Iterator<Item = (&IpNet, &Route)> {
        self.rib.written()
    }

    /// The capabilities that we would offer now.
    fn capabilities(&self) -> Vec<Capability> {
        self.config.capabilities(!self.restarted)
    }

    /// The OPEN that we would send now.
    fn open(&self) -> Open {
        self.config.open(self.capabilities())
    }

    /// Brings the session's state in line with its connections and dialler.
    fn settle(&mut self, why: &str) {
        let without = match self.dialler {
            Dialler::Stopped | Dialler::Held | Dialler::TooMany { .. } => State::Idle,
            Dialler::Waiting => State::Active,
            Dialler::Dialling { .. } => State::Connect,
        };
        let stages = self.connections.iter().flatten().map(|c| c.stage.state());
        let to = stages.max().unwrap_or(without);
        let from = std::mem::replace(&mut self.state, to);
        if from != to {
            self.events.push_back(Event::StateChanged {
                from,
                to,
                why: why.to_owned(),
            });
        }
    }
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Active,
        Self::Connect,
        Self::OpenSent,
        Self::OpenConfirm,
        Self::Established,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
