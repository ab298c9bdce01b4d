//! One check of one backend.

use std::{
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    pin::Pin,
    time::Instant,
};

use futures_util::FutureExt;
use tokio::time::timeout;
use vipd_control::{
    check::{CheckCode, CheckResult},
    model::{Check, CheckKind, Exchange},
};

use super::{
    http,
    progress::{Progress, Stage},
    tcp, tls,
};

/// A check that fails itself is our own fault, and must not end the checking.
pub async fn guarded(check: impl Future<Output = CheckResult>) -> CheckResult {
    let started = Instant::now();
    let result = AssertUnwindSafe(check).catch_unwind().await;
    result.unwrap_or_else(|_| CheckResult {
        detail: "the check itself has failed, a defect of vipd".to_owned(),
        ..CheckResult::new(CheckCode::SockErr, started.elapsed())
    })
}

/// Whom a check asks, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Address and port that are asked.
    pub address: SocketAddr,
    /// Our address; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
}

/// One check of one backend, within the check's time-out.
pub async fn check(check: &Check, backend: IpAddr) -> CheckResult {
    let started = Instant::now();
    let mut progress = Progress::new(started);
    let target = Target {
        address: SocketAddr::new(check.address.unwrap_or(backend), check.port.get()),
        source: check.source,
    };
    let limit = check.timing.timeout;
    let outcome = match &check.kind {
        CheckKind::None => Ok(Outcome::new(CheckCode::L4Ok)),
        CheckKind::Tcp(said) if *said == Exchange::default() => {
            timeout(limit, tcp::accepted(target)).await
        }
        // On the heap, so that plain connections take no room for it.
        kind => timeout(limit, probe(kind, target, &mut progress)).await,
    };
    let outcome = outcome.unwrap_or_else(|_| progress.timed_out());
    let now = Instant::now();
    CheckResult {
        code: outcome.code,
        status: outcome.status,
        duration: now - started,
        phases: progress.end(now),
        certificate_expiry: progress.certificate_expiry,
        detail: match progress.remark {
            None => outcome.detail,
            Some(remark) if outcome.detail.is_empty() => remark.to_owned(),
            Some(remark) => format!("{}; {remark}", outcome.detail),
        },
    }
}

/// The probe of a kind, which notes how far it has come.
fn probe<'a>(
    kind: &'a CheckKind,
    target: Target,
    progress: &'a mut Progress,
) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
    match kind {
        CheckKind::None => Box::pin(async { Outcome::new(CheckCode::L4Ok) }),
        CheckKind::Tcp(said) => Box::pin(tcp::ask(target, said, progress)),
        CheckKind::Tls(tls, said) => Box::pin(tls::ask(target, tls, said, progress)),
        CheckKind::Http(http, tls) => Box::pin(http::ask(target, http, tls.as_ref(), progress)),
        CheckKind::Dns(_) | CheckKind::Udp(_) | CheckKind::Icmp { .. } => {
            Box::pin(not_yet(Stage::Reply, progress))
        }
        CheckKind::Program(_) | CheckKind::File(_) => Box::pin(not_yet(Stage::Program, progress)),
    }
}

/// What no probe is there for.
async fn not_yet(stage: Stage, progress: &mut Progress) -> Outcome {
    progress.begin(stage);
    Outcome::with(CheckCode::SockErr, "not possible yet")
}

/// What a check found.
#[derive(Debug)]
pub struct Outcome {
    /// In HAProxy's words.
    pub code: CheckCode,
    /// Status in the protocol's own numbers.
    pub status: Option<u16>,
    /// More in plain words.
    pub detail: String,
}

impl Outcome {
    /// A result that needs no more words.
    pub fn new(code: CheckCode) -> Self {
        Self {
            code,
            status: None,
            detail: String::new(),
        }
    }

    /// A result in words.
    pub fn with(code: CheckCode, detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            ..Self::new(code)
        }
    }
}

#[cfg(test)]
mod tests;
