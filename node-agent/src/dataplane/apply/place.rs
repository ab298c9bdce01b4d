//! One service: its number, its records, its ring.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Instant};

use vipd_abi::BackendRecord;
use vipd_control::{
    decide::{Desired, ServicePlan},
    model::{Mode, Service},
    phases::{Fate, Unsettled},
};

use super::{
    Applier, Look, PlaceError, Placed, PlacedBackend,
    tend::{Former, is_dead},
};
use crate::dataplane::{adopt::AdoptedService, record::record};

impl Applier {
    /// Writes the records and slots of one service.
    pub(super) fn place(
        &mut self,
        plan: &Arc<ServicePlan>,
        desired: &Desired,
        now: Instant,
    ) -> Result<(), PlaceError> {
        let service = &plan.service;
        self.touched.add(&service.name);
        let mut placed = match self.services.remove(&service.name) {
            Some(placed) => placed,
            None => self.first_place(service, desired, now)?,
        };
        let listed = placed.listed();
        let result = self.update(&mut placed, plan, now);
        // After a failure what was in force stays in force.
        placed.settled = result.is_ok();
        placed.reachable = placed.count_reachable(&self.tables);
        if listed.is_none() || listed != placed.listed() {
            self.wanted = None;
        }
        self.services.insert(service.name.clone(), placed);
        result
    }

    /// A service seen for the first time: as adopted, under another name, or
    /// new.
    fn first_place(
        &mut self,
        service: &Service,
        desired: &Desired,
        now: Instant,
    ) -> Result<Placed, PlaceError> {
        let adopted = self
            .adopted
            .number(service)
            .and_then(|number| Some((number, self.adopted.services.remove(&number)?)));
        if let Some((number, adopted)) = adopted {
            return Ok(self.take_over(number, adopted));
        }
        let renamed = self.services.iter().find(|(name, placed)| {
            let meets = placed
                .plan
                .as_ref()
                .is_some_and(|p| p.service.meets(service));
            meets && desired.service(name).is_none()
        });
        if let Some(name) = renamed.map(|(name, _)| Arc::clone(name))
            && let Some(placed) = self.services.remove(&name)
        {
            return Ok(placed);
        }
        let number = self.indices.numbers.take(now);
        let number = number.ok_or(PlaceError::Full("service numbers", u32::MAX))?;
        Ok(Placed::new(number))
    }

    /// What a previous agent has placed, as if this one had.
    pub(super) fn take_over(&self, number: u32, adopted: AdoptedService) -> Placed {
        let mut unsettled = Unsettled::default();
        for (slot, word) in (0..).zip(self.words(adopted.ring)) {
            unsettled.note(slot, word, word, self.tables.clock.tick());
        }
        let backend = |(address, (index, record))| {
            let used = true;
            (
                address,
                PlacedBackend {
                    index,
                    record,
                    used,
                },
            )
        };
        let former = |(index, (record, fate))| (index, Former::new(record, fate));
        Placed {
            ring: adopted.ring,
            in_force: true,
            unsettled,
            backends: adopted.backends.into_iter().map(backend).collect(),
            former: adopted.former.into_iter().map(former).collect(),
            ..Placed::new(number)
        }
    }

    fn update(
        &mut self,
        placed: &mut Placed,
        plan: &Arc<ServicePlan>,
        now: Instant,
    ) -> Result<(), PlaceError> {
        if plan.service.backends.len() > usize::from(u16::MAX) {
            return Err(PlaceError::TooManyBackends);
        }
        // Records are whole, and say who is dead or drained, before a slot is
        // moved for it: a later agent that finds this half done goes on.
        self.write_records(placed, plan, now)?;
        self.drop_unused(placed, &plan.service);
        if placed.ring.1 != plan.service.ring_size {
            self.resize(placed, plan.service.ring_size, now)?;
        }
        self.write_slots(placed, plan);
        let counters = counters(placed, plan);
        if placed.counters != counters {
            placed.counters = counters;
        }
        placed.has_new_names = true;
        placed.plan = Some(plan.clone());
        Ok(())
    }

    /// Writes a new record for each backend that is new, has changed, or is
    /// back from the dead, and the state of all.
    fn write_records(
        &mut self,
        placed: &mut Placed,
        plan: &ServicePlan,
        now: Instant,
    ) -> Result<(), PlaceError> {
        let reach = self.reach.clone();
        let backends = plan.service.backends.iter().zip(&plan.drained);
        for (place, (backend, drained)) in backends.enumerate() {
            let drained = if *drained { BackendRecord::DRAINED } else { 0 };
            placed.recall(backend.address);
            let on_link = plan.service.mode == Mode::L2Dsr;
            let hop = self.hop((backend.address, on_link), now);
            let hop = hop.ok_or(PlaceError::Full("next hops", self.indices.hops.used()))?;
            let old = placed.backends.get(&backend.address).copied();
            let dead = match old {
                _ if plan.keeps_flows(place) => false,
                // Its flows end only when somebody can take them.
                Some(old) if !plan.has_takers() => is_dead(&old.record),
                _ => true,
            };
            let state = drained | if dead { BackendRecord::DEAD } else { 0 };
            let wanted = match (reach.look(backend.address, on_link), old) {
                // Until somebody has looked, the record stays as it is.
                (Look::Unknown, Some(old)) if old.record.next_hop == hop => BackendRecord {
                    state,
                    ..old.record
                },
                (look, old) => BackendRecord {
                    next_hop: hop,
                    counter: self.counter(old, now)?,
                    service: placed.number,
                    state,
                    ..record(
                        plan.service.mode,
                        backend.address,
                        look.way(),
                        &self.settings.sources,
                    )
                },
            };
            if let Some(old) = old
                && self.keep(placed, backend.address, old, wanted)
            {
                continue;
            }
            let Some(index) = self.indices.records.take(now) else {
                let unused = old.is_none().then_some(wanted.counter);
                self.retired.counters.extend(unused);
                let used = self.indices.records.used();
                return Err(PlaceError::Full("backend records", used));
            };
            self.tables.records.fill(index, wanted);
            placed.replace(backend.address, index, wanted);
        }
        Ok(())
    }

