//! IPv4 headers with options and of fragments.

use vipd_abi::Verdict;
use vipd_ebpf::{
    frame::Frame,
    header::{FRAGMENT, FRAGMENT_OFFSET, IPV4_HEADER, Ipv4},
};

use super::{fragment::Piece, sight::Sight};
use crate::parse::Family;

/// Takes down what the header says, the destination even if the rest is wrong.
#[inline(always)]
pub fn look(frame: &Frame, network: usize, sight: &mut Sight) -> Result<(), Verdict> {
    let header = frame
        .read_variable::<Ipv4>(network)
        .ok_or(Verdict::NotVip)?;
    sight.family = Family::V4;
    sight.network = network as u32;
    sight.destination = [u64::from(header.destination), 0];
    let header_length = u32::from(header.version_ihl & 0x0f) * 4;
    let length = u32::from(u16::from_be(header.length));
    if header.version_ihl >> 4 != 4
        || header_length < IPV4_HEADER
        || length < header_length
        || !frame.reaches(network + length as usize)
    {
        return Err(Verdict::Malformed);
    }
    sight.piece = if header.fragment & FRAGMENT == 0 {
        Piece::Whole
    } else if header.fragment & FRAGMENT_OFFSET == 0 {
        Piece::First
    } else {
        Piece::Later
    };
    sight.transport = network as u32 + header_length;
    sight.source = [u64::from(header.source), 0];
    sight.protocol = header.protocol;
    sight.class_label = 6 << 28 | u32::from(header.tos) << 20;
    sight.ttl = header.ttl;
    sight.length = length;
    sight.room = length - header_length;
    sight.id = u32::from(header.id);
    Ok(())
}
