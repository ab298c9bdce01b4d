//! Perfect hashing of the virtual addresses: hash and displace.
//!
//! Keys are thrown into buckets; the fullest bucket first, a displacement is
//! searched for each that puts all its keys into free places. At a load of at
//! most 0.77 this takes a few tries per bucket.

use std::collections::BTreeMap;

use thiserror::Error;
use vipd_abi::{EntryKind, FILTER_WORDS, Head, VIP_BUCKETS, VIP_SLOTS, VipEntry, VipKey};

use super::tables::Tables;

/// One half of the table, ready to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct Half {
    head: Head,
    seeds: Vec<u64>,
    entries: Vec<VipEntry>,
    filter: Vec<u64>,
}

/// Most entries that a table takes: a load of 0.77.
pub const MOST_ENTRIES: usize = VIP_SLOTS as usize * 77 / 100;

/// Why no table could be built.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BuildError {
    /// More entries than [`MOST_ENTRIES`].
    #[error("{0} virtual addresses and services, but the table takes {MOST_ENTRIES}")]
    TooMany(usize),
    /// No seed without collisions was found.
    #[error("no collision-free arrangement was found for {0} entries")]
    NoArrangement(usize),
}

impl Half {
    /// Arranges the entries without collisions. Of `head`, what holds for all
    /// of them is taken over; the rest is filled in.
    ///
    /// # Errors
    ///
    /// When there are too many of them.
    pub fn build(entries: &BTreeMap<VipKey, VipEntry>, head: Head) -> Result<Self, BuildError> {
        if entries.len() > MOST_ENTRIES {
            return Err(BuildError::TooMany(entries.len()));
        }
        (1..=16u64)
            .find_map(|seed| Self::arrange(entries, head, seed))
            .ok_or(BuildError::NoArrangement(entries.len()))
    }

