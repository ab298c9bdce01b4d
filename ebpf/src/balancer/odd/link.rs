//! The link: VLAN tags, which are looked behind and kept, and the way back.

use vipd_ebpf::{
    frame::{Addresses, Frame},
    header::{ETHERNET, ETHERTYPE, ETHERTYPE_PROVIDER, ETHERTYPE_VLAN, VLAN_TAG},
};

use crate::{forward::Link, parse::Family};

/// Where the packet starts, behind at most two tags, and its EtherType.
#[inline(always)]
pub fn network(frame: &Frame) -> Option<(usize, u16)> {
    let kind = frame.read_variable(ETHERTYPE)?;
    if !is_tag(kind) {
        return Some((ETHERNET, kind));
    }
    let kind = frame.read_variable(ETHERTYPE + VLAN_TAG)?;
    if !is_tag(kind) {
        return Some((ETHERNET + VLAN_TAG, kind));
    }
    let kind = frame.read_variable(ETHERTYPE + 2 * VLAN_TAG)?;
    Some((ETHERNET + 2 * VLAN_TAG, kind))
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_PROVIDER
}

/// The Ethernet addresses exchanged: back to where the frame came from.
#[inline(always)]
pub fn back(frame: &Frame) -> Addresses {
    let link = Link {
        source: frame.destination(),
        destination: frame.source(),
    };
    link.words()
}

/// Whether an address can be one host's, so that it may be answered: not
/// unspecified, loopback, multicast or broadcast.
#[inline(always)]
pub fn is_host(family: Family, [first, second]: [u64; 2]) -> bool {
    let start = first as u8;
    match family {
        Family::V4 => start != 0 && start != 127 && start < 224,
        Family::V6 => start != 0xff && (first != 0 || second.swap_bytes() > 1),
    }
}
