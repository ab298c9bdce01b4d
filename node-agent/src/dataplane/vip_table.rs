//! Perfect hashing of the virtual addresses: hash and displace.
//!
//! Keys are thrown into buckets; the fullest bucket first, a displacement is
//! searched for each that puts all its keys into free places. At a load of at
//! most 0.77 this takes a few tries per bucket. Port ranges stand one after the
//! other and name the places of the entries they lead to.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use thiserror::Error;
use vipd_abi::{
    EntryKind, FILTER_WORDS, Head, MOST_LENGTHS, MOST_RANGES, PORT_RANGES, PortRange, VIP_BUCKETS,
    VIP_SLOTS, VipEntry, VipKey,
};

use super::{
    listing::{Listing, Range},
    tables::Tables,
};

/// One half of the table, ready to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct Half {
    head: Head,
    seeds: Vec<u64>,
    entries: Vec<VipEntry>,
    ranges: Vec<PortRange>,
    filter: Vec<u64>,
    used_ranges: u32,
}

/// Most entries that a table takes: a load of 0.77.
pub const MOST_ENTRIES: usize = VIP_SLOTS as usize * 77 / 100;

/// Why no table could be built.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BuildError {
    /// More entries than [`MOST_ENTRIES`].
    #[error("{0} virtual addresses and services, but the table takes {MOST_ENTRIES}")]
    TooMany(usize),
    /// More port ranges than [`PORT_RANGES`].
    #[error("{0} port ranges, but the table takes {PORT_RANGES}")]
    TooManyRanges(usize),
    /// More port ranges than [`MOST_RANGES`].
    #[error(
        "{0} port ranges on one address and the prefixes around it, but {MOST_RANGES} is the most"
    )]
    TooManyInOne(usize),
    /// More lengths of prefixes than [`MOST_LENGTHS`].
    #[error("prefixes of {0} lengths in one address family, but {MOST_LENGTHS} is the most")]
    TooManyLengths(usize),
    /// No seed without collisions was found.
    #[error("no collision-free arrangement was found for {0} entries")]
    NoArrangement(usize),
}

impl Half {
    /// Arranges what is listed without collisions. Of `head`, what holds for
    /// all of it is taken over; the rest is filled in.
    ///
    /// # Errors
    ///
    /// When there is too much of it.
    pub fn build(listing: &Listing, head: Head) -> Result<Self, BuildError> {
        let entries = listing.entries.len();
        if entries > MOST_ENTRIES {
            return Err(BuildError::TooMany(entries));
        }
        let runs = Runs::lay_out(listing)?;
        let idle = listing.entries.values().map(|entry| entry.idle);
        let head = Head {
            entries: u32::try_from(entries).unwrap_or(u32::MAX),
            longest_idle: idle.max().unwrap_or(0),
            lengths_4: lengths(&listing.lengths(true))?,
            lengths_6: lengths(&listing.lengths(false))?,
            ..head
        };
        (1..=16u64)
            .find_map(|seed| Self::arrange(listing, &runs, head, seed))
            .ok_or(BuildError::NoArrangement(entries))
    }

    fn arrange(listing: &Listing, runs: &Runs, head: Head, seed: u64) -> Option<Self> {
        let mut half = Self {
            head: Head { seed, ..head },
            seeds: vec![0; VIP_BUCKETS as usize],
            entries: vec![VipEntry::default(); VIP_SLOTS as usize],
            ranges: vec![PortRange::default(); PORT_RANGES as usize],
            filter: vec![0; FILTER_WORDS as usize],
            used_ranges: u32::try_from(runs.ranges.len()).unwrap_or(u32::MAX),
        };
        let mut buckets: BTreeMap<u32, Vec<(u64, &VipEntry)>> = BTreeMap::new();
        for entry in listing.entries.values() {
            let hash = entry.key.hash(seed);
            buckets
                .entry(VipKey::bucket(hash))
                .or_default()
                .push((hash, entry));
            if entry.key == entry.key.address_only() {
                let (word, bit) = VipKey::filter_bit(entry.key.address_hash(seed));
                half.filter[word as usize] |= bit;
            }
        }
        let mut buckets: Vec<_> = buckets.into_iter().collect();
        buckets.sort_by_key(|(bucket, keys)| (Reverse(keys.len()), *bucket));
        for (bucket, keys) in buckets {
            let displacement = (0..1 << 14)
                .map(VipKey::displacement)
                .find(|d| half.fits(&keys, *d))?;
            half.seeds[bucket as usize] = displacement;
            for (hash, entry) in keys {
                half.entries[VipKey::place(hash, displacement) as usize] = *entry;
            }
        }
        half.add_ranges(runs);
        Some(half)
    }

