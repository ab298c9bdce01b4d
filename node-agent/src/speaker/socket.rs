//! Sockets for BGP: source address, TTL and TCP MD5 signature, and errors in
//! an operator's words.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
    os::fd::AsRawFd,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::config::{BgpPeer, Secret};

/// Has the kernel sign and check all segments to and from a peer (RFC 2385).
///
/// # Errors
///
/// When the kernel has no TCP MD5 signatures.
pub fn set_password(socket: &impl AsRawFd, peer: IpAddr, password: &Secret) -> io::Result<()> {
    let password = password.bytes();
    let mut option = TcpMd5Sig {
        address: [0; 128],
        flags: 0,
        prefix_length: 0,
        key_length: u16::try_from(password.len()).unwrap_or(u16::MAX),
        ifindex: 0,
        key: [0; 80],
    };
    let address = SockAddr::from(SocketAddr::new(peer, 0));
    let room = option.key.get_mut(..password.len());
    room.ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(password);
    // SAFETY: a sockaddr_storage is 128 bytes and `len` says how many of
    // them are in use; the option is a plain struct of the kernel's shape
    // (include/uapi/linux/tcp.h), alive during the call.
    let result = unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            option.address.as_mut_ptr(),
            (address.len() as usize).min(option.address.len()),
        );
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MD5SIG,
            std::ptr::from_ref(&option).cast(),
            size_of::<TcpMd5Sig>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `struct tcp_md5sig` (include/uapi/linux/tcp.h).
#[repr(C, align(8))]
struct TcpMd5Sig {
    address: [u8; 128],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    ifindex: u32,
    key: [u8; 80],
}

/// Dials a peer, with its password if it has one.
///
/// # Errors
///
/// In words that say what to look at.
pub async fn dial(peer: &BgpPeer, password: Option<&Secret>) -> Result<TcpStream, String> {
    let attempt = || -> io::Result<TcpSocket> {
        let socket = match peer.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_nodelay(true)?;
        set_ttl(&SockRef::from(&socket), peer.address, peer.ttl)?;
        if let Some(source) = peer.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        if let Some(password) = password {
            set_password(&socket, peer.address.ip(), password)?;
        }
        Ok(socket)
    };
    let socket = attempt().map_err(|error| local_words(&error, peer))?;
    let stream = socket.connect(peer.address).await;
    stream.map_err(|error| dial_words(&error, peer))
}

/// A socket that is to listen at a local address. `ttl` is that of what it
/// answers: a peer that expects the highest (RFC 5082) drops a SYN-ACK with
/// less.
///
/// # Errors
///
/// What the system says; the address may be taken or not be ours.
pub fn bind(address: SocketAddr, ttl: NonZeroU8) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    set_ttl(&SockRef::from(&socket), address, ttl)?;
    socket.bind(&address.into())?;
    Ok(socket)
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

/// Prepares an accepted connection.
///
/// # Errors
///
/// What the system says.
pub fn accept(stream: &TcpStream, peer: &BgpPeer) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_ttl(&SockRef::from(stream), peer.address, peer.ttl)
}

/// Sets the TTL or hop limit, by the family of `address`.
fn set_ttl(socket: &SockRef<'_>, address: SocketAddr, ttl: NonZeroU8) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_ttl_v4(ttl.get().into()),
        SocketAddr::V6(_) => socket.set_unicast_hops_v6(ttl.get().into()),
    }
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

/// What is wrong on our side.
fn local_words(error: &io::Error, peer: &BgpPeer) -> String {
    match (error.raw_os_error(), peer.source) {
        (Some(libc::EADDRNOTAVAIL), Some(source)) => format!(
            "the source address {source} is not configured on this host: add it, or change \
             `source` of this peer"
        ),
        (Some(libc::ENOPROTOOPT), _) => {
            "this kernel has no TCP MD5 signatures (CONFIG_TCP_MD5SIG), but the peer has a \
             password_file"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// What a failed dial means.
fn dial_words(error: &io::Error, peer: &BgpPeer) -> String {
    let address = peer.address;
    let password = peer.password.is_some();
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => format!(
            "nothing listens on {address}: is BGP running there, and does it accept us as a \
             neighbour?"
        ),
        Some(libc::ECONNRESET) if password => format!(
            "{address} reset the connection, and an MD5 password is set here: the password may \
             differ or be missing there"
        ),
        Some(libc::ECONNRESET) => format!(
            "{address} reset the connection: it may not know us as a neighbour, or expect an \
             MD5 password"
        ),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => {
            format!(
                "there is no way to {address}: see `ip route get {}`",
                address.ip()
            )
        }
        Some(libc::ETIMEDOUT) => timeout_words(peer),
        _ => error.to_string(),
    }
}

/// What a dial without any answer may mean.
#[must_use]
pub fn timeout_words(peer: &BgpPeer) -> String {
    let address = peer.address;
    if peer.password.is_some() {
        format!(
            "no answer from {address}, and an MD5 password is set here: the password may differ \
             or be missing there (such segments are dropped without a word), or port {} is \
             blocked",
            address.port()
        )
    } else {
        format!(
            "no answer from {address}: port {} may be blocked, the host down, or an MD5 \
             password expected there",
            address.port()
        )
    }
}

/// What the end of a standing connection means.
#[must_use]
pub fn end_words(error: Option<&io::Error>) -> String {
    match error.and_then(io::Error::raw_os_error) {
        None if error.is_none() => "the peer closed it".to_owned(),
        Some(libc::ECONNRESET) => "the peer reset it".to_owned(),
        Some(libc::ETIMEDOUT) => "the peer acknowledged nothing for the hold time".to_owned(),
        _ => error.map_or_else(String::new, ToString::to_string),
    }
}
