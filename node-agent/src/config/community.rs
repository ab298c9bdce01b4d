//! Communities that are attached to announcements, as they are written.

use std::{fmt, str::FromStr};

use toml::de::DeValue;
use vipd_bgp::wire::{CommunityError, ExtendedCommunity};

use super::{
    report::{Report, Span},
    table::Value,
    value::read_text,
};

/// A community that is attached to announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997.
    Standard(u32),
    /// RFC 4360.
    Extended(ExtendedCommunity),
    /// RFC 8092: global administrator and two local parts.
    Large(u32, u32, u32),
}

/// RFC 8326: routers are to prefer another way, since this one will go.
pub const GRACEFUL_SHUTDOWN: Community = Community::Standard(0xFFFF_0000);

/// The well-known communities by name.
const WELL_KNOWN: [(&str, u32); 9] = [
    ("graceful-shutdown", 0xFFFF_0000),   // RFC 8326
    ("accept-own", 0xFFFF_0001),          // RFC 7611
    ("llgr-stale", 0xFFFF_0006),          // RFC 9494
    ("no-llgr", 0xFFFF_0007),             // RFC 9494
    ("blackhole", 0xFFFF_029A),           // RFC 7999
    ("no-export", 0xFFFF_FF01),           // RFC 1997
    ("no-advertise", 0xFFFF_FF02),        // RFC 1997
    ("no-export-subconfed", 0xFFFF_FF03), // RFC 1997
    ("no-peer", 0xFFFF_FF04),             // RFC 3765
];

impl FromStr for Community {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Standard(*value));
        }
        if text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.contains(':') {
            let extended = text.parse().map(Self::Extended);
            return extended.map_err(|error: CommunityError| error.to_string());
        }
        let parts: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
        match parts.as_deref() {
            Ok([high, low]) => match (u16::try_from(*high), u16::try_from(*low)) {
                (Ok(high), Ok(low)) => Ok(Self::Standard((u32::from(high) << 16) | u32::from(low))),
                _ => Err(format!(
                    "the parts of the standard community `{text}` must be below 65536, \
                     a large community has three parts"
                )),
            },
            Ok([global, first, second]) => Ok(Self::Large(*global, *first, *second)),
            _ => Err(format!("`{text}` is not a community")),
        }
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(value) => match WELL_KNOWN.iter().find(|(_, known)| known == value) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{}:{}", value >> 16, value & 0xFFFF),
            },
            Self::Extended(extended) => extended.fmt(f),
            Self::Large(global, first, second) => write!(f, "{global}:{first}:{second}"),
        }
    }
}

impl Value for Community {
    fn kind() -> String {
        String::from("communities")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let example = "\"64500:100\", \"64500:1:2\", \"rt:64500:100\" or \"no-export\"";
        read_text(value, span, report, example, str::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_are_read_and_shown_alike() {
        let table = [
            ("64500:100", Some(Community::Standard(0xFBF4_0064))),
            ("no-export", Some(Community::Standard(0xFFFF_FF01))),
            ("graceful-shutdown", Some(GRACEFUL_SHUTDOWN)),
            ("blackhole", Some(Community::Standard(0xFFFF_029A))),
            ("65536:1:2", Some(Community::Large(65536, 1, 2))),
            (
                "rt:64500:65537",
                Some(Community::Extended(ExtendedCommunity(
                    0x0002_FBF4_0001_0001,
                ))),
            ),
            (
                "soo:65536:1",
                Some(Community::Extended(ExtendedCommunity(
                    0x0203_0001_0000_0001,
                ))),
            ),
            (
                "rt:192.0.2.1:100",
                Some(Community::Extended(ExtendedCommunity(
                    0x0102_C000_0201_0064,
                ))),
            ),
            ("65536:1", None),
            ("1:2:3:4", None),
            ("noexport", None),
            ("1:", None),
            ("-1:2", None),
            ("rt:64500", None),
            ("rt:65536:65536", None),
            ("rt:192.0.2.1:65536", None),
            ("rt:1:2:3", None),
            ("xy:1:2", None),
        ];
        for (text, community) in table {
            assert_eq!(text.parse().ok(), community, "{text}");
            if let Some(community) = community {
                assert_eq!(community.to_string(), text);
            }
        }
        let by_number: Result<Community, _> = "65535:666".parse();
        assert_eq!(by_number, Ok(Community::Standard(0xFFFF_029A)));
    }
}
