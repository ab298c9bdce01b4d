//! From a backend and the way to it to the record that packets are sent by.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vipd_abi::{BackendKind, BackendRecord};
use vipd_control::model::Mode;

use super::tables::mapped;
use crate::{config::Dataplane, netlink::way::Way};

/// Outer source addresses that the configuration prescribes; the bits after a
/// prefix are left to the flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelSources {
    /// For outer IPv4 headers.
    pub ipv4: Option<Ipv4Net>,
    /// For outer IPv6 headers.
    pub ipv6: Option<Ipv6Net>,
}

impl From<&Dataplane> for TunnelSources {
    fn from(dataplane: &Dataplane) -> Self {
        Self {
            ipv4: dataplane.tunnel_source_ipv4,
            ipv6: dataplane.tunnel_source_ipv6,
        }
    }
}

impl TunnelSources {
    /// The outer source towards `destination`.
    #[must_use]
    pub fn towards(&self, destination: IpAddr, way: Option<&Way>) -> Option<IpNet> {
        let fixed = match destination {
            IpAddr::V4(_) => self.ipv4.map(IpNet::V4),
            IpAddr::V6(_) => self.ipv6.map(IpNet::V6),
        };
        fixed.or_else(|| Some(way?.source?.into()))
    }
}

/// The record without its indices. While no source address is known, the
/// next hop is not either, and packets are dropped as `no_next_hop`.
pub fn record(
    mode: Mode,
    address: IpAddr,
    way: Option<&Way>,
    sources: &TunnelSources,
) -> BackendRecord {
    let destination = mapped(address);
    let kind = match (mode, address) {
        (Mode::L2Dsr, _) => BackendKind::L2,
        (Mode::Ipip, IpAddr::V4(_)) => BackendKind::Ipip4,
        (Mode::Ipip, IpAddr::V6(_)) => BackendKind::Ipip6,
        (Mode::Gue(_), IpAddr::V4(_)) => BackendKind::Gue4,
        (Mode::Gue(_), IpAddr::V6(_)) => BackendKind::Gue6,
        // Nothing is sent anywhere.
        (Mode::Local, _) => BackendKind::Unset,
    };
    let source = match mode {
        Mode::Ipip | Mode::Gue(_) => sources.towards(address, way),
        Mode::L2Dsr | Mode::Local => None,
    };
    let port = match mode {
        Mode::Gue(port) => port.get().to_be().into(),
        Mode::L2Dsr | Mode::Ipip | Mode::Local => 0,
    };
    let entropy = source.map_or(0, entropy);
    let source = source.map_or([0; 16], |source| mapped(source.network()));
    BackendRecord {
        source,
        destination,
        kind: kind as u32,
        checksum: match kind {
            BackendKind::Ipip4 => partial_checksum(IPV4_IN_IP, &source, &destination),
            BackendKind::Gue4 => partial_checksum(UDP, &source, &destination),
            BackendKind::L2 | BackendKind::Ipip6 | BackendKind::Gue6 | BackendKind::Unset => 0,
        },
        entropy,
        port,
        ..BackendRecord::default()
    }
}

/// IP protocol numbers.
const IPV4_IN_IP: u32 = 4;
const UDP: u32 = 17;

/// The bits of a source that the flow fills: all of the last 32 that are not
/// of the prefix, as they lie in memory.
fn entropy(source: IpNet) -> u32 {
    let free = source.max_prefix_len() - source.prefix_len();
    let mask = u32::MAX.checked_shr(32 - u32::from(free.min(32)));
    mask.unwrap_or(0).to_be()
}

/// One's complement sum of an outer IPv4 header whose TOS, length and
/// checksum are zero (RFC 1071).
fn partial_checksum(protocol: u32, source: &[u8; 16], destination: &[u8; 16]) -> u32 {
    const VERSION_IHL: u32 = 0x4500;
    const DONT_FRAGMENT: u32 = 0x4000;
    const TTL: u32 = 64 << 8;
    let words = source[12..]
        .chunks_exact(2)
        .chain(destination[12..].chunks_exact(2));
    let mut sum = VERSION_IHL
        + DONT_FRAGMENT
        + TTL
        + protocol
        + words
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    /// The sum of the outer header's words but for TOS, length and checksum,
    /// by RFC 1071, of such a source.
    fn whole_sum(protocol: u8, source: [u8; 4], destination: [u8; 4]) -> u16 {
        let [a, b, c, d] = source;
        let [e, f, g, h] = destination;
        let header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        let words = [a, b, c, d, e, f, g, h];
        let bytes: Vec<u8> = header.into_iter().chain(words).collect();
        let sum: u32 = bytes
            .chunks_exact(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        u16::try_from(sum % 0xffff).unwrap()
    }

    #[test]
    fn a_record_has_what_its_mode_sends() {
        let gue = Mode::Gue(NonZeroU16::new(6080).unwrap());
        let sources = |v4: &str, v6: &str| TunnelSources {
            ipv4: Some(v4.parse().unwrap()),
            ipv6: Some(v6.parse().unwrap()),
        };
        let plain = sources("192.0.2.11/32", "2001:db8::11/128");
        let spread = sources("203.0.112.0/23", "2001:db8:f::/64");
        let narrow = sources("203.0.113.64/29", "2001:db8:f::/120");
        let (v4, v6) = ("192.0.2.21", "2001:db8::21");
        for (mode, backend, sources, kind, protocol, source, entropy) in [
            (Mode::L2Dsr, v4, plain, BackendKind::L2, None, "::", [0; 4]),
            (Mode::L2Dsr, v6, spread, BackendKind::L2, None, "::", [0; 4]),
            (
                Mode::Ipip,
                v4,
                plain,
                BackendKind::Ipip4,
                Some(4),
                "192.0.2.11",
                [0; 4],
            ),
            (
                Mode::Ipip,
                v4,
                spread,
                BackendKind::Ipip4,
                Some(4),
                "203.0.112.0",
                [0, 0, 1, 255],
            ),
            (
                Mode::Ipip,
                v6,
                spread,
                BackendKind::Ipip6,
                None,
                "2001:db8:f::",
                [255; 4],
            ),
            (
                gue,
                v4,
                narrow,
                BackendKind::Gue4,
                Some(17),
                "203.0.113.64",
                [0, 0, 0, 7],
            ),
            (
                gue,
                v6,
                narrow,
                BackendKind::Gue6,
                None,
                "2001:db8:f::",
                [0, 0, 0, 255],
            ),
            (
                gue,
                v6,
                plain,
                BackendKind::Gue6,
                None,
                "2001:db8::11",
                [0; 4],
            ),
        ] {
            let backend: IpAddr = backend.parse().unwrap();
            let source: IpAddr = source.parse().unwrap();
            let record = record(mode, backend, None, &sources);
            assert_eq!(record.kind, kind as u32, "{record:?}");
            assert_eq!(record.destination, mapped(backend), "{record:?}");
            assert_eq!(record.source, mapped(source), "{record:?}");
            assert_eq!(record.entropy.to_ne_bytes(), entropy, "{record:?}");
            let sum = match (protocol, source, backend) {
                (Some(protocol), IpAddr::V4(source), IpAddr::V4(backend)) => {
                    whole_sum(protocol, source.octets(), backend.octets())
                }
                _ => 0,
            };
            assert_eq!(record.checksum, u32::from(sum), "{record:?}");
            let port = if mode == gue { [0x17, 0xc0] } else { [0; 2] };
            assert_eq!((record.port as u16).to_ne_bytes(), port, "{record:?}");
        }
    }
}
