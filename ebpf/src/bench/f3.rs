//! Floor of the benchmarks: the plainest stateless balancer there can be.
//!
//! IPv4 only: the service by one lookup in a BPF hash map, a keyed hash of the
//! flow, its ring slot, the backend's record, one per-CPU counter, IP in IP.
//! No flow state, no checks of link or path, no reasons.
//!
//! Kept as once written: the balancer is judged by it.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use vipd_abi::{FlowKey, flow_hash};
use vipd_ebpf::bench::packet;

/// What a packet is looked up by, in network order.
#[repr(C)]
struct Vip {
    address: u32,
    port: u16,
    protocol: u16,
}

#[repr(C)]
struct Service {
    ring_offset: u32,
    ring_mask: u32,
}

#[repr(C)]
struct Backend {
    address: u32,
    /// Of the next hop.
    mac: [u16; 3],
    reserved: u16,
}

#[repr(C)]
struct Counter {
    packets: u64,
    bytes: u64,
}

#[btf_map]
static F3_VIPS: HashMap<Vip, Service, 4096> = HashMap::new();
#[btf_map]
static F3_RING: Array<u32, 0x40_0000> = Array::new();
#[btf_map]
static F3_BACKENDS: Array<Backend, 0x2_0000> = Array::new();
#[btf_map]
static F3_COUNTERS: PerCpuArray<Counter, 0x2_0000> = PerCpuArray::new();

/// Written by the loader.
#[unsafe(no_mangle)]
static F3_FLOW_KEY: FlowKey = FlowKey([0; 2]);
/// Outer source address, in network order; written by the loader.
#[unsafe(no_mangle)]
static F3_SOURCE: u32 = 0;

#[expect(
    clippy::needless_pass_by_value,
    reason = "the `xdp` attribute calls it by value"
)]
#[xdp]
fn f3(ctx: XdpContext) -> u32 {
    balance(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn balance(ctx: &XdpContext) -> Option<u32> {
    let packet = packet::parse(ctx)?;
    let header = &packet.header;
    let vip = Vip {
        address: header.destination,
        port: (packet.ports >> 16) as u16,
        protocol: u16::from(header.protocol),
    };
    // SAFETY: entries are not removed while packets come.
    let service = unsafe { F3_VIPS.get(&vip) }?;
    // SAFETY: statics of this program; volatile, since the loader writes them.
    let (key, source) = unsafe {
        (
            (&raw const F3_FLOW_KEY).read_volatile(),
            (&raw const F3_SOURCE).read_volatile(),
        )
    };
    let hash = flow_hash(
        key,
        [u64::from(header.source), 0],
        [u64::from(header.destination), 0],
        packet.ports,
        header.protocol,
    );
    let slot = service.ring_offset + (hash as u32 & service.ring_mask);
    let number = *F3_RING.get(slot)?;
    let backend = F3_BACKENDS.get(number)?;
    let counter = F3_COUNTERS.get_ptr_mut(number)?;
    // SAFETY: the entry is this processor's own.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += (ctx.data_end() - ctx.data()) as u64;
    }
    packet::encapsulate(ctx, &packet, source, backend.address, backend.mac)?;
    Some(xdp_action::XDP_TX)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
