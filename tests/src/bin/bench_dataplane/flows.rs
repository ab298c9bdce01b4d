//! Slots in the middle of a change, and a flow table with flows in it, written
//! by hand: how they come about is not what is measured.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use vipd::dataplane::tables::{Tables, service_key};
use vipd_abi::{
    FLOW_BUCKETS, FLOWS_PER_BUCKET, FlowBucket, FlowEntry, Slot, Stamp, Tick, VIP_SLOTS, VipKey,
    flow_bucket, flow_hash,
};

use crate::{
    packets::Kind,
    plan::{Flow, Plan, service_port},
    plane::FLOW_KEY,
};

/// Flows of all services are remembered as long as possible.
pub fn remember(tables: &Tables) {
    let idle = u32::from(Tick::LONGEST_IDLE);
    let half = tables.half();
    for place in half * VIP_SLOTS..(half + 1) * VIP_SLOTS {
        let mut entry = tables.entries.load(place);
        if entry.ring_mask != 0 {
            entry.idle = idle;
            tables.entries.store(place, entry);
        }
    }
    let mut head = tables.heads.load(half);
    head.longest_idle = idle;
    tables.heads.store(half, head);
}

/// Changes every slot of the service that such packets are for, given its
/// owner and that of the next slot.
pub fn change_slots(tables: &Tables, kind: &Kind, change: impl Fn(u32, u32) -> Slot) -> Result<()> {
    let (offset, length) = ring(tables, kind)?;
    let owners: Vec<u32> = (offset..offset + length)
        .map(|place| tables.ring.load(place).current())
        .collect();
    for (slot, owner) in (0..length).zip(&owners) {
        let next = owners[(slot as usize + 1) % owners.len()];
        tables.ring.publish(offset + slot, change(*owner, next));
        tables.stamps.store(offset + slot, Stamp::default());
    }
    Ok(())
}

/// Records flows of such packets for the owner of the next slot, as far as
/// their buckets have room. Says how many have.
pub fn record(tables: &Tables, kind: &Kind, plan: &Plan, flows: u32) -> Result<u32> {
    let (offset, length) = ring(tables, kind)?;
    let now = tables.clock.tick();
    let mut recorded = 0;
    for number in 0..flows {
        let hash = hash(kind, plan.flow(number));
        let next = (hash as u32).wrapping_add(1) & (length - 1);
        let owner = tables.ring.load(offset + next).current();
        let index = flow_bucket(hash, FLOW_BUCKETS);
        let mut bucket = tables.flows.load(index);
        let free = bucket.0.iter().position(|entry| *entry == FlowEntry::FREE);
        if let Some(place) = free {
            bucket.0[place] = FlowEntry::new(hash, owner, now);
            tables.flows.store(index, bucket);
            recorded += 1;
        }
    }
    Ok(recorded)
}

/// Fills the table with live flows of nobody that comes.
pub fn fill(tables: &Tables, kind: &Kind) -> Result<()> {
    let (offset, _) = ring(tables, kind)?;
    let owner = tables.ring.load(offset).current();
    let now = tables.clock.tick();
    for index in 0..FLOW_BUCKETS {
        let mut bucket = FlowBucket::default();
        for place in 0..FLOWS_PER_BUCKET {
            // Other marks than a hash of real flows is likely to have.
            let mark = (u64::from(index) << 3 | place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            bucket.0[place] = FlowEntry::new(mark, owner, now);
        }
        tables.flows.store(index, bucket);
    }
    Ok(())
}

/// Forgets all flows.
pub fn clear(tables: &Tables) {
    for index in 0..FLOW_BUCKETS {
        tables.flows.store(index, FlowBucket::default());
    }
}

fn ring(tables: &Tables, kind: &Kind) -> Result<(u32, u32)> {
    let key: VipKey = service_key(kind.destination, kind.protocol, service_port(0));
    let entries = tables.published_entries();
    let entry = entries.get(&key).context("no such service")?;
    Ok((entry.ring_offset, entry.ring_mask + 1))
}

/// The hash of a flow, as the program sees it. IPv4 only.
fn hash(kind: &Kind, flow: Flow) -> u64 {
    let words = |address: IpAddr, last: u8| match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [u64::from(u32::from_le_bytes([a, b, c, d | last])), 0]
        }
        IpAddr::V6(_) => [0; 2],
    };
    let ports = u32::from(flow.ports.0.to_be()) | u32::from(flow.ports.1.to_be()) << 16;
    flow_hash(
        FLOW_KEY,
        words(kind.source(), flow.source),
        words(kind.destination, flow.destination),
        ports,
        kind.number(),
    )
}
