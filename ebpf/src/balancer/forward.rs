//! From a packet for a service to a frame for a backend.

use vipd_abi::{BackendKind, BackendRecord, Head, NextHop, Uplink, Verdict, VipEntry, flow_hash};
use vipd_ebpf::{
    frame::Frame,
    header::{IPV4_HEADER, IPV6_HEADER, UDP_HEADER},
};

use crate::{
    encapsulate, flow, maps,
    parse::{Family, Packet},
    trace,
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
    let place = entry.ring_offset + (hash as u32 & entry.ring_mask);
    let Some(slot) = maps::RING.get_ptr(place) else {
        return Verdict::Inconsistent;
    };
    // SAFETY: map entries stay where they are; the agent stores the word as a
    // whole, and it is read once.
    let slot = unsafe { slot.read_volatile() };
    trace::slot(entry, place, slot, hash);
    let backend = if slot.is_stable() {
        slot.current()
    } else {
        match flow::route(frame, packet, entry, head, place, slot, hash) {
            Some(route) => route.backend,
            None => return Verdict::Inconsistent,
        }
    };
    if backend == 0 {
        return Verdict::NoBackend;
    }
    let Some(backend) = maps::BACKEND_RECORDS.get(backend) else {
        return Verdict::Inconsistent;
    };
    let bytes = frame.len();
    let verdict = to_backend(frame, packet, backend, hash);
    if matches!(verdict, Verdict::Forwarded | Verdict::Redirected) {
        maps::count(backend.counter, bytes);
    }
    verdict
}

#[inline(always)]
fn to_backend(frame: &mut Frame, packet: &Packet, backend: &BackendRecord, hash: u64) -> Verdict {
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
        BackendKind::Gue4 => IPV4_HEADER + UDP_HEADER,
        BackendKind::Gue6 => IPV6_HEADER + UDP_HEADER,
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
        BackendKind::Ipip4 => encapsulate::ipv4(frame, packet, backend, &link, hash),
        BackendKind::Ipip6 => encapsulate::ipv6(frame, packet, backend, &link, hash),
        BackendKind::Gue4 => encapsulate::gue4(frame, packet, backend, &link, hash),
        BackendKind::Gue6 => encapsulate::gue6(frame, packet, backend, &link, hash),
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
    trace::leaves(uplink);
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
            let Some(word) = frame.at::<[u16; 2]>(packet.network + 8) else {
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
            let Some(word) = frame.at::<[u8; 2]>(packet.network + 6) else {
                return false;
            };
            // SAFETY: `at` has checked the bounds: next header, hop limit.
            unsafe { (*word)[1] = packet.ttl - 1 };
        }
    }
    true
}
