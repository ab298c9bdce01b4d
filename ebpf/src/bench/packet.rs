//! What the floors share: a plain IPv4 packet, and the bytes of its frame.
//!
//! Kept as once written, and apart from what the balancer uses: the balancer
//! is judged by the floors, so they must not change with it.

use aya_ebpf::{helpers::bpf_xdp_adjust_head, programs::XdpContext};

use crate::header::{
    ETHERNET, ETHERTYPE, ETHERTYPE_IPV4, FRAGMENT, IPV4_HEADER, IPV4_IN_IP, Ipv4, TCP, UDP,
};

/// A TCP or UDP packet over IPv4, without options, not a fragment.
pub struct Packet {
    /// Its IP header.
    pub header: Ipv4,
    /// Source port in the low half, destination port in the high half, both
    /// in network order.
    pub ports: u32,
}

/// Pointer to a `T` at `offset`, if the frame holds all of it.
#[inline(always)]
pub fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    Some(start as *mut T)
}

/// Looks at the frame; `None` for what a balancer would leave to the kernel.
#[inline(always)]
pub fn parse(ctx: &XdpContext) -> Option<Packet> {
    let ethertype = at::<u16>(ctx, ETHERTYPE)?;
    let header = at::<Ipv4>(ctx, ETHERNET)?;
    let ports = at::<u32>(ctx, ETHERNET + IPV4_HEADER as usize)?;
    // SAFETY: `at` has checked the bounds.
    let (ethertype, header, ports) = unsafe {
        (
            ethertype.read_unaligned(),
            header.read_unaligned(),
            ports.read_unaligned(),
        )
    };
    if ethertype != ETHERTYPE_IPV4
        || header.version_ihl != 0x45
        || header.fragment & FRAGMENT != 0
        || (header.protocol != TCP && header.protocol != UDP)
    {
        return None;
    }
    Some(Packet { header, ports })
}

/// Ethernet destination and source, as three words.
#[inline(always)]
pub fn addresses(ctx: &XdpContext) -> Option<*mut [u16; 6]> {
    at(ctx, 0)
}

/// Prepends an IPv4 header (RFC 2003) and writes the Ethernet header in front
/// of it: from our own address to `mac`.
#[inline(always)]
pub fn encapsulate(
    ctx: &XdpContext,
    packet: &Packet,
    source: u32,
    destination: u32,
    mac: [u16; 3],
) -> Option<()> {
    // SAFETY: `at` has checked the bounds.
    let [a, b, c, ..] = unsafe { addresses(ctx)?.read_unaligned() };
    // SAFETY: the kernel hands a valid context to the program.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(IPV4_HEADER as i32)) } != 0 {
        return None;
    }
    let link = at::<[u16; 7]>(ctx, 0)?;
    let outer = at::<Ipv4>(ctx, ETHERNET)?;
    let mut header = Ipv4 {
        version_ihl: 0x45,
        tos: packet.header.tos,
        length: (u16::from_be(packet.header.length) + IPV4_HEADER as u16).to_be(),
        id: 0,
        fragment: 0x4000_u16.to_be(),
        ttl: 64,
        protocol: IPV4_IN_IP,
        checksum: 0,
        source,
        destination,
    };
    header.checksum = checksum(&header);
    // SAFETY: `at` has checked the bounds.
    unsafe {
        link.write_unaligned([mac[0], mac[1], mac[2], a, b, c, ETHERTYPE_IPV4]);
        outer.write_unaligned(header);
    }
    Some(())
}

/// Internet checksum of a header whose own is zero (RFC 1071).
#[inline(always)]
fn checksum(header: &Ipv4) -> u16 {
    let sum = u32::from(u16::from_ne_bytes([header.version_ihl, header.tos]))
        + u32::from(header.length)
        + u32::from(header.id)
        + u32::from(header.fragment)
        + u32::from(u16::from_ne_bytes([header.ttl, header.protocol]))
        + (header.source & 0xffff)
        + (header.source >> 16)
        + (header.destination & 0xffff)
        + (header.destination >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
