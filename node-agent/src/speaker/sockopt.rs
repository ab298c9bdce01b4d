//! Socket options that no library has: TCP MD5 keys, the least TTL, the SYN a
//! connection began with, and what ICMP said of one that failed.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use libc::{c_int, c_void, socklen_t};
use socket2::SockAddr;

use super::icmp::{self, IcmpError};
use crate::config::Secret;

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
    // SAFETY: a plain struct of the kernel's shape (include/uapi/linux/tcp.h).
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
    let mut control = [0_u64; 64];
    let mut payload = [0_u8; 128];
    let mut vector = libc::iovec {
        iov_base: payload.as_mut_ptr().cast::<c_void>(),
        iov_len: payload.len(),
    };
    // SAFETY: all zero is a valid msghdr: null pointers and no lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast::<c_void>();
    header.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the header points to buffers of the lengths it tells, which live
    // until the call is over.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    if received < 0 {
        return None;
    }
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    icmp::parse(bytes.get(..header.msg_controllen)?)
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
    let mut syn = [0_u8; 256];
    let mut len = size_of_val(&syn) as socklen_t;
    // SAFETY: the buffer is as long as `len` tells, and lives until the call
    // is over.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            syn.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    };
    let syn = syn.get(..usize::try_from(len).ok()?)?;
    if result == 0 { header_ttl(syn) } else { None }
}

/// TTL or hop limit of an IP header.
fn header_ttl(header: &[u8]) -> Option<u8> {
    match header.first()? >> 4 {
        4 => header.get(8).copied(),
        6 => header.get(7).copied(),
        _ => None,
    }
}

fn set_int(socket: &impl AsRawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: all of these options are an int.
    unsafe { set(socket, level, name, &value) }
}

/// # Safety
///
/// The option must have the layout of `T`, without padding.
unsafe fn set<T>(socket: &impl AsRawFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value lives during the call, and its length is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast::<c_void>(),
            size_of::<T>() as socklen_t,
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
