//! What a check says, and what it wants to hear: text, octets, or an expression.

use toml::de::DeValue;
use vipd_control::model::Pattern;

use super::{
    report::{Report, Span},
    table::{Value, article},
};

/// Octets that are sent, written as text or as `{ hex = "..." }`.
#[derive(Clone, Debug)]
pub struct Octets(pub Vec<u8>);

/// What is looked for, written as text, as `{ regex = "..." }` or as
/// `{ hex = "..." }`.
#[derive(Clone, Debug)]
pub struct Sought(pub Pattern);

/// The most that a check sends, in octets.
const SENT_MAX: usize = 16 * 1024;

impl Value for Octets {
    fn kind() -> String {
        String::from("text or { hex = \"...\" }")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let example = "\"PING\\r\\n\" or { hex = \"0102ff\" }";
        let octets = match form(value, &["hex"]) {
            Some((Form::Text, text)) => Ok(text.as_bytes().to_vec()),
            Some((_, text)) => octets(text),
            None => Err(format!(
                "expected text or its octets, found {}",
                found(value)
            )),
        };
        let octets = octets.and_then(|octets| match octets.len() {
            0..=SENT_MAX => Ok(octets),
            len => Err(format!("{len} octets, at most {SENT_MAX} are sent")),
        });
        told(octets, span, report, example).map(Self)
    }
}

impl Value for Sought {
    fn kind() -> String {
        String::from("text, { regex = \"...\" } or { hex = \"...\" }")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let example = "\"ready\", { regex = \"^(ok|ready)\" } or { hex = \"0102ff\" }";
        let pattern = match form(value, &["regex", "hex"]) {
            Some((_, "")) => Err(String::from("nothing is found in everything")),
            Some((Form::Text, text)) => Pattern::text(text).map_err(|error| error.to_string()),
            Some((Form::Named("hex"), text)) => octets(text)
                .and_then(|octets| Pattern::octets(&octets).map_err(|error| error.to_string())),
            Some((Form::Named(_), text)) => {
                Pattern::regex(text).map_err(|error| not_an_expression(&error.to_string()))
            }
            None => Err(format!(
                "expected text or an expression, found {}",
                found(value)
            )),
        };
        told(pattern, span, report, example).map(Self)
    }
}

/// How something is written.
enum Form {
    Text,
    /// As a table with this key.
    Named(&'static str),
}

/// The form that a value has, and its text.
fn form<'a>(value: &'a DeValue<'_>, names: &[&'static str]) -> Option<(Form, &'a str)> {
    if let Some(text) = value.as_str() {
        return Some((Form::Text, text));
    }
    let table = value.as_table().filter(|table| table.len() == 1)?;
    let (written, value) = table.iter().next()?;
    let name = names.iter().find(|name| written.get_ref() == **name)?;
    Some((Form::Named(name), value.get_ref().as_str()?))
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value.as_table() {
        Some(_) => "another table",
        None => article(value),
    }
}

/// The last line of a parser's message says what is wrong; those before it point
/// at the place.
fn not_an_expression(message: &str) -> String {
    let last = message.lines().last().unwrap_or_default();
    let reason = last.strip_prefix("error: ").unwrap_or(last);
    format!("not a regular expression: {reason}")
}

/// Octets in hexadecimal digits, spaces between them allowed.
fn octets(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|octet| *octet != b' ').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    let octets = pairs.iter().map(|pair| {
        let pair = str::from_utf8(pair).ok()?;
        let is_hex = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(pair, 16).ok().filter(|_| is_hex)
    });
    match octets.collect() {
        Some(octets) if rest.is_empty() => Ok(octets),
        _ => Err(format!("`{text}` is not octets in hexadecimal digits")),
    }
}

fn told<T>(value: Result<T, String>, span: &Span, report: &mut Report, example: &str) -> Option<T> {
    value
        .map_err(|title| {
            report
                .error(span, title)
                .help(format!("for example {example}"));
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_pairs_of_hexadecimal_digits() {
        let table: [(&str, Option<&[u8]>); 8] = [
            ("", Some(b"")),
            ("00ff", Some(b"\0\xff")),
            ("00 FF", Some(b"\0\xff")),
            ("0", None),
            ("000", None),
            ("0x", None),
            ("+1", None),
            ("ä1", None),
        ];
        for (text, expected) in table {
            assert_eq!(octets(text).ok().as_deref(), expected, "{text:?}");
        }
    }
}
