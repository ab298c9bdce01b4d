//! What an operator should know about this host before traffic comes.
//!
//! [`facts`] gathers, [`mod@judge`] judges what was gathered and nothing else;
//! `ethtool` asks a driver what it is and does.

mod ethtool;
pub mod facts;
pub mod judge;
pub mod name;

use std::{fmt, net::IpAddr};

use serde::Serialize;

use crate::{config::Config, netlink::Netlink};

pub use self::name::Name;
use self::{facts::Facts, judge::judge};

/// Something about this host that matters to what it is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of finding it is.
    pub name: Name,
    /// How much.
    pub severity: Severity,
    /// What it is about, for example an interface.
    pub subject: String,
    /// What is so, and what comes of it.
    pub message: String,
    /// The command that changes it, where there is one.
    pub fix: Option<String>,
    /// The host to run that command on, where it is not this one.
    pub at: Option<IpAddr>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Traffic would be lost: this should not start.
    Error,
    /// Some traffic may be lost.
    Warning,
    /// Good to know.
    Info,
}

/// All findings for this configuration, the worst first. Takes about a second
/// when a backend cannot be reached, much less when all can.
pub async fn inspect(config: &Config, netlink: &Netlink) -> Vec<Finding> {
    let mut findings = match Facts::gather(config, netlink).await {
        Ok(facts) => judge(&facts),
        Err(error) => vec![Finding {
            name: Name::Preflight,
            severity: Severity::Warning,
            subject: "preflight".to_owned(),
            message: format!("this host could not be looked at: {error}"),
            fix: None,
            at: None,
        }],
    };
    findings.sort_by_key(|finding| finding.severity);
    findings
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.subject, self.message)?;
        match &self.fix {
            Some(fix) => write!(out, "; try `{fix}`"),
            None => Ok(()),
        }
    }
}
