//! The model's flow table: packets, and the walk that frees what has ended.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use vipd_abi::{Basis, FlowBucket, FlowEntry, FlowMemory, Segment, flow_bucket, route};

use super::{super::super::*, IDLE, Model, Omit, Record};

impl Model {
    /// The backend that a packet goes to.
    pub(super) fn packet(&self, slot: Slot, hash: u64, segment: Segment) -> Option<usize> {
        let place = hash as usize % self.ring.len();
        let index = if slot.is_stable() {
            slot.current()
        } else {
            let bucket = flow_bucket(hash, self.table.len() as u32) as usize;
            let memory = Memory {
                model: self,
                bucket: &self.table[bucket],
                stamp: &self.stamps[place],
            };
            let route = route(&memory, slot, hash, segment, self.now, IDLE, IDLE);
            let is_refused = route.basis == Basis::Refused;
            if is_refused && slot != self.ring[place] {
                // The one that can be missed: it is not sent here.
                return None;
            }
            if is_refused && segment == Segment::Open && self.omit == Omit::RefusedToPrevious {
                slot.current()
            } else {
                route.backend
            }
        };
        let Record {
            backend, counter, ..
        } = self.records.get(&index)?;
        if self.backends[*backend].is_reached {
            *self.counts.borrow_mut().entry(*counter).or_default() += 1;
        }
        Some(*backend)
    }

    /// Frees what is idle or dead, moves what has moved, and gives up records
    /// that nothing names.
    pub(super) fn census(&mut self) {
        let mut named = BTreeSet::new();
        for bucket in &self.table {
            for entry in &mut bucket.borrow_mut().0 {
                let fate = self.records.get(&entry.backend()).map(|record| record.fate);
                let fate = fate.filter(|_| entry.is_fresh(self.now, IDLE));
                *entry = match fate {
                    None | Some(Fate::Dead) => FlowEntry::FREE,
                    Some(Fate::Moved(to)) => entry.moved_to(to),
                    Some(Fate::Serves) => *entry,
                };
                named.insert(entry.backend());
            }
        }
        self.walk = Some((Tick(self.now.0 + self.early()), named.clone()));
        named.extend(self.backends.iter().map(|backend| backend.record));
        let late = self.late.iter().map(|(_, word)| word);
        for slot in self.ring.iter().chain(late) {
            named.extend([slot.current(), slot.previous()]);
        }
        self.records.retain(|index, _| named.contains(index));
    }
}

/// The memory of one packet.
struct Memory<'a> {
    model: &'a Model,
    bucket: &'a RefCell<FlowBucket>,
    stamp: &'a Cell<Stamp>,
}

impl FlowMemory for Memory<'_> {
    fn load(&self, place: usize) -> FlowEntry {
        self.bucket.borrow().0[place]
    }
    fn swap(&self, place: usize, old: FlowEntry, new: FlowEntry) -> bool {
        let entry = &mut self.bucket.borrow_mut().0[place];
        let same = *entry == old;
        if same {
            *entry = new;
        }
        same
    }
    fn is_ours(&self, backend: u32) -> bool {
        // There is one service.
        self.model.records.contains_key(&backend)
    }
    fn serves(&self, backend: u32) -> bool {
        let record = self.model.records.get(&backend);
        record.is_some_and(|record| record.fate != Fate::Dead)
    }
    fn stamp_foreign(&self, now: Tick) {
        let foreign = now.0;
        self.stamp.update(|stamp| Stamp { foreign, ..stamp });
    }
    fn stamp_refused(&self, now: Tick) {
        let refused = now.0;
        if self.model.omit != Omit::RefusalProlongs {
            self.stamp.update(|stamp| Stamp { refused, ..stamp });
        }
    }
}
