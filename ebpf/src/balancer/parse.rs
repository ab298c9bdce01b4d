//! The plain packet: no tags, no options, no fragment, TCP or UDP to a port
//! that has a service of its own. From its bytes to its service.
//!
//! Nearly all packets are plain, so this path is short; whatever is not, is
//! left to [`crate::odd`], which looks closer.

use vipd_abi::{Plane, VipEntry, VipKey, address::is_mapped};
use vipd_ebpf::{
    frame::Frame,
    header::{
        ETHERNET, FRAGMENT, IPV4_HEADER, IPV6_HEADER, Ipv4, Ipv6, TCP, TCP_HEADER, UDP, UDP_HEADER,
    },
};

use crate::lookup::{Found, Table};

/// Version of the packet's own header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// What forwarding needs to know of a packet.
pub struct Packet {
    pub family: Family,
    /// Where in the frame the IP header starts: behind Ethernet and tags.
    pub network: usize,
    /// Where in the frame the TCP or UDP header starts; 0 when there is none: in
    /// a later fragment, and in what is about a flow and not of it.
    pub transport: usize,
    /// Whether its sender may be sent an ICMP error about it.
    pub answerable: bool,
    /// Source and destination as [`vipd_abi::flow_hash`] wants them.
    pub source: [u64; 2],
    pub destination: [u64; 2],
    /// Source port in the low half, destination port in the high half, both
    /// in network order.
    pub ports: u32,
    pub protocol: u8,
    /// Version, TOS or traffic class with its ECN bits, and flow label, as an
    /// IPv6 header has them, in host order.
    pub class_label: u32,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Length by the IP header, never by the frame.
    pub length: u32,
}

impl Packet {
    /// TOS or traffic class, ECN bits included.
    #[inline(always)]
    pub fn tos(&self) -> u8 {
        (self.class_label >> 20) as u8
    }
}

/// Not plain: to be looked at more closely.
pub struct Odd;

/// A packet and the service it is for.
pub type Served = (Packet, &'static VipEntry, Table);

/// Finds the service of an IPv4 packet; `None` when it is the kernel's.
#[inline(always)]
pub fn ipv4(frame: &Frame, plane: &'static Plane) -> Result<Option<Served>, Odd> {
    const TRANSPORT: usize = ETHERNET + IPV4_HEADER as usize;
    let (Some(header), Some(ports)) = (frame.at::<Ipv4>(ETHERNET), frame.read::<u32>(TRANSPORT))
    else {
        return Err(Odd);
    };
    // SAFETY: `at` has checked the bounds.
    let header = unsafe { header.read_unaligned() };
    let length = u32::from(u16::from_be(header.length));
    if header.version_ihl != 0x45
        || header.fragment & FRAGMENT != 0
        || !is_whole(frame, header.protocol, length, IPV4_HEADER)
    {
        return Err(Odd);
    }
    let key = VipKey::v4(header.destination, header.protocol, (ports >> 16) as u16);
    let Some((entry, table)) = served(plane, &key, Family::V4)? else {
        return Ok(None);
    };
    let packet = Packet {
        family: Family::V4,
        network: ETHERNET,
        transport: TRANSPORT,
        answerable: true,
        source: [u64::from(header.source), 0],
        destination: [u64::from(header.destination), 0],
        ports,
        protocol: header.protocol,
        class_label: 6 << 28 | u32::from(header.tos) << 20,
        ttl: header.ttl,
        length,
    };
    Ok(Some((packet, entry, table)))
}

/// Finds the service of an IPv6 packet; `None` when it is the kernel's.
#[inline(always)]
pub fn ipv6(frame: &Frame, plane: &'static Plane) -> Result<Option<Served>, Odd> {
    const TRANSPORT: usize = ETHERNET + IPV6_HEADER as usize;
    let (Some(header), Some(ports)) = (frame.at::<Ipv6>(ETHERNET), frame.read::<u32>(TRANSPORT))
    else {
        return Err(Odd);
    };
    // SAFETY: `at` has checked the bounds.
    let header = unsafe { header.read_unaligned() };
    let class_label = u32::from_be(header.version_class_label);
    let length = IPV6_HEADER + u32::from(u16::from_be(header.payload));
    if class_label >> 28 != 6
        // Keys hold IPv4 addresses in this form; no packet may have it.
        || is_mapped(header.destination)
        || !is_whole(frame, header.next_header, length, IPV6_HEADER)
    {
        return Err(Odd);
    }
    let port = (ports >> 16) as u16;
    let key = VipKey::words(header.destination, header.next_header, port);
    let Some((entry, table)) = served(plane, &key, Family::V6)? else {
        return Ok(None);
    };
    let packet = Packet {
        family: Family::V6,
        network: ETHERNET,
        transport: TRANSPORT,
        answerable: true,
        source: header.source,
        destination: header.destination,
        ports,
        protocol: header.next_header,
        class_label,
        ttl: header.hop_limit,
        length,
    };
    Ok(Some((packet, entry, table)))
}

/// Whether the packet is TCP or UDP, and its layer-4 header in what its IP
/// header says and the frame holds.
#[inline(always)]
fn is_whole(frame: &Frame, protocol: u8, length: u32, header: u32) -> bool {
    let least = match protocol {
        TCP => header + TCP_HEADER,
        UDP => header + UDP_HEADER,
        _ => return false,
    };
    length >= least && ETHERNET as u64 + u64::from(length) <= frame.len()
}

#[inline(always)]
fn served(
    plane: &'static Plane,
    key: &VipKey,
    family: Family,
) -> Result<Option<(&'static VipEntry, Table)>, Odd> {
    let table = Table::published(plane);
    match table.plain(key, family) {
        Found::Service(entry) => Ok(Some((entry, table))),
        Found::NotVip => Ok(None),
        Found::Unclear => Err(Odd),
    }
}
