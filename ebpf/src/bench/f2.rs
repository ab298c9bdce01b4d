//! Floor of the benchmarks: parses, encapsulates to one constant destination.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use vipd_ebpf::bench::packet;

/// 192.0.2.11 and 192.0.2.21.
const SOURCE: u32 = 0xc000_020b_u32.to_be();
const DESTINATION: u32 = 0xc000_0215_u32.to_be();
/// 02:00:00:00:00:21.
const MAC: [u16; 3] = [0x0200_u16.to_be(), 0, 0x0021_u16.to_be()];

#[expect(
    clippy::needless_pass_by_value,
    reason = "the `xdp` attribute calls it by value"
)]
#[xdp]
fn f2(ctx: XdpContext) -> u32 {
    send(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn send(ctx: &XdpContext) -> Option<u32> {
    let packet = packet::parse(ctx)?;
    packet::encapsulate(ctx, &packet, SOURCE, DESTINATION, MAC)?;
    Some(xdp_action::XDP_TX)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
