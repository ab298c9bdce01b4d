//! What a previous agent left in the maps, and packets are using now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vipd_abi::{
    BACKENDS, BackendKind, BackendRecord, EntryKind, UPLINKS, Uplink, VipEntry, VipKey,
};
use vipd_control::model::Service;

use super::tables::{Tables, service_key, unmapped};

/// Everything found in the maps.
#[derive(Clone, Default)]
pub struct Adopted {
    /// The published table.
    pub entries: BTreeMap<VipKey, VipEntry>,
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
    /// Index and record per backend address.
    pub backends: BTreeMap<IpAddr, (u32, BackendRecord)>,
    /// Addresses of those that own slots.
    pub available: BTreeSet<IpAddr>,
}

impl Adopted {
    /// Reads the maps. Fresh maps give nothing.
    #[must_use]
    pub fn read(tables: &Tables) -> Self {
        let entries = tables.published_entries();
        let mut services: BTreeMap<u32, AdoptedService> = BTreeMap::new();
        for entry in entries.values() {
            let length = entry.ring_mask.saturating_add(1);
            let inside = entry
                .ring_offset
                .checked_add(length)
                .is_some_and(|end| end <= tables.ring.len());
            if entry.kind == EntryKind::Service as u32 && inside {
                services.entry(entry.service).or_default().ring = (entry.ring_offset, length);
            }
        }
        if services.is_empty() {
            return Self {
                entries,
                ..Self::default()
            };
        }
        let uplinks = (1..UPLINKS)
            .map(|index| (index, tables.uplinks.load(index)))
            .filter(|(_, uplink)| uplink.ifindex != 0)
            .collect();
        let records: BTreeMap<u32, BackendRecord> = (1..BACKENDS)
            .map(|index| (index, tables.records.load(index)))
            .filter(|(_, record)| BackendKind::of(record.kind) != BackendKind::Unset)
            .collect();
        // First whatever was ever written, then what packets really use.
        for (index, record) in &records {
            if let Some(service) = services.get_mut(&record.service) {
                service
                    .backends
                    .insert(unmapped(record.destination), (*index, *record));
            }
        }
        for service in services.values_mut() {
            let (start, length) = service.ring;
            let used: BTreeSet<u32> = (start..start + length)
                .map(|slot| tables.ring.load(slot).current())
                .collect();
            for (index, record) in used.iter().filter_map(|i| Some((*i, records.get(i)?))) {
                let address = unmapped(record.destination);
                service.backends.insert(address, (index, *record));
                service.available.insert(address);
            }
        }
        Self {
            entries,
            services,
            uplinks,
        }
    }

    /// The number under which a service of the configuration runs: that of
    /// any of its addresses, protocol and port being the same.
    #[must_use]
    pub fn number(&self, service: &Service) -> Option<u32> {
        service
            .vips
            .iter()
            .filter_map(|vip| {
                self.entries
                    .get(&service_key(*vip, service.protocol, service.port.get()))
            })
            .map(|entry| entry.service)
            .find(|number| self.services.contains_key(number))
    }

    /// Whether the maps have a backend as available; `None` when they do not
    /// know it.
    #[must_use]
    pub fn available(&self, service: &Service, backend: IpAddr) -> Option<bool> {
        let adopted = self.services.get(&self.number(service)?)?;
        adopted
            .backends
            .contains_key(&backend)
            .then(|| adopted.available.contains(&backend))
    }
}
