//! What time does to slots and records: slots move on to their next phase,
//! records that nothing names any more are given back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use vipd_abi::BackendRecord;
use vipd_control::phases::{Evidence, Fate};

use super::{Applier, Flows, FlowsByService, Placed, Retired, idle};
use crate::dataplane::{
    census::{Count, Orders},
    clock,
    mapped::Mapped,
    space::GRACE,
    tables::{Tables, unmapped},
};

/// How often slots that are not stable are looked at, all in all.
const LOOK: Duration = Duration::from_millis(500);

/// A record that no backend of the configuration has any more, and that slots
/// or flows may still name.
pub struct Former {
    /// As in the map.
    pub record: BackendRecord,
    /// What has become of its flows.
    pub fate: Fate,
    /// Since when no slot names it.
    unnamed: Option<Instant>,
}

/// Whether a record serves nothing any more.
pub const fn is_dead(record: &BackendRecord) -> bool {
    record.state & BackendRecord::DEAD != 0
}

impl Former {
    pub fn new(record: BackendRecord, fate: Fate) -> Self {
        Self {
            record,
            fate,
            unnamed: None,
        }
    }

    pub fn address(&self) -> IpAddr {
        unmapped(self.record.destination)
    }

    /// Ends its flows.
    pub fn bury(&mut self, index: u32, records: &Mapped<BackendRecord>) {
        self.fate = Fate::Dead;
        self.record.state |= BackendRecord::DEAD;
        records.set_state(index, self.record.state);
    }

    /// Whether nothing can name it: no slot for a while, and no flow since.
    fn is_free(&self, index: u32, count: Option<&Count>) -> bool {
        let Some((unnamed, count)) = self.unnamed.zip(count) else {
            return false;
        };
        count.started >= unnamed + GRACE && !count.records.contains_key(&index)
    }
}

impl Applier {
    /// Looks at what is not at rest, if it is time to.
    pub(super) fn tend(&mut self, now: Instant) {
        if self.look_at.is_some_and(|at| now < at) {
            return;
        }
        let (tables, count) = (&self.tables, self.count.as_deref());
        let mut free = Vec::new();
        // Records of one backend share a counter, and may go together.
        let mut counters = BTreeSet::new();
        let all = self.tended.go_on(&mut self.services, |name, placed| {
            if !placed.in_force || !placed.is_restless() {
                return 1;
            }
            let (learn, track) = placed.unsettled.counts();
            if placed.advance(tables, count) {
                self.touched.add(name);
                placed.has_new_names = true;
            }
            let looked = placed.look_for_names(tables, now);
            let gone = take_free(&mut placed.former, count);
            for (index, former) in gone {
                let counter = former.record.counter;
                let kept = placed.records().any(|record| record.counter == counter);
                free.push(index);
                counters.extend((!kept).then_some(counter));
            }
            (learn + track) as usize + looked
        });
        self.look_at = Some(if all { now + LOOK } else { now });
        for former in self.orphans.values_mut() {
            former.unnamed.get_or_insert(now);
        }
        for (index, former) in take_free(&mut self.orphans, count) {
            let counter = former.record.counter;
            let kept = self.orphans.values().any(|f| f.record.counter == counter);
            free.push(index);
            counters.extend((!kept).then_some(counter));
        }
        for index in free {
            self.tables.records.clear(index);
            self.indices.records.give_back(index, now);
            self.hops_changed = true;
        }
        for counter in counters {
            self.indices.counters.give_back(counter, now);
        }
    }

    /// Whether time will change something.
    pub(super) fn is_restless(&self) -> bool {
        !self.orphans.is_empty() || self.services.values().any(Placed::is_restless)
    }

    /// A record whose service is in no table any more: its flows end.
    pub(super) fn orphan(&mut self, index: u32, record: BackendRecord, since: Option<Instant>) {
        let mut former = Former::new(record, Fate::Dead);
        former.bury(index, &self.tables.records);
        former.unnamed = since;
        self.orphans.insert(index, former);
    }

    /// What the census has to know.
    #[must_use]
    pub fn orders(&self) -> Orders {
        let mut orders = Orders {
            busy: self.is_restless(),
            ..Orders::default()
        };
        for placed in self.services.values() {
            if let Some(plan) = &placed.plan {
                orders.idle.insert(placed.number, idle(&plan.service));
            }
            for (index, former) in &placed.former {
                if let Fate::Moved(to) = former.fate
                    && former.unnamed.is_some()
                {
                    orders.moved.insert(*index, to);
                }
            }
        }
        orders
    }

