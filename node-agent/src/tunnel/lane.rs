//! How packets for a backend are carried, as the data plane carries them:
//! `ebpf/src/balancer/encapsulate.rs` does the same for traffic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};
use vipd_control::model::Mode;

use crate::{dataplane::record::TunnelSources, netlink::way::Way};

/// Octets of the headers in front of a carried packet.
const IPV4: u16 = 20;
const IPV6: u16 = 40;
const UDP: u16 = 8;
/// TTL and hop limit of outer headers.
const TTL: u8 = 64;
/// Source port of GUE (RFC 6335, section 6: a dynamic port).
const GUE_SOURCE: u16 = 49_152;
/// The largest packet a client sends: what fits Ethernet.
pub const CLIENT_MTU: u32 = 1500;

/// How packets for a backend are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// What is done to a packet.
    pub mode: Mode,
    /// The backend.
    pub backend: IpAddr,
    /// Source of the outer header; `None` where there is none.
    pub source: Option<IpAddr>,
    /// The way to the backend.
    pub way: Way,
}

/// A packet on its lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// A whole IP packet for this address.
    Packet(Vec<u8>, IpAddr),
    /// The inner packet, to be put into a frame for the way's neighbour.
    Frame,
}

impl Lane {
    /// The lane to a backend, by the outer sources of the data plane.
    #[must_use]
    pub fn new(mode: Mode, backend: IpAddr, way: Way, sources: &TunnelSources) -> Self {
        let source = match mode {
            Mode::L2Dsr | Mode::Local => None,
            Mode::Ipip | Mode::Gue(_) => sources.towards(backend, Some(&way)),
        };
        Self {
            mode,
            backend,
            source: source.map(|source| source.network()),
            way,
        }
    }

    /// Octets that a packet grows by.
    #[must_use]
    pub fn overhead(&self) -> u32 {
        let ip = match self.backend {
            IpAddr::V4(_) => IPV4,
            IpAddr::V6(_) => IPV6,
        };
        u32::from(match self.mode {
            Mode::L2Dsr | Mode::Local => 0,
            Mode::Ipip => ip,
            Mode::Gue(_) => ip + UDP,
        })
    }

    /// The largest packet of a client that the data plane sends this way.
    #[must_use]
    pub fn inner_mtu(&self) -> u32 {
        let fits = self.way.uplink.mtu.saturating_sub(self.overhead());
        fits.min(CLIENT_MTU)
    }

    /// Puts a packet on its lane. `None` if it is no IP packet, is too long, or
    /// its outer source is not known.
    #[must_use]
    pub fn carry(&self, inner: &[u8]) -> Option<Carried> {
        let length = u16::try_from(inner.len()).ok()?;
        let inner_protocol = match inner.first()? >> 4 {
            4 => IpNumber::IPV4,
            6 => IpNumber::IPV6,
            _ => return None,
        };
        let (protocol, udp) = match self.mode {
            Mode::L2Dsr => return Some(Carried::Frame),
            Mode::Local => return None,
            Mode::Ipip => (inner_protocol, None),
            Mode::Gue(port) => {
                let header = UdpHeader {
                    source_port: GUE_SOURCE,
                    destination_port: port.get(),
                    length: length.checked_add(UDP)?,
                    // As the data plane: none (RFC 6936).
                    checksum: 0,
                };
                (IpNumber::UDP, Some(header.to_bytes()))
            }
        };
        let payload = length.checked_add(if udp.is_some() { UDP } else { 0 })?;
        let mut packet = match (self.source?, self.backend) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                outer_ipv4(source, destination, protocol, payload)?
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                outer_ipv6(source, destination, protocol, payload)
            }
            _ => return None,
        };
        packet.extend(udp.iter().flatten());
        packet.extend(inner);
        Some(Carried::Packet(packet, self.backend))
    }
}

fn outer_ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpNumber,
    payload: u16,
) -> Option<Vec<u8>> {
    let (source, destination) = (source.octets(), destination.octets());
    let mut header = Ipv4Header::new(payload, TTL, protocol, source, destination).ok()?;
    header.dont_fragment = true;
    header.header_checksum = header.calc_header_checksum();
    Some(header.to_bytes().to_vec())
}

