//! Floor of the benchmarks: parses, swaps the Ethernet addresses, sends back.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use vipd_ebpf::bench::packet;

#[expect(
    clippy::needless_pass_by_value,
    reason = "the `xdp` attribute calls it by value"
)]
#[xdp]
fn f1(ctx: XdpContext) -> u32 {
    reflect(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn reflect(ctx: &XdpContext) -> Option<u32> {
    packet::parse(ctx)?;
    let addresses = packet::addresses(ctx)?;
    // SAFETY: its bounds have been checked.
    unsafe {
        let [a, b, c, d, e, f] = addresses.read_unaligned();
        addresses.write_unaligned([d, e, f, a, b, c]);
    }
    Some(xdp_action::XDP_TX)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
