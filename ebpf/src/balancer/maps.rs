//! The maps, and the only counting function.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE, btf_maps::Array, helpers::bpf_get_smp_processor_id, macros::btf_map,
};
use vipd_abi::{COUNTERS, CPUS, Counter, Counts, Plane};
use vipd_ebpf::anchor::within;

use crate::trace;

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
pub static PLANE: Array<Plane, 1, MMAPABLE> = Array::new();
#[btf_map]
pub static COUNTS: Array<Counts, { CPUS as usize }, MMAPABLE> = Array::new();

/// All tables.
#[inline(always)]
pub fn plane() -> Option<&'static Plane> {
    PLANE.get(0)
}

/// Counts one packet for its verdict, and for its backend unless that is 0.
/// Says how many of this verdict this processor has counted.
#[inline(always)]
pub fn count(verdict: u32, backend: u32, bytes: u64) -> u64 {
    if trace::DRY {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(counts) = COUNTS.get_ptr_mut(cpu) else {
        return 0;
    };
    // SAFETY: the map's entry stays where it is, and only this processor,
    // which runs one XDP program at a time, writes it.
    unsafe {
        if backend != 0 {
            add(&raw mut (*counts).0[within::<COUNTERS>(backend)], bytes);
        }
        add(&raw mut (*counts).0[within::<COUNTERS>(verdict)], bytes)
    }
}

/// # Safety
///
/// The counter is this processor's own.
#[inline(always)]
unsafe fn add(counter: *mut Counter, bytes: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let packets = (*counter).packets + 1;
        (*counter).packets = packets;
        (*counter).bytes += bytes;
        packets
    }
}
