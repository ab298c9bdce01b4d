//! How a backend is checked, as validated.

use std::{net::IpAddr, num::NonZeroU16, ops::RangeInclusive, path::PathBuf};

use super::{Mode, pattern::Pattern, timing::Timing};

/// How and how often a backend is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// The address asked; `None` asks the backend's own.
    pub address: Option<IpAddr>,
    /// Port asked; of no meaning for kinds that know none.
    pub port: NonZeroU16,
    /// Source address of the check; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// The way that traffic takes, if the check goes by it.
    pub through: Option<Through>,
    /// Rhythm and thresholds.
    pub timing: Timing,
}

/// The way of traffic of a service to its backends, and what must be answered there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Through {
    /// How packets reach a backend.
    pub mode: Mode,
    /// The virtual address that is asked.
    pub vip: IpAddr,
    /// The other ones, of which each must answer at all.
    pub others: Vec<IpAddr>,
    /// A TCP port that must be served there; `None` is satisfied with an echo.
    pub port: Option<NonZeroU16>,
    /// Whether a packet must arrive that is as large as the largest of traffic.
    pub full_mtu: bool,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Nothing: the backend always counts as up.
    None,
    /// A TCP connection that is accepted, and what is said in it.
    Tcp(Exchange),
    /// A TLS session over TCP, and what is said in it.
    Tls(Tls, Exchange),
    /// An HTTP/1.1 request, over TLS where that is given.
    Http(Http, Option<Tls>),
    /// A DNS query.
    Dns(Dns),
    /// A UDP datagram and its reply.
    Udp(Exchange),
    /// An ICMP or ICMPv6 echo with so many octets of data.
    Icmp {
        /// Octets of data after the ICMP header.
        size: u16,
    },
    /// A program that is run.
    Program(Program),
    /// A file on this host.
    File(File),
}

/// What is said in a connection, or in a datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// What is sent first; may be empty.
    pub send: Vec<u8>,
    /// What must come back; `None` waits for nothing.
    pub expect: Option<Pattern>,
}

/// How a TLS session is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whether the certificate must be valid for the name and now, signed by
    /// somebody we trust.
    pub verify: bool,
    /// Server name (RFC 6066 SNI, RFC 9525); `None` is the address asked, which
    /// is verified but not sent.
    pub server_name: Option<String>,
    /// Certificates of those we trust, in PEM; `None` trusts whom the system does.
    pub ca_file: Option<PathBuf>,
    /// Protocols that are offered (RFC 7301); one of them must be chosen unless
    /// there are none.
    pub alpn: Vec<String>,
}

/// An HTTP/1.1 request and which answers are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// `GET`, `HEAD`, `OPTIONS` or another token of RFC 9110, section 9.
    pub method: String,
    /// Request target, starting with `/`.
    pub path: String,
    /// `Host` header; `None` sends the address asked.
    pub host: Option<String>,
    /// More headers, as name and value.
    pub headers: Vec<(String, String)>,
    /// Status codes that count as success, for example `200..=399`.
    pub status: Vec<RangeInclusive<u16>>,
    /// Headers that the answer must have, each with its value.
    pub expect_headers: Vec<(String, Pattern)>,
    /// What its body must contain.
    pub expect_body: Option<Pattern>,
}

/// A DNS query and which answers are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Whether it is asked over TCP (RFC 7766) instead of UDP.
    pub tcp: bool,
    /// The name asked for, in presentation format.
    pub name: String,
    /// Its type by number, for example 1 for A and 28 for AAAA.
    pub record_type: u16,
    /// Response codes that count as success, for example 0 for NOERROR.
    pub rcodes: Vec<u8>,
    /// What the data of a record of that type in the answer section must match,
    /// in presentation format; `None` wants none.
    pub answer: Option<Pattern>,
}

/// A program and how it is run, without a shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// Absolute path of the program, then its arguments.
    pub command: Vec<String>,
    /// Environment on top of what vipd itself gives.
    pub environment: Vec<(String, String)>,
    /// The user it runs as.
    pub user: String,
}

/// A file that says by being there whether the backend is up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct File {
    /// Where it is looked for.
    pub path: PathBuf,
    /// Whether the backend is up while it is there, or while it is not.
    pub up_while_present: bool,
}

impl CheckKind {
    /// Whether it asks over the network, and tells when nobody answers. A datagram
    /// without an expected reply does not, and nobody knows what a program does.
    #[must_use]
    pub const fn tells_silence(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Tls(..) | Self::Http(..) | Self::Dns(_) | Self::Icmp { .. } => {
                true
            }
            Self::Udp(exchange) => exchange.expect.is_some(),
            Self::None | Self::Program(_) | Self::File(_) => false,
        }
    }
}

impl Check {
    /// No check at all.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            kind: CheckKind::None,
            address: None,
            port: NonZeroU16::MIN,
            source: None,
            through: None,
            timing: Timing::PLAIN,
        }
    }
}
