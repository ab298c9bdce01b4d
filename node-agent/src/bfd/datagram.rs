//! UDP sockets that tell where a datagram came to, by which interface and with
//! which TTL.

use std::{
    collections::BTreeMap,
    io,
    mem::{MaybeUninit, size_of},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ptr::from_mut,
    sync::Arc,
};

use rustix::{
    fd::{AsFd, AsRawFd as _, BorrowedFd},
    net::{
        netdevice::name_to_index,
        sockopt::{set_ip_freebind, set_ipv6_freebind},
    },
};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use vipd_bfd::{
    Arrival, Hops, Path,
    packet::{SOURCE_PORT_MIN, TTL},
};

use super::links::Link;

/// DSCP CS6, for network control, as a traffic class.
const TRAFFIC_CLASS: u32 = 0xc0;
/// Before what hosts send otherwise (`SO_PRIORITY`, socket(7)).
const PRIORITY: u32 = 6;
/// Room for the packets of many sessions that come at once.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A longer datagram than any that is understood.
pub const DATAGRAM_MAX: usize = 64;

/// Where packets are taken: sessions with the same one share a [`Receiver`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    hops: Hops,
    ipv4: bool,
    /// The interface or VRF; `None`: all.
    pub interface: Option<Arc<str>>,
}

/// Takes the packets for a port of one address family.
#[derive(Debug)]
pub struct Receiver {
    socket: Socket,
    port: u16,
    bound: Option<Bound>,
}

/// The interface or VRF that a socket is bound to. One that is made anew by the
/// same name is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    name: Arc<str>,
    index: u32,
}

/// Sends the packets of one session, always from the same port (RFC 5881 section
/// 4).
#[derive(Debug)]
pub struct Sender {
    socket: Socket,
    to: SockAddr,
    bound: Option<Bound>,
}

impl Place {
    /// Where the packets of a session come to.
    pub fn of(path: &Path) -> Self {
        Self {
            hops: path.hops,
            ipv4: path.remote.is_ipv4(),
            interface: path.interface.clone(),
        }
    }

    /// The port that peers send to.
    pub fn port(&self) -> u16 {
        self.hops.port()
    }
}

impl Receiver {
    /// Opens the port. `shared`: there is one for all interfaces, too, or one for
    /// another.
    ///
    /// # Errors
    /// When another program has the port, for example; [`is_no_interface`].
    pub fn open(place: &Place, shared: bool) -> io::Result<Self> {
        Self::bind(place, place.port(), shared)
    }

    fn bind(place: &Place, port: u16, shared: bool) -> io::Result<Self> {
        let ipv4 = place.ipv4;
        let socket = socket(ipv4)?;
        socket.set_reuse_port(shared)?;
        let bound = bind_interface(&socket, place.interface.as_ref())?;
        // It may be less; then bursts are lost.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        let options = if ipv4 {
            [
                (libc::IPPROTO_IP, libc::IP_RECVTTL),
                (libc::IPPROTO_IP, libc::IP_PKTINFO),
            ]
        } else {
            socket.set_only_v6(true)?;
            [
                (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
                (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            ]
        };
        for (level, name) in options {
            turn_on(socket.as_fd(), level, name)?;
        }
        socket.bind(&SocketAddr::new(unspecified(ipv4), port).into())?;
        Ok(Self {
            socket,
            port,
            bound,
        })
    }

    /// Others may have the port too from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn share(&self) -> io::Result<()> {
        self.socket.set_reuse_port(true)
    }

    /// What it is bound to.
    pub fn bound(&self) -> Option<&Bound> {
        self.bound.as_ref()
    }

