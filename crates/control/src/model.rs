//! The model: services, backends, checks and virtual addresses as validated
//! configuration. Whoever holds one of these types holds something legal.

mod check;
mod needs;
mod pattern;
mod timing;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

pub use self::{
    check::{Check, CheckKind, Dns, Exchange, File, Http, Program, Through, Tls},
    needs::{Depends, Mark, Needs, Role, Share, Tally},
    pattern::Pattern,
    timing::{OnDown, Timing},
};
use crate::ring::default_ring_size;

/// All that this node is to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Services in the order of their names. Unchanged services are shared
    /// between two models of successive configurations.
    pub services: Vec<Arc<Service>>,
}

/// One service: the same protocol and ports on one or more virtual addresses,
/// spread over one set of backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique among services.
    pub name: Arc<str>,
    /// Virtual addresses, sorted, without repetition. None at times, where they are
    /// taken from an interface.
    pub vips: Vec<Vip>,
    /// Layer-4 protocol.
    pub protocol: Protocol,
    /// Layer-4 ports.
    pub ports: Ports,
    /// How packets reach a backend. The same for all services of a virtual
    /// address as far as [`Mode::forwards`] goes.
    pub mode: Mode,
    /// How many healthy backends it takes.
    pub needs: Needs,
    /// It is alive only while these services are, by their names.
    pub track: Vec<Arc<str>>,
    /// While this file is there the service is disabled.
    pub disable_file: Option<PathBuf>,
    /// What this host must have for it to be announced.
    pub depends: Depends,
    /// Number of ring slots, a power of two, at most
    /// [`MAX_RING_SIZE`](crate::ring::MAX_RING_SIZE).
    pub ring_size: u32,
    /// How long a flow without packets is remembered across a change of the
    /// ring; zero is never.
    pub idle: Duration,
    /// How each backend is checked.
    pub check: Check,
    /// Whether there is BFD to each backend.
    pub bfd: bool,
    /// How long the share of a backend grows that has come back; zero gives it
    /// the whole at once.
    pub slow_start: Duration,
    /// Backends in the order of their names, at least one, at most
    /// [`MAX_BACKENDS`](crate::ring::MAX_BACKENDS).
    pub backends: Vec<Backend>,
}

/// A virtual address, or a prefix of them. Of two that hold the same address
/// the longer one has its packets, unless no service of it wants their port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip(IpNet);

/// Layer-4 ports of a service. On the same virtual address one port goes before
/// a range, and a range before any port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// This one.
    One(NonZeroU16),
    /// From the first to the last, which is greater.
    Range(NonZeroU16, NonZeroU16),
    /// All of them.
    Any,
}

/// Layer-4 protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
}

/// How a packet is carried to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The Ethernet addresses are rewritten; the backend is on the same link.
    L2Dsr,
    /// The packet is carried in an IPv4 or IPv6 header (RFC 2003, RFC 2473).
    Ipip,
    /// The packet is carried in UDP to this port (GUE variant 1,
    /// draft-ietf-intarea-gue).
    Gue(NonZeroU16),
    /// The packet stays: this host itself serves the address, by programs that
    /// its backends stand for.
    Local,
}

impl Mode {
    /// Whether packets are carried to another host.
    #[must_use]
    pub const fn forwards(self) -> bool {
        match self {
            Self::L2Dsr | Self::Ipip | Self::Gue(_) => true,
            Self::Local => false,
        }
    }
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique in its service.
    pub name: Arc<str>,
    /// Where packets go: outer destination, or neighbour on the link. Unique in
    /// its service, where it is the backend's identity in health and ring.
    pub address: IpAddr,
    /// Share of the traffic relative to its siblings; 0 takes none.
    pub weight: u16,
    /// What it is there for.
    pub role: Role,
    /// Whose health it has, if it is not checked itself.
    pub track: Option<Tracked>,
}

/// A backend of any service, by what it is identified with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tracked {
    /// Name of its service.
    pub service: Arc<str>,
    /// Its address.
    pub address: IpAddr,
}

impl Backend {
    /// An active server with a share of the traffic.
    #[must_use]
    pub fn new(name: &str, address: IpAddr, weight: u16) -> Self {
        Self {
            name: name.into(),
            address,
            weight,
            role: Role::Active,
            track: None,
        }
    }
}

