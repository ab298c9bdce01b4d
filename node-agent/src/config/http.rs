//! The parts of an HTTP check, as text.

use std::{ops::RangeInclusive, str::FromStr};

use hyper::Uri;
use rustls::pki_types::ServerName;
use toml::de::DeValue;

use super::{
    report::{Report, Span},
    table::Value,
    value::read_text,
};

/// A request method (RFC 9110, section 9.1).
#[derive(Clone, Debug)]
pub struct Method(pub String);

/// The target of an HTTP request, beginning with `/`.
#[derive(Clone, Debug)]
pub struct Path(pub String);

/// What stands in the `Host` header.
#[derive(Clone, Debug)]
pub struct Host(pub String);

/// HTTP status codes from one to another.
#[derive(Clone, Debug)]
pub struct StatusRange(pub RangeInclusive<u16>);

/// The name of a header that a check may set or look at.
#[derive(Clone, Debug)]
pub struct HeaderName(pub String);

/// The value of a header.
#[derive(Clone, Debug)]
pub struct HeaderText(pub String);

/// Headers that frame or route the request: what they say is ours to know.
const OURS: [(&str, &str); 6] = [
    ("host", "use the key `host`"),
    ("connection", "a check closes its connection"),
    ("content-length", "a check has no body"),
    ("transfer-encoding", "a check has no body"),
    ("te", "a check takes no trailers"),
    ("upgrade", "a check stays with HTTP/1.1"),
];

/// Whether it is a token (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(legal)
}

impl Value for Method {
    fn kind() -> String {
        String::from("method")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"GET\" or \"HEAD\"", |text| {
            if !is_token(text) {
                return Err(format!("`{text}` is not a method"));
            }
            if text != text.to_ascii_uppercase() {
                return Err(format!("`{text}` is not a method: they are in capitals"));
            }
            if text == "CONNECT" {
                return Err(String::from("CONNECT asks for a tunnel, not for an answer"));
            }
            Ok(Self(text.to_owned()))
        })
    }
}

impl Value for Path {
    fn kind() -> String {
        String::from("request path")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"/healthz\"", |text| {
            if !text.starts_with('/') {
                return Err(format!("the path `{text}` does not begin with /"));
            }
            let legal = text.chars().all(|c| c.is_ascii_graphic() && c != '#');
            if !legal || text.parse::<Uri>().is_err() {
                return Err(String::from(
                    "the path has characters that must be written as %XX",
                ));
            }
            Ok(Self(text.to_owned()))
        })
    }
}

impl Value for Host {
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

impl FromStr for HeaderName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_token(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is not the name of a header"))
        }
    }
}

impl Host {
    /// The name in it; `None` when it is an address.
    pub fn dns_name(&self) -> Option<String> {
        let (name, port) = self.0.rsplit_once(':').unwrap_or((&self.0, ""));
        let name = if port.chars().all(|c| c.is_ascii_digit()) {
            name
        } else {
            &self.0
        };
        match ServerName::try_from(name) {
            Ok(ServerName::DnsName(name)) => Some(name.as_ref().to_owned()),
            _ => None,
        }
    }
}

impl HeaderName {
    /// Why it cannot be set, if so.
    pub fn ours(&self) -> Option<&'static str> {
        let ours = OURS
            .iter()
            .find(|(name, _)| self.0.eq_ignore_ascii_case(name));
        ours.map(|(_, why)| *why)
    }
}

impl Value for HeaderText {
    fn kind() -> String {
        String::from("text")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"no-cache\"", |text| {
            // RFC 9110, section 5.5.
            let legal = |c: char| c == ' ' || c == '\t' || c.is_ascii_graphic();
            if !text.chars().all(legal) || text.trim() != text {
                return Err(String::from(
                    "a header is one line of ASCII, without spaces around it",
                ));
            }
            Ok(Self(text.to_owned()))
        })
    }
}
