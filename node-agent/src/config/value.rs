//! How the ordinary kinds of values are read: text, numbers, durations,
//! addresses, paths, lists and choices among words.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::de::DeValue;
use vipd_control::model::{Ports, Protocol, Vip};

use super::{
    report::{Report, Span},
    table::{At, TableDoc, Value, article, nearest},
};

/// An integer of type `T` between `MIN` and `MAX`, both included.
#[derive(Clone, Copy, Debug)]
pub struct Int<T, const MIN: i64, const MAX: i64>(pub T);

/// Reads a string and hands it to `parse`, whose error says what is wrong and
/// what to write instead.
pub fn read_text<T>(
    value: &DeValue<'_>,
    span: &Span,
    report: &mut Report,
    example: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let Some(text) = value.as_str() else {
        let title = format!("expected a string, found {}", article(value));
        report
            .error(span, title)
            .help(format!("write it in quotes, for example {example}"));
        return None;
    };
    match parse(text) {
        Ok(value) => Some(value),
        Err(title) => {
            report
                .error(span, title)
                .help(format!("for example {example}"));
            None
        }
    }
}

/// Reads an integer between `min` and `max`.
pub fn read_integer(
    value: &DeValue<'_>,
    span: &Span,
    report: &mut Report,
    (min, max): (i64, i64),
) -> Option<i64> {
    let Some(integer) = value.as_integer() else {
        let title = format!("expected an integer, found {}", article(value));
        report
            .error(span, title)
            .help(format!("a number from {min} to {max}, without quotes"));
        return None;
    };
    let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
    let number = number.filter(|number| (min..=max).contains(number));
    if number.is_none() {
        report
            .error(span, format!("{integer} is out of range"))
            .help(format!("a number from {min} to {max}"));
    }
    number
}

/// Makes an enum a choice among words.
macro_rules! words {
    ($type:ty { $($word:literal => $variant:expr,)* }) => {
        impl Value for $type {
            fn kind() -> String {
                [$(concat!("\"", $word, "\""),)*].join(" or ")
            }

            fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
                read_word(value, span, report, &[$(($word, $variant),)*])
            }
        }
    };
}
pub(super) use words;

/// Reads one of a few words.
pub fn read_word<T: Copy>(
    value: &DeValue<'_>,
    span: &Span,
    report: &mut Report,
    words: &[(&'static str, T)],
) -> Option<T> {
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let choice = format!("one of \"{}\"", known.join("\", \""));
    let Some(written) = value.as_str() else {
        let title = format!("expected a string, found {}", article(value));
        report.error(span, title).help(choice);
        return None;
    };
    let chosen = words.iter().find(|(word, _)| *word == written);
    if chosen.is_none() {
        let help = match nearest(written, &known) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => choice,
        };
        report
            .error(span, format!("`{written}` is not known here"))
            .help(help);
    }
    chosen.map(|(_, value)| *value)
}

words! { Protocol { "tcp" => Protocol::Tcp, "udp" => Protocol::Udp, } }

impl<T, const MIN: i64, const MAX: i64> Value for Int<T, MIN, MAX>
where
    T: TryFrom<u64>,
{
    fn kind() -> String {
        format!("{MIN} to {MAX}")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let number = read_integer(value, span, report, (MIN, MAX))?;
        let number = u64::try_from(number).ok()?;
        T::try_from(number).ok().map(Self)
    }
}

impl Value for NonZeroU16 {
    fn kind() -> String {
        String::from("port")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let number = read_integer(value, span, report, (1, u16::MAX.into()))?;
        u16::try_from(number).ok().and_then(Self::new)
    }
}

/// The first port.
pub const PORT_MIN: NonZeroU16 = NonZeroU16::MIN;

impl Value for Ports {
    fn kind() -> String {
        String::from("port, range or \"any\"")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        if value.as_str().is_none() {
            return NonZeroU16::read(value, span, report).map(Self::One);
        }
        let example = "80, \"8000-8999\" or \"any\"";
        read_text(value, span, report, example, |text| {
            parse_ports(text).ok_or_else(|| format!("`{text}` is not a range of ports"))
        })
    }
}

fn parse_ports(text: &str) -> Option<Ports> {
    if text == "any" {
        return Some(Ports::Any);
    }
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first < last).then_some(Ports::Range(first, last))
}

impl Value for bool {
    fn kind() -> String {
        String::from("true or false")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let read = value.as_bool();
        if read.is_none() {
            let title = format!("expected true or false, found {}", article(value));
            report
                .error(span, title)
                .help("write true or false, without quotes");
        }
        read
    }
}

impl Value for Duration {
    fn kind() -> String {
        String::from("duration")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"500ms\", \"2s\" or \"1m\"", |text| {
            parse_duration(text).ok_or_else(|| format!("`{text}` is not a duration"))
        })
    }
}

/// A whole number and its unit: `ms`, `s`, `m` or `h`. Nothing else is a duration.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u32 = number.parse().ok()?;
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    unit.checked_mul(number)
}

