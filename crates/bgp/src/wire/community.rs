//! Communities: standard (RFC 1997), extended (RFC 4360), large (RFC 8092).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

/// A standard community: the AS in the upper half, its value in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

/// An extended community, as its eight octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub u64);

/// Who gives an extended community its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Administrator {
    /// An AS. Up to 65535 it leaves 32 bits to the value (type 0x00 of
    /// RFC 4360), above that 16 (type 0x02 of RFC 5668).
    As(u32),
    /// Who owns an address; it leaves 16 bits (type 0x01 of RFC 4360).
    Address(Ipv4Addr),
}

/// A large community.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// The AS that gives the other two their meaning.
    pub global: u32,
    /// First local value.
    pub local1: u32,
    /// Second local value.
    pub local2: u32,
}

/// A community that is not written as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is not a community; write {wanted}")]
pub struct CommunityError {
    text: String,
    wanted: &'static str,
}

/// Well-known communities by name (IANA "BGP Well-known Communities").
const WELL_KNOWN: [(&str, Community); 6] = [
    ("graceful-shutdown", Community::GRACEFUL_SHUTDOWN),
    ("blackhole", Community(0xffff_029a)),
    ("no-export", Community(0xffff_ff01)),
    ("no-advertise", Community(0xffff_ff02)),
    ("no-export-subconfed", Community(0xffff_ff03)),
    ("no-peer", Community(0xffff_ff04)),
];

impl Community {
    /// GRACEFUL_SHUTDOWN: the sender is about to go, prefer other ways
    /// (RFC 8326). On iBGP a local preference of 0 belongs to it.
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
}

impl FromStr for Community {
    type Err = CommunityError;

    /// `AS:VALUE`, both up to 65535, or the name of a well-known community.
    fn from_str(text: &str) -> Result<Self, CommunityError> {
        if let Some(&(_, community)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
            return Ok(community);
        }
        let parse = || {
            let (upper, lower) = text.split_once(':')?;
            let (upper, lower) = (upper.parse::<u16>().ok()?, lower.parse::<u16>().ok()?);
            Some(Self(u32::from(upper) << 16 | u32::from(lower)))
        };
        let wanted = "AS:VALUE with numbers up to 65535, or a name such as no-export; \
                      for an AS above 65535 use a large community";
        parse().ok_or_else(|| CommunityError {
            text: text.to_owned(),
            wanted,
        })
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WELL_KNOWN.iter().find(|(_, community)| community == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

const ROUTE_TARGET: u8 = 2;
const SITE_OF_ORIGIN: u8 = 3;

impl ExtendedCommunity {
    /// Who is to take the route (RFC 4360 section 4); `None` if `value` does
    /// not fit beside `of`.
    #[must_use]
    pub fn route_target(of: Administrator, value: u32) -> Option<Self> {
        Self::specific(ROUTE_TARGET, of, value)
    }

    /// Where the route comes from, also called route origin (RFC 4360
    /// section 5); `None` if `value` does not fit beside `of`.
    #[must_use]
    pub fn site_of_origin(of: Administrator, value: u32) -> Option<Self> {
        Self::specific(SITE_OF_ORIGIN, of, value)
    }

    /// Of a type that has an administrator, which may be any other subtype.
    #[must_use]
    pub fn specific(subtype: u8, of: Administrator, value: u32) -> Option<Self> {
        let (kind, rest) = match of {
            Administrator::As(asn) => match u16::try_from(asn) {
                Ok(asn) => (0, u64::from(asn) << 32 | u64::from(value)),
                Err(_) => (2, u64::from(asn) << 16 | narrow(value)?),
            },
            Administrator::Address(address) => {
                (1, u64::from(address.to_bits()) << 16 | narrow(value)?)
            }
        };
        Some(Self(kind << 56 | u64::from(subtype) << 48 | rest))
    }

    /// Subtype, administrator and value, if it is of a type that has them.
    #[must_use]
    pub fn parts(self) -> Option<(u8, Administrator, u32)> {
        let [kind, subtype, a, b, c, d, e, f] = self.0.to_be_bytes();
        let wide = u32::from_be_bytes([a, b, c, d]);
        let value = u16::from_be_bytes([e, f]).into();
        Some(match kind {
            0 => {
                let asn = u16::from_be_bytes([a, b]).into();
                let value = u32::from_be_bytes([c, d, e, f]);
                (subtype, Administrator::As(asn), value)
            }
            1 => (subtype, Administrator::Address(wide.into()), value),
            2 => (subtype, Administrator::As(wide), value),
            _ => return None,
        })
    }
}

fn narrow(value: u32) -> Option<u64> {
    u16::try_from(value).ok().map(u64::from)
}

impl FromStr for ExtendedCommunity {
    type Err = CommunityError;

    /// `rt:WHO:VALUE` or `soo:WHO:VALUE` (`ro:` is the same), where WHO is an AS
    /// or an IPv4 address; or the eight octets as they are, of whatever type:
    /// `generic:0x03060000:0x00000064`.
    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let hex = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let parse = || {
            let (kind, rest) = text.split_once(':')?;
            let (who, value) = rest.split_once(':')?;
            let subtype = match kind {
                "rt" => ROUTE_TARGET,
                "soo" | "ro" => SITE_OF_ORIGIN,
                "generic" => {
                    let (upper, lower) = (hex(who)?, hex(value)?);
                    return Some(Self(u64::from(upper) << 32 | u64::from(lower)));
                }
                _ => return None,
            };
            let asn = || who.parse().ok().map(Administrator::As);
            let address = || who.parse().ok().map(Administrator::Address);
            Self::specific(subtype, asn().or_else(address)?, value.parse().ok()?)
        };
        let wanted = "rt:WHO:VALUE or soo:WHO:VALUE, where WHO is an AS or an IPv4 address \
                      (VALUE up to 4294967295 beside an AS up to 65535, else up to 65535), \
                      or generic:0xXXXXXXXX:0xXXXXXXXX";
        parse().ok_or_else(|| CommunityError {
            text: text.to_owned(),
            wanted,
        })
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |subtype| match subtype {
            ROUTE_TARGET => Some("rt"),
            SITE_OF_ORIGIN => Some("soo"),
            _ => None,
        };
        let named = self.parts().and_then(|(subtype, of, value)| {
            // Not of the form that it is written in: shown as it is.
            let same = Self::specific(subtype, of, value) == Some(*self);
            Some((name(subtype).filter(|_| same)?, of, value))
        });
        match named {
            Some((name, Administrator::As(asn), value)) => write!(f, "{name}:{asn}:{value}"),
            Some((name, Administrator::Address(address), value)) => {
                write!(f, "{name}:{address}:{value}")
            }
            None => write!(f, "generic:{:#010x}:{:#010x}", self.0 >> 32, self.0 as u32),
        }
    }
}

impl FromStr for LargeCommunity {
    type Err = CommunityError;

    /// `AS:VALUE:VALUE`, each up to 4294967295.
    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let parse = || {
            let mut parts = text.split(':').map(|part| part.parse().ok());
            let (global, local1, local2) = (parts.next()??, parts.next()??, parts.next()??);
            parts.next().is_none().then_some(Self {
                global,
                local1,
                local2,
            })
        };
        let wanted = "AS:VALUE:VALUE with numbers up to 4294967295";
        parse().ok_or_else(|| CommunityError {
            text: text.to_owned(),
            wanted,
        })
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}
