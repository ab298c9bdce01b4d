//! `vipd doctor`: what is wrong with this host, with the way to the backends and
//! with the backends themselves, each with the command that mends it.
//!
//! [`facts`] gathers, [`attached`], `firewall` and `reach` with it; [`mod@judge`] judges what was
//! gathered and nothing else. What `preflight` looks at when the agent starts is
//! part of it.

pub mod attached;
pub mod facts;
mod firewall;
pub mod judge;
mod programs;
pub mod reach;

use std::process::ExitCode;

use crate::{
    config::Config,
    netlink::{Error, Netlink},
    preflight::{self, Finding, Severity},
};

use self::facts::Facts;

/// The exit code when nothing could be looked at.
pub const UNABLE: u8 = 3;

/// Looks at everything. Takes a second or two.
///
/// # Errors
/// When the kernel does not tell.
pub async fn examine(config: &Config) -> Result<Vec<Finding>, Error> {
    let netlink = Netlink::connect()?;
    let plain = preflight::facts::Facts::gather(config, &netlink).await?;
    let facts = Facts::gather(config, &netlink, &plain).await?;
    let mut findings = preflight::judge::judge(&plain);
    findings.extend(judge::judge(&facts));
    findings.extend(programs::look(config));
    findings.sort_by_key(|finding| finding.severity);
    Ok(findings)
}

/// The findings for people.
#[must_use]
pub fn render(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing is wrong as far as can be seen from here\n".to_owned();
    }
    findings.iter().map(paragraph).collect()
}

fn paragraph(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "ERROR  ",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO   ",
    };
    let Finding {
        name,
        subject,
        message,
        ..
    } = finding;
    let mut text = format!("{severity} {subject}: {message} [{name}]\n");
    if let Some(fix) = &finding.fix {
        let place = finding
            .at
            .map_or_else(String::new, |host| format!(", on {host}"));
        text += &format!("        try{place}: {fix}\n");
    }
    text
}

/// 0: nothing that needs to be mended, 1: some traffic may be lost, 2: traffic
/// is lost.
#[must_use]
pub fn exit_code(findings: &[Finding]) -> ExitCode {
    let worst = findings.iter().map(|finding| finding.severity).min();
    ExitCode::from(match worst {
        None | Some(Severity::Info) => 0,
        Some(Severity::Warning) => 1,
        Some(Severity::Error) => 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_shown_with_the_command_and_where_to_run_it() {
        let mut finding = Finding {
            name: preflight::Name::VipMissing,
            severity: Severity::Error,
            subject: "b1".to_owned(),
            message: "it does not answer".to_owned(),
            fix: Some("ip address add 192.0.2.1/32 dev lo".to_owned()),
            at: Some([198, 51, 100, 21].into()),
        };
        assert_eq!(
            render(std::slice::from_ref(&finding)),
            "ERROR   b1: it does not answer [vip-missing]\n        \
             try, on 198.51.100.21: ip address add 192.0.2.1/32 dev lo\n"
        );
        (finding.fix, finding.severity) = (None, Severity::Info);
        assert_eq!(
            render(&[finding]),
            "INFO    b1: it does not answer [vip-missing]\n"
        );
    }
}
