//! Whether what is in the maps is consistent, by the maps and by packets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use vipd::dataplane::{
    kernel::Kernel,
    tables::{Tables, unmapped},
};
use vipd_abi::{BackendRecord, EntryKind, FLOW_BUCKETS, FlowEntry, NextHop, VipEntry};

use crate::world::{LB_MAC, SERVICES, owner, owner_by_mac, vip};

/// XDP's verdicts (include/uapi/linux/bpf.h).
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// Flows tried for each service.
const FLOWS: u16 = 64;

/// What the maps say.
#[derive(Default)]
pub struct Findings {
    /// Services in force, by the last octet of their addresses.
    services: BTreeSet<u8>,
    /// Backends that slots name, as service and number, or flows that are
    /// recorded: the clock of flows stands still between two agents.
    backends: BTreeSet<(u8, u8)>,
    /// Backends that slots name with more than one record: the agent was
    /// killed while it moved slots.
    pub unfinished: usize,
}

/// Every slot names a record of its own service, and nothing is used twice.
pub fn tables(tables: &Tables) -> Result<Findings> {
    let entries = tables.published_entries();
    let mut found = Findings::default();
    let mut users = Users::default();
    let mut rings: BTreeMap<u32, u32> = BTreeMap::new();
    let recorded = recorded(tables);
    for entry in entries.values() {
        if entry.kind != EntryKind::Service as u32 {
            continue;
        }
        let service = service_of(entry)?;
        let length = entry.ring_mask + 1;
        let before = rings.insert(entry.ring_offset, length);
        ensure!(before.is_none(), "two services have one ring: {entry:?}");
        users.one("service number", entry.service, service.into())?;
        found.services.insert(service);
        ring(tables, entry, service, &mut users, &mut found)
            .with_context(|| format!("service {service}, {entry:?}"))?;
        let own = recorded
            .iter()
            .filter(|record| record.service == entry.service);
        let backends = own.filter_map(|record| owner(unmapped(record.destination)));
        found.backends.extend(backends);
    }
    let ends = rings.iter().map(|(start, length)| start + length);
    for (end, next) in ends.zip(rings.keys().skip(1)) {
        ensure!(end <= *next, "rings overlap: {rings:?}");
    }
    Ok(found)
}

/// The records of backends that flows are recorded for.
fn recorded(tables: &Tables) -> Vec<BackendRecord> {
    let places = (0..FLOW_BUCKETS).flat_map(|bucket| tables.flows.load(bucket).0);
    let named: BTreeSet<u32> = places
        .map(FlowEntry::backend)
        .filter(|index| *index != 0)
        .collect();
    let records = named.into_iter().map(|index| tables.records.load(index));
    records
        .filter(|record| record.state & BackendRecord::DEAD == 0)
        .collect()
}

fn ring(
    tables: &Tables,
    entry: &VipEntry,
    service: u8,
    users: &mut Users,
    found: &mut Findings,
) -> Result<()> {
    let slots = entry.ring_offset..=entry.ring_offset + entry.ring_mask;
    let slots = slots.map(|slot| tables.ring.load(slot));
    let named: BTreeSet<u32> = slots
        .flat_map(|slot| [slot.current(), slot.previous()])
        .filter(|index| *index != 0)
        .collect();
    for index in named {
        let record = tables.records.load(index);
        let address = unmapped(record.destination);
        let whose = owner(address).with_context(|| format!("a slot names {record:?}"))?;
        ensure!(
            record.service == entry.service && whose.0 == service,
            "a slot names record {index} of somebody else: {record:?}"
        );
        let id = u64::from(service) << 8 | u64::from(whose.1);
        users.one("record", index, id)?;
        users.one("counter", record.counter, id)?;
        users.one("next hop", record.next_hop, id)?;
        let hop = tables.hops.load(record.next_hop);
        ensure!(
            hop != NextHop::UNRESOLVED,
            "record {index} leads nowhere: {record:?}"
        );
        let new = found.backends.insert(whose);
        found.unfinished += usize::from(!new);
    }
    Ok(())
}

/// Who uses what.
#[derive(Default)]
struct Users(BTreeMap<(&'static str, u32), u64>);

impl Users {
    /// Notes a user; there may be no other.
    fn one(&mut self, what: &'static str, index: u32, user: u64) -> Result<()> {
        let first = *self.0.entry((what, index)).or_insert(user);
        ensure!(
            first == user,
            "{what} {index} is used by {first} and {user}"
        );
        Ok(())
    }
}

fn service_of(entry: &VipEntry) -> Result<u8> {
    let words = entry.key.address.map(u32::to_ne_bytes).concat();
    let service = (0..SERVICES).find(|service| words[12..] == vip(*service).octets());
    service.with_context(|| format!("an entry for no service of ours: {entry:?}"))
}

/// Packets for a service go to one of its backends; only those of services
/// that are not in force go nowhere.
pub fn packets(kernel: &mut Kernel, found: &Findings) -> Result<()> {
    let program = kernel.program()?;
    for service in 0..SERVICES {
        for flow in 0..FLOWS {
            let mut frame = vec![0; 256];
            let result = program.test_run(TestRunOptions {
                data_in: Some(&packet(vip(service), 20_000 + flow)),
                data_out: Some(&mut frame),
                ..TestRunOptions::default()
            })?;
            frame.truncate(result.data_size_out as usize);
            let served = found.services.contains(&service);
            let owned = found.backends.iter().any(|backend| backend.0 == service);
            match result.return_value {
                XDP_TX => right_backend(&frame, service, found)?,
                XDP_PASS if !served => {}
                XDP_DROP if !owned => {}
                other => bail!(
                    "a packet of service {service} got verdict {other} (served: {served}, \
                     has backends: {owned})"
                ),
            }
        }
    }
    Ok(())
}

/// By the frame's destination, and that of a tunnel header if there is one.
fn right_backend(frame: &[u8], service: u8, found: &Findings) -> Result<()> {
    let mac: [u8; 6] = frame[..6].try_into()?;
    let backend = owner_by_mac(mac).with_context(|| format!("sent to {mac:x?}"))?;
    let outer = match frame[12..14] {
        [0x86, 0xdd] => Some(IpAddr::from(<[u8; 16]>::try_from(&frame[38..54])?)),
        _ if frame[23] == 4 => Some(IpAddr::from(<[u8; 4]>::try_from(&frame[30..34])?)),
        _ => None,
    };
    let tunnelled = outer.map_or(Some(backend), owner);
    ensure!(
        backend.0 == service && tunnelled == Some(backend) && found.backends.contains(&backend),
        "a packet of service {service} went to {backend:?}, in a tunnel to {outer:?}"
    );
    Ok(())
}

/// A segment of an established connection, bare of what nobody looks at.
fn packet(destination: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(54);
    frame.extend(LB_MAC);
    frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x00]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(Ipv4Addr::new(203, 0, 113, 7).octets());
    frame.extend(destination.octets());
    frame.extend(port.to_be_bytes());
    frame.extend(80_u16.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
