//! Capabilities (RFC 5492): what each side tells the other it can do.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::{Family, Reader, with_len8};

/// One capability out of an OPEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// Routes of an address family (RFC 4760); may be one we do not know.
    Multiprotocol {
        /// Address family identifier.
        afi: u16,
        /// Subsequent address family identifier.
        safi: u8,
    },
    /// ROUTE-REFRESH messages are understood (RFC 2918).
    RouteRefresh,
    /// Messages of up to 65,535 octets are understood (RFC 8654).
    ExtendedMessages,
    /// Routes may stay while BGP restarts (RFC 4724).
    GracefulRestart(RestartCapability),
    /// The sender's AS number in full (RFC 6793).
    FourOctetAs(u32),
    /// Begin and end of a route refresh are marked (RFC 7313).
    EnhancedRouteRefresh,
    /// The session may wait for BFD (draft-ietf-idr-bgp-bfd-strict-mode).
    BfdStrict,
    /// Anything else, as received.
    Other {
        /// Capability code.
        code: u8,
        /// Capability value.
        value: Vec<u8>,
    },
}

/// What a speaker says of its restarts (RFC 4724 section 3, RFC 8538).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestartCapability {
    /// R: the sender has restarted, and must not be waited for.
    pub restarting: bool,
    /// N: a NOTIFICATION other than a Hard Reset is a restart too (RFC 8538).
    pub notification: bool,
    /// Seconds within which the sender wants to be back, at most
    /// [`MAX_RESTART_TIME`].
    pub restart_time: u16,
    /// Families whose forwarding the sender can keep over a restart. None: it
    /// only helps others.
    pub families: Vec<RestartFamily>,
}

/// A family in [`RestartCapability`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartFamily {
    /// Address family identifier; may be one we do not know.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
    /// F: the forwarding has indeed been kept.
    pub forwarding: bool,
}

/// The longest restart time in seconds (RFC 4724 section 3: twelve bits).
pub const MAX_RESTART_TIME: u16 = 0xfff;

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_MESSAGES: u8 = 6;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ENHANCED_ROUTE_REFRESH: u8 = 70;
const BFD_STRICT: u8 = 74;

const RESTARTING: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const FORWARDING: u8 = 0x80;

impl Capability {
    /// The capability to carry routes of `family`.
    #[must_use]
    pub fn family(family: Family) -> Self {
        Self::Multiprotocol {
            afi: family.afi(),
            safi: family.safi(),
        }
    }

    /// Appends code, length and value.
    pub(super) fn emit(&self, out: &mut BytesMut) {
        out.put_u8(self.code());
        with_len8(out, |out| match self {
            Self::Multiprotocol { afi, safi } => {
                out.put_u16(*afi);
                out.put_u8(0);
                out.put_u8(*safi);
            }
            Self::RouteRefresh
            | Self::ExtendedMessages
            | Self::EnhancedRouteRefresh
            | Self::BfdStrict => (),
            Self::GracefulRestart(restart) => restart.emit(out),
            Self::FourOctetAs(asn) => out.put_u32(*asn),
            Self::Other { value, .. } => out.put_slice(value),
        });
    }

    /// The capability as octets, as a NOTIFICATION quotes it (RFC 5492).
    pub(crate) fn to_octets(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.emit(&mut out);
        out.to_vec()
    }

    /// Reads the capabilities of one optional parameter, or of a NOTIFICATION
    /// that quotes some; `None` if one of them is longer than the field. A
    /// known capability whose value has not the size it must have is kept as
    /// [`Capability::Other`].
    pub(super) fn parse_all(value: &[u8]) -> Option<Vec<Self>> {
        let mut reader = Reader::new(value);
        let mut capabilities = Vec::new();
        while !reader.is_empty() {
            let code = reader.u8()?;
            let len = reader.u8()?;
            capabilities.push(Self::from_value(code, reader.take(len.into())?));
        }
        Some(capabilities)
    }

