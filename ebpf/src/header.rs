//! Headers as they lie in a frame, fields in network order as read from
//! memory on a little-endian machine.

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Offset of the EtherType.
pub const ETHERTYPE: usize = 12;
/// Length of a VLAN tag (IEEE 802.1Q).
pub const VLAN_TAG: usize = 4;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
/// EtherType of a VLAN tag (IEEE 802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
/// EtherType of a provider's VLAN tag, the outer one of two (IEEE 802.1ad).
pub const ETHERTYPE_PROVIDER: u16 = 0x88a8_u16.to_be();

/// Length of an IPv4 header without options.
pub const IPV4_HEADER: u32 = 20;
/// Length of an IPv6 header.
pub const IPV6_HEADER: u32 = 40;

/// Length of a UDP header.
pub const UDP_HEADER: u32 = 8;
/// Length of a TCP header without options.
pub const TCP_HEADER: u32 = 20;
/// Length of an ICMP header, of ICMPv6 too.
pub const ICMP_HEADER: u32 = 8;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of IPv4 inside IP (RFC 2003).
pub const IPV4_IN_IP: u8 = 4;
/// Protocol number of IPv6 inside IP (RFC 2473).
pub const IPV6_IN_IP: u8 = 41;
/// Next header of hop-by-hop options (RFC 8200).
pub const IPV6_HOP_BY_HOP: u8 = 0;
/// Next header of routing (RFC 8200).
pub const IPV6_ROUTING: u8 = 43;
/// Next header of a fragment (RFC 8200).
pub const IPV6_FRAGMENT: u8 = 44;
/// Next header of destination options (RFC 8200).
pub const IPV6_DESTINATION: u8 = 60;

/// All of an IPv4 fragment field but "don't fragment" and the reserved bit.
pub const FRAGMENT: u16 = 0x3fff_u16.to_be();
/// Of an IPv4 fragment field: where the fragment belongs, 0 for the first.
pub const FRAGMENT_OFFSET: u16 = 0x1fff_u16.to_be();
/// Of an IPv4 fragment field: not to be fragmented.
pub const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();

/// An IPv4 header (RFC 791).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv4 {
    /// Version and header length in words.
    pub version_ihl: u8,
    /// TOS, ECN bits included.
    pub tos: u8,
    /// Length of header and payload.
    pub length: u16,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// What is inside.
    pub protocol: u8,
    /// Of this header.
    pub checksum: u16,
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
}

/// An IPv6 header (RFC 8200).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv6 {
    /// Version, traffic class and flow label.
    pub version_class_label: u32,
    /// Length behind this header.
    pub payload: u16,
    /// What is inside.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
}
