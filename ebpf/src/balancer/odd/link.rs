//! The link: the way back, and whom there is no way back to.

use vipd_ebpf::frame::{Addresses, Frame};

use crate::{forward::Link, parse::Family};

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
