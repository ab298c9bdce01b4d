//! IPv6 extension headers (RFC 8200, section 4), as many as are looked
//! through.

use aya_ebpf::bindings::xdp_md;
use vipd_abi::Verdict;
use vipd_ebpf::{
    frame::Frame,
    header::{IPV6_DESTINATION, IPV6_FRAGMENT, IPV6_HOP_BY_HOP, IPV6_ROUTING},
};

use super::{fragment::Piece, sight::Sight};

/// Most headers that are looked through.
const MOST_HEADERS: usize = 4;
/// Most bytes that they may take.
const MOST_BYTES: u32 = 256;

/// What is behind the extension headers, in one word, so that a function of its
/// own can return it: `id:32 | .. | later:1 | first:1 | length:16 | protocol:8`.
#[derive(Clone, Copy)]
pub struct Walk(u64);

impl Walk {
    const FIRST: u64 = 1 << 24;
    const LATER: u64 = 1 << 25;
    /// There are no such headers: all bits that no walk has.
    const ROUTED_ON: u64 = 1 << 29;
    const MALFORMED: u64 = 1 << 30;
    const TOO_MANY: u64 = 1 << 31;

    /// The first header that is none of these.
    #[inline(always)]
    pub fn protocol(self) -> u8 {
        self.0 as u8
    }

    /// Bytes that they take.
    #[inline(always)]
    pub fn length(self) -> u32 {
        (self.0 >> 8) as u32 & 0x1ff
    }

    /// What a fragment header says.
    #[inline(always)]
    pub fn piece(self) -> Piece {
        if self.0 & Self::LATER != 0 {
            Piece::Later
        } else if self.0 & Self::FIRST != 0 {
            Piece::First
        } else {
            Piece::Whole
        }
    }

    /// Names the fragmented packet.
    #[inline(always)]
    pub fn id(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Goes behind the extension headers of a packet.
#[inline(always)]
pub fn skip(frame: &Frame, sight: &mut Sight) -> Result<(), Verdict> {
    let walk = walk(frame, sight.transport(), sight.protocol, sight.room)?;
    sight.transport += walk.length();
    sight.room -= walk.length();
    sight.protocol = walk.protocol();
    sight.piece = walk.piece();
    sight.id = walk.id();
    Ok(())
}

/// Walks through the extension headers at `start`, the first of which is
/// `protocol`, in `room` bytes.
#[inline(always)]
pub fn walk(frame: &Frame, start: usize, protocol: u8, room: u32) -> Result<Walk, Verdict> {
    if !is_extension(protocol) {
        return Ok(Walk(u64::from(protocol)));
    }
    let word = through(frame.context(), start as u32, u32::from(protocol), room);
    if word & Walk::MALFORMED != 0 {
        Err(Verdict::Malformed)
    } else if word & Walk::TOO_MANY != 0 {
        Err(Verdict::ExtensionHeaders)
    } else if word & Walk::ROUTED_ON != 0 {
        Err(Verdict::SourceRouted)
    } else {
        Ok(Walk(word))
    }
}

#[inline(never)]
fn through(ctx: *mut xdp_md, start: u32, protocol: u32, room: u32) -> u64 {
    let frame = Frame::new(ctx);
    let mut protocol = protocol as u8;
    let mut length = 0;
    let mut fragment = 0;
    let mut count = 0;
    while is_extension(protocol) {
        if count == MOST_HEADERS || length > MOST_BYTES - 8 {
            return Walk::TOO_MANY;
        }
        count += 1;
        // Two words: next header, length, and what a fragment or routing header
        // has.
        let Some([first, second]) = frame.read_variable::<[u32; 2]>((start + length) as usize)
        else {
            return Walk::MALFORMED;
        };
        if protocol == IPV6_ROUTING && first >> 24 != 0 {
            // Segments are left, so this is not where it is to end.
            return Walk::ROUTED_ON;
        }
        let mut bytes = 8;
        if protocol == IPV6_FRAGMENT {
            let offset_more = u16::from_be((first >> 16) as u16);
            let id = u64::from(second) << 32;
            if offset_more & 0xfff8 != 0 {
                // What follows is some part of the packet, no header.
                fragment = id | Walk::LATER;
            } else if offset_more & 1 != 0 {
                fragment = id | Walk::FIRST;
            }
        } else {
            bytes += (first >> 8 & 0xff) * 8;
        }
        protocol = first as u8;
        length += bytes;
        if length > room {
            return Walk::MALFORMED;
        }
        if length > MOST_BYTES {
            return Walk::TOO_MANY;
        }
        if fragment & Walk::LATER != 0 {
            break;
        }
    }
    u64::from(protocol) | u64::from(length) << 8 | fragment
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_FRAGMENT | IPV6_DESTINATION
    )
}
