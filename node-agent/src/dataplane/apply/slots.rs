//! The slots of one ring, made what is planned without moving a flow.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use vipd_abi::{Slot, Stamp};
use vipd_control::{
    decide::ServicePlan,
    phases::{Fate, Unsettled, inherit, turn},
};

use super::{Applier, PlaceError, Placed, idle, tend::is_dead};

impl Applier {
    /// The words of a ring, given as first slot and length.
    pub(super) fn words(&self, ring: (u32, u32)) -> impl Iterator<Item = Slot> {
        (ring.0..ring.0 + ring.1).map(|place| self.tables.ring.load(place))
    }

    /// Moves the service to a ring of another size. The old one stays in force
    /// until the table is published.
    pub(super) fn resize(
        &mut self,
        placed: &mut Placed,
        size: u32,
        now: Instant,
    ) -> Result<(), PlaceError> {
        let start = self.ring.take(size, now);
        let start = start.ok_or(PlaceError::Full("ring slots", self.ring.used()))?;
        let old: Vec<Slot> = self.words(placed.ring).collect();
        if placed.ring.1 != 0 {
            self.retired.rings.push(placed.ring);
        }
        if placed.in_force {
            placed.outgoing_ring = Some(placed.ring);
        }
        placed.ring = (start, size);
        placed.in_force = false;
        placed.unsettled = Unsettled::default();
        for slot in 0..size {
            let word = inherit(slot, size, &old);
            self.tables.ring.publish(start + slot, word);
            self.tables.stamps.store(start + slot, Stamp::default());
            placed
                .unsettled
                .note(slot, word, word, self.tables.clock.tick());
        }
        Ok(())
    }

    /// Turns the slots that differ, in the ring that packets still use too: the
    /// table may have to wait.
    pub(super) fn write_slots(&self, placed: &mut Placed, plan: &Arc<ServicePlan>) {
        if let Some(ring) = placed.outgoing_ring {
            self.turn_slots(placed, ring, plan);
        }
        let turned = self.turn_slots(placed, placed.ring, plan);
        // By now the last of them is stored.
        let now = self.tables.clock.tick();
        for (slot, old, new) in turned {
            placed.unsettled.note(slot, old, new, now);
        }
    }

    /// Turns the slots of a ring, which may be of another size than planned. Says
    /// which were not or are not stable, with their words before and after.
    fn turn_slots(
        &self,
        placed: &Placed,
        ring: (u32, u32),
        plan: &ServicePlan,
    ) -> Vec<(u32, Slot, Slot)> {
        let backends = plan.service.backends.iter();
        let owners: Vec<u32> = backends
            .map(|backend| placed.backends.get(&backend.address).map_or(0, |b| b.index))
            .collect();
        let planned = plan.ring.as_ref().map_or(&[][..], |ring| ring.slots());
        let learns = idle(&plan.service) > 0;
        let fates = placed.fates();
        // What is in none of the records serves nobody.
        let fate = |index| fates.get(&index).copied().unwrap_or(Fate::Dead);
        let mut turned = Vec::new();
        for slot in 0..ring.1 {
            let old = self.tables.ring.load(ring.0 + slot);
            // The low bits of a flow's hash say where it is in either.
            let place = slot as usize % planned.len().max(1);
            let ordinal = planned.get(place).copied();
            let wanted = ordinal.and_then(|o| owners.get(usize::from(o)).copied());
            if wanted.is_some_and(|wanted| old == Slot::stable(wanted)) {
                continue;
            }
            let new = turn(old, wanted, learns, fate);
            self.tables.ring.publish(ring.0 + slot, new);
            if !(old.is_stable() && new.is_stable()) {
                turned.push((slot, old, new));
            }
        }
        turned
    }
}

impl Placed {
    /// What has become of each record that slots may name.
    fn fates(&self) -> BTreeMap<u32, Fate> {
        let backends = self.backends.values().map(|backend| {
            let fate = match is_dead(&backend.record) {
                true => Fate::Dead,
                false => Fate::Serves,
            };
            (backend.index, fate)
        });
        let former = self.former.iter().map(|(index, f)| (*index, f.fate));
        backends.chain(former).collect()
    }
}
