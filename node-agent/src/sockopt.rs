//! What sockets can do and no library has: options by their numbers, and messages
//! with the control data that comes beside them.

use std::{
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::AsRawFd,
    ptr::{from_mut, from_ref},
};

use libc::{c_int, c_void, socklen_t};
use socket2::{SockAddr, SockAddrStorage};

/// Sets an option that is an int.
///
/// # Errors
///
/// What the system says.
pub fn set_int(socket: &impl AsRawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: whatever option it is, the kernel reads no more than an int.
    unsafe { set(socket, level, name, &value) }
}

/// What may wait in a socket that many share, in octets. What is meant for hosts that
/// are away waits until nobody has answered for their Ethernet address, and thousands
/// of answers come at once.
const SHARED: c_int = 4 << 20;

/// Makes room in a socket for what it sends to many hosts, beyond the system's limit
/// only by those who may.
///
/// # Errors
///
/// What the system says.
pub fn enlarge_sending(socket: &impl AsRawFd) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SHARED)
        .or_else(|_| set_int(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, SHARED))
}

/// The same for what comes of many hosts.
///
/// # Errors
///
/// What the system says.
pub fn enlarge_receiving(socket: &impl AsRawFd) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, SHARED)
        .or_else(|_| set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, SHARED))
}

/// Sets an option.
///
/// # Errors
///
/// What the system says.
///
/// # Safety
///
/// The option must have the layout of `T`, and what `T` points to must live during
/// the call.
pub unsafe fn set<T>(
    socket: &impl AsRawFd,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the value lives during the call, and its length is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            from_ref(value).cast::<c_void>(),
            size_of::<T>() as socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Fills a buffer with an option, and gives back how much of it is filled.
///
/// # Errors
///
/// What the system says.
pub fn get(
    socket: &impl AsRawFd,
    level: c_int,
    name: c_int,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut length = socklen_t::try_from(buffer.len()).unwrap_or(socklen_t::MAX);
    // SAFETY: the buffer is at least as long as `length` tells, and lives until
    // the call is over.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            buffer.as_mut_ptr().cast::<c_void>(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(buffer.len()))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A message that was received.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the buffer that it fills.
    pub length: usize,
    /// The address that came with it.
    pub address: Option<SocketAddr>,
    control: Control,
    controlled: usize,
}

/// Aligned for control messages.
#[derive(Debug)]
#[repr(C, align(8))]
struct Control([u8; 512]);

/// What comes beside a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlMessage<'m> {
    /// Of which protocol it is, as for options.
    pub level: c_int,
    /// What it is there.
    pub kind: c_int,
    /// Its data.
    pub data: &'m [u8],
}

/// Receives a message that waits, without waiting for one.
///
/// # Errors
///
/// When none waits, or the system says that something is wrong.
pub fn receive(socket: &impl AsRawFd, buffer: &mut [u8], flags: c_int) -> io::Result<Received> {
    let mut control = Control([0; 512]);
    let mut piece = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut address = SockAddrStorage::zeroed();
    // SAFETY: all zeros is a msghdr without anything in it.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_name = from_mut(&mut address).cast();
    header.msg_namelen = size_of::<SockAddrStorage>() as socklen_t;
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = size_of::<Control>();
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: everything the header points to lives longer than the call, and has
    // the lengths that it says.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: recvmsg has filled in the address and its length.
    let address = unsafe { SockAddr::new(address, header.msg_namelen) };
    Ok(Received {
        length: length.min(buffer.len()),
        address: address.as_socket(),
        control,
        controlled: header.msg_controllen,
    })
}

impl Received {
    /// What came beside it, for [`messages`].
    pub fn control(&self) -> &[u8] {
        self.control.0.get(..self.controlled).unwrap_or_default()
    }
}

/// Reads control messages as far as they are whole (`struct cmsghdr`, cmsg(3)).
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = ControlMessage<'_>> {
    const WORD: usize = size_of::<usize>();
    std::iter::from_fn(move || {
        let length = usize::from_ne_bytes(*rest.first_chunk()?);
        let int = |at: usize| Some(c_int::from_ne_bytes(*rest.get(at..)?.first_chunk()?));
        let message = ControlMessage {
            level: int(WORD)?,
            kind: int(WORD + 4)?,
            data: rest.get(WORD + 8..length)?,
        };
        rest = rest
            .get(length.next_multiple_of(WORD)..)
            .unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_are_read_as_far_as_they_are_whole() {
        let message = |level: c_int, kind: c_int, data: &[u8]| {
            let mut bytes = (size_of::<usize>() + 8 + data.len()).to_ne_bytes().to_vec();
            bytes.extend(level.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
            bytes
        };
        let (one, two) = (message(0, 2, &[64, 0, 0, 0]), message(41, 50, &[7; 20]));
        let bytes = [one.clone(), two].concat();
        let read = |bytes: &[u8]| -> Vec<_> {
            let found = messages(bytes).map(|it| (it.level, it.kind, it.data.to_vec()));
            found.collect()
        };
        let first = (0, 2, vec![64, 0, 0, 0]);
        assert_eq!(read(&bytes), [first.clone(), (41, 50, vec![7; 20])]);
        assert_eq!(read(&bytes[..one.len() + 20]), [first], "the second is cut");
        for wrong in [0_usize, 1, 15, usize::MAX] {
            assert_eq!(read(&[&wrong.to_ne_bytes()[..], &[0; 64]].concat()), []);
        }
    }
}
