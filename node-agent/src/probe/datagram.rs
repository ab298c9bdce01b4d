//! The socket that checks over UDP begin with.

use std::{io::ErrorKind, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};
use vipd_control::check::CheckCode;

use super::{
    check::{Outcome, Target},
    tcp,
};
use crate::sockopt;

/// The most that a datagram can hold, and so its reply.
const MOST: usize = 65_535;

/// A socket that sends to the target, and hears of nobody else: its replies, and what
/// ICMP says of what was sent there.
pub fn connect(Target { address, source }: Target) -> Result<UdpSocket, Outcome> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP));
    let (level, errors) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    let connected = socket.and_then(|socket| {
        // Also those that the kernel takes for passing, as that a host is away.
        sockopt::set_int(&socket, level, errors, 1)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect(&address.into())?;
        UdpSocket::from_std(socket.into())
    });
    connected.map_err(|error| tcp::failed(&error, source))
}

/// Waits for a datagram and hands it to `judge`, until that makes something of it.
///
/// # Errors
///
/// What ICMP says: the datagram came to nobody.
pub async fn hear<T>(
    socket: &UdpSocket,
    mut judge: impl FnMut(&[u8]) -> Option<T>,
) -> Result<T, Outcome> {
    loop {
        // There is a buffer only while there is something to read.
        // What ICMP says makes it ready, too, and not readable.
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await;
        let heard = ready.and_then(|ready| {
            if ready.is_error() {
                let error = socket.take_error()?;
                return Err(error.unwrap_or_else(|| ErrorKind::ConnectionRefused.into()));
            }
            let mut datagram = vec![0; MOST];
            let length = socket.try_recv(&mut datagram)?;
            Ok(judge(datagram.get(..length).unwrap_or_default()))
        });
        match heard {
            Ok(Some(heard)) => return Ok(heard),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(Outcome::with(CheckCode::L4Con, error.to_string())),
        }
    }
}
