//! The program that forwards tells nothing.

use vipd_abi::{Trace, Verdict};
use vipd_ebpf::frame::Frame;

#[inline(always)]
pub fn begin(_: &Frame) {}

#[inline(always)]
pub fn end(_: &Frame, _: Verdict) {}

#[inline(always)]
pub fn tell(_: impl FnOnce(&mut Trace)) {}
