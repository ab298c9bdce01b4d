//! The data-plane applier: makes the maps what is desired.
//!
//! Every pass compares with what the maps really hold, slot by slot, so what
//! drifted heals. The order keeps packets whole at any moment, also when the
//! agent is killed in between: records and next hops first, then the slots
//! that name them, then the table that names the ring; only after that is
//! anything taken away, and its place rests before it is used again.

mod hops;
mod place;
mod reach;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use vipd_abi::{
    BACKENDS, BackendKind, BackendRecord, COUNTERS, Counter, EntryKind, FlowKey, Head, MACS,
    NEXT_HOPS, NextHop, RING_SLOTS, UPLINKS, Uplink, VipEntry, VipKey,
};
use vipd_control::decide::{Desired, ServicePlan};

use self::reach::Look;
pub use self::reach::Reach;
use super::{
    adopt::Adopted,
    record::TunnelSources,
    space::{GRACE, Indices, Stretches},
    tables::{Tables, address_key, service_key, unmapped},
    vip_table::Half,
};

/// What holds for all services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Keys the flow hash.
    pub flow_key: FlowKey,
    /// Outer source addresses that the configuration prescribes.
    pub sources: TunnelSources,
    /// MAC addresses of the interfaces with the program, as in [`Head`].
    pub macs: [u64; MACS],
}

impl Settings {
    fn head(&self) -> Head {
        Head {
            flow_key: self.flow_key,
            macs: self.macs,
            ..Head::default()
        }
    }
}

/// What a pass has achieved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Per virtual address, the fingerprint of what packets now get. Absent
    /// while something of it is not in place.
    pub vips: BTreeMap<IpAddr, u64>,
    /// Index of the counter per service and backend.
    pub counters: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
    /// Number of each service.
    pub numbers: BTreeMap<Arc<str>, u32>,
    /// What could not be done, in words, by service or virtual address.
    pub faults: BTreeMap<String, String>,
    /// How full the maps are.
    pub usage: Vec<Usage>,
    /// When to come again although nothing has changed.
    pub retry_at: Option<Instant>,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Name of the map.
    pub map: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Entries there are.
    pub capacity: u32,
}

/// How soon a pass that did not get through is repeated.
const RETRY: Duration = Duration::from_secs(1);

