//! An HTTP/1.1 GET, judged by its status.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vipd_control::check::CheckCode;

use super::{
    check::{Outcome, Reached},
    tcp,
};

/// What is asked, and which answers are good.
pub struct Request<'a> {
    /// Request target.
    pub path: &'a str,
    /// `Host` header; `None` is the backend's address.
    pub host: Option<&'a str>,
    /// Status codes that count as success.
    pub status: &'a [RangeInclusive<u16>],
}

/// The most that a response's head may be.
const HEAD_MAX: usize = 16 * 1024;

/// Asks once. `reached` tells how far it came, should its time be over.
pub async fn ask(
    target: SocketAddr,
    source: Option<IpAddr>,
    request: &Request<'_>,
    reached: &mut Reached,
) -> Outcome {
    let mut stream = match tcp::connect(target, source).await {
        Ok(stream) => stream,
        Err(outcome) => return outcome,
    };
    *reached = Reached::Connection;
    let host = request
        .host
        .map_or_else(|| own_host(target), ToOwned::to_owned);
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: vipd-check\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        request.path
    );
    if let Err(error) = stream.write_all(head.as_bytes()).await {
        return Outcome::with(CheckCode::L7Response, error.to_string());
    }
    let mut answer = Vec::with_capacity(1024);
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) => {
                let detail = format!("connection closed after {} bytes", answer.len());
                return Outcome::with(CheckCode::L7Response, detail);
            }
            Ok(_) => {}
            Err(error) => return Outcome::with(CheckCode::L7Response, error.to_string()),
        }
        match status(&answer) {
            Ok(Some(code)) => return judge(code, request.status),
            Ok(None) if answer.len() < HEAD_MAX => {}
            Ok(None) => return Outcome::with(CheckCode::L7Response, "endless header"),
            Err(error) => {
                return Outcome::with(CheckCode::L7Response, format!("not HTTP: {error}"));
            }
        }
    }
}

/// The `Host` of a request to the address itself, with a port unless it is
/// that of HTTP (RFC 9110, section 7.2).
fn own_host(target: SocketAddr) -> String {
    match (target, target.port()) {
        (SocketAddr::V4(v4), 80) => v4.ip().to_string(),
        (SocketAddr::V6(v6), 80) => format!("[{}]", v6.ip()),
        _ => target.to_string(),
    }
}

/// The status once its head is complete. Interim responses may come before it
/// (RFC 9110, section 15.2); 101 is none, since nothing else follows in HTTP.
///
/// # Errors
/// What comes is not HTTP.
pub fn status(mut answer: &[u8]) -> Result<Option<u16>, httparse::Error> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(answer)? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(length) => match response.code {
                Some(100 | 102..=199) => answer = answer.get(length..).unwrap_or_default(),
                code => return Ok(code),
            },
        }
    }
}

fn judge(code: u16, expected: &[RangeInclusive<u16>]) -> Outcome {
    let good = expected.iter().any(|range| range.contains(&code));
    Outcome {
        code: if good {
            CheckCode::L7Ok
        } else {
            CheckCode::L7Status
        },
        status: Some(code),
        detail: format!("HTTP status {code}"),
    }
}
