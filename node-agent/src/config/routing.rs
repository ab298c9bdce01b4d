//! BGP's own kinds of values: AS numbers, hold times, next hops.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use toml::de::DeValue;

use super::{
    report::{Report, Span},
    table::Value,
    value::{read_integer, show_duration},
};

/// An AS number that a speaker may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(NonZeroU32);

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