/// Why a service could not be placed.
#[derive(Debug, Error)]
enum PlaceError {
    #[error("the {0} are full ({1} in use)")]
    Full(&'static str, u32),
    #[error("it has more than 65535 backends")]
    TooManyBackends,
}

/// Brings the maps to what is desired.
pub struct Applier {
    tables: Tables,
    settings: Settings,
    services: BTreeMap<Arc<str>, Placed>,
    hops: BTreeMap<HopKey, u32>,
    uplinks: BTreeMap<u32, Uplink>,
    indices: AllIndices,
    ring: Stretches,
    entries: BTreeMap<VipKey, VipEntry>,
    half: Option<Half>,
    /// When the table was published last, at the latest.
    published_at: Option<Instant>,
    /// What no longer has a name but may still be published.
    retired: Retired,
    /// What the last pass has taken out of force. It is given back by the next
    /// one, so that its rest begins when it is really out of reach.
    outgoing: Outgoing,
    adopted: Adopted,
}

/// A destination and whether frames must go to it directly.
type HopKey = (IpAddr, bool);

struct AllIndices {
    numbers: Indices,
    records: Indices,
    counters: Indices,
    hops: Indices,
    uplinks: Indices,
}

struct Placed {
    number: u32,
    ring: (u32, u32),
    backends: BTreeMap<IpAddr, PlacedBackend>,
    /// Records that slots may still name besides, from a previous agent.
    surplus: Vec<u32>,
    /// What the slots and the table say; `None` before the first success.
    plan: Option<Arc<ServicePlan>>,
    /// Whether the last pass got through with it.
    settled: bool,
}

#[derive(Clone, Copy)]
struct PlacedBackend {
    index: u32,
    record: BackendRecord,
}

#[derive(Default)]
struct Outgoing {
    retired: Retired,
    published: bool,
}

#[derive(Default)]
struct Retired {
    numbers: Vec<u32>,
    rings: Vec<(u32, u32)>,
    records: Vec<u32>,
    counters: Vec<u32>,
    hops: Vec<u32>,
    uplinks: Vec<u32>,
}

impl Applier {
    /// Takes over the maps with whatever they hold.
    #[must_use]
    pub fn new(tables: Tables, settings: Settings) -> Self {
        let adopted = Adopted::read(&tables);
        let records = || adopted.services.values().flat_map(|s| s.backends.values());
        let surplus = || adopted.services.values().flat_map(|s| &s.surplus).copied();
        let mut indices = AllIndices {
            numbers: Indices::new(1, u32::MAX),
            records: Indices::new(1, BACKENDS),
            counters: Indices::new(Counter::FIRST_BACKEND, COUNTERS),
            hops: Indices::new(1, NEXT_HOPS),
            uplinks: Indices::new(1, UPLINKS),
        };
        let set = |values: &mut dyn Iterator<Item = u32>| values.collect::<BTreeSet<u32>>();
        indices
            .numbers
            .adopt(&set(&mut adopted.services.keys().copied()));
        indices.records.adopt(&set(&mut records()
            .map(|(index, _)| *index)
            .chain(surplus())));
        indices
            .counters
            .adopt(&set(&mut records().map(|(_, r)| r.counter)));
        indices
            .hops
            .adopt(&set(&mut records().map(|(_, r)| r.next_hop)));
        indices
            .uplinks
            .adopt(&set(&mut adopted.uplinks.keys().copied()));
        let hops = records()
            .map(|(_, record)| {
                let on_link = record.kind == BackendKind::L2 as u32;
                ((unmapped(record.destination), on_link), record.next_hop)
            })
            .collect();
        let rings = adopted.services.values().map(|s| s.ring).collect();
        Self {
            ring: Stretches::new(RING_SLOTS, &rings),
            entries: adopted.entries.clone(),
            uplinks: adopted.uplinks.clone(),
            tables,
            settings,
            services: BTreeMap::new(),
            hops,
            indices,
            half: None,
            published_at: None,
            retired: Retired::default(),
            outgoing: Outgoing::default(),
            adopted,
        }
    }

    /// What a previous agent left, for whoever starts from it.
    #[must_use]
    pub fn adopted(&self) -> &Adopted {
        &self.adopted
    }

    /// The tables, for whoever shows them.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Puts other settings into force with the next pass.
    pub fn configure(&mut self, settings: Settings) {
        if self.settings.sources != settings.sources {
            // Every record may change.
            for placed in self.services.values_mut() {
                placed.settled = false;
            }
        }
        if self.settings.head() != settings.head() {
            self.half = None;
        }
        self.settings = settings;
    }

    /// One pass. With `full`, unchanged services are compared too.
    pub fn apply(&mut self, desired: &Desired, reach: &Reach, full: bool, now: Instant) -> Applied {
        let mut applied = Applied::default();
        self.give_back(now);
        self.write_hops(desired, reach, now, &mut applied);
        for plan in &desired.services {
            if let Err(error) = self.place(plan, reach, full, now) {
                let name = &plan.service.name;
                applied.faults.insert(
                    format!("service {name}"),
                    format!("the data plane keeps its last state: {error}"),
                );
                applied.retry_at = Some(now + RETRY);
            }
        }
        self.retire_removed(desired);
        let wanted = self.wanted_entries(desired);
        self.publish(&wanted, full, now, &mut applied);
        self.acknowledge(desired, &wanted, &mut applied);
        applied.usage = self.usage();
        applied
    }

