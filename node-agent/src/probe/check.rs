//! One check of one backend.

use std::{
    future::ready,
    io,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    pin::Pin,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::Either};
use tokio::time::timeout;
use vipd_control::{
    check::{CheckCode, CheckResult},
    model::{Check, CheckKind, Exchange},
};

use super::{
    dns, file, http,
    icmp::Pinger,
    program,
    progress::{Progress, Stage},
    tcp,
    through::{self, Passage, Tunnels},
    tls, udp,
    words::clean,
};
use crate::{looker::Looker, run::Runner};

/// Programs that run at once for checks. Others wait for room, which takes of their own
/// time.
const MOST_PROGRAMS: usize = 64;

/// What all checks share.
#[derive(Debug)]
pub struct Shared {
    pinger: Pinger,
    programs: Runner,
    files: Looker,
    /// The ways of traffic.
    pub tunnels: Tunnels,
}

impl Shared {
    /// For checks that go by these ways when they go as traffic does.
    pub fn new(tunnels: Tunnels) -> Self {
        Self::with(Runner::new(MOST_PROGRAMS), tunnels)
    }

    /// The same, and programs are run by this.
    pub fn with(programs: Runner, tunnels: Tunnels) -> Self {
        Self {
            pinger: Pinger::default(),
            programs,
            files: Looker::default(),
            tunnels,
        }
    }

    /// There is a new configuration: who users are is asked anew.
    pub fn forget_users(&self) {
        self.programs.forget_users();
    }
}

/// Whom a check is of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Name of the service. Only a check that may be made for several leaves it empty,
    /// and does not look at it.
    pub service: &'a str,
    /// Name of the backend, in the same way.
    pub backend: &'a str,
    /// Address of the backend.
    pub address: IpAddr,
}

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
pub struct Target<'a> {
    /// Address and port that are asked.
    pub address: SocketAddr,
    /// Our address; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// The way of traffic, by which it is asked; `None` leaves that to the kernel.
    pub passage: Option<&'a Passage>,
}

/// One check of one backend, within the check's time-out.
pub fn check<'a>(
    check: &'a Check,
    subject: Subject<'a>,
    shared: &'a Shared,
) -> impl Future<Output = CheckResult> + Send + 'a {
    match &check.through {
        None => {
            let address = check.address.unwrap_or(subject.address);
            Either::Left(ask(check, subject, shared, address, None))
        }
        // On the heap, so that other checks take no room for it.
        Some(through) => Either::Right(Box::pin(through::check(check, through, subject, shared))),
    }
}

/// Asks an address, on the way of traffic if one is given.
pub async fn ask(
    check: &Check,
    subject: Subject<'_>,
    shared: &Shared,
    address: IpAddr,
    passage: Option<&Passage>,
) -> CheckResult {
    let limit = check.timing.timeout;
    if let CheckKind::Tls(tls, _) | CheckKind::Http(_, Some(tls)) = &check.kind {
        // It is no matter of the backend, and not of its time.
        let read = timeout(limit, Box::pin(tls::files_read(tls))).await;
        if read.is_err() {
            let mut progress = Progress::new(Instant::now());
            progress.begin(Stage::Files);
            return progress.timed_out().result(limit);
        }
    }
    let started = Instant::now();
    let mut progress = Progress::new(started);
    let target = Target {
        address: SocketAddr::new(address, check.port.get()),
        source: check.source,
        passage,
    };
    let outcome = match &check.kind {
        CheckKind::None => Ok(Outcome::new(CheckCode::L4Ok)),
        CheckKind::Tcp(said) if *said == Exchange::default() => {
            timeout(limit, tcp::accepted(&target)).await
        }
        // On the heap, so that plain connections take no room for it.
        kind => {
            let asked = Asked {
                subject,
                target,
                limit,
                shared,
            };
            let probe = probe(kind, &asked, &mut progress);
            if keeps_time(kind) {
                Ok(probe.await)
            } else {
                timeout(limit, probe).await
            }
        }
    };
    let outcome = outcome.unwrap_or_else(|_| progress.timed_out());
    let now = Instant::now();
    CheckResult {
        code: outcome.code,
        status: outcome.status,
        duration: now - started,
        phases: progress.end(now),
        certificate_expiry: progress.certificate_expiry,
        refused: outcome.refused,
        detail: clean(match progress.remark {
            None => outcome.detail,
            Some(remark) if outcome.detail.is_empty() => remark.to_owned(),
            Some(remark) => format!("{}; {remark}", outcome.detail),
        }),
    }
}

