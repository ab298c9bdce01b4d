//! The program that captures: it forwards, and hands copies of what the filter
//! asks for to the agent. Bounded by a rate of packets handed over, by one of
//! packets copied, by a deadline that the agent moves on, and by the ring buffer,
//! which never waits.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_md},
    btf_maps::{Array, RingBuf},
    helpers::{
        bpf_get_prandom_u32, bpf_get_smp_processor_id,
        generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    },
    macros::btf_map,
};
use vipd_abi::{
    Action, CPUS, CaptureCount, CaptureFilter, Captured, Trace, Verdict,
    address::{mapped, words},
};
use vipd_ebpf::{
    frame::Frame,
    header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT_OFFSET, IPV6_HEADER, Ipv4, Ipv6, TCP, UDP},
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

/// What the packets in work have told, one on each processor.
#[btf_map]
static TRACES: Array<Captured, { CPUS as usize }> = Array::new();
#[btf_map]
static CAPTURE_FILTER: Array<CaptureFilter, 1, MMAPABLE> = Array::new();
#[btf_map]
static CAPTURE_COUNTS: Array<CaptureCount, { CPUS as usize }, MMAPABLE> = Array::new();
/// Room for some 1,800 packets.
#[btf_map]
static CAPTURES: RingBuf<Captured, { 1 << 20 }> = RingBuf::new();

const NANOS: u64 = 1_000_000_000;

#[inline(always)]
pub fn begin(frame: &Frame) {
    take(frame.context());
}

/// A function of its own, as [`give`] is, for stack that forwarding needs again.
#[inline(never)]
fn take(ctx: *mut xdp_md) -> u32 {
    let Some(event) = TRACES.get_ptr_mut(processor()) else {
        return 0;
    };
    let frame = Frame::new(ctx);
    // SAFETY: map entries stay where they are, and this processor's is its own.
    let event = unsafe { &mut *event };
    event.time = 0;
    if !is_wanted(&frame) {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    event.time = unsafe { bpf_ktime_get_ns() };
    event.trace = Trace::default();
    event.came_by = frame.ingress();
    event.length_in = frame.len() as u32;
    event.length_out = 0;
    frame.copy_head(&mut event.bytes_in);
    0
}

#[inline(always)]
pub fn end(frame: &Frame, verdict: Verdict) {
    let leaves = matches!(verdict.action(), Action::Transmit | Action::Redirect);
    give(frame.context(), verdict as u32, leaves.into());
}

#[inline(never)]
fn give(ctx: *mut xdp_md, verdict: u32, leaves: u32) -> u32 {
    let cpu = processor();
    let Some(event) = TRACES.get_ptr_mut(cpu) else {
        return 0;
    };
    // SAFETY: as above.
    let event = unsafe { &mut *event };
    if event.time == 0 {
        return 0;
    }
    event.trace.verdict = verdict;
    let (Some(filter), Some(count)) = (CAPTURE_FILTER.get(0), CAPTURE_COUNTS.get_ptr_mut(cpu))
    else {
        return 0;
    };
    let other_verdict = filter.verdicts != 0 && filter.verdicts >> (verdict & 63) & 1 == 0;
    let other_service = filter.service != 0 && filter.service != event.trace.service;
    if other_verdict || other_service {
        return 0;
    }
    if leaves != 0 {
        let frame = Frame::new(ctx);
        event.length_out = frame.len() as u32;
        frame.copy_head(&mut event.bytes_out);
    }
    // SAFETY: as above.
    let count = unsafe { &mut *count };
    count.in_second += 1;
    let event: &Captured = event;
    if CAPTURES.output(event, 0).is_ok() {
        count.captured += 1;
    } else {
        count.lost += 1;
    }
    0
}

#[inline(always)]
pub fn tell(what: impl FnOnce(&mut Trace)) {
    if let Some(event) = TRACES.get_ptr_mut(processor()) {
        // SAFETY: as above.
        what(unsafe { &mut (*event).trace });
    }
}

#[inline(always)]
fn processor() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}