    /// Services no longer wanted leave the table with the next publication.
    fn retire_removed(&mut self, desired: &Desired) {
        let wanted: BTreeSet<&str> = desired.services.iter().map(|p| &*p.service.name).collect();
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.services)
            .into_iter()
            .partition(|(name, _)| wanted.contains(&**name));
        self.services = kept;
        for placed in gone.into_values() {
            self.retired.retire(placed);
        }
        // What a previous agent left and the configuration does not name.
        for (number, adopted) in std::mem::take(&mut self.adopted.services) {
            let placed = Self::take_over(number, adopted);
            self.retired.retire(placed);
        }
    }

    /// Puts the table in force if it differs from the one that is.
    fn publish(
        &mut self,
        wanted: &BTreeMap<VipKey, VipEntry>,
        full: bool,
        now: Instant,
        applied: &mut Applied,
    ) {
        let stands = self.entries == *wanted
            && self
                .half
                .as_ref()
                .is_some_and(|half| !full || half.is_published(&self.tables));
        if stands {
            self.take_away();
            return;
        }
        let half = match Half::build(wanted, self.settings.head()) {
            Ok(half) => half,
            Err(error) => {
                let fault = format!("stays as it was: {error}");
                applied.faults.insert("VIP table".to_owned(), fault);
                applied.retry_at = Some(now + RETRY);
                return;
            }
        };
        if !half.is_published(&self.tables) {
            let ready = self.published_at.map_or(now, |last| last + GRACE);
            if now < ready {
                applied.retry_at = Some(ready);
                return;
            }
            half.publish(&self.tables);
            self.outgoing.published = true;
        }
        self.entries.clone_from(wanted);
        self.half = Some(half);
        self.take_away();
    }

    fn wanted_entries(&self, desired: &Desired) -> BTreeMap<VipKey, VipEntry> {
        let mut entries: BTreeMap<VipKey, VipEntry> = BTreeMap::new();
        for vip in desired.vips.keys() {
            let key = address_key(*vip);
            let kind = EntryKind::Address as u32;
            entries.insert(
                key,
                VipEntry {
                    key,
                    kind,
                    ..VipEntry::default()
                },
            );
        }
        for placed in self.services.values() {
            let Some(plan) = &placed.plan else {
                // What a previous agent had in force stays in force.
                let own = |entry: &&VipEntry| entry.service == placed.number;
                entries.extend(self.entries.values().filter(own).map(|e| (e.key, *e)));
                continue;
            };
            let service = &plan.service;
            for vip in &service.vips {
                let key = service_key(*vip, service.protocol, service.port.get());
                let entry = VipEntry {
                    key,
                    kind: EntryKind::Service as u32,
                    service: placed.number,
                    ring_offset: placed.ring.0,
                    ring_mask: placed.ring.1 - 1,
                    forsaken: u32::from(!plan.available.contains(&true)),
                    ..VipEntry::default()
                };
                entries.insert(key, entry);
            }
        }
        entries
    }

    /// Nothing published names the retired any more.
    fn take_away(&mut self) {
        self.retire_hops();
        self.outgoing.retired.append(&mut self.retired);
    }

    /// Gives back what the pass before has taken out of force.
    fn give_back(&mut self, now: Instant) {
        let outgoing = std::mem::take(&mut self.outgoing);
        if outgoing.published {
            self.published_at = Some(now);
        }
        let Retired {
            numbers,
            rings,
            records,
            counters,
            hops,
            uplinks,
        } = outgoing.retired;
        for (start, length) in rings {
            self.ring.give_back(start, length, now);
        }
        let indices = &mut self.indices;
        for (gone, indices) in [
            (numbers, &mut indices.numbers),
            (records, &mut indices.records),
            (counters, &mut indices.counters),
            (hops, &mut indices.hops),
            (uplinks, &mut indices.uplinks),
        ] {
            for index in gone {
                indices.give_back(index, now);
            }
        }
    }

