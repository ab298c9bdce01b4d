//! All sessions of a host, and which of them a packet is for (RFC 5880 section
//! 6.3, RFC 5881, RFC 5883).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use crate::packet::{self, Received, TTL};
use crate::random::Random;
use crate::session::{Config, Session};
use crate::words::{Discard, Discards};

/// What a session watches. Sessions are not of BGP or of anybody else: whoever
/// needs to know about this path shares it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The peer.
    pub remote: IpAddr,
    /// Our address; `None`: any that the kernel chooses.
    pub local: Option<IpAddr>,
    /// The interface or VRF that it is bound to; `None`: any.
    pub interface: Option<Arc<str>>,
    /// How far it is.
    pub hops: Hops,
}

/// How far a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hops {
    /// On the link: its packets come with a TTL of 255, which nobody farther
    /// away can make (RFC 5881, RFC 5082).
    Single,
    /// Behind routers (RFC 5883); how many may be between is
    /// [`Config::min_ttl`].
    Multi,
}

/// A datagram that has arrived at a BFD port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Where it comes from.
    pub remote: IpAddr,
    /// Where it was sent to.
    pub local: IpAddr,
    /// The interface or VRF that the socket it came to is bound to, if it is.
    pub bound: Option<Arc<str>>,
    /// Its TTL or hop limit.
    pub ttl: u8,
    /// The UDP port it came to.
    pub port: u16,
}

/// All sessions. Each is known by its discriminator.
#[derive(Debug)]
pub struct Sessions {
    sessions: BTreeMap<NonZeroU32, (Path, Session)>,
    random: Random,
    discarded: Discards,
}

impl Sessions {
    /// No sessions yet. `seed` makes discriminators and sequence numbers; give
    /// each start another.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            sessions: BTreeMap::new(),
            random: Random::new(seed),
            discarded: Discards::default(),
        }
    }

    /// Adds a session, whose discriminator is given back. There must be one at
    /// most for a path.
    pub fn add(&mut self, path: Path, config: Config, now: Instant) -> NonZeroU32 {
        let discriminator = loop {
            let drawn = NonZeroU32::new(self.random.next_u32());
            if let Some(free) = drawn.filter(|drawn| !self.sessions.contains_key(drawn)) {
                break free;
            }
        };
        let session = Session::new(config, discriminator, self.random.next(), now);
        self.sessions.insert(discriminator, (path, session));
        discriminator
    }

    /// Forgets a session. The peer is told nothing.
    pub fn remove(&mut self, id: NonZeroU32) {
        self.sessions.remove(&id);
    }

    /// The session of that discriminator, to change it.
    pub fn get_mut(&mut self, id: NonZeroU32) -> Option<&mut Session> {
        self.sessions.get_mut(&id).map(|(_, session)| session)
    }

    /// The session of that discriminator.
    #[must_use]
    pub fn get(&self, id: NonZeroU32) -> Option<&Session> {
        self.sessions.get(&id).map(|(_, session)| session)
    }

    /// All sessions.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Session)> {
        self.sessions
            .values()
            .map(|(path, session)| (path, session))
    }

    /// All sessions, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Path, &mut Session)> {
        self.sessions
            .values_mut()
            .map(|(path, session)| (&*path, session))
    }

    /// When the first of them is due; see [`Session::poll_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = self
            .sessions
            .values()
            .filter_map(|(_, session)| session.poll_timeout());
        deadlines.min()
    }

    /// Packets that were discarded and of no session. Those of a session are in
    /// its own counters.
    #[must_use]
    pub fn discarded(&self) -> Discards {
        self.discarded
    }

    /// Takes in a datagram. Gives back the session that it was for.
    ///
    /// # Errors
    /// Why it has no effect; it is counted.
    pub fn receive(
        &mut self,
        arrival: &Arrival,
        datagram: &[u8],
        now: Instant,
    ) -> Result<NonZeroU32, Discard> {
        let found = packet::parse(datagram)
            .and_then(|received| Ok((received, self.find(arrival, &received)?)));
        let (received, id) = match found {
            Ok(found) => found,
            Err(reason) => {
                self.discarded.count(reason);
                return Err(reason);
            }
        };
        let (path, session) = self.sessions.get_mut(&id).ok_or(Discard::NoSession)?;
        if arrival.ttl < path.hops.min_ttl(session.config()) {
            session.discarded(Discard::Ttl);
            return Err(Discard::Ttl);
        }
        session.receive(&received, now)?;
        Ok(id)
    }

    /// By our discriminator, as soon as the peer knows it; else by addresses.
    fn find(&self, arrival: &Arrival, received: &Received<'_>) -> Result<NonZeroU32, Discard> {
        let found = match received.packet.your_discriminator {
            Some(id) => self
                .sessions
                .get_key_value(&id)
                .filter(|(_, (path, _))| path.fits(arrival)),
            // Who is bound is bound to this.
            None => self
                .sessions
                .iter()
                .filter(|(_, (path, _))| path.fits(arrival))
                .max_by_key(|(_, (path, _))| path.interface.is_some()),
        };
        found.map(|(id, _)| *id).ok_or(Discard::NoSession)
    }
}

impl Path {
    /// Whether a datagram can have come along it.
    fn fits(&self, arrival: &Arrival) -> bool {
        self.remote == arrival.remote
            && self.local.is_none_or(|local| local == arrival.local)
            && (self.interface.is_none() || self.interface == arrival.bound)
            && self.hops.port() == arrival.port
    }
}

impl Hops {
    /// The UDP port of control packets.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Single => packet::PORT_SINGLE_HOP,
            Self::Multi => packet::PORT_MULTIHOP,
        }
    }

    /// The lowest TTL of packets that a session of this configuration takes.
    #[must_use]
    pub fn min_ttl(self, config: &Config) -> u8 {
        match self {
            Self::Single => TTL,
            Self::Multi => config.min_ttl,
        }
    }
}
