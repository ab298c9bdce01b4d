//! IPv4 headers with options and of fragments.

use aya_ebpf::bindings::xdp_md;
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

/// Looks at the options of a header, if it has any.
#[inline(always)]
pub fn options(frame: &Frame, sight: &Sight) -> Result<(), Verdict> {
    let start = sight.network() as u32 + IPV4_HEADER;
    let length = sight.transport() as u32 - start;
    if leads_on(frame.context(), start, length) == 0 {
        Ok(())
    } else {
        Err(Verdict::SourceRouted)
    }
}

/// Most bytes that options take.
const MOST_OPTIONS: u32 = 40;
/// Option types of loose and strict source routes (RFC 791, section 3.1), and
/// those that are one byte each.
const LOOSE_ROUTE: u8 = 131;
const STRICT_ROUTE: u8 = 137;
const END: u8 = 0;
const NO_OPERATION: u8 = 1;

/// Whether a source route among so many bytes of options leads on from here. A
/// function of its own, for its stack.
#[inline(never)]
fn leads_on(ctx: *mut xdp_md, options: u32, length: u32) -> u32 {
    let frame = Frame::new(ctx);
    let mut at = 0;
    while at < length && at < MOST_OPTIONS {
        // Four bytes, since of fewer the verifier loses track. Where the frame
        // ends before, there is no address to lead on to.
        let place = (options + at) as usize & 0x7f;
        let Some([kind, size, pointer, _]) = frame.read_variable::<[u8; 4]>(place) else {
            return 0;
        };
        match kind {
            END => return 0,
            NO_OPERATION => at += 1,
            LOOSE_ROUTE | STRICT_ROUTE if pointer <= size => return 1,
            // It would not end.
            _ if size < 2 => return 0,
            _ => at += u32::from(size),
        }
    }
    0
}