/// A check that is to be made.
struct Asked<'a> {
    subject: Subject<'a>,
    target: Target<'a>,
    limit: Duration,
    shared: &'a Shared,
}

/// The probe of a kind, which notes how far it has come.
fn probe<'a>(
    kind: &'a CheckKind,
    asked: &'a Asked<'a>,
    progress: &'a mut Progress,
) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
    let Asked {
        subject,
        target,
        limit,
        shared,
    } = *asked;
    match kind {
        CheckKind::None => Box::pin(ready(Outcome::new(CheckCode::L4Ok))),
        CheckKind::Tcp(said) => Box::pin(tcp::ask(target, said, progress)),
        CheckKind::Tls(tls, said) => Box::pin(tls::ask(target, tls, said, progress)),
        CheckKind::Http(http, tls) => Box::pin(http::ask(target, http, tls.as_ref(), progress)),
        CheckKind::Dns(dns) => Box::pin(dns::ask(target, dns, progress)),
        CheckKind::Udp(said) => {
            progress.begin(Stage::Reply);
            Box::pin(udp::ask(target, said, limit))
        }
        CheckKind::Icmp { size } => {
            progress.begin(Stage::Reply);
            Box::pin(shared.pinger.ask(target, *size, limit))
        }
        CheckKind::Program(program) => {
            progress.begin(Stage::Program);
            let programs = &shared.programs;
            Box::pin(program::run(
                programs,
                program,
                subject,
                target.address,
                limit,
            ))
        }
        CheckKind::File(file) => {
            progress.begin(Stage::Program);
            Box::pin(file::look(&shared.files, file, limit))
        }
    }
}

/// Whether a probe knows by itself what it means that its time is over.
const fn keeps_time(kind: &CheckKind) -> bool {
    match kind {
        CheckKind::Udp(_) | CheckKind::Icmp { .. } | CheckKind::Program(_) | CheckKind::File(_) => {
            true
        }
        CheckKind::None
        | CheckKind::Tcp(_)
        | CheckKind::Tls(..)
        | CheckKind::Http(..)
        | CheckKind::Dns(_) => false,
    }
}

/// What a check found.
#[derive(Debug)]
pub struct Outcome {
    /// In HAProxy's words.
    pub code: CheckCode,
    /// Status in the protocol's own numbers.
    pub status: Option<u16>,
    /// Whether the backend, or somebody on the way, has refused it.
    pub refused: bool,
    /// More in plain words.
    pub detail: String,
}

impl Outcome {
    /// A result that needs no more words.
    pub fn new(code: CheckCode) -> Self {
        Self {
            code,
            status: None,
            refused: false,
            detail: String::new(),
        }
    }

    /// As the result of a check that took so long and has no parts.
    pub fn result(self, duration: Duration) -> CheckResult {
        CheckResult {
            status: self.status,
            refused: self.refused,
            detail: clean(self.detail),
            ..CheckResult::new(self.code, duration)
        }
    }

    /// Nobody takes it, as the kernel says.
    pub fn unconnected(error: &io::Error) -> Self {
        Self {
            refused: error.kind() == io::ErrorKind::ConnectionRefused,
            ..Self::with(CheckCode::L4Con, error.to_string())
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
