//! How a session is doing, and what is worth a log line.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Gap;
use crate::words::{Diagnostic, Discard, Discards, State};

/// A snapshot of a session.
#[derive(Debug, Clone)]
pub struct Status {
    /// Our state.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Why we last went down, as the peer is told.
    pub diagnostic: Diagnostic,
    /// Why we last went down, in full.
    pub last_down: Option<LastDown>,
    /// Whether [`super::Session::hold`] keeps it down.
    pub held: bool,
    /// Why the last packet was discarded, of those in this state.
    pub last_discard: Option<Discard>,
    /// What the peer says; `None` while it is not heard.
    pub remote: Option<Remote>,
    /// Between two of our packets, before up to a quarter is taken off at
    /// random; `None` while none are sent by the clock.
    pub transmit_interval: Option<Duration>,
    /// After so long a silence the peer is gone; `None` while it is not heard.
    pub detection_time: Option<Duration>,
    /// Totals.
    pub counters: Counters,
    /// The worst gap between two of our packets.
    pub worst_gap: Gap,
    /// The same, of the last minute.
    pub worst_gap_last_minute: Gap,
}

/// What the peer says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Names the session at the peer.
    pub discriminator: u32,
    /// Its state.
    pub state: State,
    /// Why it last went down.
    pub diagnostic: Diagnostic,
    /// The shortest interval between its packets.
    pub desired_min_tx: Duration,
    /// The shortest interval between ours that it can take.
    pub required_min_rx: Duration,
    /// Its detection multiplier.
    pub multiplier: u8,
    /// Whether its BFD outlives its control plane.
    pub independent: bool,
    /// Whether it wants no periodic packets while the session is up.
    pub demand: bool,
}

/// When and why a session went down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastDown {
    /// When.
    pub at: Instant,
    /// Why.
    pub cause: Cause,
}

/// Totals since the session was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets handed out for sending.
    pub sent: u64,
    /// Packets received and taken.
    pub received: u64,
    /// Packets received and discarded.
    pub discarded: Discards,
    /// How often the session came up.
    pub ups: u64,
    /// How often it was up and went down.
    pub downs: u64,
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Why.
    pub cause: Cause,
}

/// Why a state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The peer said something.
    Peer {
        /// Its state.
        state: State,
        /// Why it last went down.
        diagnostic: Diagnostic,
    },
    /// The peer was silent for the detection time.
    Silence(Duration),
    /// An operator wants it so.
    Admin,
    /// Something here keeps the session down: what.
    Held(Arc<str>),
    /// What kept the session down is over.
    Released,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer { state, diagnostic } if *diagnostic == Diagnostic::NONE => {
                write!(f, "the peer is {state}")
            }
            Self::Peer { state, diagnostic } => write!(f, "the peer is {state}: {diagnostic}"),
            Self::Silence(time) => write!(f, "nothing was heard of the peer for {time:?}"),
            Self::Admin => f.write_str("administratively down"),
            Self::Held(what) => f.write_str(what),
            Self::Released => f.write_str("it is not held down any more"),
        }
    }
}
