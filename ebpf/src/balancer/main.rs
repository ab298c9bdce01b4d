//! The balancer: what is for a virtual address goes to a backend.
//!
//! parse -> VIP -> ring slot -> backend record -> encapsulate or rewrite ->
//! verdict. One function classifies and forwards; its verdict is counted at
//! the single exit below.
#![no_std]
#![no_main]

mod encapsulate;
mod flow;
mod forward;
mod lookup;
mod maps;
mod odd;
mod parse;
mod trace;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use vipd_abi::{Action, Verdict};
use vipd_ebpf::frame::Frame;

use crate::parse::Miss;

/// Entry point and single exit.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the `xdp` attribute calls it by value"
)]
#[xdp]
fn balancer(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(ctx.ctx);
    let bytes = frame.len();
    trace::begin(&frame);
    let verdict = match parse::plain(&frame) {
        Ok((_, _, head)) if !head.macs.contains(&frame.destination()) => Verdict::OtherHost,
        Ok((packet, entry, head)) => forward::packet(&mut frame, &packet, entry, head),
        Err(Miss::Verdict(verdict)) => verdict,
        Err(Miss::Odd) => odd::packet(ctx.ctx),
    };
    trace::end(&frame, verdict);
    let seen = maps::count(verdict as u32, bytes);
    // The 1st, 2nd, 4th, 8th ... on a processor: never a line per packet.
    if verdict.is_odd() && seen.is_power_of_two() {
        debug!(
            &ctx,
            "{}: {} packets on this processor",
            verdict.label(),
            seen
        );
    }
    match verdict.action() {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Transmit => xdp_action::XDP_TX,
        Action::Redirect => xdp_action::XDP_REDIRECT,
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
