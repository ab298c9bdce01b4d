//! What ICMP said of a connection that failed, out of the socket's error queue
//! (ip(7), IP_RECVERR).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::sockopt::{ControlMessage, messages};

/// An ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Who sent it.
    pub from: IpAddr,
    /// What it says.
    pub kind: IcmpKind,
}

/// What an ICMP error says, as far as an operator acts on it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// The TTL or hop limit was used up.
    HopsExceeded,
    /// A packet filter or policy forbids it.
    Prohibited,
    /// Nothing takes it at that port, which a packet filter may say too.
    Port,
    /// No way leads there, or nobody is there.
    Unreachable,
}

/// Level and type of the control message (include/uapi/linux/in.h, in6.h).
const CONTROL: [(i32, i32); 2] = [
    (libc::IPPROTO_IP, libc::IP_RECVERR),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
];

/// Bytes of `struct sock_extended_err`, behind which the sender's address is
/// (include/uapi/linux/errqueue.h).
const ERROR: usize = 16;

/// Reads the control messages of the error queue. `None` if there is no ICMP error
/// that means anything here.
#[must_use]
pub fn parse(control: &[u8]) -> Option<IcmpError> {
    messages(control).find_map(read)
}

fn read(message: ControlMessage<'_>) -> Option<IcmpError> {
    if !CONTROL.contains(&(message.level, message.kind)) {
        return None;
    }
    let error = message.data;
    let [origin, kind, code] = *error.get(4..7)? else {
        return None;
    };
    let offender = error.get(ERROR..)?;
    let (from, kind) = match origin {
        libc::SO_EE_ORIGIN_ICMP => (v4(offender)?.into(), kind_v4(kind, code)?),
        libc::SO_EE_ORIGIN_ICMP6 => (v6(offender)?.into(), kind_v6(kind, code)?),
        _ => return None,
    };
    Some(IcmpError { from, kind })
}

/// The address of a `struct sockaddr_in`.
fn v4(address: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = address.get(4..8)?.try_into().ok()?;
    Some(octets.into())
}

/// The address of a `struct sockaddr_in6`.
fn v6(address: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = address.get(8..24)?.try_into().ok()?;
    Some(octets.into())
}

/// RFC 792, RFC 1812 section 5.2.7.1.
fn kind_v4(kind: u8, code: u8) -> Option<IcmpKind> {
    match (kind, code) {
        (3, 3) => Some(IcmpKind::Port),
        (3, 9 | 10 | 13) => Some(IcmpKind::Prohibited),
        (3, 0 | 1 | 5..=8 | 11 | 12) => Some(IcmpKind::Unreachable),
        (11, 0) => Some(IcmpKind::HopsExceeded),
        _ => None,
    }
}

/// RFC 4443.
fn kind_v6(kind: u8, code: u8) -> Option<IcmpKind> {
    match (kind, code) {
        (1, 4) => Some(IcmpKind::Port),
        (1, 1 | 5 | 6) => Some(IcmpKind::Prohibited),
        (1, 0 | 2 | 3) => Some(IcmpKind::Unreachable),
        (3, 0) => Some(IcmpKind::HopsExceeded),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel writes into a control message.
    fn data(error: [u8; 4], offender: &[u8]) -> Vec<u8> {
        let [origin, icmp_type, code, _] = error;
        let mut bytes = 113_u32.to_ne_bytes().to_vec();
        bytes.extend([origin, icmp_type, code, 0]);
        bytes.extend([0; 8]);
        bytes.extend(offender);
        bytes
    }

    fn parse((level, kind): (i32, i32), data: &[u8]) -> Option<IcmpError> {
        read(ControlMessage { level, kind, data })
    }

    #[test]
    fn an_error_is_read_with_its_sender_however_it_is_cut() {
        let sender: [u8; 16] = [2, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let table = [
            ("the TTL was used up", (11, 0), Some(IcmpKind::HopsExceeded)),
            ("prohibited", (3, 13), Some(IcmpKind::Prohibited)),
            ("no such port", (3, 3), Some(IcmpKind::Port)),
            ("no such host", (3, 1), Some(IcmpKind::Unreachable)),
            ("too big, which is no failure", (3, 4), None),
        ];
        for (sentence, (icmp_type, code), kind) in table {
            let error = [libc::SO_EE_ORIGIN_ICMP, icmp_type, code, 0];
            let bytes = data(error, &sender);
            let of_ip = |data| parse((libc::IPPROTO_IP, libc::IP_RECVERR), data);
            let from = Ipv4Addr::new(192, 0, 2, 1).into();
            let expected = kind.map(|kind| IcmpError { from, kind });
            assert_eq!(of_ip(&bytes), expected, "{sentence}");
            for len in 0..24 {
                assert_eq!(of_ip(&bytes[..len]), None, "{sentence}, cut at {len}");
            }
        }
    }

    #[test]
    fn an_error_of_ipv6_is_read_and_what_is_no_icmp_error_is_not() {
        let from: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let sender = [&[10, 0, 0, 0, 0, 0, 0, 0][..], &from.octets(), &[0; 4]].concat();
        let of_ipv6 = (libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
        let bytes = data([libc::SO_EE_ORIGIN_ICMP6, 1, 1, 0], &sender);
        let found = parse(of_ipv6, &bytes).map(|error| (error.from, error.kind));
        assert_eq!(found, Some((from.into(), IcmpKind::Prohibited)));
        let other = parse((libc::SOL_SOCKET, libc::IPV6_RECVERR), &bytes);
        assert_eq!(other, None, "another control message");
        let local = data([libc::SO_EE_ORIGIN_LOCAL, 1, 1, 0], &sender);
        assert_eq!(parse(of_ipv6, &local), None, "it is our own");
    }
}
