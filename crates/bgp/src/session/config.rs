//! What an operator configures for one peer.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use thiserror::Error;

use crate::wire::{
    AS_TRANS, Capability, Family, MAX_RESTART_TIME, Open, RestartCapability, RestartFamily,
    is_reserved,
};

/// One peer. Addresses, ports, keys and other affairs of the socket are the
/// driver's and not in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Our AS number.
    pub local_as: u32,
    /// The AS number the peer must have; the same as ours makes it iBGP.
    pub peer_as: u32,
    /// Our BGP identifier, not 0.0.0.0 (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Hold time to propose, in whole seconds; zero turns the hold timer off,
    /// one and two seconds are not allowed (RFC 4271 section 4.2).
    pub hold_time: Duration,
    /// How long the peer may take in nothing of what we send (RFC 9687), longer
    /// than the hold time. `None`: eight minutes, or twice the agreed hold time
    /// if that is longer.
    pub send_hold_time: Option<Duration>,
    /// Families to offer.
    pub families: BTreeSet<Family>,
    /// Next hop of IPv4 routes that name none. `None`: the local address of
    /// the connection, if that is an IPv4 address.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Next hop of IPv6 routes that name none; a global address (RFC 2545).
    /// `None`: the local address of the connection, if that is one.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// What to offer for restarts (RFC 4724); `None`: routes end with the
    /// session.
    pub graceful_restart: Option<GracefulRestart>,
    /// What BFD has to say about the session; [`Input::Bfd`](crate::Input::Bfd)
    /// says it.
    pub bfd: BfdMode,
    /// Most prefixes of each family that the peer may have announced at a time.
    /// They are not imported, but remembered to be counted exactly, never more
    /// than this; a peer that goes beyond is told so and let go. `None`: no
    /// limit, and nothing is remembered.
    pub max_prefixes: Option<u32>,
    /// How long to stay away from a peer that went beyond `max_prefixes`.
    pub max_prefixes_pause: Duration,
    /// Wait for the peer to connect, never dial.
    pub passive: bool,
    /// How long a dial may take before it counts as failed.
    pub connect_timeout: Duration,
    /// The pause after the first failure. It doubles with every further one.
    pub retry_min: Duration,
    /// The longest pause.
    pub retry_max: Duration,
}

/// What we offer for our own restarts (RFC 4724). NOTIFICATIONs count as
/// restarts too, if the peer agrees (RFC 8538).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GracefulRestart {
    /// How long the peer is to keep our routes while we are away; whole
    /// seconds, at most [`MAX_RESTART_TIME`].
    pub restart_time: Duration,
    /// This process follows one that was restarted (the R bit). It is said
    /// until the End-of-RIB of all families has been sent once: so long the
    /// restart goes on, even if a session breaks meanwhile.
    pub restarting: bool,
    /// Families whose packets are being forwarded as they were before this
    /// session (the F bit). The peer drops what it has kept of the others as
    /// soon as the session is back. To be set only when the data plane has
    /// really survived.
    pub forwarding: BTreeSet<Family>,
}

/// What BFD has to say about a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BfdMode {
    /// Nothing: there is no BFD.
    #[default]
    Off,
    /// When it goes down, so does the session (RFC 5882 section 4).
    On,
    /// Also, the session does not get established before it is up
    /// (draft-ietf-idr-bgp-bfd-strict-mode), whether or not the peer does the
    /// same.
    Strict,
}

/// A peer's configuration that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// AS 0, AS_TRANS and 65535 are no AS of anybody (RFC 7607, 6793, 7300).
    #[error("AS {0} is reserved and cannot be used")]
    ReservedAs(u32),
    /// RFC 6286.
    #[error("the router id must not be 0.0.0.0")]
    NoRouterId,
    /// RFC 4271 section 4.2.
    #[error("a hold time of {0:?} is not possible: 0 or 3 to 65535 whole seconds are")]
    HoldTime(Duration),
    /// RFC 9687 section 3.2.
    #[error("a send hold time of {0:?} is not possible: it must be above the hold time")]
    SendHoldTime(Duration),
    /// A session that carries nothing.
    #[error("no address family is offered")]
    NoFamily,
    /// RFC 4724 section 3.
    #[error("a restart time of {0:?} is not possible: up to {MAX_RESTART_TIME} whole seconds are")]
    RestartTime(Duration),
    /// Dials that fail at once and come back at once would storm.
    #[error(
        "the time a dial may take and all pauses must be above zero, the longest pause not below the shortest"
    )]
    Retry,
}

