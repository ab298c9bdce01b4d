//! Tunnels: a prebuilt outer header in front of the packet.

use vipd_abi::BackendRecord;
use vipd_ebpf::{
    frame::{Addresses, Frame},
    header::{
        ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_HEADER, IPV4_IN_IP, IPV6_IN_IP, Ipv6, UDP,
        UDP_HEADER,
    },
};

use crate::{
    forward::Link,
    parse::{Family, Packet},
};

/// Time to live of the outer header.
const TTL: u8 = 64;

/// First of the source ports that tunnels use (RFC 6335, section 6: dynamic
/// ports); the flow's hash says which.
const FIRST_PORT: u16 = 0xc000;

/// The flow label in [`Packet::class_label`].
const LABEL: u32 = 0xf_ffff;

/// Outer IPv4 header in words.
type Outer4 = [u32; IPV4_HEADER as usize / 4];

/// UDP header in 16-bit words.
type Udp = [u16; UDP_HEADER as usize / 2];

/// IPv4 in front: IP in IP (RFC 2003).
#[inline(always)]
pub fn ipv4(
    frame: &mut Frame,
    packet: &Packet,
    backend: &BackendRecord,
    link: &Link,
    hash: u64,
) -> Option<()> {
    prepend(frame, packet, link, ETHERTYPE_IPV4, || {
        outer_ipv4(packet, backend, hash, packet.length, inside(packet))
    })
}

/// IPv6 in front: IP in IP (RFC 2473).
#[inline(always)]
pub fn ipv6(
    frame: &mut Frame,
    packet: &Packet,
    backend: &BackendRecord,
    link: &Link,
    hash: u64,
) -> Option<()> {
    prepend(frame, packet, link, ETHERTYPE_IPV6, || {
        outer_ipv6(packet, backend, hash, packet.length, inside(packet))
    })
}

/// IPv4 and UDP in front: GUE.
#[inline(always)]
pub fn gue4(
    frame: &mut Frame,
    packet: &Packet,
    backend: &BackendRecord,
    link: &Link,
    hash: u64,
) -> Option<()> {
    let length = packet.length + UDP_HEADER;
    prepend(frame, packet, link, ETHERTYPE_IPV4, || {
        Pair(
            outer_ipv4(packet, backend, hash, length, UDP),
            udp(backend, hash, length),
        )
    })
}

/// IPv6 and UDP in front: GUE.
#[inline(always)]
pub fn gue6(
    frame: &mut Frame,
    packet: &Packet,
    backend: &BackendRecord,
    link: &Link,
    hash: u64,
) -> Option<()> {
    let length = packet.length + UDP_HEADER;
    prepend(frame, packet, link, ETHERTYPE_IPV6, || {
        Pair(
            outer_ipv6(packet, backend, hash, length, UDP),
            udp(backend, hash, length),
        )
    })
}

/// One header behind another.
#[repr(C, packed)]
struct Pair<A, B>(A, B);

/// Outer headers behind a link header without tags.
#[repr(C, packed)]
struct Untagged<T> {
    addresses: Addresses,
    ethertype: u16,
    outer: T,
}

/// The protocol number of the packet as such.
#[inline(always)]
fn inside(packet: &Packet) -> u8 {
    match packet.family {
        Family::V4 => IPV4_IN_IP,
        Family::V6 => IPV6_IN_IP,
    }
}

/// Makes room for outer headers, and writes them, with link header and tags in
/// front of them.
#[inline(always)]
fn prepend<T>(
    frame: &mut Frame,
    packet: &Packet,
    link: &Link,
    ethertype: u16,
    outer: impl FnOnce() -> T,
) -> Option<()> {
    let tags = frame.tags(packet.network)?;
    if !frame.grow_head(size_of::<T>() as i32) {
        return None;
    }
    if packet.network == ETHERNET {
        // Nearly always: one look at the bounds is enough.
        let place = frame.at::<Untagged<T>>(0)?;
        // SAFETY: `at` has checked the bounds.
        unsafe {
            place.write_unaligned(Untagged {
                addresses: link.words(),
                ethertype,
                outer: outer(),
            });
        }
        return Some(());
    }
    frame.write_link(packet.network, link.words(), tags, ethertype)?;
    let place = frame.at::<T>(packet.network)?;
    // SAFETY: `at` has checked the bounds.
    unsafe { place.write_unaligned(outer()) };
    Some(())
}

/// DF set, id 0, TOS and ECN of the packet (RFC 6040, normal mode).
#[inline(always)]
fn outer_ipv4(
    packet: &Packet,
    backend: &BackendRecord,
    hash: u64,
    payload: u32,
    protocol: u8,
) -> Outer4 {
    let tos = u32::from(packet.tos());
    let length = payload + IPV4_HEADER;
    let [_, _, _, source]: [u32; 4] = words(&backend.source);
    let [_, _, _, destination]: [u32; 4] = words(&backend.destination);
    // The record's sum covers all words but TOS and length, and of the source
    // the bits that the flow fills are zero.
    let mut sum = backend.checksum + tos + length;
    let entropy = hash as u32 & backend.entropy;
    if entropy != 0 {
        sum += u32::from(u16::from_be(entropy as u16));
        sum += u32::from(u16::from_be((entropy >> 16) as u16));
    }
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    [
        (0x4500_0000 | tos << 16 | length).to_be(),
        0x4000_u32.to_be(),
        (u32::from(TTL) << 24 | u32::from(protocol) << 16 | !sum & 0xffff).to_be(),
        source | entropy,
        destination,
    ]
}

/// Traffic class and ECN of the packet (RFC 6040, normal mode), and a flow label
/// from the flow's hash, so that routers can spread tunnel packets by it (RFC
/// 6438, section 3).
#[inline(always)]
fn outer_ipv6(
    packet: &Packet,
    backend: &BackendRecord,
    hash: u64,
    payload: u32,
    next_header: u8,
) -> Ipv6 {
    let [upper, lower]: [u64; 2] = words(&backend.source);
    let entropy = u64::from(hash as u32 & backend.entropy) << 32;
    // Not the lowest bits, which have chosen the backend.
    let class_label = packet.class_label & !LABEL | hash as u32 >> 12;
    Ipv6 {
        version_class_label: class_label.to_be(),
        payload: (payload as u16).to_be(),
        next_header,
        hop_limit: TTL,
        source: [upper, lower | entropy],
        destination: words(&backend.destination),
    }
}

/// The UDP header of GUE: the checksum is zero, over IPv6 as RFC 6936 allows
/// for tunnels.
#[inline(always)]
fn udp(backend: &BackendRecord, hash: u64, length: u32) -> Udp {
    let source = FIRST_PORT | (hash >> 32) as u16;
    [
        source.to_be(),
        backend.port as u16,
        (length as u16).to_be(),
        0,
    ]
}

/// An address as words, as they lie in memory.
#[inline(always)]
fn words<T: Copy>(bytes: &[u8; 16]) -> T {
    const { assert!(size_of::<T>() == 16) };
    // SAFETY: words of the same sixteen bytes.
    unsafe { core::mem::transmute_copy(bytes) }
}
