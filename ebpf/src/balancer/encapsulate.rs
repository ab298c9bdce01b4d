//! IP in IP: a prebuilt outer header in front of the packet.

use vipd_abi::BackendRecord;
use vipd_ebpf::{
    frame::Frame,
    header::{
        ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_HEADER, IPV4_IN_IP, IPV6_HEADER, IPV6_IN_IP,
        Ipv6,
    },
};

use crate::{
    forward::Link,
    parse::{Family, Packet},
};

/// Time to live of the outer header.
const TTL: u8 = 64;

/// Ethernet and outer IPv4 header in 16-bit words.
type Outer4 = [u16; (ETHERNET + IPV4_HEADER as usize) / 2];

/// Prepends an outer IPv4 header (RFC 2003): DF set, id 0, TOS and ECN of the
/// packet (RFC 6040, normal mode).
#[inline(always)]
pub fn ipv4(
    frame: &mut Frame,
    packet: &Packet,
    backend: &BackendRecord,
    link: &Link,
) -> Option<()> {
    let length = packet.length + IPV4_HEADER;
    let version_tos = 0x4500 | u32::from(packet.tos);
    // The record's sum covers all words but TOS and length.
    let sum = backend.checksum + u32::from(packet.tos) + length;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    if !frame.grow_head(IPV4_HEADER as i32) {
        return None;
    }
    let outer = frame.at::<Outer4>(0)?;
    let [mac_0, mac_1, mac_2] = link.words();
    let [src_0, src_1] = half_words(&backend.source, 12);
    let [dst_0, dst_1] = half_words(&backend.destination, 12);
    // SAFETY: `at` has checked the bounds of both headers.
    unsafe {
        outer.write_unaligned([
            mac_0 as u16,
            (mac_0 >> 16) as u16,
            mac_1 as u16,
            (mac_1 >> 16) as u16,
            mac_2 as u16,
            (mac_2 >> 16) as u16,
            ETHERTYPE_IPV4,
            (version_tos as u16).to_be(),
            (length as u16).to_be(),
            0,
            0x4000_u16.to_be(),
            u16::from_ne_bytes([TTL, IPV4_IN_IP]),
            (!(sum as u16)).to_be(),
            src_0,
            src_1,
            dst_0,
            dst_1,
        ]);
    }
    Some(())
}

/// An outer IPv6 header behind its Ethernet header.
#[repr(C, packed)]
struct Outer6 {
    link: [u32; 3],
    ethertype: u16,
    ip: Ipv6,
}

/// Prepends an outer IPv6 header (RFC 2473): traffic class and ECN of the
/// packet, flow label 0.
#[inline(always)]
pub fn ipv6(
    frame: &mut Frame,
    packet: &Packet,
    backend: &BackendRecord,
    link: &Link,
) -> Option<()> {
    if !frame.grow_head(IPV6_HEADER as i32) {
        return None;
    }
    let outer = frame.at::<Outer6>(0)?;
    // SAFETY: `at` has checked the bounds of both headers; the byte arrays
    // are read as words of the same sixteen bytes.
    unsafe {
        outer.write_unaligned(Outer6 {
            link: link.words(),
            ethertype: ETHERTYPE_IPV6,
            ip: Ipv6 {
                version_class_label: (0x6000_0000 | u32::from(packet.tos) << 20).to_be(),
                payload: (packet.length as u16).to_be(),
                next_header: match packet.family {
                    Family::V4 => IPV4_IN_IP,
                    Family::V6 => IPV6_IN_IP,
                },
                hop_limit: TTL,
                source: core::mem::transmute_copy(&backend.source),
                destination: core::mem::transmute_copy(&backend.destination),
            },
        });
    }
    Some(())
}

/// Two 16-bit words of `bytes` from `at` on, as they lie in memory.
#[inline(always)]
fn half_words(bytes: &[u8; 16], at: usize) -> [u16; 2] {
    [
        u16::from_ne_bytes([bytes[at], bytes[at + 1]]),
        u16::from_ne_bytes([bytes[at + 2], bytes[at + 3]]),
    ]
}
