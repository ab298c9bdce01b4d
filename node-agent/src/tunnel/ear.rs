//! Hears the answers to our packets as they come to this host, before its filters:
//! an answer of a virtual address comes from where no route leads to.

use std::{
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use libc::{
    BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_LDX,
    BPF_MSH, BPF_RET, BPF_W, ETH_P_IP, ETH_P_IPV6, SKF_AD_OFF, SKF_AD_PKTTYPE, sock_filter,
};
use socket2::{Domain, SockFilter, Socket, Type};

use super::ports::FIRST;
use crate::sockopt::enlarge_receiving;

/// The largest packet, in octets.
pub const PACKET: usize = 1 << 16;
/// IP protocol numbers.
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMP: u32 = 1;
const ICMP_6: u32 = 58;
/// A packet to this host itself (linux/if_packet.h).
const PACKET_HOST: u32 = 0;
/// ICMP types that say that a packet came to nobody (RFC 792, RFC 4443).
const UNREACHABLE: u32 = 3;
const UNREACHABLE_6: u32 = 1;

/// Hears answers of one address family. Needs CAP_NET_RAW.
#[derive(Debug)]
pub struct Ear {
    socket: Socket,
}

impl Ear {
    /// One for each family.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn both() -> io::Result<[Self; 2]> {
        Ok([
            Self::open(ETH_P_IP, &ipv4())?,
            Self::open(ETH_P_IPV6, &ipv6())?,
        ])
    }

    /// Hears what a socket of another kind gets.
    #[cfg(test)]
    pub const fn of(socket: Socket) -> Self {
        Self { socket }
    }

    fn open(protocol: i32, filter: &[sock_filter]) -> io::Result<Self> {
        let filter = filter.iter();
        let filter = filter.map(|it| SockFilter::new(it.code, it.jt, it.jf, it.k));
        let socket = tap(protocol, &filter.collect::<Vec<_>>())?;
        enlarge_receiving(&socket)?;
        Ok(Self { socket })
    }

    /// The length of the next IP packet, which is put into `buffer`.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when none waits.
    pub fn next(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.socket).read(buffer)
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Ear {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A socket that gets a copy of what comes in by a protocol (`ETH_P_*`), by any
/// interface, and passes the filter.
///
/// # Errors
/// Without CAP_NET_RAW.
pub fn tap(protocol: i32, filter: &[SockFilter]) -> io::Result<Socket> {
    // Of no protocol until it has its filter: it hears nothing else.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
    socket.attach_filter(filter)?;
    bind(&socket, (protocol as u16).to_be())?;
    Ok(socket)
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

/// Goes on with what is for this host; what others get is only seen.
const fn to_us() -> [sock_filter; 3] {
    [
        step(
            BPF_LD | BPF_W | BPF_ABS,
            (SKF_AD_OFF + SKF_AD_PKTTYPE).cast_unsigned(),
        ),
        fork(PACKET_HOST, 1, 0),
        step(BPF_RET | BPF_K, 0),
    ]
}

/// TCP and UDP to our ports, ICMP with identifiers like them, and what says that
/// nobody was reached.
fn ipv4() -> [sock_filter; 17] {
    let [kind, own, end] = to_us();
    [
        kind,
        own,
        end,
        step(BPF_LD | BPF_B | BPF_ABS, 9),
        fork(TCP, 2, 0),
        fork(UDP, 1, 0),
        fork(ICMP, 3, 9),
        step(BPF_LDX | BPF_B | BPF_MSH, 0),
        step(BPF_LD | BPF_H | BPF_IND, 2),
        step(BPF_JMP | BPF_JA, 4),
        step(BPF_LDX | BPF_B | BPF_MSH, 0),
        step(BPF_LD | BPF_B | BPF_IND, 0),
        fork(UNREACHABLE, 2, 0),
        step(BPF_LD | BPF_H | BPF_IND, 4),
        OURS,
        step(BPF_RET | BPF_K, PACKET as u32),
        step(BPF_RET | BPF_K, 0),
    ]
}

/// The same over IPv6, without extension headers.
fn ipv6() -> [sock_filter; 15] {
    let [kind, own, end] = to_us();
    [
        kind,
        own,
        end,
        step(BPF_LD | BPF_B | BPF_ABS, 6),
        fork(TCP, 2, 0),
        fork(UDP, 1, 0),
        fork(ICMP_6, 2, 7),
        step(BPF_LD | BPF_H | BPF_ABS, 42),
        step(BPF_JMP | BPF_JA, 3),
        step(BPF_LD | BPF_B | BPF_ABS, 40),
        fork(UNREACHABLE_6, 2, 0),
        step(BPF_LD | BPF_H | BPF_ABS, 44),
        OURS,
        step(BPF_RET | BPF_K, PACKET as u32),
        step(BPF_RET | BPF_K, 0),
    ]
}

/// Goes on if the accumulator is one of our ports, else leaves one out.
const OURS: sock_filter = sock_filter {
    jf: 1,
    ..step(BPF_JMP | BPF_JGE | BPF_K, FIRST as u32)
};

/// An instruction of classic BPF (linux/filter.h).
const fn step(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// So many instructions are left out if the accumulator is `k`, and if not.
const fn fork(k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        jt,
        jf,
        ..step(BPF_JMP | BPF_JEQ | BPF_K, k)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    /// Whether the filter takes a packet of this type.
    fn takes(program: &[sock_filter], kind: u32, packet: &[u8]) -> bool {
        let octets = |at: u32, count: usize| {
            let octets = &packet[at as usize..][..count];
            octets.iter().fold(0, |all, it| all << 8 | u32::from(*it))
        };
        let (mut at, mut a, mut x) = (0, 0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |holds| usize::from(if holds { jt } else { jf });
            match u32::from(code) {
                // The only word that is asked for.
                code if code == BPF_LD | BPF_W | BPF_ABS => a = kind,
                code if code == BPF_LD | BPF_B | BPF_ABS => a = octets(k, 1),
                code if code == BPF_LD | BPF_H | BPF_ABS => a = octets(k, 2),
                code if code == BPF_LD | BPF_B | BPF_IND => a = octets(x + k, 1),
                code if code == BPF_LD | BPF_H | BPF_IND => a = octets(x + k, 2),
                code if code == BPF_LDX | BPF_B | BPF_MSH => x = (octets(k, 1) & 0xf) * 4,
                code if code == BPF_JMP | BPF_JA => at += k as usize,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => at += jump(a == k),
                code if code == BPF_JMP | BPF_JGE | BPF_K => at += jump(a >= k),
                code if code == BPF_RET | BPF_K => return k != 0,
                code => panic!("{code:#x} is not known here"),
            }
        }
    }

    macro_rules! written {
        ($builder:expr) => {{
            let mut packet = Vec::new();
            $builder.write(&mut packet, b"data").expect("room");
            packet
        }};
    }

    #[test]
    fn only_answers_to_this_host_itself_are_heard() {
        let mut packets = Vec::new();
        for port in [FIRST - 1, FIRST, u16::MAX] {
            let ipv4 = || PacketBuilder::ipv4([198, 51, 100, 10], [192, 0, 2, 11], 64);
            let ipv6 = || PacketBuilder::ipv6([1; 16], [2; 16], 64);
            for (packet, is_ipv4) in [
                (written!(ipv4().udp(53, port)), true),
                (written!(ipv4().tcp(80, port, 1, 1)), true),
                (written!(ipv4().icmpv4_echo_reply(port, 1)), true),
                (written!(ipv6().udp(53, port)), false),
                (written!(ipv6().tcp(80, port, 1, 1)), false),
                (written!(ipv6().icmpv6_echo_reply(port, 1)), false),
            ] {
                packets.push((packet, is_ipv4, port >= FIRST));
            }
        }
        for (packet, is_ipv4, is_ours) in packets {
            let program = if is_ipv4 { &ipv4()[..] } else { &ipv6()[..] };
            assert_eq!(takes(program, PACKET_HOST, &packet), is_ours, "{packet:x?}");
            // To all, to many, to another host.
            for kind in 1..=3 {
                assert!(!takes(program, kind, &packet), "{kind}: {packet:x?}");
            }
        }
    }
}
