//! From a packet for a service to a frame for a backend.

use vipd_abi::{BackendKind, BackendRecord, Head, NextHop, Uplink, Verdict, VipEntry, flow_hash};
use vipd_ebpf::{
    frame::Frame,
    header::{ETHERNET, IPV4_HEADER, IPV6_HEADER},
};

use crate::{
    encapsulate, maps,
    parse::{Family, Packet},
};

/// Ethernet source and destination of a frame, each as the lower 48 bits of
/// a word in the byte order of the wire.
pub struct Link {
    pub source: u64,
    pub destination: u64,
}

/// Chooses the backend and sends the packet on its way.
#[inline(always)]
pub fn packet(frame: &mut Frame, packet: &Packet, entry: &VipEntry, head: &Head) -> Verdict {
    let hash = flow_hash(
        head.flow_key,
        packet.source,
        packet.destination,
        packet.ports,
        packet.protocol,
    );
    let slot = entry.ring_offset + (hash as u32 & entry.ring_mask);
    let Some(slot) = maps::RING.get(slot) else {
        return Verdict::Inconsistent;
    };
    let backend = slot.current();
    if backend == 0 {
        return Verdict::NoBackend;
    }
    let Some(backend) = maps::BACKEND_RECORDS.get(backend) else {
        return Verdict::Inconsistent;
    };
    let bytes = frame.len();
    let verdict = to_backend(frame, packet, backend);
    if matches!(verdict, Verdict::Forwarded | Verdict::Redirected) {
        maps::count(backend.counter, bytes);
    }
    verdict
}

#[inline(always)]
fn to_backend(frame: &mut Frame, packet: &Packet, backend: &BackendRecord) -> Verdict {
    let kind = BackendKind::of(backend.kind);
    let Some(hop) = maps::NEXT_HOP_WORDS.get(backend.next_hop) else {
        return Verdict::Inconsistent;
    };
    let hop = *hop;
    if hop == NextHop::UNRESOLVED {
        return Verdict::NoNextHop;
    }
    let Some(uplink) = maps::UPLINK_RECORDS.get(hop.uplink()) else {
        return Verdict::Inconsistent;
    };
    if packet.ttl <= 1 {
        return Verdict::TtlExpired;
    }
    let outer = match kind {
        BackendKind::L2 => 0,
        BackendKind::Ipip4 => IPV4_HEADER,
        BackendKind::Ipip6 => IPV6_HEADER,
        BackendKind::Unset => return Verdict::Inconsistent,
    };
    if packet.length + outer > uplink.mtu {
        return Verdict::TooBig;
    }
    let link = Link {
        source: uplink.mac_bits,
        destination: hop.mac_bits(),
    };
    if kind == BackendKind::L2 && frame.source() == link.destination {
        return Verdict::Loop;
    }
    if !decrement_ttl(frame, packet) {
        return Verdict::Inconsistent;
    }
    let done = match kind {
        BackendKind::L2 => rewrite(frame, &link),
        BackendKind::Ipip4 => encapsulate::ipv4(frame, packet, backend, &link),
        BackendKind::Ipip6 => encapsulate::ipv6(frame, packet, backend, &link),
        BackendKind::Unset => None,
    };
    if done.is_none() {
        return Verdict::NoHeadroom;
    }
    leave(frame, uplink)
}

/// Out of the interface it came by, or out of another.
#[inline(always)]
fn leave(frame: &Frame, uplink: &Uplink) -> Verdict {
    if uplink.ifindex == frame.ingress() {
        Verdict::Forwarded
    } else {
        frame.redirect(uplink.ifindex);
        Verdict::Redirected
    }
}

#[inline(always)]
fn rewrite(frame: &Frame, link: &Link) -> Option<()> {
    let addresses = frame.at::<[u32; 3]>(0)?;
    // SAFETY: `at` has checked the bounds.
    unsafe { addresses.write_unaligned(link.words()) };
    Some(())
}

impl Link {
    /// Destination and source as the first twelve bytes of a frame.
    #[inline(always)]
    pub fn words(&self) -> [u32; 3] {
        [
            self.destination as u32,
            (self.destination >> 32) as u32 | (self.source as u32) << 16,
            (self.source >> 16) as u32,
        ]
    }
}

/// A balancer forwards like a router, so every pass costs one hop (RFC 2003,
/// section 3.1): a loop of balancers ends by itself.
#[inline(always)]
fn decrement_ttl(frame: &Frame, packet: &Packet) -> bool {
    match packet.family {
        Family::V4 => {
            let Some(word) = frame.at::<[u16; 2]>(ETHERNET + 8) else {
                return false;
            };
            // SAFETY: `at` has checked the bounds: TTL and protocol, checksum.
            unsafe {
                let [ttl_protocol, checksum] = word.read_unaligned();
                // RFC 1624, equation 3, for a word that shrinks by 0x0100.
                let sum = u32::from(!checksum) + u32::from(!0x0001_u16);
                let sum = (sum & 0xffff) + (sum >> 16);
                word.write_unaligned([ttl_protocol - 1, !(sum as u16)]);
            }
        }
        Family::V6 => {
            let Some(hop_limit) = frame.at::<u8>(ETHERNET + 7) else {
                return false;
            };
            // SAFETY: `at` has checked the bounds.
            unsafe { *hop_limit = packet.ttl - 1 };
        }
    }
    true
}
