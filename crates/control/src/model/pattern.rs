//! Something to look for in what a backend says.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// A text that must occur, or a regular expression that must match somewhere.
#[derive(Clone, Debug)]
pub struct Pattern {
    written: String,
    regex: Regex,
    is_text: bool,
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
        Self::new(text, &regex::escape(text), true)
    }

    /// A regular expression in the syntax of the `regex` crate.
    ///
    /// # Errors
    /// It is none, or too large.
    pub fn regex(expression: &str) -> Result<Self, regex::Error> {
        Self::new(expression, expression, false)
    }

    fn new(written: &str, expression: &str, is_text: bool) -> Result<Self, regex::Error> {
        let mut builder = RegexBuilder::new(expression);
        let regex = builder
            .size_limit(COMPILED_MAX)
            .dfa_size_limit(COMPILED_MAX)
            .build()?;
        Ok(Self {
            written: written.to_owned(),
            regex,
            is_text,
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
        self.written == other.written && self.is_text == other.is_text
    }
}

impl Eq for Pattern {}

/// `"text"` or `/expression/`.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_text {
            write!(f, "{:?}", self.written)
        } else {
            write!(f, "/{}/", self.written)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_by_the_letter_and_an_expression_is_not() {
        let check = |pattern: Pattern, octets: &[u8], found, shown: &str| {
            assert_eq!(pattern.is_in(octets), found, "{pattern} in {octets:?}");
            assert_eq!(pattern.to_string(), shown);
        };
        let text = |text| Pattern::text(text).unwrap();
        let regex = |expression| Pattern::regex(expression).unwrap();
        check(text("a.c"), b"xa.cx", true, "\"a.c\"");
        check(text("a.c"), b"abc", false, "\"a.c\"");
        check(regex("a.c"), b"abc", true, "/a.c/");
        check(regex("^ok$"), b"not ok", false, "/^ok$/");
        check(regex("ok"), b"\xff ok", true, "/ok/");
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        assert!(Pattern::regex("(").is_err());
        assert!(Pattern::regex(&"a{1000}".repeat(1000)).is_err());
    }
}
