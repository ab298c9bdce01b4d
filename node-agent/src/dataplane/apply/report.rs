//! What a pass tells: which addresses are in place, slots that change hands,
//! flows, and how full the maps are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use vipd_abi::{BACKENDS, COUNTERS, Counter, NEXT_HOPS, PORT_RANGES, Phase, RING_SLOTS, UPLINKS};
use vipd_control::{decide::Desired, model::Vip};

use super::{Applier, Placed};
use crate::{
    dataplane::{
        listing::Listing,
        vip_table::{Half, MOST_ENTRIES},
    },
    events::Trail,
};

/// What a pass has achieved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Per virtual address, the fingerprint of what packets now get. Absent
    /// while something of it is not in place.
    pub vips: Arc<BTreeMap<Vip, u64>>,
    /// The virtual addresses whose packets are sent to some backend, also when
    /// nobody is available and it is one that was.
    pub forwarded: Arc<BTreeSet<Vip>>,
    /// Index of the counter per service and backend.
    pub counters: Arc<BTreeMap<Arc<str>, Counters>>,
    /// Number of each service.
    pub numbers: Arc<BTreeMap<Arc<str>, u32>>,
    /// Slots per phase, by service.
    pub phases: Arc<BTreeMap<Arc<str>, PhaseCount>>,
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
    /// Which publication it is.
    pub trail: Trail,
}

/// Index of the counter per backend of one service.
pub type Counters = Arc<BTreeMap<Arc<str>, u32>>;

/// Flows recorded for one backend of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// Used of late and not about to end.
    pub live: u64,
    /// A FIN or RST was seen.
    pub closing: u64,
}

/// Flows per service and backend; who has none may be absent.
pub type FlowsByService = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Flows>>;

/// How many slots of a service's ring are in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseCount {
    /// In [`Phase::Stable`].
    pub stable: u32,
    /// In [`Phase::Learn`].
    pub learn: u32,
    /// In [`Phase::Track`].
    pub track: u32,
}

impl PhaseCount {
    /// The slots in one phase.
    #[must_use]
    pub const fn of(self, phase: Phase) -> u32 {
        match phase {
            Phase::Stable => self.stable,
            Phase::Learn => self.learn,
            Phase::Track => self.track,
        }
    }

    /// Whether every slot is at rest: no flow depends on what is recorded.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        self.learn == 0 && self.track == 0
    }
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

/// The services that may be another case than the last pass has told.
pub enum Touched {
    /// All, and what was told of others does not hold any more.
    All,
    /// These.
    These(BTreeSet<Arc<str>>),
}

impl Touched {
    pub fn add(&mut self, name: &Arc<str>) {
        if let Self::These(names) = self {
            names.insert(Arc::clone(name));
        }
    }
}

impl Applier {
    /// Brings what is told of services and addresses up to date.
    pub(super) fn tell(&mut self, desired: &Desired) {
        let none = Touched::These(BTreeSet::new());
        let (names, vips): (BTreeSet<_>, BTreeSet<_>) =
            match std::mem::replace(&mut self.touched, none) {
                Touched::All => {
                    self.told = Applied::default();
                    let names = self.services.keys().cloned();
                    (names.collect(), desired.vips.keys().copied().collect())
                }
                Touched::These(names) => {
                    let plans = names.iter().filter_map(|name| desired.service(name));
                    let vips = plans.flat_map(|plan| plan.service.vips.iter().copied());
                    let vips = vips.collect();
                    (names, vips)
                }
            };
        for vip in vips {
            let fingerprint = self.acknowledge(desired, vip);
            set(&mut self.told.vips, vip, fingerprint);
            let forwarded = self.forwards(desired, vip);
            if self.told.forwarded.contains(&vip) != forwarded {
                let told = Arc::make_mut(&mut self.told.forwarded);
                let _ = match forwarded {
                    true => told.insert(vip),
                    false => told.remove(&vip),
                };
            }
        }
        for name in names {
            let placed = self.services.get(&name);
            let number = placed.map(|placed| placed.number);
            let placed = placed.filter(|placed| placed.plan.is_some());
            let phases = placed.map(Placed::phases);
            let counters = placed.map(|placed| Arc::clone(&placed.counters));
            set(&mut self.told.numbers, Arc::clone(&name), number);
            set(&mut self.told.phases, Arc::clone(&name), phases);
            set(&mut self.told.counters, name, counters);
        }
    }

    /// The fingerprint of a virtual address that is in place, with a way to
    /// enough of its backends.
    fn acknowledge(&self, desired: &Desired, vip: Vip) -> Option<u64> {
        let vip_plan = desired.vips.get(&vip)?;
        let wanted = &self.wanted.as_ref()?.listing;
        let mut published = wanted.covers(vip) && self.listing.covers(vip);
        let mut carried = false;
        let plans = vip_plan.services.iter();
        for plan in plans.filter_map(|plan| desired.service(&plan.service.name)) {
            let service = &plan.service;
            let placed = self.services.get(&service.name);
            let led = |listing: &Listing| {
                listing
                    .service(vip, service.protocol, service.ports)
                    .copied()
            };
            published &= led(wanted).is_some()
                && led(wanted) == led(&self.listing)
                && placed.is_some_and(|placed| placed.holds(plan));
            carried |= placed.is_some_and(|placed| placed.reachable);
        }
        (published && carried).then_some(vip_plan.fingerprint)
    }

    /// Whether packets for a virtual address are sent to anybody. Either all slots
    /// of a ring have an owner or none has.
    fn forwards(&self, desired: &Desired, vip: Vip) -> bool {
        let plans = desired.vips.get(&vip).map(|plan| &plan.services);
        let mut services = plans.into_iter().flatten().map(|plan| &plan.service);
        services.any(|service| {
            let listed = self.listing.service(vip, service.protocol, service.ports);
            let placed = self.services.get(&service.name);
            let owned = |placed: &Placed| {
                let mut slots = self.words(placed.ring);
                slots.next().is_some_and(|slot| slot.current() != 0)
            };
            listed.is_some() && placed.is_some_and(owned)
        })
    }

    /// How full each map is.
    pub(super) fn usage(&self) -> Vec<Usage> {
        let entries = u32::try_from(self.listing.entries.len()).unwrap_or(u32::MAX);
        let ranges = self.half.as_ref().map_or(0, Half::used_ranges);
        let most = u32::try_from(MOST_ENTRIES).unwrap_or(u32::MAX);
        let usage = |map, used, capacity| Usage {
            map,
            used,
            capacity,
        };
        vec![
            usage("vip_entries", entries, most),
            usage("port_ranges", ranges, PORT_RANGES),
            usage("ring_slots", self.ring.used(), RING_SLOTS),
            usage("backends", self.indices.records.used(), BACKENDS - 1),
            usage("next_hops", self.indices.hops.used(), NEXT_HOPS - 1),
            usage("uplinks", self.indices.uplinks.used(), UPLINKS - 1),
            usage(
                "counters",
                self.indices.counters.used(),
                COUNTERS - Counter::FIRST_BACKEND,
            ),
        ]
    }
}

impl Placed {
    fn phases(&self) -> PhaseCount {
        let (learn, track) = self.unsettled.counts();
        PhaseCount {
            stable: self.ring.1 - learn - track,
            learn,
            track,
        }
    }
}

/// Puts a value into a map that others may still be reading, or takes it out.
fn set<K: Ord + Clone, V: PartialEq + Clone>(
    map: &mut Arc<BTreeMap<K, V>>,
    key: K,
    value: Option<V>,
) {
    if map.get(&key) == value.as_ref() {
        return;
    }
    let map = Arc::make_mut(map);
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
