//! From a packet for a service to a frame for a backend.

use vipd_abi::{
    BACKENDS, BackendKind, BackendRecord, NEXT_HOPS, NextHop, Plane, RING_SLOTS, UPLINKS, Uplink,
    Verdict, VipEntry, flow_hash,
};
use vipd_ebpf::{
    anchor::{anchor, within},
    frame::{Addresses, Frame},
    header::{ETHERNET, IPV4_HEADER, IPV6_HEADER, UDP_HEADER, VLAN_TAG},
};

use crate::{
    encapsulate,
    flow::{self, Layer4},
    lookup::Table,
    odd::too_big,
    outcome::Outcome,
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
pub fn packet(frame: &mut Frame, packet: &Packet, entry: &VipEntry, table: &Table) -> Outcome {
    if !table.is_for(frame.destination()) {
        return Verdict::OtherHost.into();
    }
    let hash = flow_hash(
        table.head.flow_key,
        packet.source,
        packet.destination,
        packet.ports,
        packet.protocol,
    );
    match choose(frame, packet, entry, table, hash) {
        0 => Verdict::NoBackend.into(),
        backend => send(frame, packet, table.plane, backend, hash),
    }
}

/// The record of the backend that the flow belongs to; 0 is nobody.
#[inline(always)]
pub fn choose(frame: &Frame, packet: &Packet, entry: &VipEntry, table: &Table, hash: u64) -> u32 {
    let place = entry.slot(hash);
    let slot = &raw const table.plane.ring[within::<RING_SLOTS>(place)];
    // SAFETY: the agent stores the word as a whole, and it is read once.
    let slot = unsafe { slot.read_volatile() };
    trace::slot(entry, place, slot, hash);
    if slot.is_stable() {
        return slot.current();
    }
    flow::route(frame.context(), entry, slot, hash, Layer4::of(packet))
}

/// Sends the packet to a backend.
#[inline(always)]
pub fn send(frame: &mut Frame, packet: &Packet, plane: &Plane, backend: u32, hash: u64) -> Outcome {
    let index = within::<BACKENDS>(backend);
    let backend = anchor(&plane.records[index]);
    trace::backend(index, backend);
    match to_backend(frame, packet, plane, backend, hash) {
        Ok(verdict) => Outcome::sent(verdict, backend.counter),
        Err(verdict) => verdict.into(),
    }
}

/// Each kind goes its own way as far as it can: what it knows is not asked
/// again.
#[inline(always)]
fn to_backend(
    frame: &mut Frame,
    packet: &Packet,
    plane: &Plane,
    backend: &BackendRecord,
    hash: u64,
) -> Result<Verdict, Verdict> {
    let hop = &raw const plane.hops[within::<NEXT_HOPS>(backend.next_hop)];
    // SAFETY: the agent stores the word as a whole, and it is read once.
    let hop = unsafe { hop.read_volatile() };
    if hop == NextHop::UNRESOLVED {
        return Err(Verdict::NoNextHop);
    }
    if packet.ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    let uplink = anchor(&plane.uplinks[within::<UPLINKS>(hop.uplink())]);
    let way = &Way { hop, uplink };
    let dressed = match BackendKind::of(backend.kind) {
        BackendKind::Ipip4 => {
            let link = &way.ready(frame, packet, IPV4_HEADER)?;
            encapsulate::ipv4(frame, packet, backend, link, hash)
        }
        BackendKind::Ipip6 => {
            let link = &way.ready(frame, packet, IPV6_HEADER)?;
            encapsulate::ipv6(frame, packet, backend, link, hash)
        }
        BackendKind::Gue4 => {
            let link = &way.ready(frame, packet, IPV4_HEADER + UDP_HEADER)?;
            encapsulate::gue4(frame, packet, backend, link, hash)
        }
        BackendKind::Gue6 => {
            let link = &way.ready(frame, packet, IPV6_HEADER + UDP_HEADER)?;
            encapsulate::gue6(frame, packet, backend, link, hash)
        }
        BackendKind::L2 if frame.source() == way.hop.mac_bits() => return Err(Verdict::Loop),
        BackendKind::L2 => {
            let link = &way.ready(frame, packet, 0)?;
            rewrite(frame, link)
        }
        BackendKind::Unset => return Err(Verdict::Inconsistent),
    };
    dressed.ok_or(Verdict::NoHeadroom)?;
    Ok(leave(frame, way.uplink))
}

/// The way to a backend.
struct Way<'a> {
    hop: NextHop,
    uplink: &'a Uplink,
}

impl Way<'_> {
    /// Bytes that stay free. To another interface the kernel hands no frame that
    /// is longer than that one's MTU with a link header and one tag
    /// (`xdp_ok_fwd_dev`), so a second tag is at the packet's expense.
    #[inline(always)]
    fn spare(&self, frame: &Frame, packet: &Packet) -> u32 {
        // A plain packet's network is known, so it is not asked.
        if packet.network > ETHERNET + VLAN_TAG && self.uplink.ifindex != frame.ingress() {
            VLAN_TAG as u32
        } else {
            0
        }
    }

    /// Makes a packet ready to go, with so many bytes in front of it. If it does
    /// not fit, its sender is told.
    #[inline(always)]
    fn ready(&self, frame: &Frame, packet: &Packet, outer: u32) -> Result<Link, Verdict> {
        let uplink = self.uplink;
        let spare = self.spare(frame, packet);
        if packet.length + outer + spare > uplink.mtu {
            return Err(too_big::packet(
                frame.context(),
                packet.network as u32,
                uplink.mtu.saturating_sub(outer + spare),
                packet.answerable,
            ));
        }
        if !decrement_ttl(frame, packet) {
            return Err(Verdict::Inconsistent);
        }
        Ok(Link {
            source: uplink.mac_bits,
            destination: self.hop.mac_bits(),
        })
    }
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
    let addresses = frame.at::<Addresses>(0)?;
    // SAFETY: `at` has checked the bounds.
    unsafe { addresses.write_unaligned(link.words()) };
    Some(())
}

impl Link {
    /// Destination and source as the first twelve bytes of a frame.
    #[inline(always)]
    pub fn words(&self) -> Addresses {
        Addresses(
            self.destination | self.source << 48,
            (self.source >> 16) as u32,
        )
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
                // RFC 1624, equation 3, for a word that shrinks by 0x0100: the
                // checksum grows by as much, and 0xffff counts as a carry.
                let grown = u32::from(checksum) + u32::from(0x0100_u16.to_be());
                let carry = (grown + 1) >> 16;
                word.write_unaligned([ttl_protocol - 1, (grown + carry) as u16]);
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
