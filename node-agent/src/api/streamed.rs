//! Answers that are written while they are sent, so that a large one takes no
//! more memory than a small one.

use std::io::{self, BufWriter, Write};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::{sync::mpsc, task::spawn_blocking};

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;
/// Pieces that are written ahead of who reads them.
const AHEAD: usize = 2;

/// A body of whatever `write` writes, on a thread of its own. Writing fails once
/// nobody reads any more.
pub fn streamed(write: impl FnOnce(&mut dyn Write) + Send + 'static) -> Body {
    let (pieces, written) = mpsc::channel(AHEAD);
    spawn_blocking(move || {
        let mut writer = BufWriter::with_capacity(PIECE, Pieces(pieces));
        write(&mut writer);
        // What is left; its reader may have gone too.
        let _ = writer.flush();
    });
    Body::from_stream(stream::unfold(written, async |mut written| {
        let piece = written.recv().await?;
        Some((io::Result::Ok(piece), written))
    }))
}

struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn all_that_is_written_arrives_in_order() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 10 * PIECE + 7] {
            let numbers: Vec<u8> = (0..size).map(|i| (i / 1000 % 256) as u8).collect();
            let expected = numbers.clone();
            let body = streamed(move |writer| {
                for some in numbers.chunks(1000) {
                    writer.write_all(some).unwrap();
                }
            });
            let arrived = body.collect().await.unwrap().to_bytes();
            assert!(arrived == expected, "{size} bytes");
        }
    }

    #[tokio::test]
    async fn writing_fails_when_nobody_reads_any_more() {
        let (failed, told) = tokio::sync::oneshot::channel();
        let body = streamed(move |writer| {
            let result = std::iter::repeat_with(|| writer.write_all(&[0; 1000]));
            let error = result.take(100_000).find_map(io::Result::err);
            let _ = failed.send(error.map(|error| error.kind()));
        });
        drop(body);
        let kind = timeout(Duration::from_secs(20), told).await.unwrap();
        assert_eq!(kind, Ok(Some(io::ErrorKind::BrokenPipe)));
    }
}
