//! Packets that do not fit with their outer header: the sender is told how
//! much does (RFC 1191, RFC 8201).

use aya_ebpf::{bindings::xdp_md, helpers::bpf_get_smp_processor_id};
use vipd_abi::{CPUS, Verdict};
use vipd_ebpf::{
    anchor::within,
    checksum,
    frame::Frame,
    header::{
        DONT_FRAGMENT, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMP, ICMP_HEADER, ICMPV6, IPV4_HEADER,
        IPV6_HEADER, Ipv4, Ipv6,
    },
};

use super::{link, now};
use crate::{maps, parse::Family, trace};

/// Answers of one processor within a tick (134 ms).
const MOST_ANSWERS: u32 = 100;
/// Bytes of the packet that an answer carries: the IP header, and layer 4 at
/// least to its eighth byte.
const CARRIED_4: usize = 128;
const CARRIED_6: usize = 256;
/// What every IPv6 link takes (RFC 8200, section 5).
const LEAST_MTU_6: u32 = 1280;

const TTL: u8 = 64;
/// Precedence of errors: internetwork control (RFC 1812, section 4.3.2.5).
const TOS: u8 = 0xc0;

/// ICMP header and what the answer carries, for its checksum.
type Message4 = [u8; ICMP_HEADER as usize + CARRIED_4];
type Message6 = [u8; ICMP_HEADER as usize + CARRIED_6];

