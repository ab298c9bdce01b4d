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
    /// The sender's AS number in full (RFC 6793).
    FourOctetAs(u32),
    /// Anything else, as received.
    Other {
        /// Capability code.
        code: u8,
        /// Capability value.
        value: Vec<u8>,
    },
}

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const FOUR_OCTET_AS: u8 = 65;

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
            Self::RouteRefresh => (),
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

    /// Reads the capabilities of one optional parameter; `None` if one of them
    /// is longer than the parameter. A known capability whose value has not
    /// the size it must have is kept as [`Capability::Other`].
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
            Self::FourOctetAs(_) => FOUR_OCTET_AS,
            Self::Other { code, .. } => *code,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Multiprotocol { afi, safi } => match Family::from_numbers(*afi, *safi) {
                Some(family) => family.fmt(f),
                None => write!(f, "AFI {afi} SAFI {safi}"),
            },
            Self::RouteRefresh => f.write_str("route refresh"),
            Self::FourOctetAs(asn) => write!(f, "four-octet AS ({asn})"),
            Self::Other { code, .. } => match name(*code) {
                Some(name) => f.write_str(name),
                None => write!(f, "capability {code}"),
            },
        }
    }
}

/// Names of capabilities that are shown but not used
/// (IANA "Capability Codes").
fn name(code: u8) -> Option<&'static str> {
    Some(match code {
        5 => "extended next hop",
        6 => "extended message",
        9 => "role",
        64 => "graceful restart",
        69 => "ADD-PATH",
        70 => "enhanced route refresh",
        71 => "long-lived graceful restart",
        73 => "FQDN",
        128 => "route refresh (Cisco)",
        _ => return None,
    })
}
