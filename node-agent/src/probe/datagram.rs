//! What checks over UDP send by, and hear by.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::{
    check::{Outcome, Target},
    tcp,
};
use crate::{
    sockopt,
    tunnel::{
        datagram::{payload, udp},
        endpoint::Flow,
        heard::Heard,
    },
};

/// The most that a datagram can hold, and so its reply.
const MOST: usize = 65_535;

/// Datagrams to a target and from nobody else, and what ICMP says of those that were
/// sent there.
#[derive(Debug)]
pub enum Datagrams {
    /// On the kernel's way.
    Socket(UdpSocket),
    /// On that of traffic.
    Carried(Flow),
}

impl Datagrams {
    /// Makes ready to send.
    pub fn open(target: Target<'_>) -> Result<Self, Outcome> {
        let Target {
            address, source, ..
        } = target;
        let opened = match target.passage {
            Some(passage) => passage.datagrams(address).map(Self::Carried),
            None => socket(target).map(Self::Socket),
        };
        opened.map_err(|error| tcp::failed(&error, source))
    }

    /// Sends one.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub async fn send(&self, said: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.send(said).await.map(drop),
            Self::Carried(flow) => flow.send(&udp(flow, said).ok_or(ErrorKind::InvalidInput)?),
        }
    }

    /// Waits for a datagram and hands it to `judge`, until that makes something of it.
    ///
    /// # Errors
    ///
    /// What ICMP says: the datagram came to nobody.
    pub async fn hear<T>(
        &mut self,
        mut judge: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T, Outcome> {
        loop {
            let heard = match self {
                Self::Socket(socket) => hear(socket, &mut judge).await,
                Self::Carried(flow) => flow.next().await.and_then(|heard| match heard {
                    Heard::Packet(packet) => Ok(payload(&packet).and_then(&mut judge)),
                    Heard::Unreachable(why) => Err(why.error()),
                }),
            };
            match heard {
                Ok(Some(heard)) => return Ok(heard),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(Outcome::unconnected(&error)),
            }
        }
    }
}

fn socket(
    Target {
        address, source, ..
    }: Target<'_>,
) -> io::Result<UdpSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    let (level, errors) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    // Also those that the kernel takes for passing, as that a host is away.
    sockopt::set_int(&socket, level, errors, 1)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&address.into())?;
    UdpSocket::from_std(socket.into())
}

async fn hear<T>(
    socket: &UdpSocket,
    judge: &mut impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    // There is a buffer only while there is something to read.
    // What ICMP says makes it ready, too, and not readable.
    let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
    if ready.is_error() {
        let error = socket.take_error()?;
        return Err(error.unwrap_or_else(|| ErrorKind::ConnectionRefused.into()));
    }
    let mut datagram = vec![0; MOST];
    let length = socket.try_recv(&mut datagram)?;
    Ok(judge(datagram.get(..length).unwrap_or_default()))
}
