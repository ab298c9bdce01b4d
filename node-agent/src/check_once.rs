//! `vipd check-once`: the checks of a service, made once and now, without an agent, for
//! scripts and monitoring. By its output and exit code it is a monitoring plugin.

use std::{collections::BTreeSet, fmt, fmt::Write as _, net::IpAddr, time::Duration};

use serde::Serialize;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use vipd_control::{
    check::{CheckCode, CheckResult},
    model::{CheckKind, Service},
};

use crate::{
    config::Config,
    dataplane::{apply::Settings, record::TunnelSources},
    netlink::{watch::watch_ways, way::Ways},
    probe::{self, Tunnels},
    status, views,
};

/// How long the neighbours on the ways of traffic are waited for.
const NEIGHBOURS: Duration = Duration::from_secs(3);

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of the service.
    service: String,
    /// The whole in a word.
    verdict: Verdict,
    /// Each backend that was asked.
    backends: Vec<Checked>,
}

/// The state of a service in the words of monitoring plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All backends have passed.
    Ok,
    /// Some have, and some have failed.
    Warning,
    /// Some have failed, and none has passed.
    Critical,
    /// Checks could not be made, and none of the others has failed.
    Unknown,
}

/// A backend and what its check has found.
#[derive(Debug, Serialize)]
struct Checked {
    name: String,
    /// The address asked.
    address: IpAddr,
    check: status::Check,
    /// As one line.
    #[serde(skip)]
    result: CheckResult,
}

/// Checks the backends of a service, given by its name, or one of them, given as
/// `SERVICE/BACKEND`.
///
/// # Errors
///
/// When there is no such service or backend, or it is not checked.
pub async fn run(config: &Config, target: &str) -> Result<Report, String> {
    let (service, backend) = match target.split_once('/') {
        Some((service, backend)) => (service, Some(backend)),
        None => (target, None),
    };
    let mut services = config.model.services.iter();
    let Some(service) = services.find(|it| *it.name == *service) else {
        return Err(format!("there is no service {service}"));
    };
    let mut backends: Vec<_> = service.backends.iter().collect();
    backends.retain(|it| backend.is_none_or(|name| *it.name == *name));
    if let (Some(name), true) = (backend, backends.is_empty()) {
        return Err(format!("there is no backend {name} in {}", service.name));
    }
    // Those that follow another backend have no check of their own.
    backends.retain(|it| it.track.is_none());
    if backends.is_empty() {
        return Err(format!(
            "{target} follows the health of others; check those"
        ));
    }
    if service.check.kind == CheckKind::None {
        let name = &service.name;
        return Err(format!(
            "{name} is not checked: its check is of type \"none\""
        ));
    }
    let addresses = backends.iter().map(|it| it.address);
    let (watching, tunnels) = tunnels(config, service, addresses.collect()).await;
    let results = probe::once(service, &backends, tunnels).await;
    drop(watching);
    let checked = backends
        .iter()
        .zip(results)
        .map(|(backend, result)| Checked {
            name: backend.name.to_string(),
            address: service.check_address(backend).ip(),
            check: views::check(&result),
            result,
        });
    Ok(Report::new(service, checked.collect()))
}

/// The ways of traffic to these backends, watched as long as the first lives; none
/// where the check does not go by them.
async fn tunnels(
    config: &Config,
    service: &Service,
    backends: BTreeSet<IpAddr>,
) -> (JoinSet<()>, Tunnels) {
    let count = backends.len();
    let settings = Settings {
        sources: config
            .dataplane
            .as_ref()
            .map(TunnelSources::from)
            .unwrap_or_default(),
        ..Settings::default()
    };
    let (_, settings) = watch::channel(settings);
    let (ways_in, mut ways) = watch::channel(Ways::default());
    let (problems_in, problems) = watch::channel(Default::default());
    let mut watching = JoinSet::new();
    if service.check.through.is_some() {
        let (wanted_in, wanted) = watch::channel(backends);
        watching.spawn(async move {
            watch_ways(wanted, ways_in, problems_in).await;
            drop(wanted_in);
        });
        let complete = ways.wait_for(|ways| ways.len() == count);
        // Whoever is not found by then is away.
        let _ = timeout(NEIGHBOURS, complete).await;
    }
    (watching, Tunnels::new(ways, problems, settings))
}

impl Report {
    fn new(service: &Service, backends: Vec<Checked>) -> Self {
        Self {
            service: service.name.to_string(),
            verdict: Verdict::of(backends.iter().map(|it| it.result.code)),
            backends,
        }
    }

    /// The whole in a word.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// A line for the service, and one for each backend.
    #[must_use]
    pub fn render(&self) -> String {
        let passed = self.backends.iter().filter(|it| it.result.is_success());
        let mut text = format!(
            "{}: {} of {} backends of {} pass\n",
            self.verdict,
            passed.count(),
            self.backends.len(),
            self.service
        );
        for Checked {
            name,
            address,
            result,
            ..
        } in &self.backends
        {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{name} {address}: {result}");
        }
        text
    }
}

impl Verdict {
    fn of(codes: impl Iterator<Item = CheckCode>) -> Self {
        let (mut passed, mut failed, mut unable) = (false, false, false);
        for code in codes {
            match code {
                CheckCode::SockErr => unable = true,
                code if code.is_success() => passed = true,
                _ => failed = true,
            }
        }
        match (passed, failed, unable) {
            (true, true, _) => Self::Warning,
            (false, true, _) => Self::Critical,
            (_, false, true) => Self::Unknown,
            (_, false, false) => Self::Ok,
        }
    }

    /// As monitoring plugins end.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_that_of_monitoring_plugins() {
        use CheckCode::{L4Con, L7Ok, SockErr};
        let check = |codes: &[CheckCode], word: &str, exit_code| {
            let verdict = Verdict::of(codes.iter().copied());
            let found = (verdict.to_string(), verdict.exit_code());
            assert_eq!(found, (word.to_owned(), exit_code), "{codes:?}");
        };
        check(&[L7Ok, L7Ok], "OK", 0);
        check(&[L7Ok, L4Con], "WARNING", 1);
        check(&[L7Ok, L4Con, SockErr], "WARNING", 1);
        check(&[L4Con, L4Con], "CRITICAL", 2);
        check(&[L4Con, SockErr], "CRITICAL", 2);
        check(&[SockErr], "UNKNOWN", 3);
        check(&[SockErr, L7Ok], "UNKNOWN", 3);
    }

    #[tokio::test]
    async fn who_asks_for_what_is_not_there_is_told_so() {
        let text = r#"
            [dataplane]
            interfaces = ["eth0"]
            [[service]]
            name = "web"
            vips = ["198.51.100.10"]
            protocol = "tcp"
            port = 80
            mode = "ipip"
            check = { type = "none" }
            [[service.backend]]
            name = "b1"
            address = "192.0.2.21"
        "#;
        let (config, _) = Config::parse(text, "vipd.toml").expect("a good configuration");
        for (target, expected) in [
            ("dns", "there is no service dns"),
            ("web/b2", "there is no backend b2 in web"),
            (
                "web/b1",
                "web is not checked: its check is of type \"none\"",
            ),
        ] {
            let report = run(&config, target).await;
            assert_eq!(report.err().as_deref(), Some(expected), "{target}");
        }
    }
}
