//! BGP's own kinds of values: AS numbers, communities, hold times, next hops.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use toml::de::DeValue;

use super::{
    report::{Report, Span},
    table::Value,
    value::{read_integer, read_text, show_duration},
};

/// An AS number that a speaker may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(NonZeroU32);

/// A community that is attached to announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997.
    Standard(u32),
    /// RFC 8092: global administrator and two local parts.
    Large(u32, u32, u32),
}

/// The hold time we propose: none (0) or at least 3 seconds (RFC 4271,
/// section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldTime(u16);

/// The next hop of announcements of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop<A> {
    /// The local address of the session.
    Own,
    /// This address.
    Given(A),
}

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

impl Asn {
    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Value for Asn {
    fn kind() -> String {
        String::from("AS number")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let number = read_integer(value, span, report, (1, u32::MAX.into()))?;
        let reserved = match number {
            23456 => "it stands for numbers that do not fit 16 bits (RFC 6793)",
            65535 | 4_294_967_295 => "it is the last of its range (RFC 7300)",
            _ => {
                let number = u32::try_from(number).ok()?;
                return NonZeroU32::new(number).map(Self);
            }
        };
        let title = format!("AS {number} is reserved: {reserved}");
        let help = "private numbers are 64512 to 65534 and 4200000000 to 4294967294";
        report.error(span, title).help(help);
        None
    }
}

impl FromStr for Community {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Standard(*value));
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
            Self::Large(global, first, second) => write!(f, "{global}:{first}:{second}"),
        }
    }
}

impl Value for Community {
    fn kind() -> String {
        String::from("communities")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let example = "\"64500:100\", \"64500:1:2\" or \"no-export\"";
        read_text(value, span, report, example, str::parse)
    }
}

impl HoldTime {
    /// In seconds.
    #[must_use]
    pub fn seconds(self) -> u16 {
        self.0
    }
}

impl Value for HoldTime {
    fn kind() -> String {
        Duration::kind()
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let duration = Duration::read(value, span, report)?;
        let seconds = u16::try_from(duration.as_secs()).ok();
        let legal = seconds
            .filter(|seconds| duration.subsec_nanos() == 0 && (*seconds == 0 || *seconds >= 3));
        if legal.is_none() {
            let title = format!("BGP knows no hold time of {}", show_duration(duration));
            report
                .error(span, title)
                .help("whole seconds, at least \"3s\" and at most \"65535s\", or \"0s\" for none");
        }
        legal.map(Self)
    }
}

impl<A: FromStr + Value> Value for NextHop<A> {
    fn kind() -> String {
        format!("\"self\" or {}", A::kind())
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        match value.as_str() {
            Some("self") => Some(Self::Own),
            _ => A::read(value, span, report).map(Self::Given),
        }
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
            ("graceful-shutdown", Some(Community::Standard(0xFFFF_0000))),
            ("blackhole", Some(Community::Standard(0xFFFF_029A))),
            ("65536:1:2", Some(Community::Large(65536, 1, 2))),
            ("65536:1", None),
            ("1:2:3:4", None),
            ("noexport", None),
            ("1:", None),
            ("-1:2", None),
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
