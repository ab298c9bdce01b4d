//! ICMP errors: they go to the backend of the flow that they are about.
//!
//! An error carries the start of the packet that caused it, which a backend
//! has sent with the virtual address as its source. Of that packet's layer 4
//! it may carry no more than eight bytes (RFC 792).

use vipd_abi::Verdict;
use vipd_ebpf::{
    frame::Frame,
    header::{FRAGMENT_OFFSET, ICMP_HEADER, IPV4_HEADER, IPV6_HEADER, Ipv4, Ipv6, TCP, UDP},
};

use super::{extension, fragment::Piece, sight::Sight};
use crate::parse::Family;

/// Bytes of layer 4 that an error carries at least.
const LEAST_CARRIED: u32 = 8;

/// Where the packet that an error is about says what its layer 4 is.
struct Carried {
    protocol: u8,
    transport: usize,
    /// Whom it was sent to.
    to: [u64; 2],
}

/// Makes the packet one about the flow that the error is about.
#[inline(always)]
pub fn about(frame: &Frame, sight: &mut Sight) -> Result<(), Verdict> {
    if sight.protocol != sight.own_icmp() || sight.piece != Piece::Whole {
        return Err(Verdict::UnservedProtocol);
    }
    if sight.room < ICMP_HEADER {
        return Err(Verdict::Malformed);
    }
    let at = sight.transport();
    let kind = frame.read_variable::<u16>(at).ok_or(Verdict::Malformed)? as u8;
    let inside = at + ICMP_HEADER as usize;
    let room = sight.room - ICMP_HEADER;
    let carried = match (sight.family, kind) {
        // Unreachable, time exceeded, parameter problem (RFC 792).
        (Family::V4, 3 | 11 | 12) => ipv4(frame, sight, inside, room),
        // The same, and too big (RFC 4443).
        (Family::V6, 1..=4) => ipv6(frame, sight, inside, room),
        _ => return Err(Verdict::UnservedProtocol),
    };
    let carried = carried.ok_or(Verdict::IcmpUnrelated)?;
    if carried.protocol != TCP && carried.protocol != UDP {
        return Err(Verdict::IcmpUnrelated);
    }
    let ports = frame
        .read::<u32>(carried.transport)
        .ok_or(Verdict::IcmpUnrelated)?;
    // The other direction of the flow.
    sight.source = carried.to;
    sight.ports = ports.rotate_left(16);
    sight.protocol = carried.protocol;
    sight.transport = 0;
    Ok(())
}

#[inline(always)]
fn ipv4(frame: &Frame, sight: &Sight, at: usize, room: u32) -> Option<Carried> {
    let header = frame.read_variable::<Ipv4>(at)?;
    let length = u32::from(header.version_ihl & 0x0f) * 4;
    if header.version_ihl >> 4 != 4
        || length < IPV4_HEADER
        || room < length + LEAST_CARRIED
        || header.fragment & FRAGMENT_OFFSET != 0
        || u64::from(header.source) != sight.destination[0]
    {
        return None;
    }
    Some(Carried {
        protocol: header.protocol,
        transport: at + length as usize,
        to: [u64::from(header.destination), 0],
    })
}

#[inline(always)]
fn ipv6(frame: &Frame, sight: &Sight, at: usize, room: u32) -> Option<Carried> {
    let header = frame.read_variable::<Ipv6>(at)?;
    let [upper, lower] = header.source;
    let [vip_upper, vip_lower] = sight.destination;
    if header.version_class_label as u8 >> 4 != 6
        || room < IPV6_HEADER + LEAST_CARRIED
        || upper != vip_upper
        || lower != vip_lower
    {
        return None;
    }
    let start = at + IPV6_HEADER as usize;
    let room = room - IPV6_HEADER - LEAST_CARRIED;
    let walk = extension::walk(frame, start, header.next_header, room).ok()?;
    if walk.piece() == Piece::Later {
        return None;
    }
    Some(Carried {
        protocol: walk.protocol(),
        transport: start + walk.length() as usize,
        to: header.destination,
    })
}
