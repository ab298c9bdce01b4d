//! IPv6 headers.

use vipd_abi::{Verdict, address::is_mapped};
use vipd_ebpf::{
    frame::Frame,
    header::{IPV6_HEADER, Ipv6},
};

use super::{fragment::Piece, sight::Sight};
use crate::parse::Family;

/// Takes down what the header says, the destination even if the rest is wrong.
#[inline(always)]
pub fn look(frame: &Frame, network: usize, sight: &mut Sight) -> Result<(), Verdict> {
    let header = frame
        .read_variable::<Ipv6>(network)
        .ok_or(Verdict::NotVip)?;
    if is_mapped(header.destination) {
        return Err(Verdict::NotVip);
    }
    sight.family = Family::V6;
    sight.network = network as u32;
    sight.destination = header.destination;
    let class_label = u32::from_be(header.version_class_label);
    let payload = u32::from(u16::from_be(header.payload));
    let length = IPV6_HEADER + payload;
    if class_label >> 28 != 6 || !frame.reaches(network + length as usize) {
        return Err(Verdict::Malformed);
    }
    sight.transport = network as u32 + IPV6_HEADER;
    sight.source = header.source;
    sight.protocol = header.next_header;
    sight.class_label = class_label;
    sight.ttl = header.hop_limit;
    sight.length = length;
    sight.room = payload;
    sight.piece = Piece::Whole;
    Ok(())
}