    /// Takes note of what the census has found.
    pub fn counted(&mut self, count: Arc<Count>) {
        let mut flows = FlowsByService::new();
        for (name, placed) in &self.services {
            let found = placed.flows(&count);
            if !found.is_empty() {
                flows.insert(Arc::clone(name), found);
            }
        }
        self.flows = Arc::new(flows);
        self.count = Some(count);
        self.look_at = None;
    }
}

/// Takes out those that nothing can name.
fn take_free(former: &mut BTreeMap<u32, Former>, count: Option<&Count>) -> Vec<(u32, Former)> {
    let free = former.extract_if(.., |index, former| former.is_free(*index, count));
    free.collect()
}

impl Placed {
    /// All its records.
    pub(super) fn records(&self) -> impl Iterator<Item = &BackendRecord> {
        self.numbered_records().map(|(_, record)| record)
    }

    /// All its records, with their indices.
    fn numbered_records(&self) -> impl Iterator<Item = (u32, &BackendRecord)> {
        let former = self.former.iter().map(|(index, f)| (*index, &f.record));
        let backends = self.backends.values().map(|b| (b.index, &b.record));
        backends.chain(former)
    }

    /// Whether time will change something about it.
    fn is_restless(&self) -> bool {
        !self.unsettled.is_empty() || !self.former.is_empty()
    }

    /// Moves slots on to their next phases; says whether there were any.
    fn advance(&mut self, tables: &Tables, count: Option<&Count>) -> bool {
        let (Some(plan), false) = (&self.plan, self.unsettled.is_empty()) else {
            return false;
        };
        let now = clock::tick();
        let records = self.numbered_records();
        let mut evidence = Evidence::new(
            records.map(|(index, record)| (index, record.counter)),
            |counter| tables.counters.sum(counter).packets > 0,
        );
        if let Some(count) = count {
            evidence = evidence.with_walk(count.tick, |index| count.has_flows(index));
        }
        let load = |slot| {
            let place = self.ring.0 + slot;
            (tables.ring.load(place), tables.stamps.load(place))
        };
        let due = self
            .unsettled
            .due(load, &evidence, now, idle(&plan.service));
        for (slot, _, new) in &due {
            tables.ring.publish(self.ring.0 + slot, *new);
        }
        // By now the last of them is stored.
        let now = clock::tick();
        for (slot, old, new) in &due {
            self.unsettled.note(*slot, *old, *new, now);
        }
        !due.is_empty()
    }

    /// Finds out which former records no slot names any more. Says how many
    /// slots it has looked at.
    fn look_for_names(&mut self, tables: &Tables, now: Instant) -> usize {
        if self.former.is_empty() || !std::mem::take(&mut self.has_new_names) {
            return 0;
        }
        let (start, length) = self.ring;
        let mut named = BTreeSet::new();
        for place in start..start + length {
            let slot = tables.ring.load(place);
            for index in [slot.current(), slot.previous()] {
                if self.former.contains_key(&index) {
                    named.insert(index);
                }
            }
        }
        for (index, former) in &mut self.former {
            former.unnamed = match named.contains(index) {
                true => None,
                false => former.unnamed.or(Some(now)),
            };
        }
        length as usize
    }

    /// The flows recorded for each backend that has any.
    fn flows(&self, count: &Count) -> BTreeMap<Arc<str>, Flows> {
        let mut by_address: BTreeMap<IpAddr, Flows> = BTreeMap::new();
        for (index, record) in self.numbered_records() {
            if let Some(named) = count.records.get(&index) {
                let flows = by_address.entry(unmapped(record.destination)).or_default();
                flows.live += named.flows.live;
                flows.closing += named.flows.closing;
            }
        }
        let plan = self.plan.iter().filter(|_| !by_address.is_empty());
        let backends = plan.flat_map(|plan| &plan.service.backends);
        backends
            .filter_map(|b| Some((Arc::clone(&b.name), *by_address.get(&b.address)?)))
            .collect()
    }
}

impl Retired {
    /// A whole service goes. Its flows end once no table names its ring.
    pub(super) fn retire(&mut self, placed: Placed) {
        self.numbers.push(placed.number);
        if placed.ring.1 != 0 {
            self.rings.push(placed.ring);
        }
        let backends = placed.backends.into_values();
        self.records.extend(backends.map(|b| (b.index, b.record)));
        let former = placed.former.into_iter();
        self.records
            .extend(former.map(|(index, f)| (index, f.record)));
    }
}
