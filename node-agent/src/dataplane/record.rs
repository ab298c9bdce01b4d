//! From a backend and the way to it to the record that packets are sent by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vipd_abi::{BackendKind, BackendRecord};
use vipd_control::model::Mode;

use super::tables::mapped;
use crate::netlink::way::Way;

/// Outer source addresses that the configuration prescribes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelSources {
    /// For outer IPv4 headers.
    pub ipv4: Option<Ipv4Addr>,
    /// For outer IPv6 headers.
    pub ipv6: Option<Ipv6Addr>,
}

impl TunnelSources {
    /// The outer source towards `destination`.
    fn towards(&self, destination: IpAddr, way: Option<&Way>) -> Option<IpAddr> {
        let fixed = match destination {
            IpAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        };
        fixed.or_else(|| way.and_then(|way| way.source))
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
    };
    let source = match kind {
        BackendKind::Ipip4 | BackendKind::Ipip6 | BackendKind::Gue4 | BackendKind::Gue6 => {
            sources.towards(address, way).map_or([0; 16], mapped)
        }
        BackendKind::L2 | BackendKind::Unset => [0; 16],
    };
    BackendRecord {
        source,
        destination,
        kind: kind as u32,
        checksum: match kind {
            BackendKind::Ipip4 => partial_checksum(&source, &destination),
            _ => 0,
        },
        ..BackendRecord::default()
    }
}

/// One's complement sum of an outer IPv4 header whose TOS, length and
/// checksum are zero (RFC 1071).
fn partial_checksum(source: &[u8; 16], destination: &[u8; 16]) -> u32 {
    const VERSION_IHL: u32 = 0x4500;
    const DONT_FRAGMENT: u32 = 0x4000;
    const TTL_PROTOCOL: u32 = 64 << 8 | 4;
    let words = source[12..]
        .chunks_exact(2)
        .chain(destination[12..].chunks_exact(2));
    let mut sum = VERSION_IHL
        + DONT_FRAGMENT
        + TTL_PROTOCOL
        + words
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
