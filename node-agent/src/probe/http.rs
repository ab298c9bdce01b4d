//! An HTTP/1.1 request, judged by status, headers and body.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use vipd_control::{
    check::CheckCode,
    model::{Http, Pattern, Tls},
};

use super::{
    check::{Outcome, Target},
    exchange::excerpt,
    progress::{Progress, Stage},
    tcp, tls,
};

/// The most that the head of an answer may be, in octets.
const HEAD_MAX: usize = 16 * 1024;

/// The most of a body that is looked at, in octets.
const BODY_MAX: usize = 64 * 1024;

/// Port of HTTP, and of HTTP over TLS (RFC 9110, section 4.2).
const PORTS: [u16; 2] = [80, 443];

/// Asks once.
pub async fn ask(
    target: Target<'_>,
    http: &Http,
    tls: Option<&Tls>,
    progress: &mut Progress,
) -> Outcome {
    let request = match request(http, own_host(target.address, tls.is_some())) {
        Ok(request) => request,
        Err(error) => return Outcome::with(CheckCode::SockErr, error.to_string()),
    };
    match tls {
        None => match tcp::connect(target).await {
            Ok(stream) => say(stream, http, request, progress).await,
            Err(outcome) => outcome,
        },
        Some(tls) => match tls::connect(target, tls, progress).await {
            Ok(stream) => say(stream, http, request, progress).await,
            Err(outcome) => outcome,
        },
    }
}

/// The `Host` of a request to the address itself, with a port unless it is
/// that of the scheme (RFC 9110, section 7.2).
fn own_host(address: SocketAddr, is_tls: bool) -> String {
    let is_usual = address.port() == PORTS[usize::from(is_tls)];
    match address {
        SocketAddr::V4(v4) if is_usual => v4.ip().to_string(),
        SocketAddr::V6(v6) if is_usual => format!("[{}]", v6.ip()),
        _ => address.to_string(),
    }
}

fn request(http: &Http, own_host: String) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let mut request = Request::builder()
        .method(http.method.as_str())
        .uri(&http.path)
        .header(HOST, http.host.clone().unwrap_or(own_host))
        .header(CONNECTION, "close");
    for (name, value) in &http.headers {
        request = request.header(name, value);
    }
    let mut request = request.body(Empty::new())?;
    let headers = request.headers_mut();
    for (name, value) in [(USER_AGENT, "vipd-check"), (ACCEPT, "*/*")] {
        let value = HeaderValue::from_static(value);
        headers.entry(name).or_insert(value);
    }
    Ok(request)
}

async fn say<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    http: &Http,
    request: Request<Empty<Bytes>>,
    progress: &mut Progress,
) -> Outcome {
    progress.enter(Stage::Answer);
    let started = http1::Builder::new()
        .title_case_headers(true)
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = match started {
        Ok(started) => started,
        Err(error) => return wrong(&error),
    };
    let answer = async {
        match sender.send_request(request).await {
            Ok(response) => judge(http, response).await,
            Err(error) => wrong(&error),
        }
    };
    // Its end is told to whoever waits for the answer.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        outcome = &mut answer => outcome,
        _ = &mut connection => answer.await,
    }
}

/// Whether the answer is as expected.
async fn judge(http: &Http, response: Response<Incoming>) -> Outcome {
    let code = response.status().as_u16();
    let told = |result, detail| Outcome {
        status: Some(code),
        ..Outcome::with(result, detail)
    };
    let status = format!("HTTP status {code}");
    if !http.status.iter().any(|range| range.contains(&code)) {
        return told(CheckCode::L7Status, status);
    }
    let mut headers = http.expect_headers.iter();
    if let Some(missing) = headers.find_map(|expected| missing_header(expected, &response)) {
        return told(CheckCode::L7Status, missing);
    }
    let Some(expected) = &http.expect_body else {
        return told(CheckCode::L7Ok, status);
    };
    match body(response.into_body()).await {
        Ok(body) if expected.is_in(&body) => told(CheckCode::L7Ok, status),
        Ok(body) => {
            let missing = format!("no {expected} in the body {}", excerpt(&body));
            told(CheckCode::L7Status, missing)
        }
        Err(error) => told(
            CheckCode::L7Response,
            format!("the body is not complete: {}", innermost(&error)),
        ),
    }
}

/// What is missing of a header, if anything.
fn missing_header(
    (name, expected): &(String, Pattern),
    response: &Response<Incoming>,
) -> Option<String> {
    let values = response.headers().get_all(name);
    let mut octets = values.iter().map(HeaderValue::as_bytes);
    if octets.any(|value| expected.is_in(value)) {
        return None;
    }
    Some(match values.iter().next() {
        Some(value) => format!(
            "no {expected} in the header {name}: {}",
            excerpt(value.as_bytes())
        ),
        None => format!("no header {name}"),
    })
}

/// The body, or its beginning when there is much of it.
async fn body(mut incoming: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let Some(data) = frame?.data_ref().cloned() else {
            continue;
        };
        let room = BODY_MAX - body.len();
        body.extend_from_slice(data.get(..room).unwrap_or(&data));
        if body.len() >= BODY_MAX {
            break;
        }
    }
    Ok(body)
}

/// What comes is no answer.
fn wrong(error: &hyper::Error) -> Outcome {
    let words = if error.is_parse() {
        format!("not HTTP: {}", innermost(error))
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "closed before a complete answer".to_owned()
    } else {
        innermost(error)
    };
    Outcome::with(CheckCode::L7Response, words)
}

/// The cause, without what libraries say of themselves.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
