//! One service: its number, its records, the slots of its ring.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use vipd_abi::{BackendRecord, Slot};
use vipd_control::{
    decide::ServicePlan,
    model::{Mode, Service},
};

use super::{Applier, Look, PlaceError, Placed, PlacedBackend, Reach};
use crate::dataplane::{adopt::AdoptedService, record::record};

impl Applier {
    /// Writes the records and slots of one service.
    pub(super) fn place(
        &mut self,
        plan: &Arc<ServicePlan>,
        reach: &Reach,
        full: bool,
        now: Instant,
    ) -> Result<(), PlaceError> {
        let service = &plan.service;
        let mut placed = match self.services.remove(&service.name) {
            Some(placed) => placed,
            None => self.first_place(service, now)?,
        };
        let result = self.update(&mut placed, plan, reach, full, now);
        // After a failure what was in force stays in force.
        placed.settled = result.is_ok();
        self.services.insert(service.name.clone(), placed);
        result
    }

    /// A service seen for the first time: as adopted, or new.
    fn first_place(&mut self, service: &Service, now: Instant) -> Result<Placed, PlaceError> {
        let adopted = self
            .adopted
            .number(service)
            .and_then(|number| Some((number, self.adopted.services.remove(&number)?)));
        if let Some((number, adopted)) = adopted {
            return Ok(Self::take_over(number, adopted));
        }
        let number = self.indices.numbers.take(now);
        Ok(Placed {
            number: number.ok_or(PlaceError::Full("service numbers", u32::MAX))?,
            ring: (0, 0),
            backends: BTreeMap::new(),
            surplus: Vec::new(),
            plan: None,
            settled: false,
        })
    }

    /// What a previous agent has placed, as if this one had.
    pub(super) fn take_over(number: u32, adopted: AdoptedService) -> Placed {
        let backends = adopted.backends.into_iter();
        Placed {
            number,
            ring: adopted.ring,
            backends: backends
                .map(|(address, (index, record))| (address, PlacedBackend { index, record }))
                .collect(),
            surplus: adopted.surplus,
            plan: None,
            settled: false,
        }
    }

    fn update(
        &mut self,
        placed: &mut Placed,
        plan: &Arc<ServicePlan>,
        reach: &Reach,
        full: bool,
        now: Instant,
    ) -> Result<(), PlaceError> {
        if plan.service.backends.len() > usize::from(u16::MAX) {
            return Err(PlaceError::TooManyBackends);
        }
        let same_plan = placed.settled
            && placed
                .plan
                .as_ref()
                .is_some_and(|old| Arc::ptr_eq(old, plan));
        let replaced = self.write_records(placed, &plan.service, reach, now)?;
        if placed.ring.1 != plan.service.ring_size {
            let length = plan.service.ring_size;
            let start = self.ring.take(length, now);
            let start = start.ok_or(PlaceError::Full("ring slots", self.ring.used()))?;
            if placed.ring.1 != 0 {
                self.retired.rings.push(placed.ring);
            }
            placed.ring = (start, length);
            self.write_slots(placed, plan);
        } else if full || replaced.is_some() || !same_plan {
            self.write_slots(placed, plan);
        }
        self.retired.records.extend(replaced.into_iter().flatten());
        if !same_plan {
            // All slots have been written anew.
            self.retired.records.append(&mut placed.surplus);
        }
        self.drop_unused(placed, &plan.service);
        placed.plan = Some(plan.clone());
        Ok(())
    }

    /// Writes the records that are new or differ. If there are any, says which
    /// records they replace: those go once no slot names them. (If a table
    /// runs full in between, they stay lost until the agent starts again,
    /// which is better than a slot that names somebody else's record.)
    fn write_records(
        &mut self,
        placed: &mut Placed,
        service: &Service,
        reach: &Reach,
        now: Instant,
    ) -> Result<Option<Vec<u32>>, PlaceError> {
        let mut replaced = None;
        for backend in &service.backends {
            let on_link = service.mode == Mode::L2Dsr;
            let hop = self.hop((backend.address, on_link), now);
            let hop = hop.ok_or(PlaceError::Full("next hops", self.indices.hops.used()))?;
            let old = placed.backends.get(&backend.address).copied();
            let counter = match old {
                Some(old) => old.record.counter,
                None => {
                    let counter = self.indices.counters.take(now);
                    let counter = counter
                        .ok_or(PlaceError::Full("counters", self.indices.counters.used()))?;
                    self.tables.counters.clear(counter);
                    counter
                }
            };
            let way = match (reach.look(backend.address, on_link), old) {
                // Until somebody has looked, the record stays as it is.
                (Look::Unknown, Some(old)) if old.record.next_hop == hop => continue,
                (Look::Way(way), _) => Some(way),
                (Look::Unknown | Look::None, _) => None,
            };
            let wanted = BackendRecord {
                next_hop: hop,
                counter,
                service: placed.number,
                ..record(service.mode, backend.address, way, &self.settings.sources)
            };
            if let Some(old) = old
                && old.record == wanted
                && self.tables.records.load(old.index) == wanted
            {
                continue;
            }
            let Some(index) = self.indices.records.take(now) else {
                self.retired
                    .counters
                    .extend(old.is_none().then_some(counter));
                let used = self.indices.records.used();
                return Err(PlaceError::Full("backend records", used));
            };
            self.tables.records.store(index, wanted);
            replaced
                .get_or_insert_with(Vec::new)
                .extend(old.map(|old| old.index));
            let new = PlacedBackend {
                index,
                record: wanted,
            };
            placed.backends.insert(backend.address, new);
        }
        Ok(replaced)
    }

    /// Writes the slots that differ.
    fn write_slots(&self, placed: &Placed, plan: &ServicePlan) {
        let backends: Vec<u32> = plan
            .service
            .backends
            .iter()
            .map(|backend| placed.backends.get(&backend.address).map_or(0, |b| b.index))
            .collect();
        for slot in 0..placed.ring.1 {
            let owner = plan
                .ring
                .as_ref()
                .and_then(|ring| ring.slots().get(slot as usize))
                .and_then(|ordinal| backends.get(usize::from(*ordinal)).copied())
                .unwrap_or(0);
            self.tables
                .ring
                .publish(placed.ring.0 + slot, Slot::stable(owner));
        }
    }

    /// Retires backends that the service no longer has: no slot of its present
    /// ring names them.
    fn drop_unused(&mut self, placed: &mut Placed, service: &Service) {
        let wanted: BTreeSet<IpAddr> = service.backends.iter().map(|b| b.address).collect();
        placed.backends.retain(|address, backend| {
            let keep = wanted.contains(address);
            if !keep {
                self.retired.records.push(backend.index);
                self.retired.counters.push(backend.record.counter);
            }
            keep
        });
    }
}