impl Service {
    /// TCP to port 80 of these addresses over IP-in-IP, nobody checked, and the
    /// rest as the configuration has it where nothing is said.
    #[must_use]
    pub fn new(name: &str, vips: Vec<Vip>, backends: Vec<Backend>) -> Self {
        Self {
            name: name.into(),
            vips,
            protocol: Protocol::Tcp,
            ports: Ports::One(NonZeroU16::MIN.saturating_add(79)),
            mode: Mode::Ipip,
            needs: Needs::count(1),
            track: Vec::new(),
            disable_file: None,
            depends: Depends::default(),
            ring_size: default_ring_size(backends.len()),
            idle: Duration::from_secs(300),
            check: Check::none(),
            bfd: false,
            slow_start: Duration::ZERO,
            backends,
        }
    }

    /// Whether both want packets of the same address, protocol and ports: they
    /// are one service before and after it was renamed.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.ports == other.ports
            && self.vips.iter().any(|vip| other.vips.contains(vip))
    }

    /// The socket address a check of `backend` goes to.
    #[must_use]
    pub fn check_address(&self, backend: &Backend) -> SocketAddr {
        let address = self.check.address.unwrap_or(backend.address);
        SocketAddr::new(address, self.check.port.get())
    }
}

impl Vip {
    /// The address, or the first of the prefix.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0.addr()
    }

    /// The first address of it that a host can have.
    #[must_use]
    pub fn first_host(self) -> IpAddr {
        let mut hosts = self.0.hosts();
        hosts.next().unwrap_or_else(|| self.address())
    }

    /// As a prefix; of a single address, with all its bits.
    #[must_use]
    pub const fn prefix(self) -> IpNet {
        self.0
    }

    /// Whether it is a single address.
    #[must_use]
    pub fn is_single(self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    /// Whether all of the other one's addresses are its own, too.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0.contains(&other.0)
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }
}

impl From<IpAddr> for Vip {
    fn from(address: IpAddr) -> Self {
        Self(address.into())
    }
}

/// Bits after the prefix are cleared.
impl From<IpNet> for Vip {
    fn from(prefix: IpNet) -> Self {
        Self(prefix.trunc())
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            self.address().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

impl Ports {
    /// The first and the last of them.
    #[must_use]
    pub const fn bounds(self) -> (u16, u16) {
        match self {
            Self::One(port) => (port.get(), port.get()),
            Self::Range(first, last) => (first.get(), last.get()),
            Self::Any => (0, u16::MAX),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(port) => port.fmt(f),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
            Self::Any => f.write_str("any"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl Protocol {
    /// Its number in the IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A service on port 80 of one address, with such backends (name, last
    /// byte of the address, weight), for the tests of this crate.
    pub(crate) fn service(name: &str, backends: &[(&str, u8, u16)]) -> Service {
        let backend =
            |&(name, last, weight)| Backend::new(name, [198, 51, 100, last].into(), weight);
        let vip = IpAddr::from([192, 0, 2, 1]).into();
        let mut check = Check::none();
        check.kind = CheckKind::Tcp(Exchange::default());
        (check.timing.rise, check.timing.fall) = (2, 2);
        Service {
            ring_size: 4096,
            check,
            ..Service::new(name, vec![vip], backends.iter().map(backend).collect())
        }
    }

    #[test]
    fn a_host_has_no_network_address() {
        for (prefix, host) in [
            ("198.51.100.7/32", "198.51.100.7"),
            ("198.51.100.16/28", "198.51.100.17"),
            ("198.51.100.16/31", "198.51.100.16"),
            ("2001:db8::7/128", "2001:db8::7"),
            ("2001:db8::/64", "2001:db8::"),
        ] {
            let prefix: IpNet = prefix.parse().expect("a prefix");
            assert_eq!(Vip::from(prefix).first_host().to_string(), host);
        }
    }

    #[test]
    fn addresses_prefixes_and_ports_are_shown_as_they_are_written() {
        for (prefix, shown) in [
            ("198.51.100.7/32", "198.51.100.7"),
            ("198.51.100.16/28", "198.51.100.16/28"),
            ("198.51.100.17/28", "198.51.100.16/28"),
            ("2001:db8::7/128", "2001:db8::7"),
            ("2001:db8::/64", "2001:db8::/64"),
        ] {
            let prefix: IpNet = prefix.parse().expect("a prefix");
            assert_eq!(Vip::from(prefix).to_string(), shown);
        }
        let port = |number| NonZeroU16::new(number).expect("not zero");
        for (ports, shown, bounds) in [
            (Ports::One(port(80)), "80", (80, 80)),
            (Ports::Range(port(80), port(89)), "80-89", (80, 89)),
            (Ports::Any, "any", (0, 65535)),
        ] {
            assert_eq!((&*ports.to_string(), ports.bounds()), (shown, bounds));
        }
    }
}
