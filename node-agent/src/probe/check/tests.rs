//! What checks over plain TCP find at servers of every sort.

use std::{fs, num::NonZeroU16, path::PathBuf, process::Command, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use vipd_control::{
    check::CheckCode::{L4Con, L4Ok, L6Response, L7Ok, L7Response, L7Status, L7Timeout, SockErr},
    model::{Http, Pattern, Timing, Tls},
};

use super::*;

/// Without any way of traffic.
fn shared() -> Shared {
    Shared::new(Tunnels::none())
}

/// One check of the backend at this address.
async fn check(spec: &Check, address: [u8; 4]) -> CheckResult {
    let subject = Subject {
        service: "web",
        backend: "b1",
        address: address.into(),
    };
    super::check(spec, subject, &shared()).await
}

/// What a server does with each connection.
#[derive(Clone, Copy)]
enum Server {
    Closed,
    /// Once it has been asked, and stays.
    Answers(&'static [u8]),
    /// Once it has been asked, and hangs up.
    Ends(&'static [u8]),
    /// Before it is asked.
    Greets(&'static [u8]),
    /// What it has been asked.
    Echoes,
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
                let mut asked = 0;
                if !matches!(server, Server::Greets(_) | Server::HangsUp) {
                    asked = stream.read(&mut request).await.unwrap_or(0);
                }
                let answer = match server {
                    Server::Answers(answer) | Server::Ends(answer) | Server::Greets(answer) => {
                        answer
                    }
                    Server::Echoes => &request[..asked],
                    Server::Closed | Server::SaysNothing | Server::HangsUp => &[],
                };
                let _ = stream.write_all(answer).await;
                if !matches!(server, Server::HangsUp | Server::Ends(_)) {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

fn http(change: impl FnOnce(&mut Http)) -> CheckKind {
    let mut http = Http {
        method: "GET".to_owned(),
        path: "/healthz".to_owned(),
        host: None,
        headers: Vec::new(),
        status: vec![200..=399],
        expect_headers: Vec::new(),
        expect_body: None,
    };
    change(&mut http);
    CheckKind::Http(http, None)
}

fn tcp(send: &str, expect: Option<Pattern>) -> CheckKind {
    CheckKind::Tcp(Exchange {
        send: send.into(),
        expect,
    })
}

fn text(text: &str) -> Pattern {
    Pattern::text(text).unwrap()
}

fn spec(kind: CheckKind, port: u16, source: Option<IpAddr>) -> Check {
    Check {
        kind,
        port: NonZeroU16::new(port).unwrap(),
        source,
        timing: Timing {
            timeout: Duration::from_secs(2),
            ..Timing::PLAIN
        },
        ..Check::none()
    }
}

/// Asks such a server once.
async fn ask(kind: CheckKind, server: Server) -> CheckResult {
    let waits = matches!(server, Server::SaysNothing | Server::Greets(_));
    let mut spec = spec(kind, serve(server).await, None);
    if waits {
        spec.timing.timeout = Duration::from_secs(1);
    }
    check(&spec, [127, 0, 0, 1]).await
}

#[tokio::test]
async fn what_a_server_says_in_a_connection_is_told_in_haproxys_words() {
    let plain = || tcp("", None);
    let pong = || tcp("PING\r\n", Some(text("+PONG")));
    let banner = || tcp("", Some(Pattern::regex("^SSH-2").unwrap()));
    let long: &'static [u8] = vec![b'a'; 20_000].leak();
    let cases = [
        ("accepted", plain(), Server::SaysNothing, L4Ok, ""),
        (
            "refused",
            plain(),
            Server::Closed,
            L4Con,
            "Connection refused (os error 111)",
        ),
        (
            "told, with no answer wanted",
            tcp("x", None),
            Server::SaysNothing,
            L4Ok,
            "",
        ),
        (
            "the right answer",
            pong(),
            Server::Answers(b"+PONG\r\n"),
            L7Ok,
            "",
        ),
        (
            "its own question",
            tcp("abc", Some(text("abc"))),
            Server::Echoes,
            L7Ok,
            "",
        ),
        (
            "the right greeting",
            banner(),
            Server::Greets(b"SSH-2.0-x\r\n"),
            L7Ok,
            "",
        ),
        (
            "a wrong greeting",
            banner(),
            Server::Greets(b"220 mx\r\n"),
            L7Timeout,
            "no /^SSH-2/ in \"220 mx\\r\\n\"",
        ),
        (
            "a wrong answer, closed",
            pong(),
            Server::Ends(b"-ERR\r\n"),
            L7Response,
            "closed with no \"+PONG\" in \"-ERR\\r\\n\"",
        ),
        (
            "closed at once",
            banner(),
            Server::HangsUp,
            L7Response,
            "closed without an answer",
        ),
        (
            "no answer",
            pong(),
            Server::SaysNothing,
            L7Timeout,
            "no complete answer",
        ),
    ];
    for (sentence, kind, server, code, detail) in cases {
        let result = ask(kind, server).await;
        assert_eq!(
            (result.code, result.detail.as_str()),
            (code, detail),
            "{sentence}"
        );
    }
    let result = ask(pong(), Server::Answers(long)).await;
    assert_eq!(result.code, L7Response, "{result:?}");
    assert!(result.detail.ends_with("...\" and so on"), "{result:?}");
}

#[tokio::test]
async fn what_a_server_answers_to_http_is_told_in_haproxys_words() {
    let plain = || http(|_| ());
    let body = |pattern: Pattern| http(|http| http.expect_body = Some(pattern));
    let header = |name: &str, value: &str| {
        http(|http| http.expect_headers = vec![(name.to_owned(), text(value))])
    };
    let page: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Node: b1\r\n\r\nready\n";
    let chunked: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nrea\r\n3;x=y\r\ndy\n\r\n0\r\n\r\n";
    let cut: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\nready\n";
    let hints: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
        HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Service Unavailable\r\n\r\n";
    let status = |code| format!("HTTP status {code}");
    let ended = "closed before a complete answer".to_owned();
    use Server::{Answers, Closed, Echoes, Ends, HangsUp, SaysNothing};
    let cases = [
        (
            "204",
            plain(),
            Answers(b"HTTP/1.1 204 No Content\r\n\r\n"),
            L7Ok,
            Some(204),
            status(204),
        ),
        (
            "HTTP/1.0",
            plain(),
            Ends(b"HTTP/1.0 200 OK\r\n\r\nhello"),
            L7Ok,
            Some(200),
            status(200),
        ),
        (
            "503",
            plain(),
            Answers(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"),
            L7Status,
            Some(503),
            status(503),
        ),
        (
            "503 after 103",
            plain(),
            Answers(hints),
            L7Status,
            Some(503),
            status(503),
        ),
        (
            "100 only",
            plain(),
            Ends(b"HTTP/1.1 100 Continue\r\n\r\n"),
            L7Response,
            None,
            ended.clone(),
        ),
        (
            "refused",
            plain(),
            Closed,
            L4Con,
            None,
            "Connection refused (os error 111)".to_owned(),
        ),
        (
            "silent",
            plain(),
            SaysNothing,
            L7Timeout,
            None,
            "no complete answer".to_owned(),
        ),
        ("hung up", plain(), HangsUp, L7Response, None, ended.clone()),
        (
            "another protocol",
            plain(),
            Answers(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            L7Response,
            None,
            "not HTTP: invalid HTTP version parsed".to_owned(),
        ),
        (
            "its own question",
            plain(),
            Echoes,
            L7Response,
            None,
            "not HTTP: invalid HTTP version parsed".to_owned(),
        ),
        (
            "the right body",
            body(text("ready")),
            Answers(page),
            L7Ok,
            Some(200),
            status(200),
        ),
        (
            "in chunks",
            body(text("ready")),
            Answers(chunked),
            L7Ok,
            Some(200),
            status(200),
        ),
        (
            "to its end",
            body(Pattern::regex("^hello$").unwrap()),
            Ends(b"HTTP/1.1 200 OK\r\n\r\nhello"),
            L7Ok,
            Some(200),
            status(200),
        ),
        (
            "the wrong body",
            body(text("down")),
            Answers(page),
            L7Status,
            Some(200),
            "no \"down\" in the body \"ready\\n\"".to_owned(),
        ),
        (
            "half a body",
            body(text("down")),
            Ends(cut),
            L7Response,
            Some(200),
            "the body is not complete: end of file before message length reached".to_owned(),
        ),
        (
            "the right header",
            header("x-node", "b1"),
            Answers(page),
            L7Ok,
            Some(200),
            status(200),
        ),
        (
            "the wrong header",
            header("X-Node", "b2"),
            Answers(page),
            L7Status,
            Some(200),
            "no \"b2\" in the header X-Node: \"b1\"".to_owned(),
        ),
        (
            "no such header",
            header("X-Zone", "z"),
            Answers(page),
            L7Status,
            Some(200),
            "no header X-Zone".to_owned(),
        ),
    ];
    for (sentence, kind, server, code, status, detail) in cases {
        let result = ask(kind, server).await;
        let found = (result.code, result.status, result.detail);
        assert_eq!(found, (code, status, detail), "{sentence}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_judged_by_its_beginning() {
    let mut page = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    page.extend([b'a'; 70_000]);
    let kind = http(|http| http.expect_body = Some(Pattern::regex("^a+$").unwrap()));
    let result = ask(kind, Server::Answers(page.leak())).await;
    assert_eq!(result.code, L7Ok, "{result:?}");
}

#[tokio::test]
async fn a_request_is_what_was_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let kind = http(|http| {
        http.method = "OPTIONS".to_owned();
        http.path = "/a?b=c".to_owned();
        http.host = Some("www.example.com".to_owned());
        http.headers = vec![("user-agent".to_owned(), "mine".to_owned())];
    });
    let spec = spec(kind, port, None);
    let asked = tokio::spawn(async move { check(&spec, [127, 0, 0, 1]).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = vec![0; 1024];
    let length = stream.read(&mut request).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&request[..length]),
        "OPTIONS /a?b=c HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\
         User-Agent: mine\r\nAccept: */*\r\n\r\n"
    );
    drop(stream);
    assert_eq!(asked.await.unwrap().code, L7Response);
}

#[tokio::test]
async fn a_result_has_the_time_of_each_part_that_was_begun() {
    let check = |result: CheckResult, expected: &[&str]| {
        let names: Vec<_> = result.phases.iter().map(|(name, _)| name).collect();
        assert_eq!(names, expected, "{result:?}");
        let sum: Duration = result.phases.iter().map(|(_, took)| took).sum();
        let rounded = Duration::from_micros(3);
        assert!(sum <= result.duration + rounded, "{result:?}");
        assert!(sum + rounded >= result.duration, "{result:?}");
    };
    check(ask(tcp("", None), Server::SaysNothing).await, &["connect"]);
    check(ask(tcp("", None), Server::Closed).await, &["connect"]);
    let waits = ask(http(|_| ()), Server::SaysNothing).await;
    assert!(
        waits.phases.answer.get() >= Some(Duration::from_millis(500)),
        "{waits:?}"
    );
    check(waits, &["connect", "answer"]);
}

#[tokio::test]
async fn a_check_asks_the_address_it_is_told_to() {
    let port = serve(Server::SaysNothing).await;
    let spec = Check {
        address: Some([127, 0, 0, 1].into()),
        ..spec(tcp("", None), port, None)
    };
    let result = check(&spec, [192, 0, 2, 1]).await;
    assert_eq!(result.code, L4Ok, "{result:?}");
}

#[tokio::test]
async fn a_check_that_panics_is_our_own_fault_and_not_the_end() {
    let result = guarded(async { panic!("on purpose") }).await;
    assert_eq!(result.code, SockErr, "{result:?}");
}

#[tokio::test]
async fn a_source_address_that_is_not_ours_is_our_own_fault() {
    let spec = spec(tcp("", None), 1, Some([192, 0, 2, 77].into()));
    let result = check(&spec, [127, 0, 0, 1]).await;
    assert_eq!(result.code, SockErr, "{result:?}");
}

#[test]
fn a_plain_connection_takes_no_room_for_other_checks() {
    let spec = Check::none();
    let subject = Subject {
        service: "web",
        backend: "b1",
        address: [127, 0, 0, 1].into(),
    };
    let shared = shared();
    let future = super::check(&spec, subject, &shared);
    assert!(size_of_val(&future) <= 900, "{}", size_of_val(&future));
}

/// A file whose reader waits until somebody writes.
fn fifo(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("vipd-{name}-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    path
}

fn tls(ca_file: PathBuf, port: u16, limit: Duration) -> Check {
    let tls = Tls {
        verify: true,
        server_name: None,
        ca_file: Some(ca_file),
        alpn: Vec::new(),
    };
    let mut spec = spec(CheckKind::Tls(tls, Exchange::default()), port, None);
    spec.timing.timeout = limit;
    spec
}

/// Of a "Test CA" that has signed nothing else.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBfDCCASGgAwIBAgIUMPHKpXLcMJHzZ1qvDzLO9Lz9ArIwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHVGVzdCBDQTAgFw0yNjExMjIwNDI2MzRaGA8yMTI2MTAyOTA0
MjYzNFowEjEQMA4GA1UEAwwHVGVzdCBDQTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABJwJasjkDoKL7rOjzNwq9gAra+/zSXwNlykOjc8A//oL6jpC993XHIjlkqYJ
stGal2Wy2Nh40kou10gBeVGBHjijUzBRMB0GA1UdDgQWBBSY8vCbFpq44caXALwM
f9f5i0f+PjAfBgNVHSMEGDAWgBSY8vCbFpq44caXALwMf9f5i0f+PjAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCqonYd269e+6ObEGN7Mi6F+2eR
fO8tmdU9v/aHPWmiIgIhAIz5NSPn6p6HQKbfadhsQ6C5t219euysyNwr0KbQ4MjR
-----END CERTIFICATE-----
";

#[tokio::test]
async fn certificates_that_are_not_read_yet_are_our_own_fault() {
    let path = fifo("unread");
    let port = serve(Server::SaysNothing).await;
    let spec = tls(path.clone(), port, Duration::from_millis(300));
    for _ in 0..2 {
        let result = check(&spec, [127, 0, 0, 1]).await;
        assert_eq!(result.code, SockErr, "{result:?}");
        assert!(result.detail.contains("not read yet"), "{result:?}");
    }
    // Whoever reads it is let go.
    let _ = fs::OpenOptions::new().write(true).open(&path);
    let _ = fs::remove_file(&path);
}

#[tokio::test]
async fn a_backend_has_all_its_time_though_certificates_were_read_for_long() {
    let path = fifo("slow");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (limit, reading, answering) = (6, 4, 4);
    let file = path.clone();
    let feed = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_secs(reading));
        fs::write(file, CERTIFICATE).unwrap();
    });
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::time::sleep(Duration::from_secs(answering)).await;
        let _ = stream
            .write_all(b"-ERR no TLS here, be it as it may\r\n")
            .await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    let spec = tls(path.clone(), port, Duration::from_secs(limit));
    let result = check(&spec, [127, 0, 0, 1]).await;
    assert_eq!(result.code, L6Response, "{result:?}");
    assert!(result.duration < Duration::from_secs(limit), "{result:?}");
    feed.await.unwrap();
    let _ = fs::remove_file(&path);
}

#[tokio::test]
async fn a_refusal_is_told_from_any_other_silence() {
    let unreached = |errno| Outcome::unconnected(&io::Error::from_raw_os_error(errno));
    for (errno, expected) in [
        (libc::ECONNREFUSED, true),
        (libc::EHOSTUNREACH, false),
        (libc::ENETUNREACH, false),
    ] {
        let outcome = unreached(errno);
        assert_eq!(
            (outcome.code, outcome.refused),
            (L4Con, expected),
            "{}",
            outcome.detail
        );
    }
    for (kind, server, expected) in [
        (tcp("", None), Server::Closed, true),
        (tcp("", None), Server::SaysNothing, false),
        (tcp("", Some(text("x"))), Server::SaysNothing, false),
    ] {
        let result = ask(kind, server).await;
        assert_eq!(result.refused, expected, "{result}");
    }
}
