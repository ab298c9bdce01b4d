//! Hears the answers to our packets as they come to this host, before its filters:
//! an answer of a virtual address comes from where no route leads to.

use std::{
    io::{self, Read as _},
    os::fd::AsRawFd,
};

use libc::{
    BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MSH,
    BPF_RET, ETH_P_IP, ETH_P_IPV6,
};
use socket2::{Domain, SockFilter, Socket, Type};

use super::packet::{Answer, Mark};

/// The largest packet.
const PACKET: usize = 1 << 16;
/// IP protocol numbers.
const TCP: u32 = 6;
const ICMP: u32 = 1;
const ICMP_6: u32 = 58;

/// Hears answers of one address family. Needs CAP_NET_RAW.
#[derive(Debug)]
pub struct Ear {
    socket: Socket,
    mark: Mark,
}

impl Ear {
    /// One for each family.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn both(mark: Mark) -> io::Result<[Self; 2]> {
        let ipv4 = Self::open(ETH_P_IP, &ipv4(mark), mark)?;
        let ipv6 = Self::open(ETH_P_IPV6, &ipv6(mark), mark)?;
        Ok([ipv4, ipv6])
    }

    fn open(protocol: i32, filter: &[SockFilter], mark: Mark) -> io::Result<Self> {
        // Of no protocol until it has its filter: it hears nothing else.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
        socket.attach_filter(filter)?;
        let protocol = (protocol as u16).to_be();
        bind(&socket, protocol)?;
        Ok(Self { socket, mark })
    }

    /// The next answer.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when none waits.
    pub fn next(&self) -> io::Result<Answer> {
        let mut buffer = vec![0; PACKET];
        loop {
            let length = (&self.socket).read(&mut buffer)?;
            let packet = buffer.get(..length).unwrap_or_default();
            if let Some(answer) = self.mark.read(packet) {
                return Ok(answer);
            }
        }
    }
}

/// Has a packet socket hear this protocol on all interfaces.
fn bind(socket: &Socket, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address lives during the call, and its length is told.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// TCP to our port, and ICMP with our identifier.
fn ipv4(mark: Mark) -> [SockFilter; 11] {
    [
        step(BPF_LD | BPF_B | BPF_ABS, 9),
        fork(TCP, 1, 0),
        fork(ICMP, 3, 7),
        step(BPF_LDX | BPF_B | BPF_MSH, 0),
        step(BPF_LD | BPF_H | BPF_IND, 2),
        step(BPF_JMP | BPF_JA, 2),
        step(BPF_LDX | BPF_B | BPF_MSH, 0),
        step(BPF_LD | BPF_H | BPF_IND, 4),
        fork(mark.id.into(), 0, 1),
        step(BPF_RET | BPF_K, PACKET as u32),
        step(BPF_RET | BPF_K, 0),
    ]
}

/// The same over IPv6, without extension headers.
fn ipv6(mark: Mark) -> [SockFilter; 9] {
    [
        step(BPF_LD | BPF_B | BPF_ABS, 6),
        fork(TCP, 1, 0),
        fork(ICMP_6, 2, 5),
        step(BPF_LD | BPF_H | BPF_ABS, 42),
        step(BPF_JMP | BPF_JA, 1),
        step(BPF_LD | BPF_H | BPF_ABS, 44),
        fork(mark.id.into(), 0, 1),
        step(BPF_RET | BPF_K, PACKET as u32),
        step(BPF_RET | BPF_K, 0),
    ]
}

/// An instruction of classic BPF (linux/filter.h).
const fn step(code: u32, k: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, k)
}

/// So many instructions are left out if the accumulator is `k`, and if not.
const fn fork(k: u32, jt: u8, jf: u8) -> SockFilter {
    SockFilter::new((BPF_JMP | BPF_JEQ | BPF_K) as u16, jt, jf, k)
}