impl PeerConfig {
    /// A peer with the defaults: both families, hold time 90 s, dialling with
    /// a time-out of 5 s and pauses of 1 s to 15 s.
    #[must_use]
    pub fn new(local_as: u32, peer_as: u32, router_id: Ipv4Addr) -> Self {
        Self {
            local_as,
            peer_as,
            router_id,
            hold_time: Duration::from_secs(90),
            send_hold_time: None,
            families: Family::ALL.into(),
            next_hop_v4: None,
            next_hop_v6: None,
            graceful_restart: None,
            bfd: BfdMode::Off,
            max_prefixes: None,
            max_prefixes_pause: Duration::from_secs(300),
            passive: false,
            connect_timeout: Duration::from_secs(5),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(15),
        }
    }

    /// Whether a session can be run with this.
    ///
    /// # Errors
    /// The first thing found that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for asn in [self.local_as, self.peer_as] {
            if is_reserved(asn) {
                return Err(ConfigError::ReservedAs(asn));
            }
        }
        if self.router_id.is_unspecified() {
            return Err(ConfigError::NoRouterId);
        }
        let whole = |time: Duration| time.subsec_nanos() == 0;
        if !whole(self.hold_time) || !matches!(self.hold_time.as_secs(), 0 | 3..=65535) {
            return Err(ConfigError::HoldTime(self.hold_time));
        }
        if let Some(time) = self.send_hold_time.filter(|&time| time <= self.hold_time) {
            return Err(ConfigError::SendHoldTime(time));
        }
        if let Some(GracefulRestart { restart_time, .. }) = self.graceful_restart
            && (!whole(restart_time) || restart_time.as_secs() > MAX_RESTART_TIME.into())
        {
            return Err(ConfigError::RestartTime(restart_time));
        }
        if self.families.is_empty() {
            return Err(ConfigError::NoFamily);
        }
        let pauses = [
            self.retry_min,
            self.connect_timeout,
            self.max_prefixes_pause,
        ];
        let zero = pauses.iter().any(Duration::is_zero);
        if zero || self.retry_max < self.retry_min {
            return Err(ConfigError::Retry);
        }
        Ok(())
    }

    /// Whether the peer is in our own AS (iBGP).
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.local_as == self.peer_as
    }

    /// The capabilities we offer. `restarting`: a restart is not over yet.
    pub(super) fn capabilities(&self, restarting: bool) -> Vec<Capability> {
        let families = self
            .families
            .iter()
            .map(|&family| Capability::family(family));
        let restart = self.graceful_restart.as_ref().map(|restart| {
            let families = self.families.iter().map(|family| RestartFamily {
                afi: family.afi(),
                safi: family.safi(),
                forwarding: restart.forwarding.contains(family),
            });
            Capability::GracefulRestart(RestartCapability {
                restarting: restarting && restart.restarting,
                notification: true,
                restart_time: u16::try_from(restart.restart_time.as_secs())
                    .unwrap_or(MAX_RESTART_TIME),
                families: families.collect(),
            })
        });
        let strict = (self.bfd == BfdMode::Strict).then_some(Capability::BfdStrict);
        families
            .chain([
                Capability::RouteRefresh,
                Capability::EnhancedRouteRefresh,
                Capability::ExtendedMessages,
                Capability::FourOctetAs(self.local_as),
            ])
            .chain(restart)
            .chain(strict)
            .collect()
    }

    /// The OPEN we send, with these capabilities.
    pub(super) fn open(&self, capabilities: Vec<Capability>) -> Open {
        Open {
            my_as: u16::try_from(self.local_as).unwrap_or(AS_TRANS),
            hold_time: u16::try_from(self.hold_time.as_secs()).unwrap_or(u16::MAX),
            router_id: self.router_id,
            capabilities,
        }
    }
}
