//! What the kernel has seen lost on a connection.

use std::{io, mem::MaybeUninit, os::fd::AsRawFd, ptr::from_mut};

/// How many segments this side has sent again, its SYN included (tcp(7), `TCP_INFO`).
pub fn retransmissions(socket: &impl AsRawFd) -> io::Result<u32> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most as many bytes as it is told there are, to what
    // lives during the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            from_mut(&mut info).cast(),
            from_mut(&mut length),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is made of integers, of which all zeros are a value, too.
    Ok(unsafe { info.assume_init() }.tcpi_total_retrans)
}
