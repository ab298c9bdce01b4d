//! What a previous agent left in the maps, and packets are using now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vipd_abi::{BackendRecord, EntryKind, UPLINKS, Uplink};
use vipd_control::{model::Service, standing::Standing};

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
    /// Uplinks by their indices.
    pub uplinks: BTreeMap<u32, Uplink>,
}

/// One service found in the maps.
#[derive(Clone, Default)]
pub struct AdoptedService {
    /// First slot and number of slots of its ring.
    pub ring: (u32, u32),
    /// Index and record per backend address, of those that own slots.
    pub backends: BTreeMap<IpAddr, (u32, BackendRecord)>,
    /// Other records that slots still name: the previous agent was killed
    /// while it moved them.
    pub surplus: Vec<u32>,
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
        if services.is_empty() {
            return Self {
                listing,
                ..Self::default()
            };
        }
        let uplinks = (1..UPLINKS)
            .map(|index| (index, tables.uplinks.load(index)))
            .filter(|(_, uplink)| uplink.ifindex != 0)
            .collect();
        // Only what a slot names is in use; other records are of no meaning.
        for service in services.values_mut() {
            let (start, length) = service.ring;
            let used: BTreeSet<u32> = (start..start + length)
                .map(|slot| tables.ring.load(slot).current())
                .filter(|index| (1..tables.records.len()).contains(index))
                .collect();
            for index in used {
                let record = tables.records.load(index);
                let address = unmapped(record.destination);
                if let Some((older, _)) = service.backends.insert(address, (index, record)) {
                    service.surplus.push(older);
                }
            }
        }
        Self {
            listing,
            services,
            uplinks,
        }
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
    /// service.
    #[must_use]
    pub fn standing(&self, service: &Service, backend: IpAddr) -> Option<Standing> {
        let adopted = self.services.get(&self.number(service)?)?;
        let record = adopted.backends.get(&backend).map(|(_, record)| record);
        Some(match record {
            Some(record) if record.state & BackendRecord::DEAD != 0 => Standing::Dead,
            Some(record) if record.state & BackendRecord::DRAINED != 0 => Standing::Draining,
            Some(_) if !adopted.forsaken => Standing::Available,
            Some(_) | None => Standing::Dead,
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