fn outer_ipv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: IpNumber,
    payload_length: u16,
) -> Vec<u8> {
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length,
        next_header,
        hop_limit: TTL,
        source: source.octets(),
        destination: destination.octets(),
    };
    header.to_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use vipd_abi::Uplink;

    use super::*;

    fn lane(mode: Mode, backend: &str) -> Lane {
        let way = Way {
            mac: [2, 0, 0, 0, 0, 1],
            uplink: Uplink {
                mac_bits: 0,
                ifindex: 7,
                mtu: 1600,
            },
            gateway: None,
            source: None,
        };
        let sources = TunnelSources {
            ipv4: Some("203.0.112.0/23".parse().unwrap()),
            ipv6: Some("2001:db8:f::/64".parse().unwrap()),
        };
        Lane::new(mode, backend.parse().unwrap(), way, &sources)
    }

    #[test]
    fn a_packet_is_carried_as_traffic_is() {
        let gue = Mode::Gue(NonZeroU16::new(6080).unwrap());
        let inner = {
            let mut bytes = outer_ipv4(
                [192, 0, 2, 1].into(),
                [192, 0, 2, 2].into(),
                IpNumber::UDP,
                8,
            )
            .unwrap();
            bytes.extend([0; 8]);
            bytes
        };
        for (sentence, lane, protocol, overhead) in [
            ("4in4", lane(Mode::Ipip, "192.0.2.21"), 4, 20),
            ("4in6", lane(Mode::Ipip, "2001:db8::21"), 4, 40),
            ("GUE over IPv4", lane(gue, "192.0.2.21"), 17, 28),
            ("GUE over IPv6", lane(gue, "2001:db8::21"), 17, 48),
        ] {
            let Some(Carried::Packet(packet, to)) = lane.carry(&inner) else {
                panic!("{sentence}: not carried");
            };
            assert_eq!(to, lane.backend, "{sentence}");
            assert_eq!(lane.overhead(), overhead, "{sentence}");
            assert_eq!(packet.len(), inner.len() + overhead as usize, "{sentence}");
            assert!(packet.ends_with(&inner), "{sentence}");
            let sliced = SlicedPacket::from_ip(&packet).unwrap();
            match sliced.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    let header = ip.header();
                    assert_eq!(header.protocol().0, protocol, "{sentence}");
                    assert!(header.dont_fragment(), "{sentence}");
                    assert_eq!(header.source(), [203, 0, 112, 0], "{sentence}");
                }
                NetSlice::Ipv6(ip) => {
                    assert_eq!(ip.header().next_header().0, protocol, "{sentence}");
                }
                NetSlice::Arp(_) => panic!("{sentence}: ARP"),
            }
            let port = sliced.transport.and_then(|transport| match transport {
                TransportSlice::Udp(udp) => Some((udp.destination_port(), udp.checksum())),
                _ => None,
            });
            let expected = (protocol == 17).then_some((6080, 0));
            assert_eq!(port, expected, "{sentence}");
        }
        let on_link = lane(Mode::L2Dsr, "192.0.2.21");
        assert_eq!(on_link.carry(&inner), Some(Carried::Frame));
        assert_eq!(on_link.carry(&[0; 20]), None, "no IP packet");
    }

    #[test]
    fn the_largest_packet_is_what_a_client_sends_or_what_fits() {
        let with_mtu = |mode, mtu| {
            let mut lane = lane(mode, "192.0.2.21");
            lane.way.uplink.mtu = mtu;
            lane.inner_mtu()
        };
        assert_eq!(with_mtu(Mode::Ipip, 1600), 1500);
        assert_eq!(with_mtu(Mode::Ipip, 1500), 1480);
        assert_eq!(with_mtu(Mode::L2Dsr, 1500), 1500);
        assert_eq!(with_mtu(Mode::L2Dsr, 9000), 1500);
    }
}
