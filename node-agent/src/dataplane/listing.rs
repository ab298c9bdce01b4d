//! What the table of virtual addresses says, whatever places it says it in:
//! which ports of which address or prefix lead to which service.

use std::collections::{BTreeMap, BTreeSet};

use vipd_abi::{EntryKind, MOST_RANGES, PORT_RANGES, PortRange, VIP_SLOTS, VipEntry, VipKey};
use vipd_control::model::{Ports, Protocol, Vip};

use super::tables::{Tables, service_key, vip_key};

/// The table by its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries; those of addresses and prefixes without the whereabouts of
    /// their ranges.
    pub entries: BTreeMap<VipKey, VipEntry>,
    /// Port ranges by the key of their address or prefix.
    pub ranges: BTreeMap<VipKey, BTreeSet<Range>>,
}

/// Ports that lead to a service. Narrow ones come first, so a packet is for
/// the first that holds its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// Last port less the first.
    width: u16,
    first: u16,
    protocol: u8,
    /// Number of the service.
    service: u32,
}

/// Whether a service on these ports is found by a range. One port of a single
/// address has a key of its own.
#[must_use]
pub fn is_ranged(vip: Vip, ports: Ports) -> bool {
    !(vip.is_single() && matches!(ports, Ports::One(_)))
}

/// The key of its own that a service has without a range.
fn own_key(vip: Vip, protocol: Protocol, ports: Ports) -> Option<VipKey> {
    match ports {
        Ports::One(port) if vip.is_single() => {
            Some(service_key(vip.address(), protocol, port.get()))
        }
        Ports::One(_) | Ports::Range(..) | Ports::Any => None,
    }
}

impl Listing {
    /// What the half in force says.
    #[must_use]
    pub fn published(tables: &Tables) -> Self {
        let mut listing = Self {
            entries: tables.published_entries(),
            ranges: BTreeMap::new(),
        };
        let half = tables.half();
        for (key, entry) in &mut listing.entries {
            let start = std::mem::take(&mut entry.ranges_start);
            let count = std::mem::take(&mut entry.ranges).min(MOST_RANGES as u32);
            let places = (start..start.saturating_add(count)).filter(|place| *place < PORT_RANGES);
            let ranges = places.filter_map(|place| {
                let range = tables.ranges.load(half * PORT_RANGES + place);
                let place = Some(range.place).filter(|place| *place < VIP_SLOTS)?;
                let entry = tables.entries.load(half * VIP_SLOTS + place);
                Range::of(&range, &entry)
            });
            let ranges: BTreeSet<_> = ranges.collect();
            if !ranges.is_empty() {
                listing.ranges.insert(*key, ranges);
            }
        }
        listing
    }

    /// Takes an address or prefix for virtual, also where nobody serves it.
    pub fn cover(&mut self, vip: Vip) {
        self.insert(VipEntry {
            key: vip_key(vip),
            kind: EntryKind::Address as u32,
            ..VipEntry::default()
        });
    }

    /// Leads packets to a service, whose entry is given but for its key.
    pub fn serve(&mut self, vip: Vip, protocol: Protocol, ports: Ports, entry: VipEntry) {
        let key = own_key(vip, protocol, ports).unwrap_or_else(|| {
            let address = vip_key(vip);
            let range = Range::new(protocol, ports, entry.service);
            self.ranges.entry(address).or_default().insert(range);
            range.leads_to(&address)
        });
        self.insert(VipEntry { key, ..entry });
    }

    fn insert(&mut self, entry: VipEntry) {
        self.entries.insert(entry.key, entry);
    }

    /// Keeps what led to the service of this number, as far as the addresses
    /// are still virtual and nobody else is there.
    pub fn keep(&mut self, before: &Self, number: u32) {
        let is_own =
            |entry: &&VipEntry| entry.kind == EntryKind::Service as u32 && entry.service == number;
        for entry in before.entries.values().filter(is_own) {
            self.entries.entry(entry.key).or_insert(*entry);
        }
        for (key, ranges) in &before.ranges {
            if !self.entries.contains_key(key) {
                continue;
            }
            let own = ranges.iter().filter(|range| range.service == number);
            let kept = self.ranges.entry(*key).or_default();
            let room = MOST_RANGES.saturating_sub(kept.len());
            kept.extend(own.take(room));
        }
        self.ranges.retain(|_, ranges| !ranges.is_empty());
    }

    /// Whether an address or prefix is taken for virtual.
    #[must_use]
    pub fn covers(&self, vip: Vip) -> bool {
        self.entries.contains_key(&vip_key(vip))
    }

    /// Where these packets are led.
    #[must_use]
    pub fn service(&self, vip: Vip, protocol: Protocol, ports: Ports) -> Option<&VipEntry> {
        let key = own_key(vip, protocol, ports).or_else(|| {
            let address = vip_key(vip);
            let mut ranges = self.ranges.get(&address)?.iter();
            let range =
                ranges.find(|range| **range == Range::new(protocol, ports, range.service))?;
            Some(range.leads_to(&address))
        })?;
        self.entries.get(&key)
    }
}

impl Range {
    fn new(protocol: Protocol, ports: Ports, service: u32) -> Self {
        let (first, last) = ports.bounds();
        Self {
            width: last - first,
            first,
            protocol: protocol.number(),
            service,
        }
    }

    /// As it stands in a table, with the entry that it leads to.
    fn of(range: &PortRange, entry: &VipEntry) -> Option<Self> {
        let is_right = entry.kind == EntryKind::Service as u32;
        Some(Self {
            width: range.last.checked_sub(range.first)?,
            first: range.first,
            protocol: u8::try_from(range.protocol).ok()?,
            service: Some(entry.service).filter(|_| is_right)?,
        })
    }

    /// The key of the entry it leads to, for a range of that address or prefix.
    #[must_use]
    pub const fn leads_to(&self, address: &VipKey) -> VipKey {
        VipKey::ranged(address.address, self.service)
    }

    /// As it stands in a table, with the place of the entry it leads to.
    #[must_use]
    pub fn placed(&self, place: u32) -> PortRange {
        PortRange {
            first: self.first,
            last: self.first + self.width,
            protocol: self.protocol.into(),
            place,
            reserved: 0,
        }
    }
}
