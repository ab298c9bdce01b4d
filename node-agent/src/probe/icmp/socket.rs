//! A socket for echo requests and their replies: a ping socket where the kernel lets
//! our group have one (icmp(7), ping_group_range), else a raw one.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::packet::{Echo, Family};
use crate::{
    sockopt,
    speaker::icmp::{IcmpError, parse},
};

/// The most that comes in one piece.
const MOST: usize = 65_535;

/// Options of raw sockets and their numbers (include/uapi/linux/icmp.h, icmpv6.h).
const ICMP_FILTER: libc::c_int = 1;
const ICMP6_FILTER: libc::c_int = 1;

/// A socket that all checks of a family and source share.
#[derive(Debug)]
pub struct IcmpSocket {
    socket: AsyncFd<Socket>,
    family: Family,
    /// What tells our replies from those of others; the kernel does on ping sockets.
    own: Option<u16>,
}

/// What came.
#[derive(Debug)]
pub enum Heard<'a> {
    /// A reply.
    Reply {
        /// Who sent it.
        from: IpAddr,
        /// Which request of ours it is to.
        echo: Echo,
        /// Its data.
        data: &'a [u8],
    },
    /// A request came to nobody.
    Unreachable {
        /// Where it was sent.
        target: IpAddr,
        /// Which request of ours.
        echo: Echo,
        /// Who says so, and why.
        error: IcmpError,
    },
}

impl IcmpSocket {
    /// Opens one whose requests come from `source`, if that is given.
    ///
    /// # Errors
    ///
    /// What the system says; that we may not comes as [`io::ErrorKind::PermissionDenied`].
    pub fn open(family: Family, source: Option<IpAddr>) -> io::Result<Self> {
        let (domain, protocol) = match family {
            Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
            Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
        };
        let open = |kind: Type| Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol));
        let (socket, own) = match open(Type::DGRAM) {
            Ok(socket) => (socket, None),
            Err(_) => {
                let socket = open(Type::RAW)?;
                filter(&socket, family)?;
                (socket, Some(fastrand::u16(..)))
            }
        };
        let (level, errors) = match family {
            Family::V4 => (libc::IPPROTO_IP, libc::IP_RECVERR),
            Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        };
        sockopt::set_int(&socket, level, errors, 1)?;
        sockopt::enlarge_receiving(&socket)?;
        sockopt::enlarge_sending(&socket)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        // Errors by themselves make a socket ready, too.
        let interest = Interest::READABLE | Interest::ERROR;
        // SAFETY: the socket owns its descriptor, the same one, for as long as it lives.
        let socket = unsafe { AsyncFd::register_with_interest(socket, interest) }?;
        Ok(Self {
            socket,
            family,
            own,
        })
    }

    /// How much may wait to be sent, in octets.
    #[cfg(test)]
    pub fn room(&self) -> io::Result<usize> {
        self.socket.get_ref().send_buffer_size()
    }

    /// Of what protocol it is.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// What its requests are known by; the kernel has its own for ping sockets.
    pub fn identifier(&self) -> u16 {
        self.own.unwrap_or_default()
    }

    /// Sends a request.
    ///
    /// # Errors
    ///
    /// What the system says, be it of an earlier request to another host.
    pub fn send(&self, request: &[u8], target: IpAddr) -> io::Result<()> {
        let target = SocketAddr::new(target, 0).into();
        self.socket.get_ref().send_to(request, &target).map(drop)
    }

    /// Waits for something to come and hands over all that is there.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub async fn hear(&self, mut tell: impl FnMut(Heard<'_>)) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::ERROR;
        let mut ready = self.socket.ready(interest).await?;
        let mut buffer = vec![0; MOST];
        // An error also fails whatever is asked of the socket next, once.
        let errors = self.take(&mut buffer, libc::MSG_ERRQUEUE, &mut tell);
        let replies = self.take(&mut buffer, 0, &mut tell);
        if matches!((&errors, &replies), (Ok(0), Ok(0))) {
            ready.clear_ready();
        }
        errors.and(replies).map(drop)
    }

    /// Hands over all that waits in the queue that `flags` name, and counts it.
    fn take(
        &self,
        buffer: &mut [u8],
        flags: libc::c_int,
        tell: &mut impl FnMut(Heard<'_>),
    ) -> io::Result<usize> {
        for count in 0.. {
            let received = match sockopt::receive(self.socket.get_ref(), buffer, flags) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(count),
                Err(error) => return Err(error),
            };
            let packet = buffer.get(..received.length).unwrap_or_default();
            let address = received.address.map(|address| address.ip());
            let heard = match flags {
                0 => self.reply(address, packet),
                _ => self.error(address, packet, parse(received.control())),
            };
            heard.into_iter().for_each(&mut *tell);
        }
        Ok(0)
    }

    fn reply<'p>(&self, from: Option<IpAddr>, packet: &'p [u8]) -> Option<Heard<'p>> {
        let (echo, data) = Echo::of_reply(self.family, packet)?;
        self.is_ours(echo).then_some(Heard::Reply {
            from: from?,
            echo,
            data,
        })
    }

    fn error(
        &self,
        target: Option<IpAddr>,
        packet: &[u8],
        error: Option<IcmpError>,
    ) -> Option<Heard<'static>> {
        let echo = Echo::of_request(self.family, packet)?;
        self.is_ours(echo).then_some(Heard::Unreachable {
            target: target?,
            echo,
            error: error?,
        })
    }

    fn is_ours(&self, echo: Echo) -> bool {
        self.own.is_none_or(|own| own == echo.identifier)
    }
}

/// Keeps from a raw socket all but echo replies.
fn filter(socket: &Socket, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => {
            let dropped = !1_u32;
            // SAFETY: the option is a `struct icmp_filter`, which is one 32-bit word.
            unsafe { sockopt::set(socket, libc::SOL_RAW, ICMP_FILTER, &dropped) }
        }
        Family::V6 => {
            // A bit for each type; that of echo replies is 129.
            let mut dropped = [u32::MAX; 8];
            dropped[129 / 32] &= !(1 << (129 % 32));
            // SAFETY: the option is a `struct icmp6_filter`, which is eight such words.
            unsafe { sockopt::set(socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &dropped) }
        }
    }
}
