//! From bytes to a packet for a service, or to the verdict why there is none.
//!
//! A packet whose destination is no virtual address is the kernel's, whatever
//! its shape; so everything odd about a packet is judged only once its
//! destination is known to be ours.

use vipd_abi::{Head, Verdict, VipEntry, VipKey};
use vipd_ebpf::{
    frame::Frame,
    header::{
        ETHERNET, ETHERTYPE, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT, IPV4_HEADER, IPV6_FRAGMENT,
        IPV6_HEADER, Ipv4, Ipv6, TCP, UDP,
    },
};

use crate::lookup::Table;

/// Version of the packet's own header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// What forwarding needs to know of a packet.
pub struct Packet {
    pub family: Family,
    /// Source and destination as [`vipd_abi::flow_hash`] wants them.
    pub source: [u64; 2],
    pub destination: [u64; 2],
    /// Source port in the low half, destination port in the high half, both
    /// in network order.
    pub ports: u32,
    pub protocol: u8,
    /// TOS or traffic class, ECN bits included.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Length by the IP header, never by the frame.
    pub length: u32,
}

const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;

/// Looks at the frame and finds the service it is for.
#[inline(always)]
pub fn packet(frame: &Frame) -> Result<(Packet, &'static VipEntry, &'static Head), Verdict> {
    match frame.read::<u16>(ETHERTYPE) {
        Some(ETHERTYPE_IPV4) => ipv4(frame),
        Some(ETHERTYPE_IPV6) => ipv6(frame),
        _ => Err(Verdict::NotIp),
    }
}

#[inline(always)]
fn ipv4(frame: &Frame) -> Result<(Packet, &'static VipEntry, &'static Head), Verdict> {
    let Some(header) = frame.at::<Ipv4>(ETHERNET) else {
        return Err(Verdict::NotVip);
    };
    // SAFETY: `at` has checked the bounds.
    let header = unsafe { header.read_unaligned() };
    let table = Table::published()?;
    let address = VipKey::v4(header.destination, 0, 0);

    let header_length = u32::from(header.version_ihl & 0x0f) * 4;
    let length = u32::from(u16::from_be(header.length));
    if header.version_ihl >> 4 != 4
        || header_length < IPV4_HEADER
        || length < header_length
        || ETHERNET as u64 + u64::from(length) > frame.len()
    {
        return Err(table.if_vip(&address, Verdict::Malformed));
    }
    if header.fragment & FRAGMENT != 0 {
        return Err(table.if_vip(&address, Verdict::Fragment));
    }
    if header.protocol != TCP && header.protocol != UDP {
        return Err(table.if_vip(&address, Verdict::UnservedProtocol));
    }
    let ports = frame.read::<u32>(ETHERNET + header_length as usize);
    let Some(ports) = ports.filter(|_| fits(header.protocol, length - header_length)) else {
        return Err(table.if_vip(&address, Verdict::Malformed));
    };
    let key = VipKey::v4(header.destination, header.protocol, (ports >> 16) as u16);
    let entry = table.service(&key)?;
    let packet = Packet {
        family: Family::V4,
        source: [u64::from(header.source), 0],
        destination: [u64::from(header.destination), 0],
        ports,
        protocol: header.protocol,
        tos: header.tos,
        ttl: header.ttl,
        length,
    };
    Ok((packet, entry, table.head))
}

#[inline(always)]
fn ipv6(frame: &Frame) -> Result<(Packet, &'static VipEntry, &'static Head), Verdict> {
    let Some(header) = frame.at::<Ipv6>(ETHERNET) else {
        return Err(Verdict::NotVip);
    };
    // SAFETY: `at` has checked the bounds.
    let header = unsafe { header.read_unaligned() };
    // Keys hold IPv4 addresses in this form (RFC 4291, section 2.5.5.2); no
    // packet on a network may have it.
    if is_mapped(header.destination) {
        return Err(Verdict::NotVip);
    }
    let table = Table::published()?;
    let address = VipKey::v6(header.destination, 0, 0);

    let first = u32::from_be(header.version_class_label);
    let payload = u32::from(u16::from_be(header.payload));
    if first >> 28 != 6
        || ETHERNET as u64 + u64::from(IPV6_HEADER) + u64::from(payload) > frame.len()
    {
        return Err(table.if_vip(&address, Verdict::Malformed));
    }
    if header.next_header == IPV6_FRAGMENT {
        return Err(table.if_vip(&address, Verdict::Fragment));
    }
    if header.next_header != TCP && header.next_header != UDP {
        return Err(table.if_vip(&address, Verdict::UnservedProtocol));
    }
    let ports = frame.read::<u32>(ETHERNET + IPV6_HEADER as usize);
    let Some(ports) = ports.filter(|_| fits(header.next_header, payload)) else {
        return Err(table.if_vip(&address, Verdict::Malformed));
    };
    let key = VipKey::v6(header.destination, header.next_header, (ports >> 16) as u16);
    let entry = table.service(&key)?;
    let packet = Packet {
        family: Family::V6,
        source: words(header.source),
        destination: words(header.destination),
        ports,
        protocol: header.next_header,
        tos: (first >> 20) as u8,
        ttl: header.hop_limit,
        length: IPV6_HEADER + payload,
    };
    Ok((packet, entry, table.head))
}

/// Whether it is an IPv4-mapped IPv6 address.
#[inline(always)]
fn is_mapped([a, b, c, _]: [u32; 4]) -> bool {
    a | b | c ^ 0xffff_u32.to_be() == 0
}

/// Whether the layer-4 header fits into what the IP header leaves for it.
#[inline(always)]
fn fits(protocol: u8, room: u32) -> bool {
    room >= if protocol == TCP {
        TCP_HEADER
    } else {
        UDP_HEADER
    }
}

#[inline(always)]
fn words([a, b, c, d]: [u32; 4]) -> [u64; 2] {
    [
        u64::from(a) | u64::from(b) << 32,
        u64::from(c) | u64::from(d) << 32,
    ]
}
