//! What a previous agent left in the maps, and packets are using now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vipd_abi::{BackendKind, BackendRecord, EntryKind, UPLINKS, Uplink};
use vipd_control::{model::Service, phases::Fate, standing::Standing};

use super::{
    listing::Listing,
    tables::{Tables, unmapped},
};

/// Everything found in the maps.
#[derive(Clone, Default)]
pub struct Adopted {
    /// The published table.
    pub listing: Listing,
    /// Services by their numbers.
    pub services: BTreeMap<u32, AdoptedService>,
    /// Records of services that are not in the table, by their indices.
    pub orphans: BTreeMap<u32, BackendRecord>,
    /// Uplinks by their indices.
    pub uplinks: BTreeMap<u32, Uplink>,
}

/// One service found in the maps.
#[derive(Clone, Default)]
pub struct AdoptedService {
    /// First slot and number of slots of its ring.
    pub ring: (u32, u32),
    /// Index and record per backend address.
    pub backends: BTreeMap<IpAddr, (u32, BackendRecord)>,
    /// Other records that slots or flows may still name, and what has become
    /// of their flows.
    pub former: BTreeMap<u32, (BackendRecord, Fate)>,
    /// Who gets new flows.
    pub owners: BTreeSet<u32>,
    /// Nobody is available; the slots are those of the last who were.
    pub forsaken: bool,
}

impl Adopted {
    /// Reads the maps. Fresh maps give nothing.
    #[must_use]
    pub fn read(tables: &Tables) -> Self {
        let listing = Listing::published(tables);
        let mut services: BTreeMap<u32, AdoptedService> = BTreeMap::new();
        for entry in listing.entries.values() {
            let length = entry.ring_mask.saturating_add(1);
            let inside = entry
                .ring_offset
                .checked_add(length)
                .is_some_and(|end| end <= tables.ring.len());
            if entry.kind == EntryKind::Service as u32 && inside {
                let service = services.entry(entry.service).or_default();
                service.ring = (entry.ring_offset, length);
                service.forsaken = entry.forsaken != 0;
            }
        }
        let uplinks = (1..UPLINKS)
            .map(|index| (index, tables.uplinks.load(index)))
            .filter(|(_, uplink)| uplink.ifindex != 0)
            .collect();
        let mut named: BTreeMap<u32, Named> = BTreeMap::new();
        for service in services.values_mut() {
            let (start, length) = service.ring;
            for slot in (start..start + length).map(|place| tables.ring.load(place)) {
                named.entry(slot.current()).or_default().current += 1;
                named.entry(slot.previous()).or_default().previous += 1;
                service.owners.insert(slot.current());
            }
        }
        // Whatever is not in use has no kind, so nothing is forgotten that a
        // flow may still name.
        let mut orphans = BTreeMap::new();
        for index in 1..tables.records.len() {
            let record = tables.records.load(index);
            if BackendKind::of(record.kind) == BackendKind::Unset {
                continue;
            }
            match services.get_mut(&record.service) {
                Some(service) => service.add(index, record, &named),
                None => {
                    orphans.insert(index, record);
                }
            }
        }
        for service in services.values_mut() {
            service.settle_fates();
        }
        Self {
            listing,
            services,
            orphans,
            uplinks,
        }
    }

    /// All records that are in use.
    pub fn records(&self) -> impl Iterator<Item = (u32, BackendRecord)> {
        let services = self.services.values();
        let backends = services.clone().flat_map(|s| s.backends.values().copied());
        let former = services.flat_map(|s| &s.former);
        let former = former.map(|(index, (record, _))| (*index, *record));
        let orphans = self.orphans.iter().map(|(index, r)| (*index, *r));
        backends.chain(former).chain(orphans)
    }

    /// The number under which a service of the configuration runs: that of
    /// any of its addresses, protocol and ports being the same.
    #[must_use]
    pub fn number(&self, service: &Service) -> Option<u32> {
        service
            .vips
            .iter()
            .filter_map(|vip| self.listing.service(*vip, service.protocol, service.ports))
            .map(|entry| entry.service)
            .find(|number| self.services.contains_key(number))
    }

    /// What the maps have a backend as; `None` when they do not know the
    /// service. Who is alive without getting new flows is taken for failing:
    /// it keeps the flows it has until checks know better.
    #[must_use]
    pub fn standing(&self, service: &Service, backend: IpAddr) -> Option<Standing> {
        let adopted = self.services.get(&self.number(service)?)?;
        let Some((index, record)) = adopted.backends.get(&backend) else {
            return Some(Standing::Dead);
        };
        let is = |state| record.state & state != 0;
        let owns = !adopted.forsaken && adopted.owners.contains(index);
        Some(if is(BackendRecord::DEAD) {
            Standing::Dead
        } else if is(BackendRecord::DRAINED) {
            Standing::Draining
        } else if owns {
            Standing::Available
        } else {
            Standing::Failing
        })
    }

    /// Whether the operator had drained a backend, dead or alive.
    #[must_use]
    pub fn drained(&self, service: &Service, backend: IpAddr) -> bool {
        let adopted = self.number(service).and_then(|n| self.services.get(&n));
        let record = adopted.and_then(|adopted| adopted.backends.get(&backend));
        record.is_some_and(|(_, record)| record.state & BackendRecord::DRAINED != 0)
    }
}

/// How many slots name a record.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    current: u32,
    previous: u32,
}

impl AdoptedService {
    /// Of several records of the same backend, that one is the backend's which
    /// most slots name; the agent was killed while it moved them.
    fn add(&mut self, index: u32, record: BackendRecord, named: &BTreeMap<u32, Named>) {
        let rank = |index: u32, record: &BackendRecord| {
            let alive = record.state & BackendRecord::DEAD == 0;
            (alive, named.get(&index).copied().unwrap_or_default(), index)
        };
        let address = unmapped(record.destination);
        let mut lesser = (index, record);
        if let Some(best) = self.backends.get_mut(&address) {
            if rank(index, &record) > rank(best.0, &best.1) {
                lesser = std::mem::replace(best, lesser);
            }
            self.former.insert(lesser.0, (lesser.1, Fate::Dead));
        } else {
            self.backends.insert(address, lesser);
        }
    }

    /// A former record that is alive has moved to the backend's own.
    fn settle_fates(&mut self) {
        for (record, fate) in self.former.values_mut() {
            let own = self.backends.get(&unmapped(record.destination));
            if let Some((own, _)) = own
                && record.state & BackendRecord::DEAD == 0
            {
                *fate = Fate::Moved(*own);
            }
        }
    }
}
