//! What the closer look has seen, kept in a map.
//!
//! The stack has no room for it. And what comes out of a map is any number to
//! the verifier, so all shapes of packets are one to it from there on;
//! otherwise it would follow each of them through all that comes after.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use vipd_abi::address::{halves, mapped};
use vipd_ebpf::header::{ICMP, ICMPV6};

use super::fragment::Piece;
use crate::parse::{Family, Packet};

#[btf_map]
static SIGHTS: PerCpuArray<Sight, 1> = PerCpuArray::new();

/// A packet as its headers describe it: the fields of [`Packet`], and more.
#[repr(C)]
pub struct Sight {
    pub source: [u64; 2],
    pub destination: [u64; 2],
    pub ports: u32,
    pub class_label: u32,
    pub length: u32,
    /// Bytes behind the IP headers.
    pub room: u32,
    /// Names the packet that it is a fragment of.
    pub id: u32,
    pub network: u32,
    /// Where layer 4 starts; 0 when there is none or it is about a flow only.
    pub transport: u32,
    /// What [`vipd_abi::VipKey`] has beside the address, if it is of or about a
    /// flow; otherwise 0.
    pub service: u32,
    /// [`Sight::FINE`], or the number of the verdict if the destination turns
    /// out to be a virtual address.
    pub finding: u32,
    pub protocol: u8,
    pub ttl: u8,
    pub family: Family,
    /// Whether it is all of a packet.
    pub piece: Piece,
}

/// This processor's place for it.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Sight> {
    let sight = SIGHTS.get_ptr_mut(0)?;
    // SAFETY: the entry stays where it is; a processor runs one XDP program at
    // a time, and its closer look begins once only. Zeros are a value.
    Some(unsafe { &mut *sight })
}

impl Sight {
    /// It is of or about a flow.
    pub const FINE: u32 = u32::MAX;

    /// Where the IP header starts: behind at most two tags.
    #[inline(always)]
    pub fn network(&self) -> usize {
        self.network as usize & 31
    }

    /// Where layer 4 starts: behind options or extension headers.
    #[inline(always)]
    pub fn transport(&self) -> usize {
        self.transport as usize & 0x1ff
    }

    /// What forwarding needs to know.
    #[inline(always)]
    pub fn packet(&self) -> Packet {
        Packet {
            family: self.family,
            network: self.network(),
            transport: self.transport(),
            answerable: self.is_answerable(),
            source: self.source,
            destination: self.destination,
            ports: self.ports,
            protocol: self.protocol,
            class_label: self.class_label,
            ttl: self.ttl,
            length: self.length,
        }
    }

    /// No error answers an error, nor a later IPv4 fragment (RFC 1122, section
    /// 3.2.2); IPv6 makes no such difference (RFC 4443, section 2.4).
    #[inline(always)]
    fn is_answerable(&self) -> bool {
        self.transport != 0 || self.piece == Piece::Later && self.family == Family::V6
    }

    /// The destination as in a key of the VIP table.
    #[inline(always)]
    pub fn address(&self) -> [u64; 2] {
        match self.family {
            Family::V4 => halves(mapped(self.destination[0] as u32)),
            Family::V6 => self.destination,
        }
    }

    /// Protocol number of the ICMP of its family.
    #[inline(always)]
    pub fn own_icmp(&self) -> u8 {
        match self.family {
            Family::V4 => ICMP,
            Family::V6 => ICMPV6,
        }
    }
}
