//! The connection that every check begins with.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};
use vipd_control::{check::CheckCode, model::Exchange};

use super::{
    check::{Outcome, Target},
    exchange,
    progress::Progress,
};

/// A connection, whoever made it.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

/// Whether a connection is accepted; nothing is said in it.
///
/// The acknowledgement of the answer is put off, as if something were to be said at
/// once, and the reset comes first: three packets instead of four, and a server
/// that the kernel accepts connections for is not even told of it.
pub async fn accepted(target: &Target<'_>) -> Outcome {
    if let Some(passage) = target.passage {
        // On the heap, so that other connections take no room for it.
        return match Box::pin(passage.accepts(target.address)).await {
            Ok(()) => Outcome::new(CheckCode::L4Ok),
            Err(error) => failed(&error, target.source),
        };
    }
    let socket = match prepare(*target) {
        Ok(socket) => socket,
        Err(outcome) => return outcome,
    };
    // Where the kernel does not do so it is one packet more.
    let _ = socket2::SockRef::from(&socket).set_tcp_quickack(false);
    match connected(socket, *target).await {
        Ok(_) => Outcome::new(CheckCode::L4Ok),
        Err(outcome) => outcome,
    }
}

/// Says something in a connection, and hears the answer.
pub async fn ask(target: Target<'_>, said: &Exchange, progress: &mut Progress) -> Outcome {
    match connect(target).await {
        Ok(stream) => exchange::ask(stream, said, CheckCode::L4Ok, progress).await,
        Err(outcome) => outcome,
    }
}

/// Connects, or says why not. The connection is reset when dropped, so that
/// thousands of checks leave no sockets waiting.
pub async fn connect(target: Target<'_>) -> Result<Box<dyn Connection>, Outcome> {
    if let Some(passage) = target.passage {
        let connected = passage.connect(target.address).await;
        let stream = connected.map_err(|error| failed(&error, target.source))?;
        return Ok(Box::new(stream));
    }
    let stream = connected(prepare(target)?, target).await?;
    Ok(Box::new(stream))
}

async fn connected(socket: TcpSocket, target: Target<'_>) -> Result<TcpStream, Outcome> {
    let Target {
        address, source, ..
    } = target;
    let connected = socket.connect(address).await;
    connected.map_err(|error| failed(&error, source))
}

/// Why nothing can be sent to a backend: it does not take it, or it is our own fault.
pub fn failed(error: &io::Error, source: Option<IpAddr>) -> Outcome {
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => Outcome::with(CheckCode::L4Timeout, error.to_string()),
        Some(
            libc::EADDRNOTAVAIL
            // What is sent waits for others on this host.
            | libc::EAGAIN
            | libc::EACCES
            | libc::EPERM
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EMFILE
            | libc::ENFILE
            | libc::EAFNOSUPPORT,
        )
        // No word of the kernel's: it has not even been asked.
        | None => Outcome::with(CheckCode::SockErr, own_words(error, source)),
        _ => Outcome::unconnected(error),
    }
}

fn prepare(target: Target<'_>) -> Result<TcpSocket, Outcome> {
    let Target {
        address, source, ..
    } = target;
    let prepared = || -> io::Result<TcpSocket> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        Ok(socket)
    };
    prepared().map_err(|error| Outcome::with(CheckCode::SockErr, own_words(&error, source)))
}

fn own_words(error: &io::Error, source: Option<IpAddr>) -> String {
    match (error.raw_os_error(), source) {
        (Some(libc::EADDRNOTAVAIL), Some(source)) => {
            format!("the source address {source} is not configured on this host")
        }
        (Some(libc::EMFILE), _) => {
            format!("{error}: raise the limit (LimitNOFILE= of the unit, or `ulimit -n`)")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_server_is_not_told_of_a_check_that_says_nothing() -> io::Result<()> {
        let server = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        server.set_nonblocking(true)?;
        let target = Target {
            address: server.local_addr()?,
            source: None,
            passage: None,
        };
        assert_eq!(accepted(&target).await.code, CheckCode::L4Ok);
        let told = server.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(told, Err(ErrorKind::WouldBlock), "not even that it came");
        assert!(connect(target).await.is_ok());
        server.accept().map(drop)
    }
}
