//! Echo requests for a virtual address: answered here.
//!
//! Requests in fragments, with IPv4 options or with IPv6 extension headers are
//! not: an answer to those takes more than an exchange of addresses.

use vipd_abi::Verdict;
use vipd_ebpf::{
    checksum,
    frame::{Addresses, Frame},
    header::{ICMP_HEADER, IPV4_HEADER, IPV6_HEADER, Ipv4, Ipv6},
};

use super::{fragment::Piece, link, sight::Sight};
use crate::parse::Family;

/// Time to live of an answer.
const TTL: u8 = 64;

/// Type and code of an echo request as they lie in memory.
const REQUEST_4: u16 = u16::from_be_bytes([8, 0]).to_be();
const REPLY_4: u16 = 0;
const REQUEST_6: u16 = u16::from_be_bytes([128, 0]).to_be();
const REPLY_6: u16 = u16::from_be_bytes([129, 0]).to_be();

/// Whether it is an echo request that can be answered.
#[inline(always)]
pub fn is_request(frame: &Frame, sight: &Sight) -> bool {
    let (header, request) = match sight.family {
        Family::V4 => (IPV4_HEADER, REQUEST_4),
        Family::V6 => (IPV6_HEADER, REQUEST_6),
    };
    sight.protocol == sight.own_icmp()
        && sight.piece == Piece::Whole
        && sight.transport == sight.network + header
        && sight.room >= ICMP_HEADER
        && frame.read_variable::<u16>(sight.transport()) == Some(request)
        && link::is_host(sight.family, sight.source)
}

/// Makes the request its own answer.
#[inline(always)]
pub fn answer(frame: &Frame, sight: &Sight) -> Verdict {
    let network = sight.network();
    let done = match sight.family {
        Family::V4 => ipv4(frame, network),
        Family::V6 => ipv6(frame, network),
    };
    let (Some(()), Some(addresses)) = (done, frame.at::<Addresses>(0)) else {
        return Verdict::Inconsistent;
    };
    // SAFETY: `at` has checked the bounds.
    unsafe { addresses.write_unaligned(link::back(frame)) };
    Verdict::EchoAnswered
}

#[inline(always)]
fn ipv4(frame: &Frame, network: usize) -> Option<()> {
    let header = frame.at_variable::<Ipv4>(network)?;
    let icmp = frame.at_variable::<[u16; 2]>(network + IPV4_HEADER as usize)?;
    // SAFETY: `at` has checked the bounds of both.
    unsafe {
        let old = header.read_unaligned();
        let ttl = |ttl| u16::from_ne_bytes([ttl, old.protocol]);
        header.write_unaligned(Ipv4 {
            ttl: TTL,
            checksum: checksum::updated(old.checksum, ttl(old.ttl), ttl(TTL)),
            source: old.destination,
            destination: old.source,
            ..old
        });
        let [_, sum] = icmp.read_unaligned();
        icmp.write_unaligned([REPLY_4, checksum::updated(sum, REQUEST_4, REPLY_4)]);
    }
    Some(())
}

#[inline(always)]
fn ipv6(frame: &Frame, network: usize) -> Option<()> {
    let header = frame.at_variable::<Ipv6>(network)?;
    let icmp = frame.at_variable::<[u16; 2]>(network + IPV6_HEADER as usize)?;
    // SAFETY: `at` has checked the bounds of both.
    unsafe {
        let old = header.read_unaligned();
        header.write_unaligned(Ipv6 {
            hop_limit: TTL,
            source: old.destination,
            destination: old.source,
            ..old
        });
        let [_, sum] = icmp.read_unaligned();
        icmp.write_unaligned([REPLY_6, checksum::updated(sum, REQUEST_6, REPLY_6)]);
    }
    Some(())
}