    fn from_value(code: u8, value: &[u8]) -> Self {
        match (code, value) {
            (MULTIPROTOCOL, &[high, low, _, safi]) => Self::Multiprotocol {
                afi: u16::from_be_bytes([high, low]),
                safi,
            },
            (ROUTE_REFRESH, &[]) => Self::RouteRefresh,
            (EXTENDED_MESSAGES, &[]) => Self::ExtendedMessages,
            (GRACEFUL_RESTART, &[high, low, ref families @ ..])
                if families.len().is_multiple_of(4) =>
            {
                let flags = u16::from_be_bytes([high, low]);
                Self::GracefulRestart(RestartCapability::parse(flags, families))
            }
            (ENHANCED_ROUTE_REFRESH, &[]) => Self::EnhancedRouteRefresh,
            (BFD_STRICT, &[]) => Self::BfdStrict,
            (FOUR_OCTET_AS, &[a, b, c, d]) => Self::FourOctetAs(u32::from_be_bytes([a, b, c, d])),
            _ => Self::Other {
                code,
                value: value.to_vec(),
            },
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Multiprotocol { .. } => MULTIPROTOCOL,
            Self::RouteRefresh => ROUTE_REFRESH,
            Self::ExtendedMessages => EXTENDED_MESSAGES,
            Self::GracefulRestart(_) => GRACEFUL_RESTART,
            Self::FourOctetAs(_) => FOUR_OCTET_AS,
            Self::EnhancedRouteRefresh => ENHANCED_ROUTE_REFRESH,
            Self::BfdStrict => BFD_STRICT,
            Self::Other { code, .. } => *code,
        }
    }
}

impl RestartCapability {
    /// The families of `families` that this speaker knows.
    pub fn known(&self) -> impl Iterator<Item = (Family, bool)> {
        self.families.iter().filter_map(|listed| {
            let family = Family::from_numbers(listed.afi, listed.safi)?;
            Some((family, listed.forwarding))
        })
    }

    fn emit(&self, out: &mut BytesMut) {
        let mut head = self.restart_time.min(MAX_RESTART_TIME);
        head |= if self.restarting { RESTARTING } else { 0 };
        head |= if self.notification { NOTIFICATION } else { 0 };
        out.put_u16(head);
        for family in &self.families {
            out.put_u16(family.afi);
            out.put_u8(family.safi);
            out.put_u8(if family.forwarding { FORWARDING } else { 0 });
        }
    }

    /// Bits without a meaning are ignored, as the RFCs ask for.
    fn parse(head: u16, families: &[u8]) -> Self {
        let (families, _) = families.as_chunks();
        let families = families
            .iter()
            .map(|&[high, low, safi, flags]| RestartFamily {
                afi: u16::from_be_bytes([high, low]),
                safi,
                forwarding: flags & FORWARDING != 0,
            });
        Self {
            restarting: head & RESTARTING != 0,
            notification: head & NOTIFICATION != 0,
            restart_time: head & MAX_RESTART_TIME,
            families: families.collect(),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Multiprotocol { afi, safi } => f.write_str(&Family::name(*afi, *safi)),
            Self::RouteRefresh => f.write_str("route refresh"),
            Self::ExtendedMessages => f.write_str("extended messages"),
            Self::EnhancedRouteRefresh => f.write_str("enhanced route refresh"),
            Self::BfdStrict => f.write_str("BFD strict mode"),
            Self::GracefulRestart(restart) => restart.fmt(f),
            Self::FourOctetAs(asn) => write!(f, "four-octet AS ({asn})"),
            Self::Other { code, .. } => match name(*code) {
                Some(name) => f.write_str(name),
                None => write!(f, "capability {code}"),
            },
        }
    }
}

impl fmt::Display for RestartCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "graceful restart ({} s", self.restart_time)?;
        let flag = |set, words| if set { words } else { "" };
        f.write_str(flag(self.restarting, ", restarting"))?;
        f.write_str(flag(self.notification, ", with NOTIFICATIONs"))?;
        for family in &self.families {
            let name = Family::name(family.afi, family.safi);
            let kept = flag(family.forwarding, " forwarding kept");
            write!(f, ", {name}{kept}")?;
        }
        f.write_str(")")
    }
}

/// Names of capabilities that are shown but not used
/// (IANA "Capability Codes").
fn name(code: u8) -> Option<&'static str> {
    Some(match code {
        5 => "extended next hop",
        9 => "role",
        69 => "ADD-PATH",
        71 => "long-lived graceful restart",
        73 => "FQDN",
        128 => "route refresh (Cisco)",
        _ => return None,
    })
}
