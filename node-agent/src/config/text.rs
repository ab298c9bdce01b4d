//! Values that are text of a certain form: names, interfaces, the parts of an
//! HTTP check, fractions and status codes.

use std::{fmt, ops::RangeInclusive, str::FromStr, sync::Arc};

use toml::de::DeValue;

use super::{
    report::{Report, Span},
    table::{Value, article},
    value::read_text,
};

/// The name of something, fit for logs, metrics and file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub Arc<str>);

/// The name of a network interface, as the kernel accepts it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// The target of an HTTP request, beginning with `/`.
#[derive(Clone, Debug)]
pub struct HttpPath(pub String);

/// What stands in the `Host` header.
#[derive(Clone, Debug)]
pub struct HttpHost(pub String);

/// HTTP status codes from one to another.
#[derive(Clone, Debug)]
pub struct StatusRange(pub RangeInclusive<u16>);

/// A fraction of up to one half, in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Jitter(pub u16);

/// The kernel's IFNAMSIZ without the closing zero.
const INTERFACE_NAME_MAX: usize = 15;

/// Longest name that is accepted.
const NAME_MAX: usize = 64;

impl Value for Name {
    fn kind() -> String {
        String::from("name")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"web-1\"", |text| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
            if text.is_empty() || text.len() > NAME_MAX {
                return Err(format!("a name has 1 to {NAME_MAX} characters"));
            }
            if !text.chars().all(legal) {
                return Err(format!(
                    "`{text}` is not a name: letters, digits and -_.: are allowed"
                ));
            }
            Ok(Self(text.into()))
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > INTERFACE_NAME_MAX {
            return Err(format!(
                "an interface name has 1 to {INTERFACE_NAME_MAX} characters, this has {}",
                text.len()
            ));
        }
        let illegal = |c: char| c.is_whitespace() || c.is_control() || "/:".contains(c);
        if text.contains(illegal) || [".", ".."].contains(&text) {
            return Err(format!("`{text}` is not an interface name"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for InterfaceName {
    fn kind() -> String {
        String::from("interface name")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"eth0\"", str::parse)
    }
}

impl Value for HttpPath {
    fn kind() -> String {
        String::from("request path")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"/healthz\"", |text| {
            if !text.starts_with('/') {
                return Err(format!("the path `{text}` does not begin with /"));
            }
            if !text.chars().all(|c| c.is_ascii_graphic()) {
                return Err(String::from(
                    "the path has characters that must be written as %XX",
                ));
            }
            Ok(Self(text.to_owned()))
        })
    }
}

impl Value for HttpHost {
    fn kind() -> String {
        String::from("host name")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"www.example.com\"", |text| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
            if text.is_empty() || !text.chars().all(legal) {
                return Err(format!("`{text}` is not a host name"));
            }
            Ok(Self(text.to_owned()))
        })
    }
}

impl Value for StatusRange {
    fn kind() -> String {
        String::from("status codes")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"200-399\" or \"204\"", |text| {
            parse_status(text).ok_or_else(|| {
                format!("`{text}` is not a status code, or range of them, within 100 to 599")
            })
        })
    }
}

fn parse_status(text: &str) -> Option<StatusRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    let legal = 100 <= first && first <= last && last <= 599;
    legal.then_some(StatusRange(first..=last))
}

impl Value for Jitter {
    fn kind() -> String {
        String::from("0 to 0.5")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let fraction: Option<f64> = match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            _ => None,
        };
        let permille = fraction
            .filter(|fraction| (0.0..=0.5).contains(fraction))
            .map(|fraction| (fraction * 1000.0).round() as u16);
        if permille.is_none() {
            let title = match fraction {
                Some(fraction) => format!("{fraction} is out of range"),
                None => format!("expected a fraction, found {}", article(value)),
            };
            report
                .error(span, title)
                .help("a fraction from 0 to 0.5, for example 0.1");
        }
        permille.map(Self)
    }
}