/// Answers a packet that starts at `network` and of which no more than `mtu`
/// bytes would fit, if it is answerable. A function of its own: hardly a packet
/// comes here.
#[inline(never)]
pub fn packet(ctx: *mut xdp_md, network: u32, mtu: u32, answerable: bool) -> Verdict {
    let mut frame = Frame::new(ctx);
    // At most two tags.
    let network = network as usize & 31;
    if !answerable {
        return Verdict::TooBig;
    }
    let version = frame.read_variable::<u16>(network).unwrap_or(0) as u8 >> 4;
    let done = if version == 4 {
        ipv4(&mut frame, network, mtu)
    } else {
        ipv6(&mut frame, network, mtu)
    };
    match done {
        Ok(()) => Verdict::TooBigAnswered,
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn ipv4(frame: &mut Frame, network: usize, mtu: u32) -> Result<(), Verdict> {
    const OUTER: u32 = IPV4_HEADER + ICMP_HEADER;
    let cause = frame
        .read_variable::<Ipv4>(network)
        .ok_or(Verdict::TooBig)?;
    let from = [u64::from(cause.source), 0];
    if cause.fragment & DONT_FRAGMENT == 0 || !link::is_host(Family::V4, from) {
        return Err(Verdict::TooBig);
    }
    permit()?;
    make_room(frame, network, CARRIED_4, OUTER, ETHERTYPE_IPV4)?;

    let cause = frame.read_variable::<Ipv4>(network + OUTER as usize);
    let cause = cause.ok_or(Verdict::NoHeadroom)?;
    let length = OUTER as u16 + CARRIED_4 as u16;
    let first = u16::from_ne_bytes([0x45, TOS]);
    let fifth = u16::from_ne_bytes([TTL, ICMP]);
    let half = |word: u32| (word & 0xffff) + (word >> 16);
    let sum = u32::from(first)
        + u32::from(length.to_be())
        + u32::from(DONT_FRAGMENT)
        + u32::from(fifth)
        + half(cause.source)
        + half(cause.destination);
    let header = frame
        .at_variable::<Ipv4>(network)
        .ok_or(Verdict::NoHeadroom)?;
    // SAFETY: `at` has checked the bounds.
    unsafe {
        header.write_unaligned(Ipv4 {
            version_ihl: 0x45,
            tos: TOS,
            length: length.to_be(),
            id: 0,
            fragment: DONT_FRAGMENT,
            ttl: TTL,
            protocol: ICMP,
            checksum: !checksum::fold(sum),
            source: cause.destination,
            destination: cause.source,
        });
    }
    let at = network + IPV4_HEADER as usize;
    finish::<Message4>(frame, at, u32::from_ne_bytes([3, 4, 0, 0]), mtu, 0)
}

#[inline(always)]
fn ipv6(frame: &mut Frame, network: usize, mtu: u32) -> Result<(), Verdict> {
    const OUTER: u32 = IPV6_HEADER + ICMP_HEADER;
    let cause = frame
        .read_variable::<Ipv6>(network)
        .ok_or(Verdict::TooBig)?;
    // Who sends no more than every link takes cannot be told to send less.
    let told = if mtu < LEAST_MTU_6 { LEAST_MTU_6 } else { mtu };
    let length = IPV6_HEADER + u32::from(u16::from_be(cause.payload));
    if length <= told || !link::is_host(Family::V6, cause.source) {
        return Err(Verdict::TooBig);
    }
    permit()?;
    make_room(frame, network, CARRIED_6, OUTER, ETHERTYPE_IPV6)?;

    let cause = frame.read_variable::<Ipv6>(network + OUTER as usize);
    let cause = cause.ok_or(Verdict::NoHeadroom)?;
    let length = ICMP_HEADER as u16 + CARRIED_6 as u16;
    let header = frame
        .at_variable::<Ipv6>(network)
        .ok_or(Verdict::NoHeadroom)?;
    // SAFETY: `at` has checked the bounds.
    unsafe {
        header.write_unaligned(Ipv6 {
            version_class_label: (6_u32 << 28).to_be(),
            payload: length.to_be(),
            next_header: ICMPV6,
            hop_limit: TTL,
            source: cause.destination,
            destination: cause.source,
        });
    }
    // Both addresses, then length and protocol (RFC 8200, section 8.1).
    let addresses = frame.at_variable::<[u32; 8]>(network + 8);
    let addresses = addresses.ok_or(Verdict::NoHeadroom)?;
    let sum = u32::from((length + u16::from(ICMPV6)).to_be());
    // SAFETY: `at` has checked the bounds.
    let sum = unsafe { checksum::add(addresses, sum) };
    let at = network + IPV6_HEADER as usize;
    finish::<Message6>(frame, at, u32::from_ne_bytes([2, 0, 0, 0]), told, sum)
}

/// Writes the header of a message `T`; `sum` is that of what else its checksum
/// covers. Too big for IPv4 has the MTU in 16 bits, in 32 for IPv6; those in
/// front are zero, as no MTU is larger.
#[inline(always)]
fn finish<T>(frame: &Frame, at: usize, kind: u32, mtu: u32, sum: u32) -> Result<(), Verdict> {
    let header = frame
        .at_variable::<[u32; 2]>(at)
        .ok_or(Verdict::NoHeadroom)?;
    let message = frame.at_variable::<T>(at).ok_or(Verdict::NoHeadroom)?;
    let mtu = (mtu & 0xffff).to_be();
    // SAFETY: `at` has checked the bounds of both.
    unsafe {
        header.write_unaligned([kind, mtu]);
        let sum = u32::from(!checksum::fold(checksum::add(message, sum)));
        header.write_unaligned([kind | sum << 16, mtu]);
    }
    Ok(())
}

/// Keeps the first `carried` bytes of the packet, and makes room for `headers`
/// in front of them, the frame's addresses exchanged.
#[inline(always)]
fn make_room(
    frame: &mut Frame,
    network: usize,
    carried: usize,
    headers: u32,
    ethertype: u16,
) -> Result<(), Verdict> {
    let back = link::back(frame);
    let tags = frame.tags(network).ok_or(Verdict::TooBig)?;
    if !frame.reaches(network + carried) {
        // An uplink this narrow carries no tunnel.
        return Err(Verdict::TooBig);
    }
    if !frame.cut(network + carried) || !frame.grow_head(headers as i32) {
        return Err(Verdict::NoHeadroom);
    }
    let written = frame.write_link(network, back, tags, ethertype);
    written.ok_or(Verdict::NoHeadroom)
}

/// Whether this processor may answer once more in this tick.
#[inline(always)]
fn permit() -> Result<(), Verdict> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let plane = maps::plane().ok_or(Verdict::Inconsistent)?;
    let word = (&raw const plane.answers[within::<CPUS>(cpu)]).cast_mut();
    let now = u64::from(now().0) << 32;
    // SAFETY: the entry stays where it is; only this processor writes it.
    unsafe {
        let old = *word;
        let new = if old >> 32 << 32 == now { old } else { now };
        if new as u32 >= MOST_ANSWERS {
            return Err(Verdict::TooBigLimited);
        }
        if !trace::DRY {
            *word = new + 1;
        }
    }
    Ok(())
}
