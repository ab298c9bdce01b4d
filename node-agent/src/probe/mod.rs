//! Probes: ask the backends at the moments the schedule names, and hand over
//! what was found. What it means is decided elsewhere.
//!
//! One task per backend and service. A task that is aborted in the middle of a
//! check only drops its socket.

mod http;
mod tcp;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Instant,
};

use futures_util::FutureExt;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep_until, timeout},
};
use tracing::warn;
use vipd_control::{
    check::{CheckCode, CheckResult, Observation},
    model::{Check, CheckKind, Model, Service},
    schedule::{first_check, next_check},
};

/// All running probes.
pub struct Probes {
    observations: mpsc::Sender<Observation>,
    running: BTreeMap<(Arc<str>, IpAddr), Running>,
}

struct Running {
    check: Check,
    task: JoinHandle<()>,
}

impl Probes {
    /// No probes yet; results will go to `observations`.
    #[must_use]
    pub fn new(observations: mpsc::Sender<Observation>) -> Self {
        Self {
            observations,
            running: BTreeMap::new(),
        }
    }

    /// Follows a new configuration. A backend whose check has not changed
    /// keeps its rhythm.
    pub fn configure(&mut self, model: &Model) {
        let mut before = std::mem::take(&mut self.running);
        for service in &model.services {
            if service.check.kind == CheckKind::None {
                continue;
            }
            for backend in &service.backends {
                let key = (Arc::clone(&service.name), backend.address);
                let running = match before.remove(&key) {
                    Some(running) if running.check == service.check => running,
                    other => {
                        if let Some(other) = other {
                            other.task.abort();
                        }
                        self.start(service, backend.address)
                    }
                };
                self.running.insert(key, running);
            }
        }
        for running in before.into_values() {
            running.task.abort();
        }
    }

    fn start(&self, service: &Service, backend: IpAddr) -> Running {
        let probe = Probe {
            service: Arc::clone(&service.name),
            backend,
            check: service.check.clone(),
            observations: self.observations.clone(),
        };
        Running {
            check: service.check.clone(),
            task: tokio::spawn(probe.run()),
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

struct Probe {
    service: Arc<str>,
    backend: IpAddr,
    check: Check,
    observations: mpsc::Sender<Observation>,
}

impl Probe {
    async fn run(self) {
        let timing = &self.check.timing;
        let mut told = false;
        let mut due = first_check(Instant::now(), timing, fastrand::f64());
        loop {
            sleep_until(due.into()).await;
            let started = Instant::now();
            let result = guarded(check(&self.check, self.backend)).await;
            let ours = result.code == CheckCode::SockErr;
            if ours && !told {
                warn!(
                    "no check of {}/{} is possible: {}; it stays in the state it is in",
                    self.service, self.backend, result.detail
                );
            }
            told = ours;
            let observation = Observation {
                service: Arc::clone(&self.service),
                backend: self.backend,
                result,
            };
            if self.observations.send(observation).await.is_err() {
                return;
            }
            due = next_check(started, timing, fastrand::f64());
        }
    }
}

/// A check that fails itself is our own fault, and must not end the checking.
async fn guarded(check: impl Future<Output = CheckResult>) -> CheckResult {
    let started = Instant::now();
    let result = AssertUnwindSafe(check).catch_unwind().await;
    result.unwrap_or_else(|_| CheckResult {
        code: CheckCode::SockErr,
        status: None,
        duration: started.elapsed(),
        detail: "the check itself has failed, a defect of vipd".to_owned(),
    })
}

/// One check of one backend, within the check's time-out.
async fn check(check: &Check, backend: IpAddr) -> CheckResult {
    let started = Instant::now();
    let target = SocketAddr::new(backend, check.port.get());
    let mut reached = Reached::Nothing;
    let outcome = match &check.kind {
        CheckKind::None => Ok(Outcome::new(CheckCode::L4Ok)),
        CheckKind::Tcp => {
            let probe = tcp::connect(target, check.source);
            timeout(check.timing.timeout, probe)
                .await
                .map(|result| result.map_or_else(|o| o, |_stream| Outcome::new(CheckCode::L4Ok)))
        }
        CheckKind::Http { path, host, status } => {
            let request = http::Request {
                path,
                host: host.as_deref(),
                status,
            };
            let probe = http::ask(target, check.source, &request, &mut reached);
            timeout(check.timing.timeout, probe).await
        }
    };
    let outcome = outcome.unwrap_or_else(|_| reached.timed_out());
    CheckResult {
        code: outcome.code,
        status: outcome.status,
        duration: started.elapsed(),
        detail: outcome.detail,
    }
}

/// What a check found.
struct Outcome {
    code: CheckCode,
    status: Option<u16>,
    detail: String,
}

impl Outcome {
    fn new(code: CheckCode) -> Self {
        Self {
            code,
            status: None,
            detail: String::new(),
        }
    }

    fn with(code: CheckCode, detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            ..Self::new(code)
        }
    }
}

/// How far a check had come when its time was over.
#[derive(Clone, Copy)]
enum Reached {
    Nothing,
    Connection,
}

impl Reached {
    fn timed_out(self) -> Outcome {
        match self {
            Self::Nothing => Outcome::with(CheckCode::L4Timeout, "no answer to the connection"),
            Self::Connection => Outcome::with(CheckCode::L7Timeout, "no complete answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU16, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use vipd_control::model::Timing;

    use super::*;

    /// What a server does with each connection.
    #[derive(Clone, Copy)]
    enum Server {
        Closed,
        Answers(&'static [u8]),
        SaysNothing,
        HangsUp,
    }

    async fn serve(server: Server) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        if matches!(server, Server::Closed) {
            return port;
        }
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    match server {
                        Server::Answers(bytes) => {
                            let _ = stream.read(&mut request).await;
                            let _ = stream.write_all(bytes).await;
                        }
                        Server::SaysNothing => {
                            tokio::time::sleep(Duration::from_secs(60)).await;
                        }
                        Server::Closed | Server::HangsUp => {}
                    }
                });
            }
        });
        port
    }

