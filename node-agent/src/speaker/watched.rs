//! What the driver of a session publishes of it, and what it tells when asked.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use ipnet::IpNet;
use vipd_bgp::{LastError, Session, State, Status, wire::Attributes};

use super::{dropped::Dropped, trouble};
use crate::config::BgpPeer;

/// What the driver publishes about its session.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The peer as configured.
    pub peer: Arc<BgpPeer>,
    /// The session.
    pub session: Status,
    /// When it came into its state.
    pub since: Instant,
    /// Both ends of its connection, ours first, if there is one.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// How many routes the peer is to know.
    pub wanted: usize,
    /// What the kernel had dropped when the session was lost.
    pub dropped: Dropped,
    /// The last NOTIFICATION of the peer's.
    pub received: Option<LastError>,
    /// The last NOTIFICATION of ours.
    pub sent: Option<LastError>,
    /// Whether every route is with the kernel's socket, or there is nobody to
    /// tell.
    pub flushed: bool,
    /// Whether its task has ended without being told to: nothing of the
    /// session is left.
    pub failed: bool,
}

/// What a peer has been told.
pub type Told = Vec<(IpNet, Attributes)>;

impl PeerStatus {
    /// A session that has not begun.
    #[must_use]
    pub fn new(peer: &Arc<BgpPeer>, session: &Session, now: Instant) -> Self {
        Self {
            peer: Arc::clone(peer),
            session: session.status(),
            since: now,
            ends: None,
            wanted: 0,
            dropped: Dropped::now(),
            received: None,
            sent: None,
            flushed: true,
            failed: false,
        }
    }

    /// Whether the peer knows our routes, as far as we can tell.
    #[must_use]
    pub fn may_have_routes(&self, now: Instant) -> bool {
        let kept = self.session.kept_until;
        self.session.established_at.is_some() || kept.is_some_and(|until| now < until)
    }

    /// What segments that the kernel drops tell of a session that does not
    /// stand; looked up now.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self.session.state {
            State::Established => None,
            _ => trouble::evidence(Dropped::now().since(self.dropped), &self.peer),
        }
    }

    /// A session that cannot begin, and why.
    #[must_use]
    pub fn held_up(mut self, words: String, now: Instant) -> Self {
        self.session.last_error = Some(LastError { at: now, words });
        self
    }

    /// Makes it that of a session whose task has ended without being told to.
    pub fn fail(&mut self, now: Instant) {
        self.failed = true;
        self.since = now;
        self.ends = None;
        self.session.state = State::Idle;
        self.session.established_at = None;
        self.session.agreed = None;
        self.session.advertised.clear();
        self.session.last_error = Some(LastError {
            at: now,
            words: "its task has failed, which is a defect of vipd; see the log".to_owned(),
        });
    }
}