    /// Whether all keys of a bucket fall into free places of their own.
    fn fits(&self, keys: &[(u64, &VipEntry)], displacement: u64) -> bool {
        let mut places: Vec<u32> = keys
            .iter()
            .map(|(hash, _)| VipKey::place(*hash, displacement))
            .collect();
        places.sort_unstable();
        places.windows(2).all(|pair| pair[0] != pair[1])
            && places
                .iter()
                .all(|place| self.entries[*place as usize].kind == EntryKind::Empty as u32)
    }

    /// The port ranges, now that every entry has its place.
    fn add_ranges(&mut self, runs: &Runs) {
        for (i, (address, range)) in runs.ranges.iter().enumerate() {
            let place = self.place(&range.leads_to(address));
            self.ranges[i] = range.placed(address, place);
        }
        for (address, run) in &runs.by_address {
            let place = self.place(address);
            let entry = &mut self.entries[place as usize];
            (entry.ranges_start, entry.ranges) = *run;
        }
    }

    /// Places that the port ranges take.
    #[must_use]
    pub const fn used_ranges(&self) -> u32 {
        self.used_ranges
    }

    /// Where a key has been put.
    fn place(&self, key: &VipKey) -> u32 {
        let hash = key.hash(self.head.seed);
        VipKey::place(hash, self.seeds[VipKey::bucket(hash) as usize])
    }

    /// Whether the half in force holds exactly this.
    #[must_use]
    pub fn is_published(&self, tables: &Tables) -> bool {
        let half = tables.half();
        tables.heads.load(half) == self.head
            && (0..VIP_BUCKETS)
                .all(|i| tables.seeds.load(half * VIP_BUCKETS + i) == self.seeds[i as usize])
            && (0..VIP_SLOTS)
                .all(|i| tables.entries.load(half * VIP_SLOTS + i) == self.entries[i as usize])
            && (0..PORT_RANGES)
                .all(|i| tables.ranges.load(half * PORT_RANGES + i) == self.ranges[i as usize])
            && (0..FILTER_WORDS)
                .all(|i| tables.filter.load(half * FILTER_WORDS + i) == self.filter[i as usize])
    }

    /// Writes the half that is not in force, then puts it in force. The caller
    /// has let a grace time pass since the last time.
    pub fn publish(&self, tables: &Tables) {
        let half = 1 - tables.half();
        tables.heads.store(half, self.head);
        for (i, seed) in (half * VIP_BUCKETS..).zip(&self.seeds) {
            tables.seeds.store(i, *seed);
        }
        for (i, entry) in (half * VIP_SLOTS..).zip(&self.entries) {
            tables.entries.store(i, *entry);
        }
        for (i, range) in (half * PORT_RANGES..).zip(&self.ranges) {
            tables.ranges.store(i, *range);
        }
        for (i, word) in (half * FILTER_WORDS..).zip(&self.filter) {
            tables.filter.store(i, *word);
        }
        tables.published.publish(0, u64::from(half));
    }
}

/// The port ranges as they stand one after the other. Addresses whose packets
/// are compared with the same ones share them.
#[derive(Default)]
struct Runs {
    ranges: Vec<(VipKey, Range)>,
    /// First one and number of them.
    by_address: BTreeMap<VipKey, (u32, u32)>,
}

impl Runs {
    fn lay_out(listing: &Listing) -> Result<Self, BuildError> {
        let mut runs = Self::default();
        if listing.ranges.is_empty() {
            return Ok(runs);
        }
        let (lengths_4, lengths_6) = (listing.lengths(true), listing.lengths(false));
        let mut places = BTreeMap::new();
        let entries = listing.entries.values();
        for entry in entries.filter(|entry| entry.kind == EntryKind::Address as u32) {
            let key = entry.key;
            let lengths = if key.is_ipv4() {
                &lengths_4
            } else {
                &lengths_6
            };
            let compared = listing.compared(&key, lengths);
            let count = u32::try_from(compared.len()).unwrap_or(u32::MAX);
            if compared.len() > MOST_RANGES {
                return Err(BuildError::TooManyInOne(compared.len()));
            }
            let next = u32::try_from(runs.ranges.len()).unwrap_or(u32::MAX);
            let start = *places.entry(compared.clone()).or_insert_with(|| {
                runs.ranges.extend(compared);
                next
            });
            runs.by_address.insert(key, (start, count));
        }
        match runs.ranges.len() {
            total if total > PORT_RANGES as usize => Err(BuildError::TooManyRanges(total)),
            _ => Ok(runs),
        }
    }
}

/// The lengths of the prefixes of a family, longest first.
fn lengths(found: &BTreeSet<u8>) -> Result<[u8; MOST_LENGTHS], BuildError> {
    if found.len() > MOST_LENGTHS {
        return Err(BuildError::TooManyLengths(found.len()));
    }
    let mut lengths = [0; MOST_LENGTHS];
    for (place, length) in lengths.iter_mut().zip(found.iter().rev()) {
        *place = *length;
    }
    Ok(lengths)
}
