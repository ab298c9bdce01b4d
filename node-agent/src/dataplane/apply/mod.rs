//! The data-plane applier: makes the maps what is desired.
//!
//! Every pass compares with what the maps really hold, slot by slot, so what
//! drifted heals. The order keeps packets whole at any moment, also when the
//! agent is killed in between: records and next hops first, then the slots
//! that name them, then the table that names the ring; only after that is
//! anything taken away, and its place rests before it is used again.

mod hops;
mod place;
mod placed;
mod reach;
mod report;
mod slots;
mod tend;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use vipd_abi::{
    BACKENDS, BackendKind, BackendRecord, COUNTERS, Counter, EntryKind, FlowKey, Head, MACS,
    NEXT_HOPS, RING_SLOTS, Tick, UPLINKS, Uplink, VipEntry,
};
use vipd_control::{
    decide::{Desired, ServicePlan},
    model::{Service, Vip},
};

use self::{
    placed::{Placed, PlacedBackend},
    reach::Look,
    tend::Former,
};
pub use self::{
    reach::Reach,
    report::{Flows, FlowsByService, PhaseCount, Usage},
};
use super::{
    adopt::Adopted,
    census::Count,
    listing::Listing,
    record::TunnelSources,
    space::{GRACE, Indices, Stretches},
    tables::{Tables, unmapped},
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
    pub vips: BTreeMap<Vip, u64>,
    /// Index of the counter per service and backend.
    pub counters: BTreeMap<Arc<str>, Counters>,
    /// Number of each service.
    pub numbers: BTreeMap<Arc<str>, u32>,
    /// Slots per phase, by service.
    pub phases: BTreeMap<Arc<str>, PhaseCount>,
    /// Flows recorded per service and backend; who has none may be absent.
    pub flows: Arc<FlowsByService>,
    /// What could not be done, in words, by service or virtual address.
    pub faults: BTreeMap<String, String>,
    /// How full the maps are.
    pub usage: Vec<Usage>,
    /// When to come again since something could not be done yet.
    pub retry_at: Option<Instant>,
    /// When to come again since slots or records are not at rest.
    pub look_at: Option<Instant>,
}

/// Index of the counter per backend of one service.
pub type Counters = Arc<BTreeMap<Arc<str>, u32>>;

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
    /// What the table in force says.
    listing: Listing,
    half: Option<Half>,
    /// When the table was published last, at the latest.
    published_at: Option<Instant>,
    /// What no longer has a name but may still be published.
    retired: Retired,
    /// What the last pass has taken out of force. It is given back by the next
    /// one, so that its rest begins when it is really out of reach.
    outgoing: Outgoing,
    adopted: Adopted,
    /// Records of services that are gone, while flows name them.
    orphans: BTreeMap<u32, Former>,
    /// The last word on the ways, and what was wrong with them.
    reach: Reach,
    hop_faults: BTreeMap<String, String>,
    /// Whether there may be next hops that no record names.
    hops_changed: bool,
    /// When slots and former records are to be looked at.
    look_at: Option<Instant>,
    /// What the last census has found, and what that means for backends.
    count: Option<Arc<Count>>,
    flows: Arc<FlowsByService>,
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

#[derive(Default)]
struct Outgoing {
    retired: Retired,
    published: bool,
}

#[derive(Default)]
struct Retired {
    numbers: Vec<u32>,
    rings: Vec<(u32, u32)>,
    records: Vec<(u32, BackendRecord)>,
    counters: Vec<u32>,
    hops: Vec<u32>,
    uplinks: Vec<u32>,
}

impl Applier {
    /// Takes over the maps with whatever they hold.
    #[must_use]
    pub fn new(tables: Tables, settings: Settings) -> Self {
        let adopted = Adopted::read(&tables);
        let records = || adopted.records();
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
        indices
            .records
            .adopt(&set(&mut records().map(|(index, _)| index)));
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
        let orphans = adopted.orphans.clone();
        let mut applier = Self {
            ring: Stretches::new(RING_SLOTS, &rings),
            listing: adopted.listing.clone(),
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
            orphans: BTreeMap::new(),
            reach: Reach::default(),
            hop_faults: BTreeMap::new(),
            hops_changed: false,
            look_at: None,
            count: None,
            flows: Arc::default(),
        };
        for (index, record) in orphans {
            applier.orphan(index, record, None);
        }
        applier
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
        let all = full || !self.reach.is(reach);
        self.reach = reach.clone();
        self.write_hops(desired, reach, all, now);
        applied.faults.clone_from(&self.hop_faults);
        for plan in &desired.services {
            if !all && self.holds(plan) {
                continue;
            }
            if let Err(error) = self.place(plan, desired, reach, now) {
                let name = &plan.service.name;
                applied.faults.insert(
                    format!("service {name}"),
                    format!("the data plane keeps its last state: {error}"),
                );
                applied.retry_at = Some(now + RETRY);
            }
        }
        self.retire_removed(desired);
        let wanted = self.wanted_listing(desired);
        self.tend(now);
        self.publish(&wanted, full, now, &mut applied);
        self.acknowledge(desired, &wanted, &mut applied);
        applied.usage = self.usage();
        applied.look_at = self.look_at.filter(|_| self.is_restless());
        applied
    }

