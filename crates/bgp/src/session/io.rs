//! What goes into a session and what comes out of it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::{Agreed, State};
use crate::wire::{Code, Family, Fault, Notification};

/// Who opened a connection. There is at most one of each, and two only until
/// their collision is resolved (RFC 4271 section 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// We dialled.
    Outgoing,
    /// The peer did.
    Incoming,
}

/// What happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'a> {
    /// Run the session: dial, unless passive, and accept.
    Start,
    /// End the session and stay away from the peer until [`Input::Start`].
    Stop {
        /// Which Cease the peer is sent.
        reason: StopReason,
        /// Words for the peer's operator (RFC 9003); carried by shutdown and
        /// reset only.
        text: Option<String>,
    },
    /// A connection stands.
    TcpConnected {
        /// Who opened it.
        direction: Direction,
        /// Our end of it: the next hop of routes that name none.
        local: IpAddr,
    },
    /// The dial asked for by [`Action::Connect`] failed.
    TcpFailed {
        /// Why, in words that fit behind "cannot connect: ".
        reason: String,
    },
    /// A connection ended without our doing.
    TcpClosed {
        /// Which one.
        direction: Direction,
        /// Why, in words that fit behind "the connection ended: ".
        reason: String,
    },
    /// What BFD says of the way to the peer. Of no effect with
    /// [`BfdMode::Off`](crate::BfdMode::Off), but remembered.
    Bfd(Bfd),
    /// Bytes arrived, cut anywhere.
    Received {
        /// On which connection.
        direction: Direction,
        /// The bytes.
        bytes: &'a [u8],
    },
}

/// What BFD says of the way to the peer (RFC 5880), as far as BGP cares.
///
/// A session ends when BFD goes from [`Bfd::Up`] to [`Bfd::Down`] and at nothing
/// else: who has not heard of it being up cannot know whether it has only not
/// come up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bfd {
    /// Nothing, and why: it has not been asked yet, is not reached, or has no
    /// session with the peer. So it begins.
    Unknown(Arc<str>),
    /// Packets do not pass, or do not yet; why.
    Down(Arc<str>),
    /// Packets come through both ways.
    Up,
    /// One side has turned it off by hand, which says nothing about the way.
    AdminDown,
}

/// Why we end a session (Cease, RFC 4486). Where both sides agreed that
/// NOTIFICATIONs are restarts, those that end it for good go out as Hard Reset
/// (RFC 8538), and the peer keeps no routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// An operator shuts it down, or the agent stops: for good.
    AdminShutdown,
    /// An operator restarts it. A peer of graceful restart keeps our routes
    /// meanwhile.
    AdminReset,
    /// An operator restarts it from nothing: for good.
    HardReset,
    /// The peer is no longer configured: for good.
    PeerDeconfigured,
    /// Something was reconfigured that needs a new session. A peer of graceful
    /// restart keeps our routes meanwhile.
    ConfigurationChange,
    /// This process makes room for another, which goes on where it stopped.
    /// Connections close without a word, so that a peer of graceful restart
    /// keeps our routes (RFC 4724 section 4).
    Restart,
}

/// What the driver is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Dial the peer; answer with [`Input::TcpConnected`] or
    /// [`Input::TcpFailed`].
    Connect,
    /// Forget a connection, or the dial for it. Nothing more is to be reported
    /// of it.
    Close {
        /// Which one.
        direction: Direction,
        /// To be written before the close, as far as the socket takes it.
        /// Empty if there is nothing to say.
        last_words: Bytes,
    },
}

/// Something worth a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The state of the session changed.
    StateChanged {
        /// From this,
        from: State,
        /// to this,
        to: State,
        /// because of this, in plain words.
        why: String,
    },
    /// Routes flow from now on, on these terms.
    Established(Arc<Agreed>),
    /// We told the peer why a connection ends.
    NotificationSent {
        /// On which connection.
        direction: Direction,
        /// What the peer was told.
        notification: Notification,
    },
    /// The peer told us why a connection ends.
    NotificationReceived {
        /// On which connection.
        direction: Direction,
        /// What it said.
        notification: Notification,
    },
    /// The peer has been sent all our routes of a family (End-of-RIB).
    EndOfRib(Family),
    /// The peer wants all routes of a family again, and gets them. Not told of
    /// requests that come before those before them are answered.
    RefreshRequested(Family),
    /// An UPDATE was malformed in a way the session survives (RFC 7606).
    UpdateFaults(Vec<Fault>),
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Outgoing, Self::Incoming];

    /// The opposite one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Outgoing => Self::Incoming,
            Self::Incoming => Self::Outgoing,
        }
    }
}

impl Default for Bfd {
    fn default() -> Self {
        Self::Unknown("BFD has not been asked yet".into())
    }
}

impl StopReason {
    /// The Cease subcode; `None`: nothing is said.
    #[must_use]
    pub fn code(self) -> Option<Code> {
        match self {
            Self::AdminShutdown => Some(Code::ADMIN_SHUTDOWN),
            Self::AdminReset | Self::HardReset => Some(Code::ADMIN_RESET),
            Self::PeerDeconfigured => Some(Code::PEER_DECONFIGURED),
            Self::ConfigurationChange => Some(Code::CONFIGURATION_CHANGE),
            Self::Restart => None,
        }
    }

    /// Whether the peer is to keep nothing.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::AdminShutdown | Self::HardReset | Self::PeerDeconfigured => true,
            Self::AdminReset | Self::ConfigurationChange | Self::Restart => false,
        }
    }
}
