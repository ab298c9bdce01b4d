//! UDP sockets that tell where a datagram came to, by which interface and with
//! which TTL.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use rustix::{
    fd::{AsFd, BorrowedFd},
    net::{
        netdevice::name_to_index,
        sockopt::{set_ip_freebind, set_ipv6_freebind},
    },
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use vipd_bfd::{
    Arrival, Hops, Path,
    packet::{SOURCE_PORT_MIN, TTL},
};

use super::links::Link;
use crate::sockopt::{ControlMessage, Received, get, messages, receive, set, set_int};

/// DSCP CS6, for network control, as a traffic class.
const TRAFFIC_CLASS: u32 = 0xc0;
/// Before what hosts send otherwise (`SO_PRIORITY`, socket(7)).
const PRIORITY: u32 = 6;
/// Room for the packets of many sessions that come at once.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Bytes of `SO_MEMINFO`, of which the last number is `SK_MEMINFO_DROPS`
/// (include/uapi/linux/sock_diag.h).
const SK_MEMINFO_LEN: usize = 9 * size_of::<u32>();

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
    ipv4: bool,
    port: u16,
    bound: Option<Bound>,
}

/// How a datagram has arrived, and the index of the interface it came by.
pub type Arrived = (Arrival, u32);

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
        // Not SO_REUSEPORT: by that one the kernel takes the first it finds, whatever
        // it is bound to.
        socket.set_reuse_address(shared)?;
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
            set_int(&socket, level, name, 1)?;
        }
        socket.bind(&SocketAddr::new(unspecified(ipv4), port).into())?;
        Ok(Self {
            socket,
            ipv4,
            port,
            bound,
        })
    }

    /// Whether others may open the port too. What comes by an interface is for who
    /// is bound to it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn share(&self, shared: bool) -> io::Result<()> {
        self.socket.set_reuse_address(shared)
    }

    /// What it is bound to.
    pub fn bound(&self) -> Option<&Bound> {
        self.bound.as_ref()
    }

    /// The next datagram that waits, without waiting for one.
    ///
    /// # Errors
    /// When none waits, or the kernel says that something is wrong.
    pub fn receive<'b>(
        &self,
        buffer: &'b mut [u8; DATAGRAM_MAX],
    ) -> io::Result<(Option<Arrived>, &'b [u8])> {
        let received = receive(&self.socket, buffer, 0)?;
        let arrival = self.arrival(&received);
        Ok((arrival, &buffer[..received.length]))
    }

    fn arrival(&self, received: &Received) -> Option<Arrived> {
        let (mut to, mut ttl) = (None, None);
        for message in messages(received.control()) {
            let ControlMessage { level, kind, data } = message;
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    ttl = u8::try_from(i32::from_ne_bytes(*data.first_chunk()?)).ok();
                }
                // struct in_pktinfo: index, our address on that link, the packet's.
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let index = u32::from_ne_bytes(*data.first_chunk()?);
                    let address: [u8; 4] = *data.get(8..)?.first_chunk()?;
                    to = Some((IpAddr::from(address), index));
                }
                // struct in6_pktinfo: the packet's address, index.
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let address: [u8; 16] = *data.first_chunk()?;
                    let index = u32::from_ne_bytes(*data.get(16..)?.first_chunk()?);
                    to = Some((IpAddr::from(address), index));
                }
                _ => {}
            }
        }
        let (local, interface) = to?;
        let arrival = Arrival {
            remote: received.address?.ip(),
            local,
            bound: self.bound.as_ref().map(|bound| Arc::clone(&bound.name)),
            ttl: ttl?,
            port: self.port,
        };
        Some((arrival, interface))
    }

    /// Has the kernel drop what comes with a lower TTL or hop limit, before it
    /// takes room that others need: any host can send to the port, but only one
    /// near enough can make us look at it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_min_ttl(&self, ttl: u8) -> io::Result<()> {
        // Where the TTL or hop limit is, from the beginning of the IP header.
        let place = if self.ipv4 { 8 } else { 7 };
        let instruction = |code: u32, jf, k| libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf,
            k,
        };
        let net = libc::SKF_NET_OFF.cast_unsigned();
        let mut filter = [
            instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, net + place),
            instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, ttl.into()),
            instruction(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
        ];
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
        // SAFETY: the option is a sock_fprog, and its filter lives longer than this.
        unsafe { set(&self.socket, level, name, &program) }
    }

    /// How many datagrams the kernel has dropped: by [`Receiver::set_min_ttl`], or
    /// since too many waited.
    pub fn dropped(&self) -> u32 {
        let mut numbers = [0; SK_MEMINFO_LEN];
        let read = get(
            &self.socket,
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            &mut numbers,
        );
        let last = read.ok().and_then(|_| numbers.last_chunk());
        last.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
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

            receiver.set_min_ttl(255).expect("a filter");
            let ttls = [254, 255].map(|ttl| {
                let set = match local {
                    IpAddr::V4(_) => sender.socket.set_ttl_v4(ttl),
                    IpAddr::V6(_) => sender.socket.set_unicast_hops_v6(ttl),
                };
                set.expect("a TTL");
                sender.send(b"again").expect("it is sent");
                let (arrival, _) = receiver.receive(&mut buffer).ok()?;
                arrival.map(|(arrival, _)| arrival.ttl)
            });
            assert_eq!((ttls, receiver.dropped()), ([None, Some(255)], 1));
            receiver.set_min_ttl(254).expect("another filter");
            sender.send(b"again").expect("it is sent");
            receiver.receive(&mut buffer).expect("it has arrived");
        }
    }
}