    /// Whether the last pass got through with just this plan.
    fn holds(&self, plan: &Arc<ServicePlan>) -> bool {
        let placed = self.services.get(&plan.service.name);
        placed.is_some_and(|placed| placed.holds(plan))
    }

    /// Services no longer wanted leave the table with the next publication.
    fn retire_removed(&mut self, desired: &Desired) {
        let names = desired.services.iter().map(|plan| &plan.service.name);
        if self.adopted.services.is_empty() && self.services.keys().eq(names) {
            return;
        }
        self.hops_changed = true;
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
            let placed = self.take_over(number, adopted);
            self.retired.retire(placed);
        }
    }

    /// Puts the table in force if it differs from the one that is.
    fn publish(&mut self, wanted: &Listing, full: bool, now: Instant, applied: &mut Applied) {
        let stands = self.listing == *wanted
            && self
                .half
                .as_ref()
                .is_some_and(|half| !full || half.is_published(&self.tables));
        if stands {
            self.take_away(full);
            return;
        }
        let longest_idle = wanted.entries.values().map(|entry| entry.idle).max();
        let head = Head {
            longest_idle: longest_idle.unwrap_or(0),
            ..self.settings.head()
        };
        let half = match Half::build(wanted, head) {
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
        self.listing.clone_from(wanted);
        self.half = Some(half);
        self.take_away(full);
    }

    /// What the table is to say.
    fn wanted_listing(&self, desired: &Desired) -> Listing {
        let mut listing = Listing::default();
        for vip in desired.vips.keys() {
            listing.cover(*vip);
        }
        for placed in self.services.values() {
            let Some(plan) = &placed.plan else { continue };
            let service = &plan.service;
            let entry = VipEntry {
                kind: EntryKind::Service as u32,
                service: placed.number,
                ring_offset: placed.ring.0,
                ring_mask: placed.ring.1 - 1,
                forsaken: u32::from(!plan.available.contains(&true)),
                idle: u32::from(idle(service)),
                ..VipEntry::default()
            };
            for vip in &service.vips {
                listing.serve(*vip, service.protocol, service.ports, entry);
            }
        }
        for placed in self.services.values().filter(|p| p.plan.is_none()) {
            // What a previous agent had in force stays in force.
            listing.keep(&self.listing, placed.number);
        }
        listing
    }

    /// Nothing published names the retired any more, and it names every ring.
    fn take_away(&mut self, full: bool) {
        let now = self.tables.clock.tick();
        for placed in self.services.values_mut() {
            if !placed.in_force && placed.plan.is_some() {
                placed.in_force = true;
                placed.unsettled.restart(now);
            }
        }
        if full || std::mem::take(&mut self.hops_changed) {
            self.retire_hops();
        }
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
        // Before another service can have their number.
        for (index, record) in records {
            self.orphan(index, record, Some(now));
        }
        let indices = &mut self.indices;
        for (gone, indices) in [
            (numbers, &mut indices.numbers),
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
    fn acknowledge(&self, desired: &Desired, wanted: &Listing, applied: &mut Applied) {
        for (vip, vip_plan) in &desired.vips {
            let mut published = wanted.covers(*vip) && self.listing.covers(*vip);
            let mut carried = false;
            let plans = vip_plan.services.iter();
            for plan in plans.filter_map(|plan| desired.service(&plan.service.name)) {
                let service = &plan.service;
                let placed = self.services.get(&service.name);
                let led = |listing: &Listing| {
                    listing
                        .service(*vip, service.protocol, service.ports)
                        .copied()
                };
                published &= led(wanted).is_some()
                    && led(wanted) == led(&self.listing)
                    && placed.is_some_and(|placed| placed.holds(plan));
                carried |= placed.is_some_and(|placed| placed.reachable);
            }
            if published && carried {
                applied.vips.insert(*vip, vip_plan.fingerprint);
            }
        }
        for (name, placed) in &self.services {
            applied.numbers.insert(name.clone(), placed.number);
            if placed.plan.is_none() {
                continue;
            }
            let (learn, track) = placed.unsettled.counts();
            let phases = PhaseCount {
                stable: placed.ring.1 - learn - track,
                learn,
                track,
            };
            applied.phases.insert(name.clone(), phases);
            let counters = Arc::clone(&placed.counters);
            applied.counters.insert(name.clone(), counters);
        }
        applied.flows = Arc::clone(&self.flows);
    }
}

/// How long a flow of the service is remembered, in ticks.
fn idle(service: &Service) -> u16 {
    let nanos = u64::try_from(service.idle.as_nanos()).unwrap_or(u64::MAX);
    let ticks = u16::try_from(Tick::covering(nanos)).unwrap_or(u16::MAX);
    ticks.min(Tick::LONGEST_IDLE)
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
}