    /// Whether a record can stay where it is.
    fn keep(
        &self,
        placed: &mut Placed,
        address: IpAddr,
        old: PlacedBackend,
        wanted: BackendRecord,
    ) -> bool {
        let Some(backend) = placed.backends.get_mut(&address) else {
            return false;
        };
        let (state, dead) = (wanted.state, is_dead(&wanted));
        let held = self.tables.records.load(old.index);
        let same = |record| BackendRecord { state, ..record } == wanted;
        if !old.used {
            // No slot has ever named it.
            if held != wanted {
                self.tables.records.fill(old.index, wanted);
            }
            backend.record = wanted;
            backend.used = !dead;
            return true;
        }
        let returns = is_dead(&old.record) && !dead;
        // Nobody goes by the record of a dead backend, so the rest of it waits.
        if returns || !(dead || same(old.record) && same(held)) {
            return false;
        }
        backend.record.state = state;
        if held.state != state {
            self.tables.records.set_state(old.index, state);
        }
        if dead {
            self.bury(placed, old.index);
        }
        true
    }

    /// The other records of a backend that has died end with it.
    fn bury(&self, placed: &mut Placed, index: u32) {
        let moved = placed.former.iter_mut();
        for (other, former) in moved.filter(|(_, f)| f.fate == Fate::Moved(index)) {
            former.bury(*other, &self.tables.records);
        }
    }

    fn counter(&mut self, old: Option<PlacedBackend>, now: Instant) -> Result<u32, PlaceError> {
        if let Some(old) = old {
            return Ok(old.record.counter);
        }
        let counter = self.indices.counters.take(now);
        let counter = counter.ok_or(PlaceError::Full("counters", self.indices.counters.used()))?;
        self.tables.counters.clear(counter);
        Ok(counter)
    }

    /// Backends that the service no longer has keep the flows they have,
    /// unless they were down.
    fn drop_unused(&self, placed: &mut Placed, service: &Service) {
        let wanted: BTreeSet<IpAddr> = service.backends.iter().map(|b| b.address).collect();
        let gone: Vec<IpAddr> = placed
            .backends
            .keys()
            .filter(|address| !wanted.contains(address))
            .copied()
            .collect();
        for address in gone {
            let was_down = placed.plan.as_ref().is_some_and(|plan| {
                let mut backends = plan.service.backends.iter();
                let place = backends.position(|backend| backend.address == address);
                place.is_some_and(|place| !plan.keeps_flows(place))
            });
            let Some(backend) = placed.backends.remove(&address) else {
                continue;
            };
            let mut former = Former::new(backend.record, Fate::Serves);
            if was_down || is_dead(&backend.record) {
                former.bury(backend.index, &self.tables.records);
                self.bury(placed, backend.index);
            }
            placed.former.insert(backend.index, former);
        }
    }
}

impl Placed {
    /// A backend that was taken out and is back still has its flows.
    fn recall(&mut self, address: IpAddr) {
        if self.backends.contains_key(&address) {
            return;
        }
        let mut former = self.former.iter();
        let found = former.find(|(_, f)| f.fate == Fate::Serves && f.address() == address);
        if let Some((index, former)) = found {
            let (index, record) = (*index, former.record);
            let used = true;
            self.former.remove(&index);
            self.backends.insert(
                address,
                PlacedBackend {
                    index,
                    record,
                    used,
                },
            );
        }
    }

    /// The backend has another record now.
    fn replace(&mut self, address: IpAddr, index: u32, record: BackendRecord) {
        let used = !is_dead(&record);
        let new = PlacedBackend {
            index,
            record,
            used,
        };
        let Some(old) = self.backends.insert(address, new) else {
            return;
        };
        let fate = if is_dead(&old.record) {
            Fate::Dead
        } else {
            Fate::Moved(index)
        };
        for former in self.former.values_mut() {
            if former.fate == Fate::Moved(old.index) {
                former.fate = fate;
            }
        }
        self.former.insert(old.index, Former::new(old.record, fate));
    }
}

/// The counters of a service's backends, by name.
fn counters(placed: &Placed, plan: &ServicePlan) -> super::Counters {
    let backends = plan.service.backends.iter();
    let counter = |backend: &vipd_control::model::Backend| {
        let placed = placed.backends.get(&backend.address)?;
        Some((backend.name.clone(), placed.record.counter))
    };
    Arc::new(backends.filter_map(counter).collect())
}
