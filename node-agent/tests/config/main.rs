//! Configuration files: what is refused and how that is said, what is accepted
//! and what it means, what rules make of announcements, and that the reference is up to date.

mod accepted;
mod bfd;
mod command;
mod documented;
mod local;
mod outside;
mod reference;
mod refused;
mod rules;
mod secrets;
mod vips_from;

use vipd::config::{Config, Finding};

/// A file in which nothing is wrong; tests change a line or two of it.
const GOOD: &str = include_str!("good.toml");

/// [`GOOD`] with each `(from, to)` replaced.
fn edited(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(GOOD.to_owned(), |text, (from, to)| {
        assert_eq!(
            text.matches(from).count(),
            1,
            "{from:?} stands once in\n{text}"
        );
        text.replace(from, to)
    })
}

/// The configuration of a text without errors, and its warnings.
fn accept(text: &str) -> (Config, Vec<Finding>) {
    Config::parse(text, "vipd.toml").unwrap_or_else(|error| panic!("{error}\nin\n{text}"))
}
