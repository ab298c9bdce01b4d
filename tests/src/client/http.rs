//! As much HTTP/1.1 as the lab's client needs.

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The longest answer that makes sense here.
const LIMIT: usize = 4096;

/// What happens to the connection after the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Connection {
    KeepAlive,
    Close,
}

/// Sends a GET and returns the body of the answer, trimmed.
pub(crate) async fn request(stream: &mut TcpStream, connection: Connection) -> Result<String> {
    let connection = match connection {
        Connection::KeepAlive => "keep-alive",
        Connection::Close => "close",
    };
    let get = format!("GET / HTTP/1.1\r\nHost: vip\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(get.as_bytes()).await.context("send")?;
    let mut answer = Vec::with_capacity(256);
    loop {
        if let Some(body) = body(&answer)? {
            return Ok(body);
        }
        ensure!(answer.len() < LIMIT, "an answer of over {LIMIT} bytes");
        let length = stream.read_buf(&mut answer).await.context("receive")?;
        ensure!(length > 0, "closed by the server");
    }
}

/// The body, once it is there in the length that the header tells.
fn body(answer: &[u8]) -> Result<Option<String>> {
    let text = std::str::from_utf8(answer).context("an answer that is no text")?;
    let Some((header, body)) = text.split_once("\r\n\r\n") else {
        return Ok(None);
    };
    let mut lines = header.lines();
    let status = lines.next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200 "), "answered {status}");
    let length: usize = lines
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("an answer without a length")?
        .1
        .parse()
        .context("read the length of an answer")?;
    Ok((body.len() >= length).then(|| body[..length].trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_there_when_its_length_is() {
        let header = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        let check = |answer: &str, expected: Option<&str>| {
            let body = body(answer.as_bytes()).expect("a good answer");
            assert_eq!(body.as_deref(), expected, "{answer:?}");
        };
        check("HTTP/1.1 200 OK\r\nCon", None);
        check(header, None);
        check(&format!("{header}b1"), None);
        check(&format!("{header}b1\n"), Some("b1"));
    }
}
