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
mod outcome;
mod parse;
mod trace;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use vipd_abi::{Action, Plane, Verdict};
use vipd_ebpf::{
    anchor::hidden,
    frame::Frame,
    header::{ETHERTYPE, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

use crate::{
    outcome::Outcome,
    parse::{Odd, Served},
};

/// Entry point and single exit.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the `xdp` attribute calls it by value"
)]
#[xdp]
fn balancer(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(ctx.ctx);
    // Computed at once: it takes one register, the two ends would take two.
    let bytes = hidden(frame.len());
    trace::begin(&frame);
    let outcome = match maps::plane().map(|plane| classify(&mut frame, plane)) {
        Some(Ok(outcome)) => outcome,
        Some(Err(Odd)) => odd::packet(ctx.ctx),
        None => Verdict::Inconsistent.into(),
    };
    let verdict = outcome.verdict();
    trace::end(&frame, verdict);
    let seen = maps::count(verdict as u32, outcome.counter(), bytes);
    if hidden(verdict as u64) == Verdict::Forwarded as u64 {
        // Nearly always: nothing else is to be asked, and this first.
        return xdp_action::XDP_TX;
    }
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

/// The short path is compiled once per version of IP: code that knows which
/// has less to ask.
#[inline(always)]
fn classify(frame: &mut Frame, plane: &'static Plane) -> Result<Outcome, Odd> {
    match frame.read::<u16>(ETHERTYPE) {
        Some(ETHERTYPE_IPV4) => {
            let found = parse::ipv4(frame, plane)?;
            Ok(forward(frame, found))
        }
        Some(ETHERTYPE_IPV6) => {
            let found = parse::ipv6(frame, plane)?;
            Ok(forward(frame, found))
        }
        _ => Err(Odd),
    }
}

#[inline(always)]
fn forward(frame: &mut Frame, found: Option<Served>) -> Outcome {
    match found {
        Some((packet, entry, table)) => forward::packet(frame, &packet, entry, &table),
        None => Verdict::NotVip.into(),
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
