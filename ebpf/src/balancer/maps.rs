//! The maps, and the only counting function.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE, btf_maps::Array, helpers::bpf_get_smp_processor_id, macros::btf_map,
};
use vipd_abi::{
    BACKENDS, BackendRecord, COUNTERS, CPUS, Counter, FILTER_WORDS, FLOW_BUCKETS, FRAGMENT_BUCKETS,
    FlowBucket, Heads, NEXT_HOPS, NextHop, PORT_RANGES, PortRange, RING_SLOTS, Slot, Stamp,
    UPLINKS, Uplink, VIP_BUCKETS, VIP_SLOTS, VipEntry,
};

use crate::trace;

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
pub static HEADS: Array<Heads, 1, MMAPABLE> = Array::new();
#[btf_map]
pub static VIP_SEEDS: Array<u64, { 2 * VIP_BUCKETS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static VIP_ENTRIES: Array<VipEntry, { 2 * VIP_SLOTS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static RING: Array<Slot, { RING_SLOTS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static PORT_RANGE_RECORDS: Array<PortRange, { 2 * PORT_RANGES as usize }, MMAPABLE> =
    Array::new();
#[btf_map]
pub static FILTER: Array<u64, { 2 * FILTER_WORDS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static STAMPS: Array<Stamp, { RING_SLOTS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static FLOWS: Array<FlowBucket, { FLOW_BUCKETS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static FRAGMENTS: Array<FlowBucket, { FRAGMENT_BUCKETS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static ANSWERS: Array<u64, { CPUS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static BACKEND_RECORDS: Array<BackendRecord, { BACKENDS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static NEXT_HOP_WORDS: Array<NextHop, { NEXT_HOPS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static UPLINK_RECORDS: Array<Uplink, { UPLINKS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub static COUNTER_RECORDS: Array<Counter, { (CPUS * COUNTERS) as usize }, MMAPABLE> = Array::new();

/// Counts one packet and says how many this processor has counted there.
#[inline(always)]
pub fn count(index: u32, bytes: u64) -> u64 {
    if trace::DRY {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(counter) = COUNTER_RECORDS.get_ptr_mut(Counter::place(cpu, index)) else {
        return 0;
    };
    // SAFETY: the map's entry stays where it is, and only this processor,
    // which runs one XDP program at a time, writes it.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += bytes;
        (*counter).packets
    }
}
