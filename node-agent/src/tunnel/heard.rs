//! What comes back to packets of our own: of which exchange it is, and whether it
//! says that nobody can be reached.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use etherparse::{
    Icmpv4Type, Icmpv6Type, LaxNetSlice, LaxSlicedPacket, TransportSlice,
    icmpv4::DestUnreachableHeader, icmpv6::DestUnreachableCode,
};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo: identifiers stand for our ports, and the other side has port 0.
    Echo,
}

/// What tells an exchange of packets from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What is spoken.
    pub protocol: Protocol,
    /// Our address and port.
    pub ours: SocketAddr,
    /// Theirs.
    pub theirs: SocketAddr,
}

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An IP packet of the other side.
    Packet(Vec<u8>),
    /// Somebody on the way says that a packet of ours came to nobody.
    Unreachable(Unreachable),
}

/// What ICMP says of a packet (RFC 792, RFC 4443 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// The host is there, and nobody at the port.
    Port,
    /// Anything else.
    Host,
}

impl Unreachable {
    /// What the kernel would say.
    #[must_use]
    pub fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Port => libc::ECONNREFUSED,
            Self::Host => libc::EHOSTUNREACH,
        })
    }
}

/// Reads an IP packet: of which exchange it is, and what it says if it is not of the
/// other side. `None` if it is nothing that anybody waits for.
#[must_use]
pub fn read(packet: &[u8]) -> Option<(Key, Option<Unreachable>)> {
    let (from, to, transport) = slice(packet)?;
    let whole = |key| Some((key, None));
    let unreachable = |kind, quoted| {
        let key = sent(quoted)?;
        // Whom else it was sent by is no matter of ours.
        (key.ours.ip() == to).then_some((key, Some(kind)))
    };
    let key = |protocol, ours, theirs| Key {
        protocol,
        ours: SocketAddr::new(to, ours),
        theirs: SocketAddr::new(from, theirs),
    };
    match transport {
        TransportSlice::Tcp(tcp) => whole(key(
            Protocol::Tcp,
            tcp.destination_port(),
            tcp.source_port(),
        )),
        TransportSlice::Udp(udp) => whole(key(
            Protocol::Udp,
            udp.destination_port(),
            udp.source_port(),
        )),
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            Icmpv4Type::EchoReply(echo) => whole(key(Protocol::Echo, echo.id, 0)),
            // Too large a packet is not the other side's silence.
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                ..
            }) => None,
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port) => {
                unreachable(Unreachable::Port, icmp.payload())
            }
            Icmpv4Type::DestinationUnreachable(_) => unreachable(Unreachable::Host, icmp.payload()),
            _ => None,
        },
        TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
            Icmpv6Type::EchoReply(echo) => whole(key(Protocol::Echo, echo.id, 0)),
            Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port) => {
                unreachable(Unreachable::Port, icmp.payload())
            }
            Icmpv6Type::DestinationUnreachable(_) => unreachable(Unreachable::Host, icmp.payload()),
            _ => None,
        },
        TransportSlice::Igmp(_) => None,
    }
}

/// The exchange that a packet of ours was of, as an ICMP error quotes it.
fn sent(quoted: &[u8]) -> Option<Key> {
    let (from, to, transport) = slice(quoted)?;
    let (protocol, ours, theirs) = match transport {
        TransportSlice::Tcp(tcp) => (Protocol::Tcp, tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (Protocol::Udp, udp.source_port(), udp.destination_port()),
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            Icmpv4Type::EchoRequest(echo) => (Protocol::Echo, echo.id, 0),
            _ => return None,
        },
        TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
            Icmpv6Type::EchoRequest(echo) => (Protocol::Echo, echo.id, 0),
            _ => return None,
        },
        TransportSlice::Igmp(_) => return None,
    };
    Some(Key {
        protocol,
        ours: SocketAddr::new(from, ours),
        theirs: SocketAddr::new(to, theirs),
    })
}