/// What can be said of the frame as it comes, cheapest first; who is wanted is
/// copied.
#[inline(always)]
fn is_wanted(frame: &Frame) -> bool {
    let (Some(filter), Some(count)) = (
        CAPTURE_FILTER.get(0),
        CAPTURE_COUNTS.get_ptr_mut(processor()),
    ) else {
        return false;
    };
    // SAFETY: the helpers have no preconditions; map entries stay where they
    // are, and this processor's count is its own.
    let (now, random, count) = unsafe {
        (
            bpf_ktime_get_coarse_ns(),
            bpf_get_prandom_u32(),
            &mut *count,
        )
    };
    if now > filter.until
        || filter.sample > 1 && random % filter.sample != 0
        || !matches(frame, filter)
    {
        return false;
    }
    let second = now / NANOS;
    if second != count.second {
        count.second = second;
        count.in_second = 0;
        count.copied = 0;
    }
    let left = count.in_second < u64::from(filter.rate) && count.copied < u64::from(filter.copies);
    count.copied += u64::from(left);
    count.limited += u64::from(!left);
    left
}

/// What the filter asks of addresses, protocol and ports.
#[inline(always)]
fn matches(frame: &Frame, filter: &CaptureFilter) -> bool {
    let masks = filter.source_mask[0]
        | filter.source_mask[3]
        | filter.destination_mask[0]
        | filter.destination_mask[3];
    if masks | filter.port | filter.protocol == 0 {
        return true;
    }
    let Some(seen) = look(frame) else {
        return false;
    };
    let [source, destination] = [seen.ports & 0xffff, seen.ports >> 16];
    within(seen.source, filter.source, filter.source_mask)
        && within(
            seen.destination,
            filter.destination,
            filter.destination_mask,
        )
        && (filter.protocol == 0 || filter.protocol == u32::from(seen.protocol))
        && (filter.port == 0 || filter.port == source || filter.port == destination)
}

#[inline(always)]
fn within(address: [u32; 4], prefix: [u32; 4], mask: [u32; 4]) -> bool {
    (address[0] ^ prefix[0]) & mask[0]
        | (address[1] ^ prefix[1]) & mask[1]
        | (address[2] ^ prefix[2]) & mask[2]
        | (address[3] ^ prefix[3]) & mask[3]
        == 0
}

/// What a filter may ask for: of the packet's own headers, tags or not, and
/// ports only where they follow the IP header.
struct Seen {
    source: [u32; 4],
    destination: [u32; 4],
    protocol: u8,
    ports: u32,
}

#[inline(always)]
fn look(frame: &Frame) -> Option<Seen> {
    let (network, ethertype) = frame.network()?;
    let (mut seen, transport) = match ethertype {
        ETHERTYPE_IPV4 => {
            let header = frame.read_variable::<Ipv4>(network)?;
            let seen = Seen {
                source: mapped(header.source),
                destination: mapped(header.destination),
                protocol: header.protocol,
                ports: 0,
            };
            // Later fragments have none.
            let first = header.fragment & FRAGMENT_OFFSET == 0;
            let length = usize::from(header.version_ihl & 0x0f) * 4;
            (seen, first.then_some(network + length))
        }
        ETHERTYPE_IPV6 => {
            let header = frame.read_variable::<Ipv6>(network)?;
            let seen = Seen {
                source: words(header.source),
                destination: words(header.destination),
                protocol: header.next_header,
                ports: 0,
            };
            (seen, Some(network + IPV6_HEADER as usize))
        }
        _ => return None,
    };
    if let Some(transport) = transport
        && matches!(seen.protocol, TCP | UDP)
    {
        seen.ports = frame.read::<u32>(transport).unwrap_or(0);
    }
    Some(seen)
}
