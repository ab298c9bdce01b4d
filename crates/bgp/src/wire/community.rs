//! Communities: standard (RFC 1997), extended (RFC 4360), large (RFC 8092).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A standard community: the AS in the upper half, its value in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

/// An extended community, as its eight octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub u64);

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
    ("graceful-shutdown", Community(0xffff_0000)),
    ("blackhole", Community(0xffff_029a)),
    ("no-export", Community(0xffff_ff01)),
    ("no-advertise", Community(0xffff_ff02)),
    ("no-export-subconfed", Community(0xffff_ff03)),
    ("no-peer", Community(0xffff_ff04)),
];

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