/// Source, destination, and what is in it, of a packet that may be cut off.
fn slice(packet: &[u8]) -> Option<(IpAddr, IpAddr, TransportSlice<'_>)> {
    let sliced = LaxSlicedPacket::from_ip(packet).ok()?;
    let (from, to) = match sliced.net? {
        LaxNetSlice::Ipv4(ip) => (
            IpAddr::V4(ip.header().source_addr()),
            IpAddr::V4(ip.header().destination_addr()),
        ),
        LaxNetSlice::Ipv6(ip) => (
            IpAddr::V6(ip.header().source_addr()),
            IpAddr::V6(ip.header().destination_addr()),
        ),
        LaxNetSlice::Arp(_) => return None,
    };
    Some((from, to, sliced.transport?))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const OURS: [u8; 4] = [192, 0, 2, 11];
    const VIP: [u8; 4] = [198, 51, 100, 10];

    fn written<T: AsRef<[u8]>>(
        payload: T,
        write: impl FnOnce(&mut Vec<u8>, &[u8]) -> Result<(), etherparse::err::packet::BuildWriteError>,
    ) -> Vec<u8> {
        let mut packet = Vec::new();
        write(&mut packet, payload.as_ref()).unwrap();
        packet
    }

    fn key(protocol: Protocol, ours: u16, theirs: u16) -> Key {
        Key {
            protocol,
            ours: (OURS, ours).into(),
            theirs: (VIP, theirs).into(),
        }
    }

    #[test]
    fn answers_are_of_the_exchange_that_they_are_to() {
        let back = || PacketBuilder::ipv4(VIP, OURS, 64);
        let cases = [
            (
                key(Protocol::Tcp, 61_000, 80),
                written("data", |to, data| {
                    back().tcp(80, 61_000, 7, 100).ack(9).write(to, data)
                }),
            ),
            (
                key(Protocol::Udp, 61_001, 53),
                written("data", |to, data| back().udp(53, 61_001).write(to, data)),
            ),
            (
                key(Protocol::Echo, 61_002, 0),
                written("data", |to, data| {
                    back().icmpv4_echo_reply(61_002, 3).write(to, data)
                }),
            ),
        ];
        for (key, packet) in cases {
            assert_eq!(read(&packet), Some((key, None)));
        }
        let request = written("data", |to, data| {
            back().icmpv4_echo_request(61_002, 3).write(to, data)
        });
        assert_eq!(read(&request), None, "somebody asks us");
    }

    #[test]
    fn icmp_errors_are_of_the_exchange_that_they_quote() {
        let sent = written([0; 600], |to, data| {
            PacketBuilder::ipv4(OURS, VIP, 64)
                .udp(61_001, 53)
                .write(to, data)
        });
        let check = |header, quoted: &[u8], expected: Option<Unreachable>| {
            let packet = written(quoted, |to, data| {
                PacketBuilder::ipv4([192, 0, 2, 1], OURS, 64)
                    .icmpv4(Icmpv4Type::DestinationUnreachable(header))
                    .write(to, data)
            });
            let expected = expected.map(|kind| (key(Protocol::Udp, 61_001, 53), Some(kind)));
            assert_eq!(read(&packet), expected);
        };
        // As little as RFC 792 wants of it, and all.
        for length in [28, sent.len()] {
            let quoted = &sent[..length];
            check(DestUnreachableHeader::Port, quoted, Some(Unreachable::Port));
            check(DestUnreachableHeader::Host, quoted, Some(Unreachable::Host));
            let too_large = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
            check(too_large, quoted, None);
        }
        check(DestUnreachableHeader::Port, &sent[..20], None);
        let of_another = written("data", |to, data| {
            PacketBuilder::ipv4([192, 0, 2, 12], VIP, 64)
                .udp(61_001, 53)
                .write(to, data)
        });
        check(DestUnreachableHeader::Port, &of_another, None);
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let packet = written("data", |to, data| {
            PacketBuilder::ipv6([1; 16], [2; 16], 64)
                .tcp(80, 61_000, 7, 100)
                .write(to, data)
        });
        assert!(read(&packet).is_some());
        for length in 0..60 {
            assert_eq!(read(&packet[..length]), None, "{length} octets");
        }
    }
}
