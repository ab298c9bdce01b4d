//! What ICMP said of a connection that failed, out of the socket's error queue
//! (ip(7), IP_RECVERR).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Bytes of `struct cmsghdr` and of `struct sock_extended_err`, behind which
/// the sender's address is (include/uapi/linux/errqueue.h).
const HEADER: usize = 16;
const ERROR: usize = 16;

/// Reads the first control message of the error queue. `None` if it is no ICMP
/// error that means anything here.
#[must_use]
pub fn parse(control: &[u8]) -> Option<IcmpError> {
    let int = |at: usize| -> Option<i32> {
        let bytes = control.get(at..at + 4)?;
        Some(i32::from_ne_bytes(bytes.try_into().ok()?))
    };
    if !CONTROL.contains(&(int(8)?, int(12)?)) {
        return None;
    }
    let error = control.get(HEADER..)?;
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

    /// A control message as the kernel writes it.
    fn control(level: i32, kind: i32, error: [u8; 4], offender: &[u8]) -> Vec<u8> {
        let [origin, icmp_type, code, _] = error;
        let mut bytes = Vec::new();
        bytes.extend((HEADER + ERROR + offender.len()).to_ne_bytes());
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(113_u32.to_ne_bytes());
        bytes.extend([origin, icmp_type, code, 0]);
        bytes.extend([0; 8]);
        bytes.extend(offender);
        bytes
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
            let bytes = control(libc::IPPROTO_IP, libc::IP_RECVERR, error, &sender);
            let from = Ipv4Addr::new(192, 0, 2, 1).into();
            let expected = kind.map(|kind| IcmpError { from, kind });
            assert_eq!(parse(&bytes), expected, "{sentence}");
            for len in 0..40 {
                assert_eq!(parse(&bytes[..len]), None, "{sentence}, cut at {len}");
            }
        }
    }

    #[test]
    fn an_error_of_ipv6_is_read_and_what_is_no_icmp_error_is_not() {
        let from: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let sender = [&[10, 0, 0, 0, 0, 0, 0, 0][..], &from.octets(), &[0; 4]].concat();
        let (level, kind) = (libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
        let bytes = control(level, kind, [libc::SO_EE_ORIGIN_ICMP6, 1, 1, 0], &sender);
        let kind_of = |bytes: &[u8]| parse(bytes).map(|error| (error.from, error.kind));
        assert_eq!(kind_of(&bytes), Some((from.into(), IcmpKind::Prohibited)));
        let local = control(level, kind, [libc::SO_EE_ORIGIN_LOCAL, 1, 1, 0], &sender);
        assert_eq!(parse(&local), None, "it is our own");
        let other = control(
            libc::SOL_SOCKET,
            kind,
            [libc::SO_EE_ORIGIN_ICMP6, 1, 1, 0],
            &sender,
        );
        assert_eq!(parse(&other), None, "another control message");
    }
}
