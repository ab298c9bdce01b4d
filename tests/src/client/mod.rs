//! What a client of a VIP measures: new connections all the time
//! ([`Probes`]), and long-lived ones that must not break ([`Held`]).

mod held;
pub(crate) mod http;
mod probes;

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

use crate::host::Host;

pub use held::{Held, HeldConnection, HeldReport};
pub use probes::{Attempt, ProbeReport, Probes};

/// How long a single question waits for its answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks a web server once, by a connection of its own, and returns the body.
pub fn ask(host: &Host, target: SocketAddr) -> Result<String> {
    host.enter(|| runtime()?.block_on(ask_within(target, PATIENCE)))
        .with_context(|| format!("ask http://{target} from {}", host.name()))
}

/// Sends one datagram and returns the answer.
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
        socket.send(datagram)?;
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer)?;
        Ok(answer[..length].to_vec())
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
