//! A TCP connection of our own as a stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep_until},
};

use super::{
    endpoint::Flow,
    heard::Heard,
    tcp::{Connection, Stage},
};

/// A connection at the far end of a lane. It goes on only while somebody reads or
/// writes, and is reset when dropped.
pub struct Stream {
    connection: Connection,
    flow: Flow,
    alarm: Pin<Box<Sleep>>,
}

impl Stream {
    /// Connects.
    ///
    /// # Errors
    /// As the kernel's: refused, unreachable, or nothing can be sent.
    pub async fn connect(flow: Flow) -> io::Result<Self> {
        let now = Instant::now();
        let (ours, theirs) = (flow.ours(), flow.theirs());
        let mut stream = Self {
            connection: Connection::new(ours, theirs, flow.mtu(), fastrand::u64(..), now)?,
            flow,
            alarm: Box::pin(sleep_until(now.into())),
        };
        std::future::poll_fn(|context| {
            stream.go_on(context)?;
            match stream.connection.stage() {
                Stage::Connecting => Poll::Pending,
                Stage::Open => Poll::Ready(Ok(())),
                Stage::Closed => Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))),
            }
        })
        .await?;
        Ok(stream)
    }

    /// Takes in what has come, sends what is to be sent, and has the task woken when
    /// there is more to do.
    fn go_on(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            while let Poll::Ready(heard) = self.flow.poll(context) {
                match heard? {
                    Heard::Packet(packet) => self.connection.take_in(packet),
                    // Of what has been accepted it says no more than a lost packet
                    // (RFC 1122, section 4.2.3.9).
                    Heard::Unreachable(_) if self.connection.stage() == Stage::Open => {}
                    Heard::Unreachable(why) => return Err(why.error()),
                }
            }
            self.send(Instant::now())?;
            let Some(next) = self.connection.next(Instant::now()) else {
                return Ok(());
            };
            self.alarm.as_mut().reset(next.into());
            if self.alarm.as_mut().poll(context).is_pending() {
                return Ok(());
            }
        }
    }

    fn send(&mut self, now: Instant) -> io::Result<()> {
        let packets = self.connection.advance(now);
        packets.iter().try_for_each(|packet| self.flow.send(packet))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
        // If it cannot be sent the other side finds out by itself.
        let _ = self.send(Instant::now());
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.go_on(context)?;
        let Some(length) = self.connection.read(buffer.initialize_unfilled())? else {
            return Poll::Pending;
        };
        buffer.advance(length);
        // There is room for more now, and the other side is to know.
        self.go_on(context)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        said: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.go_on(context)?;
        let Some(length) = self.connection.write(said)? else {
            return Poll::Pending;
        };
        self.go_on(context)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.go_on(context)?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.close();
        self.go_on(context)?;
        Poll::Ready(Ok(()))
    }
}
