//! What is said in a connection, and what must come back.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use vipd_control::{
    check::CheckCode,
    model::{Exchange, Pattern},
};

use super::{
    check::Outcome,
    progress::{Progress, Stage},
};

/// The most of an answer that is looked at, in octets.
const ANSWER_MAX: usize = 16 * 1024;

/// The most of an answer that is shown, in octets.
const SHOWN_MAX: usize = 64;

/// Says it, and hears the answer. `silent` is what was found when no answer is
/// wanted.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    said: &Exchange,
    silent: CheckCode,
    progress: &mut Progress,
) -> Outcome {
    if said.send.is_empty() && said.expect.is_none() {
        return Outcome::new(silent);
    }
    progress.enter(Stage::Answer);
    let sent = async {
        stream.write_all(&said.send).await?;
        stream.flush().await
    };
    if let Err(error) = sent.await {
        return Outcome::with(CheckCode::L7Response, format!("cannot send: {error}"));
    }
    match &said.expect {
        Some(expected) => hear(stream, expected, progress).await,
        None => Outcome::new(silent),
    }
}

async fn hear<S: AsyncRead + Unpin>(
    mut stream: S,
    expected: &Pattern,
    progress: &mut Progress,
) -> Outcome {
    let missing = |answer: &[u8]| format!("no {expected} in {}", excerpt(answer));
    let wrong = |words| Outcome::with(CheckCode::L7Response, words);
    let mut answer = Vec::with_capacity(1024);
    loop {
        match (&mut stream)
            .take((ANSWER_MAX - answer.len()) as u64)
            .read_buf(&mut answer)
            .await
        {
            Ok(0) if answer.len() >= ANSWER_MAX => {
                return wrong(format!("{} and so on", missing(&answer)));
            }
            Ok(0) if answer.is_empty() => return wrong("closed without an answer".to_owned()),
            Ok(0) => return wrong(format!("closed with {}", missing(&answer))),
            Ok(_) if expected.is_in(&answer) => return Outcome::new(CheckCode::L7Ok),
            Ok(_) => progress.so_far = Some(missing(&answer)),
            Err(error) if answer.is_empty() => return wrong(error.to_string()),
            Err(error) => return wrong(format!("{error}, with {}", missing(&answer))),
        }
    }
}

/// The beginning of what somebody said, for people.
pub fn excerpt(octets: &[u8]) -> String {
    let shown = octets.get(..SHOWN_MAX).unwrap_or(octets);
    let more = if shown.len() < octets.len() {
        "..."
    } else {
        ""
    };
    format!("\"{}{more}\"", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line_without_control_characters() {
        let check = |octets: &[u8], expected: &str| assert_eq!(excerpt(octets), expected);
        check(b"", "\"\"");
        check(b"-ERR\r\n\x1b\xff", "\"-ERR\\r\\n\\x1b\\xff\"");
        check(&[b'a'; 65], &format!("\"{}...\"", "a".repeat(64)));
    }
}
