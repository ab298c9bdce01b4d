//! Something to look for in what a backend says.

use std::fmt::{self, Write};

use regex::bytes::{Regex, RegexBuilder};

/// A text or octets that must occur, or a regular expression that must match
/// somewhere.
#[derive(Clone, Debug)]
pub struct Pattern {
    form: Form,
    written: String,
    regex: Regex,
}

/// How a pattern is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Octets,
    Regex,
}

/// The most memory that a compiled expression may take, in octets: what one of
/// the usual length takes by far.
const COMPILED_MAX: usize = 1 << 20;

impl Pattern {
    /// This very text.
    ///
    /// # Errors
    /// It is too long.
    pub fn text(text: &str) -> Result<Self, regex::Error> {
        Self::new(Form::Text, text.to_owned(), &regex::escape(text))
    }

    /// These very octets.
    ///
    /// # Errors
    /// There are too many.
    pub fn octets(octets: &[u8]) -> Result<Self, regex::Error> {
        let (mut written, mut expression) = (String::new(), String::from("(?-u)"));
        for octet in octets {
            // Writing into a string cannot fail.
            let _ = write!(written, "{octet:02x}");
            let _ = write!(expression, "\\x{octet:02x}");
        }
        Self::new(Form::Octets, written, &expression)
    }

    /// A regular expression in the syntax of the `regex` crate.
    ///
    /// # Errors
    /// It is none, or too large.
    pub fn regex(expression: &str) -> Result<Self, regex::Error> {
        Self::new(Form::Regex, expression.to_owned(), expression)
    }

    fn new(form: Form, written: String, expression: &str) -> Result<Self, regex::Error> {
        let mut builder = RegexBuilder::new(expression);
        let regex = builder
            .size_limit(COMPILED_MAX)
            .dfa_size_limit(COMPILED_MAX)
            .build()?;
        Ok(Self {
            form,
            written,
            regex,
        })
    }

    /// Whether it occurs in these octets, in time linear to their number.
    #[must_use]
    pub fn is_in(&self, octets: &[u8]) -> bool {
        self.regex.is_match(octets)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.form == other.form && self.written == other.written
    }
}

impl Eq for Pattern {}

/// `"text"`, `0x0102` or `/expression/`.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Form::Text => write!(f, "{:?}", self.written),
            Form::Octets => write!(f, "0x{}", self.written),
            Form::Regex => write!(f, "/{}/", self.written),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_octets_are_taken_by_the_letter_and_an_expression_is_not() {
        let check = |pattern: Pattern, octets: &[u8], found, shown: &str| {
            assert_eq!(pattern.is_in(octets), found, "{pattern} in {octets:?}");
            assert_eq!(pattern.to_string(), shown);
        };
        let text = |text| Pattern::text(text).unwrap();
        let octets = |octets| Pattern::octets(octets).unwrap();
        let regex = |expression| Pattern::regex(expression).unwrap();
        check(text("a.c"), b"xa.cx", true, "\"a.c\"");
        check(text("a.c"), b"abc", false, "\"a.c\"");
        check(regex("a.c"), b"abc", true, "/a.c/");
        check(regex("^ok$"), b"not ok", false, "/^ok$/");
        check(regex("ok"), b"\xff ok", true, "/ok/");
        check(octets(b"\0\xff."), b"a\0\xff.", true, "0x00ff2e");
        check(octets(b"\0\xff."), b"a\0\xffb", false, "0x00ff2e");
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        assert!(Pattern::regex("(").is_err());
        assert!(Pattern::regex(&"a{1000}".repeat(1000)).is_err());
    }
}
