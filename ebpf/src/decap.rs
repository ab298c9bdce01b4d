//! The decapsulator: takes the outer headers, IP in IP or GUE, off what listed
//! balancers send to a backend whose kernel has no such tunnel, and leaves the
//! rest to the kernel.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action},
    btf_maps::{Array, LpmTrie, lpm_trie::Key},
    helpers::bpf_get_smp_processor_id,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use vipd_abi::{
    CPUS, Counter, DecapVerdict,
    address::{mapped, words},
};
use vipd_ebpf::{
    checksum,
    frame::Frame,
    header::{
        ETHERNET, ETHERTYPE, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT, IPV4_HEADER, IPV4_IN_IP,
        IPV6_HEADER, IPV6_IN_IP, Ipv4, Ipv6, UDP, UDP_HEADER,
    },
};

/// Outer source prefixes that are accepted, IPv4 in its mapped form. Addresses
/// are words here: the stack takes no misaligned access, which bytes invite.
#[btf_map]
static DECAP_SOURCES: LpmTrie<[u32; 4], u32, 1024> = LpmTrie::new();

#[btf_map]
static DECAP_COUNTERS: Array<
    Counter,
    { (CPUS * DecapVerdict::PLACES) as usize },
    { BPF_F_MMAPABLE as usize },
> = Array::new();

/// UDP port of GUE, in host order; chosen when the program is loaded.
#[unsafe(no_mangle)]
static GUE_PORT: u16 = vipd_abi::GUE_PORT;

/// Entry point and single exit.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the `xdp` attribute calls it by value"
)]
#[xdp]
fn decap(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(ctx.ctx);
    let bytes = frame.len();
    let verdict = tunnel(&mut frame).unwrap_or_else(|verdict| verdict);
    count(verdict, bytes);
    match verdict {
        DecapVerdict::Decapsulated | DecapVerdict::NotTunnel => xdp_action::XDP_PASS,
        _ => xdp_action::XDP_DROP,
    }
}

/// What the outer header says.
struct Outer {
    source: [u32; 4],
    /// Bytes of all outer headers.
    header: u32,
    /// With UDP, GUE variant 1: the packet's version tells what follows.
    protocol: u8,
    tos: u8,
}

#[inline(always)]
fn tunnel(frame: &mut Frame) -> Result<DecapVerdict, DecapVerdict> {
    let outer = match frame.read::<u16>(ETHERTYPE) {
        Some(ETHERTYPE_IPV4) => outer_ipv4(frame)?,
        Some(ETHERTYPE_IPV6) => outer_ipv6(frame)?,
        _ => return Err(DecapVerdict::NotTunnel),
    };
    if DECAP_SOURCES.get(&Key::new(128, outer.source)).is_none() {
        return Err(DecapVerdict::UnlistedSource);
    }
    let inner = ETHERNET + outer.header as usize;
    let version = frame.read::<u8>(inner).ok_or(DecapVerdict::Malformed)? >> 4;
    let ethertype = match (outer.protocol, version) {
        (IPV4_IN_IP | UDP, 4) => ETHERTYPE_IPV4,
        (IPV6_IN_IP | UDP, 6) => ETHERTYPE_IPV6,
        _ => return Err(DecapVerdict::Malformed),
    };
    carry_congestion(frame, inner, version, outer.tos)?;

    let addresses = frame.read::<[u32; 3]>(0).ok_or(DecapVerdict::Malformed)?;
    if !frame.grow_head(-(outer.header as i32)) {
        return Err(DecapVerdict::Malformed);
    }
    let link = frame.at::<[u32; 3]>(0).ok_or(DecapVerdict::Malformed)?;
    let kind = frame.at::<u16>(ETHERTYPE).ok_or(DecapVerdict::Malformed)?;
    // SAFETY: `at` has checked the bounds of both.
    unsafe {
        link.write_unaligned(addresses);
        kind.write_unaligned(ethertype);
    }
    Ok(DecapVerdict::Decapsulated)
}

