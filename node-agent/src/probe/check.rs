//! One check of one backend.

use std::{
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    time::Instant,
};

use futures_util::FutureExt;
use tokio::time::timeout;
use vipd_control::{
    check::{CheckCode, CheckResult},
    model::{Check, CheckKind},
};

use super::{http, tcp};

/// A check that fails itself is our own fault, and must not end the checking.
pub async fn guarded(check: impl Future<Output = CheckResult>) -> CheckResult {
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
pub async fn check(check: &Check, backend: IpAddr) -> CheckResult {
    let started = Instant::now();
    let target = SocketAddr::new(backend, check.port.get());
    let mut reached = Reached::Nothing;
    let outcome = match &check.kind {
        CheckKind::None => Ok(Outcome::new(CheckCode::L4Ok)),
        CheckKind::Tcp(_) => {
            let probe = tcp::connect(target, check.source);
            timeout(check.timing.timeout, probe)
                .await
                .map(|result| result.map_or_else(|o| o, |_stream| Outcome::new(CheckCode::L4Ok)))
        }
        CheckKind::Http(asked, _) => {
            let request = http::Request {
                path: &asked.path,
                host: asked.host.as_deref(),
                status: &asked.status,
            };
            // On the heap, so that checks of other kinds take no room for it.
            let probe = Box::pin(http::ask(target, check.source, &request, &mut reached));
            timeout(check.timing.timeout, probe).await
        }
        _ => Ok(Outcome::with(CheckCode::SockErr, "not possible yet")),
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

/// How far a check had come when its time was over.
#[derive(Clone, Copy)]
pub enum Reached {
    /// There is no connection yet.
    Nothing,
    /// There is one.
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
    use vipd_control::model::{Exchange, Http, Timing};

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
        let http = Http {
            method: "GET".to_owned(),
            path: "/healthz".to_owned(),
            host: None,
            headers: Vec::new(),
            status: vec![200..=399],
            expect_headers: Vec::new(),
            expect_body: None,
        };
        CheckKind::Http(http, None)
    }

    fn spec(kind: CheckKind, port: u16, source: Option<IpAddr>) -> Check {
        Check {
            kind,
            port: NonZeroU16::new(port).unwrap(),
            source,
            timing: Timing {
                timeout: Duration::from_millis(500),
                ..Timing::PLAIN
            },
            ..Check::none()
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
                CheckKind::Tcp(Exchange::default()),
                Server::SaysNothing,
                L4Ok,
                None,
            ),
            (
                "TCP refused",
                CheckKind::Tcp(Exchange::default()),
                Server::Closed,
                L4Con,
                None,
            ),
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
        let spec = spec(
            CheckKind::Tcp(Exchange::default()),
            1,
            Some([192, 0, 2, 77].into()),
        );
        let result = check(&spec, [127, 0, 0, 1].into()).await;
        assert_eq!(result.code, CheckCode::SockErr, "{result:?}");
    }
}
