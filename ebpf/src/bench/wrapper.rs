//! Hands a fresh packet to the program that is measured.
//!
//! `BPF_PROG_TEST_RUN` with a repeat count gives a program its own output
//! back. So this program undoes what the last round has done to the frame,
//! writes the headers again, for another flow, and calls the target. It does
//! the same work whatever the target is, so that its own cost can be taken off.
#![no_std]
#![no_main]

use core::hint::black_box;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action},
    btf_maps::{Array, ProgramArray},
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use vipd_ebpf::bench::plan::{Flow, Plan, share};

#[btf_map]
static BENCH_PLAN: Array<Plan, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static BENCH_TARGET: ProgramArray<1> = ProgramArray::new();

#[expect(
    clippy::needless_pass_by_value,
    reason = "the `xdp` attribute calls it by value"
)]
#[xdp]
fn wrapper(ctx: XdpContext) -> u32 {
    if renew(&ctx).is_some() {
        // SAFETY: nothing here needs to be dropped.
        unsafe { BENCH_TARGET.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[inline(always)]
fn renew(ctx: &XdpContext) -> Option<()> {
    let plan = BENCH_PLAN.get_ptr_mut(0)?;
    // SAFETY: map entries stay where they are, and one thread at a time runs
    // this program.
    let plan = unsafe { &mut *plan };
    let grown = if plan.is_cut == 0 {
        length(ctx) - plan.length as i32
    } else {
        moved(ctx, plan)
    };
    // Always called, so that it always costs the same.
    // SAFETY: the kernel hands a valid context to the program.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, grown) } != 0 {
        return None;
    }
    if plan.is_cut != 0 {
        let cut = plan.length as i32 - length(ctx);
        // SAFETY: as above.
        if unsafe { bpf_xdp_adjust_tail(ctx.ctx, cut) } != 0 {
            return None;
        }
    }
    let packet = plan.made;
    plan.made = packet + 1;
    let flow = plan.flow(number(packet, plan.flows));
    if plan.is_ipv6 == 0 {
        ipv4(ctx, plan, flow)
    } else {
        ipv6(ctx, plan, flow)
    }
}

/// Length of the frame.
#[inline(always)]
fn length(ctx: &XdpContext) -> i32 {
    // In one word: the verifier takes no difference of halves of pointers.
    black_box(ctx.data_end() - ctx.data()) as i32
}

/// By how much the frame starts before the first one.
#[inline(always)]
fn moved(ctx: &XdpContext, plan: &mut Plan) -> i32 {
    // By way of the map: what comes from there is a number to the verifier,
    // and no pointer.
    // SAFETY: a reference's place is valid.
    let place = unsafe {
        let place = &raw mut plan.place;
        place.write_volatile(ctx.data() as u64);
        place.read_volatile()
    };
    if plan.start == 0 {
        plan.start = place;
    }
    (plan.start - place) as i32
}

/// Number of the flow that a packet belongs to: every flow now and then, in
/// no order.
#[inline(always)]
fn number(packet: u64, flows: u32) -> u32 {
    if flows == 0 {
        return packet as u32;
    }
    let mut word = packet.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^= word >> 32;
    word = word.wrapping_mul(0xd6e8_feb8_6659_fd93);
    share((word >> 32) as u32, flows)
}

/// Every store is as wide as the fields are that belong together, so that no
/// load of the target has to wait for two stores.
#[inline(always)]
fn ipv4(ctx: &XdpContext, plan: &Plan, flow: Flow) -> Option<()> {
    let frame = ctx.data();
    if frame + 38 > ctx.data_end() {
        return None;
    }
    let template = plan.template.as_ptr();
    // SAFETY: all of it lies within the 38 bytes of both.
    unsafe {
        link(frame, template);
        copy::<u64>(frame, template, 14);
        copy::<u32>(frame, template, 22);
        let addresses = read::<u64>(template, 26)
            | u64::from(flow.source) << 24
            | u64::from(flow.destination) << 56;
        ((frame + 26) as *mut u64).write_unaligned(addresses);
        ((frame + 34) as *mut u32).write_unaligned(ports(flow));
    }
    Some(())
}

#[inline(always)]
fn ipv6(ctx: &XdpContext, plan: &Plan, flow: Flow) -> Option<()> {
    let frame = ctx.data();
    if frame + 58 > ctx.data_end() {
        return None;
    }
    let template = plan.template.as_ptr();
    // SAFETY: all of it lies within the 58 bytes of both.
    unsafe {
        link(frame, template);
        copy::<u64>(frame, template, 14);
        copy::<u64>(frame, template, 22);
        let source = read::<u64>(template, 30) | u64::from(flow.source) << 56;
        ((frame + 30) as *mut u64).write_unaligned(source);
        copy::<u64>(frame, template, 38);
        let destination = read::<u64>(template, 46) | u64::from(flow.destination) << 56;
        ((frame + 46) as *mut u64).write_unaligned(destination);
        ((frame + 54) as *mut u32).write_unaligned(ports(flow));
    }
    Some(())
}

/// # Safety
///
/// Both have 14 bytes.
#[inline(always)]
unsafe fn link(frame: usize, template: *const u8) {
    // SAFETY: the caller's promise.
    unsafe {
        copy::<u64>(frame, template, 0);
        copy::<u32>(frame, template, 8);
        copy::<u16>(frame, template, 12);
    }
}

#[inline(always)]
fn ports(flow: Flow) -> u32 {
    u32::from(flow.ports.0.to_be()) | u32::from(flow.ports.1.to_be()) << 16
}

/// # Safety
///
/// Both have a `T` at `offset`.
#[inline(always)]
unsafe fn copy<T: Copy>(frame: usize, template: *const u8, offset: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        ((frame + offset) as *mut T).write_unaligned(read::<T>(template, offset));
    }
}

/// # Safety
///
/// It has a `T` at `offset`.
#[inline(always)]
unsafe fn read<T: Copy>(template: *const u8, offset: usize) -> T {
    // SAFETY: the caller's promise.
    unsafe { template.add(offset).cast::<T>().read_unaligned() }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