#[inline(always)]
fn outer_ipv4(frame: &Frame) -> Result<Outer, DecapVerdict> {
    let header = frame
        .read::<Ipv4>(ETHERNET)
        .ok_or(DecapVerdict::NotTunnel)?;
    // Options and fragments: no balancer sends them.
    let is_simple = header.version_ihl == 0x45 && header.fragment & FRAGMENT == 0;
    let length = match header.protocol {
        IPV4_IN_IP | IPV6_IN_IP if is_simple => IPV4_HEADER,
        IPV4_IN_IP | IPV6_IN_IP => return Err(DecapVerdict::Malformed),
        UDP if is_simple => {
            let payload = u16::from_be(header.length).wrapping_sub(IPV4_HEADER as u16);
            gue(frame, IPV4_HEADER, payload)?
        }
        _ => return Err(DecapVerdict::NotTunnel),
    };
    Ok(Outer {
        source: mapped(header.source),
        header: length,
        protocol: header.protocol,
        tos: header.tos,
    })
}

#[inline(always)]
fn outer_ipv6(frame: &Frame) -> Result<Outer, DecapVerdict> {
    let header = frame
        .read::<Ipv6>(ETHERNET)
        .ok_or(DecapVerdict::NotTunnel)?;
    let length = match header.next_header {
        IPV4_IN_IP | IPV6_IN_IP => IPV6_HEADER,
        UDP => gue(frame, IPV6_HEADER, u16::from_be(header.payload))?,
        _ => return Err(DecapVerdict::NotTunnel),
    };
    Ok(Outer {
        source: words(header.source),
        header: length,
        protocol: header.next_header,
        tos: (u32::from_be(header.version_class_label) >> 20) as u8,
    })
}

/// Length of an IP header and the UDP header behind it, if that is of GUE. Its
/// checksum is not looked at: the packet inside has its own (RFC 6936).
#[inline(always)]
fn gue(frame: &Frame, ip: u32, payload: u16) -> Result<u32, DecapVerdict> {
    // SAFETY: the loader sets it before the program runs.
    let port = unsafe { core::ptr::addr_of!(GUE_PORT).read_volatile() };
    let at = ETHERNET + ip as usize;
    let [_, destination, length, _] = frame.read::<[u16; 4]>(at).ok_or(DecapVerdict::NotTunnel)?;
    if u16::from_be(destination) != port {
        return Err(DecapVerdict::NotTunnel);
    }
    if u16::from_be(length) != payload || u32::from(payload) <= UDP_HEADER {
        return Err(DecapVerdict::Malformed);
    }
    Ok(ip + UDP_HEADER)
}

/// The mark of an IP header, and what it says (RFC 3168, section 5; RFC 8311).
const ECN: u16 = 3;
const NOT_CAPABLE: u16 = 0;
const CAPABLE_1: u16 = 1;
const CAPABLE_0: u16 = 2;
const CONGESTED: u16 = 3;

/// Carries the outer header's mark into the packet (RFC 6040, section 4.2).
#[inline(always)]
fn carry_congestion(
    frame: &Frame,
    inner: usize,
    version: u8,
    outer_tos: u8,
) -> Result<(), DecapVerdict> {
    let outer = u16::from(outer_tos) & ECN;
    if outer != CONGESTED && outer != CAPABLE_1 {
        return Ok(());
    }
    let word = frame.at::<u16>(inner).ok_or(DecapVerdict::Malformed)?;
    // SAFETY: `at` has checked the bounds.
    let old = u16::from_be(unsafe { word.read_unaligned() });
    let shift = if version == 4 { 0 } else { 4 };
    match (outer, old >> shift & ECN) {
        (CONGESTED, NOT_CAPABLE) => return Err(DecapVerdict::Congested),
        (CONGESTED, _) | (CAPABLE_1, CAPABLE_0) => {}
        _ => return Ok(()),
    }
    let new = old & !(ECN << shift) | outer << shift;
    if version == 4 && new != old {
        let place = frame.at::<u16>(inner + 10).ok_or(DecapVerdict::Malformed)?;
        // SAFETY: `at` has checked the bounds.
        unsafe {
            let sum = checksum::updated(place.read_unaligned(), old.to_be(), new.to_be());
            place.write_unaligned(sum);
        }
    }
    // SAFETY: `at` has checked the bounds.
    unsafe { word.write_unaligned(new.to_be()) };
    Ok(())
}

#[inline(always)]
fn count(verdict: DecapVerdict, bytes: u64) {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let place = cpu * DecapVerdict::PLACES + verdict as u32;
    if let Some(counter) = DECAP_COUNTERS.get_ptr_mut(place) {
        // SAFETY: the entry stays where it is; only this processor writes it.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
