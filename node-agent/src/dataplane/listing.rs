//! What the table of virtual addresses says, whatever places it says it in:
//! which ports of which address or prefix lead to which service.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use vipd_abi::{EntryKind, MOST_RANGES, PORT_RANGES, PortRange, VIP_SLOTS, VipEntry, VipKey};
use vipd_control::model::{Ports, Protocol, Vip};

use super::tables::{Tables, key_address, service_key, vip_key};

/// The table by its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries; those of addresses and prefixes without the whereabouts of
    /// their ranges.
    pub entries: BTreeMap<VipKey, VipEntry>,
    /// Port ranges by the key of the address or prefix that they are given for.
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
                if range.whose != key.service {
                    return None;
                }
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
    /// are still virtual, nobody else is there, and there is room.
    pub fn keep(&mut self, before: &Self, number: u32) {
        let is_own =
            |entry: &&VipEntry| entry.kind == EntryKind::Service as u32 && entry.service == number;
        for entry in before.entries.values().filter(is_own) {
            self.entries.entry(entry.key).or_insert(*entry);
        }
        for (key, ranges) in &before.ranges {
            let own = || ranges.iter().filter(|range| range.service == number);
            if own().next().is_none() || !self.entries.contains_key(key) {
                continue;
            }
            let room = MOST_RANGES.saturating_sub(self.most_compared(key));
            self.ranges
                .entry(*key)
                .or_default()
                .extend(own().take(room));
        }
        self.ranges.retain(|_, ranges| !ranges.is_empty());
    }

    /// Lengths of the prefixes of a family.
    #[must_use]
    pub fn lengths(&self, ipv4: bool) -> BTreeSet<u8> {
        let keys = self.entries.keys().filter(|key| key.is_ipv4() == ipv4);
        keys.filter_map(|key| u8::try_from(key.prefix_length()?).ok())
            .collect()
    }

    /// The ranges that a packet to this address or prefix is compared with, each
    /// with the key of the address or prefix that it is given for: its own, then
    /// those of the prefixes around it, the longest first. `lengths` are those
    /// of its family.
    #[must_use]
    pub fn compared(&self, key: &VipKey, lengths: &BTreeSet<u8>) -> Vec<(VipKey, Range)> {
        let own = std::iter::once(*key);
        let around = own.chain(prefixes_around(key, lengths));
        let ranges = around.filter_map(|key| Some((key, self.ranges.get(&key)?)));
        ranges
            .flat_map(|(key, ranges)| ranges.iter().map(move |range| (key, *range)))
            .collect()
    }

    /// The most ranges that a packet within this address or prefix is compared
    /// with.
    fn most_compared(&self, key: &VipKey) -> usize {
        let lengths = self.lengths(key.is_ipv4());
        let is_within = |other: &&VipKey| {
            *other == key || prefixes_around(other, &lengths).any(|around| around == *key)
        };
        let ranged = self.ranges.keys().chain([key]).filter(is_within);
        let compared = ranged.map(|other| self.compared(other, &lengths).len());
        compared.max().unwrap_or(0)
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

/// The keys of the prefixes of these lengths that an address or prefix is in,
/// the longest first.
fn prefixes_around(key: &VipKey, lengths: &BTreeSet<u8>) -> impl Iterator<Item = VipKey> {
    let address = key_address(key);
    let shorter = key.prefix_length().map_or(u32::MAX, |length| length);
    let lengths = lengths.iter().rev();
    lengths
        .filter(move |length| u32::from(**length) < shorter)
        .filter_map(move |length| Some(vip_key(IpNet::new(address, *length).ok()?.trunc().into())))
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

    /// As it stands in a table, for the address or prefix of this key, with the
    /// place of the entry it leads to.
    #[must_use]
    pub fn placed(&self, address: &VipKey, place: u32) -> PortRange {
        PortRange {
            first: self.first,
            last: self.first + self.width,
            protocol: self.protocol.into(),
            place,
            whose: address.service,
        }
    }
}
