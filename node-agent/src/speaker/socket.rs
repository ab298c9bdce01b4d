//! Sockets for BGP: dialled, listening and accepted, each with what its peer is
//! configured with.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU8,
    os::fd::AsFd,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    dropped::Dropped,
    sockopt,
    trouble::{Step, Trouble},
};
use crate::config::{BgpPeer, InterfaceName, Secret};

/// Dials a peer, with its password if it has one, for at most `limit`. `before`
/// is what the kernel had dropped when the trouble began, if there is any.
///
/// # Errors
///
/// Why there is no connection.
pub async fn dial(
    peer: &BgpPeer,
    password: Option<&Secret>,
    limit: Duration,
    before: Dropped,
) -> Result<TcpStream, Trouble> {
    let socket = prepare(peer, password)?;
    match timeout(limit, connect(socket, peer.address)).await {
        Ok(Err(Trouble::Refused { error, .. })) if error.kind() == io::ErrorKind::TimedOut => {
            Err(Trouble::Silence(Dropped::now().since(before)))
        }
        Ok(result) => result,
        Err(_) => Err(Trouble::Silence(Dropped::now().since(before))),
    }
}

/// A socket that is ready to be connected to the peer.
fn prepare(peer: &BgpPeer, password: Option<&Secret>) -> Result<Socket, Trouble> {
    let at = |step| move |error| Trouble::Local(step, error);
    let socket = open(peer.address).map_err(at(Step::Open))?;
    socket.set_tcp_nodelay(true).map_err(at(Step::Open))?;
    bind_interface(&socket, peer.interface.as_ref()).map_err(at(Step::Interface))?;
    set_ttl(&SockRef::from(&socket), peer).map_err(at(Step::Ttl))?;
    if let Some(source) = peer.source {
        let source = SocketAddr::new(source, 0);
        socket.bind(&source.into()).map_err(at(Step::Source))?;
    }
    if password.is_some() {
        let set = sockopt::set_password(&socket, peer.address.ip(), password);
        set.map_err(at(Step::Password))?;
    }
    // Without it there are fewer words.
    let _ = sockopt::keep_icmp(&socket, peer.address, true);
    Ok(socket)
}

async fn connect(socket: Socket, address: SocketAddr) -> Result<TcpStream, Trouble> {
    let opened = |error| Trouble::Local(Step::Open, error);
    let refused = |error| Trouble::Refused {
        error,
        icmp: None,
        ours: false,
    };
    match socket.connect(&address.into()) {
        Ok(()) => (),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => (),
        Err(error) => return Err(refused(error)),
    }
    let stream = TcpStream::from_std(socket.into()).map_err(opened)?;
    let writable = poll_fn(|context| stream.poll_write_ready(context));
    writable.await.map_err(refused)?;
    match stream.take_error() {
        Ok(None) => {
            sockopt::keep_icmp(&stream, address, false).map_err(opened)?;
            Ok(stream)
        }
        Ok(Some(error)) | Err(error) => {
            let icmp = sockopt::icmp_error(&stream);
            let ours = icmp.is_some_and(|icmp| is_ours(icmp.from));
            Err(Trouble::Refused { error, icmp, ours })
        }
    }
}

/// Whether an address is one of this host's.
fn is_ours(address: IpAddr) -> bool {
    let bound = open(SocketAddr::new(address, 0))
        .and_then(|socket| socket.bind(&SocketAddr::new(address, 0).into()));
    bound.is_ok()
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The interface or VRF; `None`: all.
    pub interface: Option<InterfaceName>,
    /// The address, or the unspecified one of its family: all.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Whether others of ours listen at the port too, each on an interface.
    pub shared: bool,
}

impl Place {
    /// All addresses of the family of `other`.
    #[must_use]
    pub fn everywhere(other: IpAddr) -> IpAddr {
        match other {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// A socket bound there. `ttl` is that of what it answers: a peer that
    /// expects the highest (RFC 5082) drops a SYN-ACK with less. SYNs with a
    /// TTL below `min_ttl` are dropped.
    ///
    /// # Errors
    ///
    /// What the system says; the address may be taken or not be ours.
    pub fn bind(&self, ttl: NonZeroU8, min_ttl: u8) -> io::Result<Socket> {
        let address = SocketAddr::new(self.address, self.port);
        let socket = open(address)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(self.shared)?;
        bind_interface(&socket, self.interface.as_ref())?;
        self.set_ttls(&socket, ttl, min_ttl)?;
        sockopt::keep_syn(&socket)?;
        socket.bind(&address.into())?;
        Ok(socket)
    }

    /// Changes what was told to [`Place::bind`].
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_ttls(&self, socket: &impl AsFd, ttl: NonZeroU8, min_ttl: u8) -> io::Result<()> {
        let address = SocketAddr::new(self.address, self.port);
        send_ttl(&SockRef::from(socket), address, ttl)?;
        sockopt::set_min_ttl(&socket.as_fd(), address, min_ttl)
    }
}

/// Listens for peers that connect to where the socket is bound.
///
/// # Errors
///
/// What the system says.
pub fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(64)?;
    TcpListener::from_std(socket.into())
}

/// Prepares an accepted connection. It is bound to the interface of its listener
/// already, and to bind it again the kernel wants CAP_NET_RAW.
///
/// # Errors
///
/// What the system says.
pub fn accept(stream: &TcpStream, peer: &BgpPeer) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_ttl(&SockRef::from(stream), peer)
}

/// How long a connection may have unacknowledged data: the hold time, so that
/// a peer that has vanished is not written to for a quarter of an hour
/// (RFC 5482).
pub fn limit_unacknowledged(stream: &TcpStream, hold_time: Duration) {
    if !hold_time.is_zero() {
        // Without it the hold timer still ends the session.
        let _ = SockRef::from(stream).set_tcp_user_timeout(Some(hold_time));
    }
}

fn open(family: SocketAddr) -> io::Result<Socket> {
    Socket::new(
        Domain::for_address(family),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )
}

fn bind_interface(socket: &Socket, interface: Option<&InterfaceName>) -> io::Result<()> {
    match interface {
        Some(interface) => socket.bind_device(Some(interface.as_str().as_bytes())),
        None => Ok(()),
    }
}

/// Sets the TTL of what is sent, and the least of what is taken.
fn set_ttl(socket: &SockRef<'_>, peer: &BgpPeer) -> io::Result<()> {
    send_ttl(socket, peer.address, peer.reach.ttl())?;
    match peer.reach.min_ttl() {
        0 => Ok(()),
        min_ttl => sockopt::set_min_ttl(&**socket, peer.address, min_ttl),
    }
}

/// Sets the TTL or hop limit, by the family of `address`.
fn send_ttl(socket: &SockRef<'_>, address: SocketAddr, ttl: NonZeroU8) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_ttl_v4(ttl.get().into()),
        SocketAddr::V6(_) => socket.set_unicast_hops_v6(ttl.get().into()),
    }
}