/// A duration as it would be written in the file.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => String::from("0s"),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// A type that is written as a string and read by `FromStr`.
macro_rules! parsed {
    ($type:ty, $kind:literal, $example:literal) => {
        impl Value for $type {
            fn kind() -> String {
                String::from($kind)
            }

            fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
                read_text(value, span, report, $example, |text| {
                    text.parse()
                        .map_err(|_| format!(concat!("`{}` is not an ", $kind), text))
                })
            }
        }
    };
}

parsed!(IpAddr, "address", "\"192.0.2.1\" or \"2001:db8::1\"");
parsed!(Ipv4Addr, "IPv4 address", "\"192.0.2.1\"");
parsed!(Ipv6Addr, "IPv6 address", "\"2001:db8::1\"");
parsed!(
    SocketAddr,
    "address and port",
    "\"127.0.0.1:9842\" or \"[::1]:9842\""
);

/// Reads an address, or a prefix without bits after it.
fn read_prefix(
    value: &DeValue<'_>,
    span: &Span,
    report: &mut Report,
    (kind, example): (&str, &str),
    is_wanted: fn(&IpNet) -> bool,
) -> Option<IpNet> {
    let prefix = read_text(value, span, report, example, |text| {
        let address = text.parse().map(|address: IpAddr| IpNet::from(address));
        let prefix = address.ok().or_else(|| text.parse().ok());
        prefix
            .filter(is_wanted)
            .ok_or_else(|| format!("`{text}` is not an {kind}"))
    })?;
    let (address, legal) = (prefix.addr(), prefix.trunc());
    if prefix.prefix_len() == 0 {
        report
            .error(span, "a prefix of length 0 holds all addresses there are")
            .help(format!("for example {example}"));
        None
    } else if prefix != legal {
        report
            .error(span, format!("{prefix} has bits set after the prefix"))
            .help(format!(
                "write \"{legal}\" for the prefix, or \"{address}\" for the one address"
            ));
        None
    } else {
        Some(prefix)
    }
}

impl Value for Vip {
    fn kind() -> String {
        String::from("address or prefix")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let words = (
            "address or prefix",
            "\"198.51.100.10\" or \"198.51.100.16/28\"",
        );
        read_prefix(value, span, report, words, |_| true).map(Self::from)
    }
}

impl Value for Ipv4Net {
    fn kind() -> String {
        String::from("IPv4 address or prefix")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let words = (
            "IPv4 address or prefix",
            "\"192.0.2.11\" or \"203.0.113.0/24\"",
        );
        let is_wanted = |prefix: &IpNet| matches!(prefix, IpNet::V4(_));
        match read_prefix(value, span, report, words, is_wanted)? {
            IpNet::V4(prefix) => Some(prefix),
            IpNet::V6(_) => None,
        }
    }
}

impl Value for Ipv6Net {
    fn kind() -> String {
        String::from("IPv6 address or prefix")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let words = (
            "IPv6 address or prefix",
            "\"2001:db8::11\" or \"2001:db8:f::/96\"",
        );
        let is_wanted = |prefix: &IpNet| matches!(prefix, IpNet::V6(_));
        match read_prefix(value, span, report, words, is_wanted)? {
            IpNet::V6(prefix) => Some(prefix),
            IpNet::V4(_) => None,
        }
    }
}

impl Value for PathBuf {
    fn kind() -> String {
        String::from("path")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"/etc/vipd/file\"", |text| {
            if text.is_empty() || text.contains('\0') {
                return Err(format!("`{text}` is not a path"));
            }
            Ok(Self::from(text))
        })
    }
}

/// A list; its elements are read one by one, and those that are wrong left out.
/// When nothing is left, there is no list: it was not meant to be empty.
impl<T: Value> Value for Vec<At<T>> {
    fn kind() -> String {
        match T::kind().as_str() {
            "table" => String::from("tables"),
            "address" => String::from("list of addresses"),
            "interface name" => String::from("list of interface names"),
            "address or prefix" => String::from("list of addresses and prefixes"),
            "AS number" => String::from("list of AS numbers"),
            "name" => String::from("list of names"),
            kind => format!("list of {kind}"),
        }
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let Some(array) = value.as_array() else {
            let title = format!("expected a list, found {}", article(value));
            report.error(span, title).help(match value {
                DeValue::Table(_) => "write the header in double brackets: [[...]]",
                _ => "write it in brackets: [...]",
            });
            return None;
        };
        let mut list = Self::new();
        for element in array {
            let span = element.span();
            if let Some(value) = T::read(element.get_ref(), &span, report) {
                list.push(At { value, span });
            }
        }
        (array.is_empty() || !list.is_empty()).then_some(list)
    }

    fn tables() -> Vec<TableDoc> {
        T::tables()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let table = [
            ("0s", Some(0)),
            ("100ms", Some(100)),
            ("2s", Some(2_000)),
            ("1m", Some(60_000)),
            ("1h", Some(3_600_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("1d", None),
            ("99999999999s", None),
        ];
        for (text, millis) in table {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }
}
