//! What a client of a VIP measures: new connections all the time
//! ([`Probes`]), and long-lived ones that must not break ([`Held`]).

mod held;
pub(crate) mod http;
mod probes;

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

use crate::host::Host;

pub use held::{Held, HeldConnection, HeldReport};
pub use probes::{Attempt, ProbeReport, Probes};

/// How long one of many connections waits for its answer: a SYN that is lost, which
/// the kernel sends again after a second, is a connection that failed.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a single question waits, which is asked to see who answers.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks a web server once, by a connection of its own, and returns the body.
pub fn ask(host: &Host, target: SocketAddr) -> Result<String> {
    host.enter(|| runtime()?.block_on(ask_within(target, ANSWER)))
        .with_context(|| format!("ask http://{target} from {}", host.name()))
}

/// Sends a datagram, each second until somebody answers, and returns the answer.
pub fn ask_udp(host: &Host, target: SocketAddr, datagram: &[u8]) -> Result<Vec<u8>> {
    host.enter(|| {
        let any: SocketAddr = if target.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0; 16], 0).into()
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(target)?;
        let began = Instant::now();
        loop {
            socket.send(datagram)?;
            let mut answer = [0; 2048];
            match socket.recv(&mut answer) {
                Ok(length) => return Ok(answer[..length].to_vec()),
                Err(error) if began.elapsed() >= ANSWER => return Err(error.into()),
                // It may have been lost.
                Err(_) => {}
            }
        }
    })
    .with_context(|| format!("ask UDP {target} from {}", host.name()))
}

/// One connection, one request, one answer, all within `patience`.
async fn ask_within(target: SocketAddr, patience: Duration) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(target).await.context("connect")?;
        stream.set_nodelay(true)?;
        http::request(&mut stream, http::Connection::Close).await
    };
    timeout(patience, exchange)
        .await
        .with_context(|| format!("no answer within {patience:?}"))?
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
