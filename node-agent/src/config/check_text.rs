//! Text that only checks know: names in TLS and DNS, arguments and variables of
//! programs.

use std::str::FromStr;

use domain::base::{Name, iana::Rtype};
use rustls::pki_types;
use toml::de::DeValue;

use super::{
    report::{Report, Span},
    table::Value,
    value::{read_text, read_word, words},
};

/// The name, or address, that a certificate is to be valid for.
#[derive(Clone, Debug)]
pub struct ServerName(pub String);

/// A protocol that is offered in TLS (RFC 7301).
#[derive(Clone, Debug)]
pub struct Alpn(pub String);

/// A domain name that is asked for.
#[derive(Clone, Debug)]
pub struct DomainName(pub String);

/// A type of DNS records, by its number.
#[derive(Clone, Copy, Debug)]
pub struct RecordType(pub u16);

/// A response code of DNS, by its number (RFC 1035, section 4.1.1).
#[derive(Clone, Copy, Debug)]
pub struct Rcode(pub u8);

/// A program or one of its arguments, or the value of a variable.
#[derive(Clone, Debug)]
pub struct Argument(pub String);

/// The name of a variable of the environment.
#[derive(Clone, Debug)]
pub struct Variable(pub String);

words! { Rcode {
    "NOERROR" => Self(0),
    "FORMERR" => Self(1),
    "SERVFAIL" => Self(2),
    "NXDOMAIN" => Self(3),
    "NOTIMP" => Self(4),
    "REFUSED" => Self(5),
} }

impl Value for ServerName {
    fn kind() -> String {
        String::from("host name")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"www.example.com\"", |text| {
            pki_types::ServerName::try_from(text)
                .map(|_| Self(text.to_owned()))
                .map_err(|_| format!("`{text}` is not a name that a certificate can have"))
        })
    }
}

impl Value for Alpn {
    fn kind() -> String {
        String::from("protocol names")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"http/1.1\"", |text| {
            let legal = (1..=255).contains(&text.len());
            if !legal || !text.chars().all(|c| c.is_ascii_graphic()) {
                return Err(format!("`{text}` is not the name of a protocol"));
            }
            Ok(Self(text.to_owned()))
        })
    }
}

impl Value for DomainName {
    fn kind() -> String {
        String::from("domain name")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"www.example.com\"", |text| {
            Name::<Vec<u8>>::from_str(text)
                .map(|_| Self(text.to_owned()))
                .map_err(|_| format!("`{text}` is not a domain name"))
        })
    }
}

impl Value for RecordType {
    fn kind() -> String {
        String::from("record type")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"AAAA\" or \"TYPE65\"", |text| {
            let number = Rtype::from_str(text).ok().map(Rtype::to_int);
            // RFC 6895, section 3.1: OPT and all between 128 and 255 is no data.
            let is_data = |number: &u16| !matches!(number, 0 | 41 | 128..=255);
            number
                .filter(is_data)
                .map(Self)
                .ok_or_else(|| format!("`{text}` is not a type of records"))
        })
    }
}

impl Value for Argument {
    fn kind() -> String {
        String::from("text")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"--verbose\"", |text| {
            if text.contains('\0') {
                return Err(String::from("a program cannot be given a zero"));
            }
            Ok(Self(text.to_owned()))
        })
    }
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let starts = text.starts_with(|c: char| !c.is_ascii_digit());
        if !starts || !text.chars().all(legal) {
            return Err(format!("`{text}` is not the name of a variable"));
        }
        if text.starts_with("VIPD_") {
            return Err(format!("`{text}`: vipd itself sets what begins with VIPD_"));
        }
        Ok(Self(text.to_owned()))
    }
}
