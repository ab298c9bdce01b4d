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
mod wish;
mod written;

use std::{fs, path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use self::{address::Vips, report::Report, table::Value, written::File};
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
    wish::{Found, MOST_TAKEN, Pattern, Taken, Taking, Wish},
    written::{LogLevel, OnStop, XdpMode},
};

impl Config {
    /// Reads and checks the file at `path`, and that the secrets and certificates
    /// it names can be read. Relative paths in it start from its directory. Where
    /// services take addresses from interfaces of this host, these are looked at.
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
                    let found = || {
                        crate::local::found_now().map_err(|error| {
                            format!("cannot look at the addresses of this host: {error}")
                        })
                    };
                    Self::of(file, (&name, &text), found, &mut report)
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
    /// file or interface. Relative paths in it start from the directory of `name`.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first.
    pub fn parse(text: &str, name: &str) -> Result<(Self, Vec<Finding>), ConfigError> {
        Self::parse_found(text, name, &[])
    }

    /// The same, with these addresses found on the interfaces of this host.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first.
    pub fn parse_found(
        text: &str,
        name: &str,
        found: &[Found],
    ) -> Result<(Self, Vec<Finding>), ConfigError> {
        let mut report = Report::new(name, text);
        let config = read(text, &mut report)
            .and_then(|file| Self::of(file, (name, text), || Ok(found.to_vec()), &mut report));
        report.finish(config)
    }

    /// The same file with what is found on the interfaces now; `None` when that
    /// changes nothing for it.
    ///
    /// # Errors
    /// When it cannot be used with that.
    #[must_use]
    pub fn with_found(&self, found: &[Found]) -> Option<Result<Self, ConfigError>> {
        let taking = self.taking.as_ref()?;
        (taking.of_interest(found) != taking.found).then(|| {
            let parsed = Self::parse_found(&taking.text, &taking.name, found);
            parsed.map(|(config, _)| config)
        })
    }

    /// What is left of the tables, with what services take of what is found.
    fn of(
        mut file: File,
        (name, text): (&str, &str),
        found: impl FnOnce() -> Result<Vec<Found>, String>,
        report: &mut Report,
    ) -> Option<Self> {
        let directory = directory(Path::new(name));
        if !wish::takes(&file) {
            return Self::validate(&file, directory, report);
        }
        let found = found().unwrap_or_else(|error| {
            report.file_error(error);
            Vec::new()
        });
        // Says which addresses are something else; what is wrong is said later.
        let vips = Vips::of(&file);
        Self::validate_with(&file, &vips, directory, &mut Report::new(name, text));
        let services = wish::take(&mut file, &vips, &found, report);
        let mut config = Self::validate(&file, directory, report)?;
        config.taking = Some(Arc::new(Taking::new((name, text), services, &found)));
        Some(config)
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