    /// The next datagram that waits, without waiting for one, and the index of the
    /// interface that it came by.
    ///
    /// # Errors
    /// When none waits, or the kernel says that something is wrong.
    pub fn receive<'b>(
        &self,
        buffer: &'b mut [u8; DATAGRAM_MAX],
    ) -> io::Result<(Option<(Arrival, u32)>, &'b [u8])> {
        let mut control = Control([0; 128]);
        let mut piece = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        let mut from = SockAddrStorage::zeroed();
        // SAFETY: all zeros is a msghdr without anything in it.
        let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        header.msg_name = from_mut(&mut from).cast();
        header.msg_namelen = size_of::<SockAddrStorage>() as libc::socklen_t;
        header.msg_iov = &raw mut piece;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>();
        // SAFETY: everything the header points to lives longer than the call, and
        // has the lengths that it says.
        let length =
            unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: recvmsg has filled in the address and its length.
        let from = unsafe { SockAddr::new(from, header.msg_namelen) };
        let arrival = from
            .as_socket()
            .and_then(|from| self.arrival(from, &header));
        Ok((arrival, &buffer[..length.min(DATAGRAM_MAX)]))
    }

    fn arrival(&self, from: SocketAddr, header: &libc::msghdr) -> Option<(Arrival, u32)> {
        let (mut to, mut ttl) = (None, None);
        // SAFETY: the header is as recvmsg has left it, its control messages are
        // in a buffer aligned for them that is alive here, and CMSG_NXTHDR ends
        // before the end of it. Each kind has the data that is read of it.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while !message.is_null() {
                let data = libc::CMSG_DATA(message);
                match ((*message).cmsg_level, (*message).cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_TTL)
                    | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                        ttl = u8::try_from(data.cast::<i32>().read_unaligned()).ok();
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                        let address = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                        to = Some((IpAddr::from(address), info.ipi_ifindex.cast_unsigned()));
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                        let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                        to = Some((IpAddr::from(address), info.ipi6_ifindex));
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        let (local, interface) = to?;
        let arrival = Arrival {
            remote: from.ip(),
            local,
            bound: self.bound.as_ref().map(|bound| Arc::clone(&bound.name)),
            ttl: ttl?,
            port: self.port,
        };
        Some((arrival, interface))
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Sender {
    /// A socket for a session, at a port that no other socket of ours has. The
    /// source address need not be there yet.
    ///
    /// # Errors
    /// When no port is left, for example; [`is_no_interface`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let ipv4 = path.remote.is_ipv4();
        let socket = socket(ipv4)?;
        if ipv4 {
            socket.set_ttl_v4(TTL.into())?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
            set_ip_freebind(&socket, true)?;
        } else {
            socket.set_unicast_hops_v6(TTL.into())?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
            set_ipv6_freebind(&socket, true)?;
        }
        socket.set_priority(PRIORITY)?;
        let bound = bind_interface(&socket, path.interface.as_ref())?;
        let source = path.local.unwrap_or_else(|| unspecified(ipv4));
        let to = SocketAddr::new(path.remote, path.hops.port()).into();
        // Which ports are free only the kernel knows.
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in SOURCE_PORT_MIN..=u16::MAX {
            match socket.bind(&SocketAddr::new(source, port).into()) {
                Ok(()) => return Ok(Self { socket, to, bound }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Sends a packet, if that can be done without waiting.
    ///
    /// # Errors
    /// When the kernel cannot: no way, no address, no room.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.socket.send_to(packet, &self.to).map(drop)
    }

    /// What it is bound to.
    pub fn bound(&self) -> Option<&Bound> {
        self.bound.as_ref()
    }
}

impl Bound {
    /// Whether it is still there, by what is known of the interfaces.
    pub fn is_one_of(&self, links: &BTreeMap<u32, Link>) -> bool {
        let link = links.get(&self.index);
        link.is_some_and(|link| *link.name == *self.name)
    }
}

/// Whether a socket could not be opened since its interface is not there.
pub fn is_no_interface(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODEV)
}

/// Aligned for control messages.
#[repr(C, align(8))]
struct Control([u8; 128]);

fn socket(ipv4: bool) -> io::Result<Socket> {
    let domain = if ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Binds a new socket. That wants no capability; to bind it again would.
fn bind_interface(socket: &Socket, name: Option<&Arc<str>>) -> io::Result<Option<Bound>> {
    let Some(name) = name else {
        return Ok(None);
    };
    let index = name_to_index(socket, name)?;
    socket.bind_device(Some(name.as_bytes()))?;
    let name = Arc::clone(name);
    Ok(Some(Bound { name, index }))
}

fn unspecified(ipv4: bool) -> IpAddr {
    if ipv4 {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

fn turn_on(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option is an int that is alive during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_told_from_other_failures() {
        let path = Path {
            remote: [192, 0, 2, 1].into(),
            local: None,
            interface: Some("nowhere0".into()),
            hops: Hops::Single,
        };
        let error = Sender::open(&path).expect_err("it is not there");
        assert!(is_no_interface(&error), "{error:?}");
        let lo = Bound {
            name: "lo".into(),
            index: 1,
        };
        let links = |index: u32, name: &str| {
            let (name, sends, xdp) = (name.into(), true, false);
            [(index, Link { name, sends, xdp })].into()
        };
        assert!(lo.is_one_of(&links(1, "lo")));
        assert!(!lo.is_one_of(&links(7, "lo")), "made anew");
        assert!(!lo.is_one_of(&links(1, "lo2")), "another");
    }

    #[test]
    fn a_datagram_tells_where_it_came_to_and_with_which_ttl() {
        for local in ["127.0.0.1", "::1"] {
            let local: IpAddr = local.parse().expect("an address");
            let path = Path {
                remote: local,
                local: Some(local),
                interface: Some("lo".into()),
                hops: Hops::Single,
            };
            let receiver = Receiver::bind(&Place::of(&path), 0, true).expect("a receiver");
            let bound = receiver.socket.local_addr().expect("it is bound");
            let port = bound.as_socket().expect("it is of IP").port();
            // One that takes the rest takes nothing of it.
            let unbound = Path {
                interface: None,
                ..path.clone()
            };
            let rest = Receiver::bind(&Place::of(&unbound), port, true).expect("another");
            let mut sender = Sender::open(&path).expect("a sender");
            sender.to = SocketAddr::new(local, port).into();
            sender.send(b"hello").expect("it is sent");
            let mut buffer = [0; DATAGRAM_MAX];
            let (arrival, bytes) = receiver.receive(&mut buffer).expect("it has arrived");
            assert_eq!(bytes, b"hello");
            let (arrival, interface) = arrival.expect("the kernel tells all of it");
            assert_eq!((arrival.remote, arrival.local), (local, local));
            assert_eq!((arrival.ttl, interface), (255, 1));
            assert_eq!(arrival.bound.as_deref(), Some("lo"));
            rest.receive(&mut buffer).expect_err("nothing else came");
        }
    }
}