    fn arrange(entries: &BTreeMap<VipKey, VipEntry>, head: Head, seed: u64) -> Option<Self> {
        let mut half = Self {
            head: Head {
                seed,
                entries: u32::try_from(entries.len()).ok()?,
                ..head
            },
            seeds: vec![0; VIP_BUCKETS as usize],
            entries: vec![VipEntry::default(); VIP_SLOTS as usize],
            filter: vec![0; FILTER_WORDS as usize],
        };
        let mut buckets: BTreeMap<u32, Vec<(u64, &VipEntry)>> = BTreeMap::new();
        for entry in entries.values() {
            let hash = entry.key.hash(seed);
            let (word, bit) = VipKey::filter_bit(entry.key.address_hash(seed));
            half.filter[word as usize] |= bit;
            buckets
                .entry(VipKey::bucket(hash))
                .or_default()
                .push((hash, entry));
        }
        let mut buckets: Vec<_> = buckets.into_iter().collect();
        buckets.sort_by_key(|(bucket, keys)| (std::cmp::Reverse(keys.len()), *bucket));
        for (bucket, keys) in buckets {
            let displacement = (0..1 << 14)
                .map(VipKey::displacement)
                .find(|d| half.fits(&keys, *d))?;
            half.seeds[bucket as usize] = displacement;
            for (hash, entry) in keys {
                half.entries[VipKey::place(hash, displacement) as usize] = *entry;
            }
        }
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

    /// Whether the half in force holds exactly this.
    #[must_use]
    pub fn is_published(&self, tables: &Tables) -> bool {
        let half = tables.half();
        tables.heads.load(half) == self.head
            && (0..VIP_BUCKETS)
                .all(|i| tables.seeds.load(half * VIP_BUCKETS + i) == self.seeds[i as usize])
            && (0..VIP_SLOTS)
                .all(|i| tables.entries.load(half * VIP_SLOTS + i) == self.entries[i as usize])
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
        for (i, word) in (half * FILTER_WORDS..).zip(&self.filter) {
            tables.filter.store(i, *word);
        }
        tables.published.publish(0, u64::from(half));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: u32) -> BTreeMap<VipKey, VipEntry> {
        (0..count)
            .map(|n| {
                let key = VipKey::v4((0xc633_6400 + n / 4).to_be(), 6, (n % 4) as u16);
                let entry = VipEntry {
                    key,
                    kind: EntryKind::Service as u32,
                    service: n,
                    ..VipEntry::default()
                };
                (key, entry)
            })
            .collect()
    }

    /// The lookup of the eBPF program, on the same memory.
    fn find(tables: &Tables, key: &VipKey) -> Option<VipEntry> {
        let half = tables.half();
        let hash = key.hash(tables.heads.load(half).seed);
        let seed = tables.seeds.load(half * VIP_BUCKETS + VipKey::bucket(hash));
        let entry = tables
            .entries
            .load(half * VIP_SLOTS + VipKey::place(hash, seed));
        (entry.key == *key && entry.kind != 0).then_some(entry)
    }

    #[test]
    fn every_entry_is_found_and_nothing_else_up_to_the_full_load() {
        for count in [0, 1, 2, 1000, u32::try_from(MOST_ENTRIES).unwrap()] {
            let tables = Tables::anonymous().unwrap();
            let wanted = entries(count);
            let half = Half::build(&wanted, Head::default()).unwrap();
            half.publish(&tables);
            assert!(half.is_published(&tables), "{count} entries");
            for (key, entry) in &wanted {
                assert_eq!(find(&tables, key), Some(*entry), "{count} entries");
            }
            let stranger = VipKey::v4(1, 6, 1);
            assert_eq!(find(&tables, &stranger), None, "{count} entries");
            assert_eq!(tables.published_entries(), wanted, "{count} entries");
        }
    }

    #[test]
    fn whatever_the_addresses_have_in_common_a_full_table_is_found_at_the_first_seed() {
        type Key = fn(u32) -> VipKey;
        let families: [(&str, Key); 6] = [
            ("IPv4 in a row", |n| {
                VipKey::v4((0xc633_0000 + n).to_be(), 6, 80_u16.to_be())
            }),
            ("the first of each IPv4 /24", |n| {
                VipKey::v4((0x0a00_0001 + (n << 8)).to_be(), 17, 53_u16.to_be())
            }),
            ("all ports of one IPv4 address", |n| {
                VipKey::v4(0xc633_6401_u32.to_be(), 6, (n as u16).to_be())
            }),
            ("IPv6 in a row", |n| {
                VipKey::v6([0x0db8_0120, 0, 0, n.to_be()], 6, 80_u16.to_be())
            }),
            ("the first of each IPv6 /64", |n| {
                VipKey::v6(
                    [0x0db8_0120, n.to_be(), 0, 1_u32.to_be()],
                    6,
                    80_u16.to_be(),
                )
            }),
            ("addresses alone", |n| {
                VipKey::v4((0xcb00_7100 + n).to_be(), 0, 0).address_only()
            }),
        ];
        for (family, key) in families {
            let entries = (0..MOST_ENTRIES as u32)
                .map(key)
                .map(|key| {
                    let kind = EntryKind::Service as u32;
                    (
                        key,
                        VipEntry {
                            key,
                            kind,
                            ..VipEntry::default()
                        },
                    )
                })
                .collect();
            let half = Half::build(&entries, Head::default());
            let seed = half.map(|half| half.head.seed);
            assert_eq!(seed, Ok(1), "{family}");
        }
    }

    #[test]
    fn one_entry_too_many_is_refused() {
        let count = MOST_ENTRIES + 1;
        let error = Half::build(&entries(count as u32), Head::default()).err();
        assert_eq!(error, Some(BuildError::TooMany(count)));
    }

    #[test]
    fn a_change_is_written_beside_what_packets_read() {
        let tables = Tables::anonymous().unwrap();
        Half::build(&entries(3), Head::default())
            .unwrap()
            .publish(&tables);
        let before = tables.half();
        let next = Half::build(&entries(5), Head::default()).unwrap();
        assert!(!next.is_published(&tables));
        next.publish(&tables);
        assert_eq!(tables.half(), 1 - before);
        assert_eq!(tables.published_entries(), entries(5));
    }
}