    /// Says which virtual addresses are in place, with a way to enough of
    /// their backends.
    fn acknowledge(
        &self,
        desired: &Desired,
        wanted: &BTreeMap<VipKey, VipEntry>,
        applied: &mut Applied,
    ) {
        let in_force =
            |key: VipKey| wanted.contains_key(&key) && wanted.get(&key) == self.entries.get(&key);
        for (vip, vip_plan) in &desired.vips {
            let mut published = in_force(address_key(*vip));
            let mut carried = false;
            for plan in desired
                .services
                .iter()
                .filter(|p| p.service.vips.contains(vip))
            {
                let service = &plan.service;
                let placed = self.services.get(&service.name);
                published &= in_force(service_key(*vip, service.protocol, service.port.get()))
                    && placed.is_some_and(|placed| placed.holds(plan));
                carried |= placed.is_some_and(|placed| placed.is_in_place(&self.tables));
            }
            if published && carried {
                applied.vips.insert(*vip, vip_plan.fingerprint);
            }
        }
        for (name, placed) in &self.services {
            applied.numbers.insert(name.clone(), placed.number);
            let Some(plan) = &placed.plan else { continue };
            let counters = applied.counters.entry(name.clone()).or_default();
            for backend in &plan.service.backends {
                if let Some(placed) = placed.backends.get(&backend.address) {
                    counters.insert(backend.name.clone(), placed.record.counter);
                }
            }
        }
    }

    fn usage(&self) -> Vec<Usage> {
        use vipd_abi::map;
        let entries = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let most = u32::try_from(super::vip_table::MOST_ENTRIES).unwrap_or(u32::MAX);
        let usage = |map, used, capacity| Usage {
            map,
            used,
            capacity,
        };
        vec![
            usage(map::VIP_ENTRIES, entries, most),
            usage(map::RING, self.ring.used(), RING_SLOTS),
            usage(
                map::BACKEND_RECORDS,
                self.indices.records.used(),
                BACKENDS - 1,
            ),
            usage(map::NEXT_HOP_WORDS, self.indices.hops.used(), NEXT_HOPS - 1),
            usage(
                map::UPLINK_RECORDS,
                self.indices.uplinks.used(),
                UPLINKS - 1,
            ),
            usage(
                map::COUNTER_RECORDS,
                self.indices.counters.used(),
                COUNTERS - Counter::FIRST_BACKEND,
            ),
        ]
    }
}

impl Placed {
    /// Whether the last pass got through with just this plan.
    fn holds(&self, plan: &Arc<ServicePlan>) -> bool {
        self.settled
            && self
                .plan
                .as_ref()
                .is_some_and(|held| Arc::ptr_eq(held, plan))
    }

    /// Whether its wanted number of available backends can be reached, by the
    /// words that packets read.
    fn is_in_place(&self, tables: &Tables) -> bool {
        let Some(plan) = self.plan.as_ref().filter(|_| self.settled) else {
            return false;
        };
        let backends = plan.service.backends.iter().zip(&plan.available);
        let reachable = backends
            .filter(|(backend, available)| **available && backend.weight > 0)
            .filter_map(|(backend, _)| self.backends.get(&backend.address))
            .filter(|placed| tables.hops.load(placed.record.next_hop) != NextHop::UNRESOLVED)
            .count();
        reachable >= plan.service.min_healthy.max(1) as usize
    }
}

impl Retired {
    fn append(&mut self, other: &mut Self) {
        self.numbers.append(&mut other.numbers);
        self.rings.append(&mut other.rings);
        self.records.append(&mut other.records);
        self.counters.append(&mut other.counters);
        self.hops.append(&mut other.hops);
        self.uplinks.append(&mut other.uplinks);
    }

    fn retire(&mut self, placed: Placed) {
        self.numbers.push(placed.number);
        if placed.ring.1 != 0 {
            self.rings.push(placed.ring);
        }
        self.records.extend(placed.surplus);
        for backend in placed.backends.into_values() {
            self.records.push(backend.index);
            self.counters.push(backend.record.counter);
        }
    }
}
