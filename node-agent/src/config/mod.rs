//! The configuration of a node: the file as written, and what is left of it
//! when it has been found to be right.

mod address;
mod aggregate;
mod attributes;
mod bfd;
mod bgp;
mod certificate;
mod check;
mod check_text;
mod community;
mod damping;
mod doubt;
mod endpoint;
mod hook;
mod http;
mod local;
mod map;
mod needs;
mod outside;
mod program;
mod reach;
mod reference;
mod report;
mod routing;
mod rule;
mod said;
mod secret;
mod service;
mod table;
mod text;
mod through;
mod timing;
mod track;
mod upstream;
mod valid;
mod value;
mod written;

use std::{fs, path::Path};

use toml::de::{DeTable, DeValue};

pub use self::{
    attributes::{Attributes, Case},
    bfd::{BackendBfd, BfdKey, BfdSession, PeerBfd},
    bgp::{Bgp, BgpPeer, Families, Relation},
    certificate::{CertificateError, authorities},
    community::{Community, GRACEFUL_SHUTDOWN},
    local::{Binding, Bindings, Label, Place},
    reach::Reach,
    reference::reference,
    report::{ConfigError, Finding, Severity, Span},
    routing::{Asn, HoldTime, NextHop},
    rule::{Changes, Rule},
    secret::{Secret, SecretError, SecretFile},
    text::InterfaceName,
    valid::{Config, Dataplane, Node},
    value::parse_duration,
    written::{LogLevel, OnStop, XdpMode},
};
use self::{report::Report, table::Value, written::File};

impl Config {
    /// Reads and checks the file at `path`, and that the secrets and certificates
    /// it names can be read. Relative paths in it start from its directory.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first.
    pub fn load(path: &Path) -> Result<(Self, Vec<Finding>), ConfigError> {
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => {
                let mut report = Report::new(&name, &text);
                let config = read(&text, &mut report).and_then(|file| {
                    file.check_secrets(directory(path), &mut report);
                    file.check_files(directory(path), &mut report);
                    Self::validate(&file, directory(path), &mut report)
                });
                report.finish(config)
            }
            Err(error) => {
                let mut report = Report::new(&name, "");
                report.file_error(format!("cannot read the file: {error}"));
                report.finish(None)
            }
        }
    }

    /// Checks `text`, called `name` in what is found, without looking at any
    /// file. Relative paths in it start from the directory of `name`.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first.
    pub fn parse(text: &str, name: &str) -> Result<(Self, Vec<Finding>), ConfigError> {
        let mut report = Report::new(name, text);
        let config = read(text, &mut report)
            .and_then(|file| Self::validate(&file, directory(Path::new(name)), &mut report));
        report.finish(config)
    }
}

/// The tables of the file. Where TOML's own rules are broken nothing else is
/// looked at: what follows a broken line would only mislead.
fn read(text: &str, report: &mut Report) -> Option<File> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let is_duplicate = |message: &str| message.contains("duplicate key");
    let all_duplicates = errors.iter().all(|error| is_duplicate(error.message()));
    for error in &errors {
        // After a broken header its keys look like duplicates of others.
        if is_duplicate(error.message()) && !all_duplicates {
            continue;
        }
        let span = error.span().unwrap_or(0..0);
        report
            .error(&span, format!("not TOML: {}", error.message()))
            .help(syntax_help(error.message()));
    }
    if !errors.is_empty() {
        return None;
    }
    let span = 0..0;
    File::read(&DeValue::Table(table.into_inner()), &span, report)
}

/// What to do about a message of the TOML parser.
fn syntax_help(message: &str) -> &'static str {
    if message.contains("duplicate key") {
        "a key stands only once in a table; remove one of them"
    } else if message.contains("string") || message.contains("boolean") {
        "text stands between double quotes, on one line; only numbers, true and false do not"
    } else {
        "a line is `key = value`, `[table]` or `[[table]]`; text values stand in double quotes"
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}
