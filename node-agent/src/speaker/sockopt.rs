//! Options of TCP sockets: MD5 keys, the least TTL, the SYN a connection began
//! with, and what ICMP said of one that failed.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use socket2::SockAddr;

use super::icmp::{self, IcmpError};
use crate::{
    config::Secret,
    sockopt::{get, receive, set, set_int},
};

/// Has the kernel sign and check all segments to and from a peer (RFC 2385), on
/// this socket or on those that it accepts; a key that was set before is
/// replaced, also on a connection that stands. `None` takes the key away.
///
/// # Errors
///
/// When the kernel has no TCP MD5 signatures, or there was no key to take away.
pub fn set_password(
    socket: &impl AsRawFd,
    peer: IpAddr,
    password: Option<&Secret>,
) -> io::Result<()> {
    let password = password.map_or(&[][..], Secret::bytes);
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
    // them are in use.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            option.address.as_mut_ptr(),
            (address.len() as usize).min(option.address.len()),
        );
    }
    // SAFETY: a plain struct of the kernel's shape (include/uapi/linux/tcp.h), which
    // points to nothing.
    unsafe { set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &option) }
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

/// Drops segments with a lower TTL or hop limit from now on (RFC 5082); 0 takes
/// any. On a listening socket it holds for SYNs and for what is accepted.
///
/// # Errors
///
/// When the kernel cannot do that.
pub fn set_min_ttl(socket: &impl AsRawFd, family: SocketAddr, ttl: u8) -> io::Result<()> {
    let (level, name) = match family {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    };
    set_int(socket, level, name, ttl.into())
}

/// Whether ICMP errors are kept for [`icmp_error`]. On a connection that stands
/// they would also end it, where TCP goes on.
///
/// # Errors
///
/// What the system says.
pub fn keep_icmp(socket: &impl AsRawFd, family: SocketAddr, keep: bool) -> io::Result<()> {
    let (level, name) = match family {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    set_int(socket, level, name, keep.into())
}

/// The ICMP error that ended a dial, if one did.
pub fn icmp_error(socket: &impl AsRawFd) -> Option<IcmpError> {
    let error = receive(socket, &mut [0; 128], libc::MSG_ERRQUEUE).ok()?;
    icmp::parse(error.control())
}

/// Has a listening socket keep the SYN of each connection for [`syn_ttl`].
///
/// # Errors
///
/// What the system says.
pub fn keep_syn(socket: &impl AsRawFd) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, 1)
}

/// The TTL or hop limit of the SYN that an accepted connection began with.
pub fn syn_ttl(socket: &impl AsRawFd) -> Option<u8> {
    let mut syn = [0; 256];
    let length = get(socket, libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, &mut syn).ok()?;
    header_ttl(syn.get(..length)?)
}

/// TTL or hop limit of an IP header.
fn header_ttl(header: &[u8]) -> Option<u8> {
    match header.first()? >> 4 {
        4 => header.get(8).copied(),
        6 => header.get(7).copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ttl_is_where_the_version_says() {
        let mut header = [0; 40];
        (header[7], header[8]) = (64, 255);
        let table = [(0x45, Some(255)), (0x60, Some(64)), (0x10, None)];
        for (first, ttl) in table {
            header[0] = first;
            assert_eq!(header_ttl(&header), ttl, "{first:#x}");
        }
        assert_eq!(header_ttl(&[0x45; 8]), None, "cut off");
    }
}