    fn http() -> CheckKind {
        CheckKind::Http {
            path: "/healthz".to_owned(),
            host: None,
            status: vec![200..=399],
        }
    }

    fn spec(kind: CheckKind, port: u16, source: Option<IpAddr>) -> Check {
        Check {
            kind,
            port: NonZeroU16::new(port).unwrap(),
            source,
            timing: Timing {
                interval: Duration::from_secs(1),
                timeout: Duration::from_millis(500),
                rise: 1,
                fall: 1,
                jitter_permille: 0,
            },
        }
    }

    #[tokio::test]
    async fn what_a_server_does_is_told_in_haproxys_words() {
        use CheckCode::{L4Con, L4Ok, L7Ok, L7Response, L7Status, L7Timeout};
        let ok = Server::Answers(b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n");
        let busy = Server::Answers(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
        let hints = Server::Answers(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
              HTTP/1.1 503 Service Unavailable\r\n\r\n",
        );
        let interim = Server::Answers(b"HTTP/1.1 100 Continue\r\n\r\n");
        let other = Server::Answers(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
        let cases = [
            (
                "TCP accepted",
                CheckKind::Tcp,
                Server::SaysNothing,
                L4Ok,
                None,
            ),
            ("TCP refused", CheckKind::Tcp, Server::Closed, L4Con, None),
            ("HTTP 204", http(), ok, L7Ok, Some(204)),
            ("HTTP 503", http(), busy, L7Status, Some(503)),
            ("HTTP 503 after 103", http(), hints, L7Status, Some(503)),
            ("HTTP 100 only", http(), interim, L7Response, None),
            ("HTTP refused", http(), Server::Closed, L4Con, None),
            ("HTTP silent", http(), Server::SaysNothing, L7Timeout, None),
            ("HTTP hung up", http(), Server::HangsUp, L7Response, None),
            ("not HTTP", http(), other, L7Response, None),
        ];
        for (sentence, kind, server, code, status) in cases {
            let port = serve(server).await;
            let spec = spec(kind, port, None);
            let result = check(&spec, [127, 0, 0, 1].into()).await;
            assert_eq!(
                (result.code, result.status),
                (code, status),
                "{sentence}: {result:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_check_that_panics_is_our_own_fault_and_not_the_end() {
        let result = guarded(async { panic!("on purpose") }).await;
        assert_eq!(result.code, CheckCode::SockErr, "{result:?}");
    }

    #[tokio::test]
    async fn a_source_address_that_is_not_ours_is_our_own_fault() {
        let spec = spec(CheckKind::Tcp, 1, Some([192, 0, 2, 77].into()));
        let result = check(&spec, [127, 0, 0, 1].into()).await;
        assert_eq!(result.code, CheckCode::SockErr, "{result:?}");
    }
}
