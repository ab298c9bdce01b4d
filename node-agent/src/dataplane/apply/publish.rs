//! The table in force: what it is to say, when it changes, and what is taken
//! away once it names that no more.

use std::{sync::Arc, time::Instant};

use vipd_abi::{BackendRecord, EntryKind, VipEntry};
use vipd_control::{
    decide::Desired,
    model::{Service, Vip},
};

use super::{Applier, Placed, idle, report::Touched};
use crate::dataplane::{
    listing::Listing,
    space::GRACE,
    vip_table::{BuildError, Half},
};

/// What the table is to say, and the virtual addresses that it was listed for.
pub struct Wanted {
    pub listing: Arc<Listing>,
    vips: Vec<Vip>,
}

/// Why the table in force is not the one that is wanted.
pub enum Unpublished {
    /// The half that would be written rests until then.
    Rests(Instant),
    /// It has no room.
    Refused(BuildError),
}

#[derive(Default)]
pub struct Outgoing {
    pub retired: Retired,
    published: bool,
}

#[derive(Default)]
pub struct Retired {
    pub numbers: Vec<u32>,
    pub rings: Vec<(u32, u32)>,
    pub records: Vec<(u32, BackendRecord)>,
    pub counters: Vec<u32>,
    pub hops: Vec<u32>,
    pub uplinks: Vec<u32>,
}

impl Applier {
    /// Puts the table in force if it differs from the one that is.
    pub(super) fn publish(&mut self, desired: &Desired, now: Instant) -> Result<(), Unpublished> {
        let wanted = self.list(desired);
        if std::mem::take(&mut self.half_in_doubt) {
            self.half.take_if(|half| !half.is_published(&self.tables));
        }
        if self.listing != wanted || self.half.is_none() {
            let half = Half::build(&wanted, self.settings.head()).map_err(Unpublished::Refused)?;
            self.put_in_force(&half, now)?;
            self.half = Some(half);
            // Addresses may be acknowledged now that were not.
            self.touched = Touched::All;
        }
        self.listing = wanted;
        self.take_away();
        Ok(())
    }

    fn put_in_force(&mut self, half: &Half, now: Instant) -> Result<(), Unpublished> {
        if half.is_published(&self.tables) {
            return Ok(());
        }
        let ready = self.published_at.map_or(now, |last| last + GRACE);
        if now < ready {
            return Err(Unpublished::Rests(ready));
        }
        half.publish(&self.tables);
        self.outgoing.published = true;
        Ok(())
    }

    /// What the table is to say: listed anew if any of that has changed.
    pub(super) fn list(&mut self, desired: &Desired) -> Arc<Listing> {
        let listed = self.wanted.as_ref();
        if let Some(wanted) = listed.filter(|wanted| desired.vips.keys().eq(&wanted.vips)) {
            return Arc::clone(&wanted.listing);
        }
        let mut listing = Listing::default();
        for vip in desired.vips.keys() {
            listing.cover(*vip);
        }
        for placed in self.services.values() {
            let Some((service, entry)) = placed.listed() else {
                continue;
            };
            for vip in &service.vips {
                listing.serve(*vip, service.protocol, service.ports, entry);
            }
        }
        for placed in self.services.values().filter(|p| p.plan.is_none()) {
            // What a previous agent had in force stays in force.
            listing.keep(&self.listing, placed.number);
        }
        let listing = Arc::new(listing);
        self.wanted = Some(Wanted {
            listing: Arc::clone(&listing),
            vips: desired.vips.keys().copied().collect(),
        });
        self.touched = Touched::All;
        listing
    }

    /// Nothing published names the retired any more, and it names every ring.
    fn take_away(&mut self) {
        let now = self.tables.clock.tick();
        for placed in self.services.values_mut() {
            if !placed.in_force && placed.plan.is_some() {
                placed.in_force = true;
                placed.outgoing_ring = None;
                placed.unsettled.restart(now);
            }
        }
        if std::mem::take(&mut self.hops_changed) {
            self.retire_hops();
        }
        self.outgoing.retired.append(&mut self.retired);
    }

    /// Gives back what the pass before has taken out of force.
    pub(super) fn give_back(&mut self, now: Instant) {
        let outgoing = std::mem::take(&mut self.outgoing);
        if outgoing.published {
            self.published_at = Some(now);
        }
        let Retired {
            numbers,
            rings,
            records,
            counters,
            hops,
            uplinks,
        } = outgoing.retired;
        for (start, length) in rings {
            self.ring.give_back(start, length, now);
        }
        // Before another service can have their number.
        for (index, record) in records {
            self.orphan(index, record, Some(now));
        }
        let indices = &mut self.indices;
        for (gone, indices) in [
            (numbers, &mut indices.numbers),
            (counters, &mut indices.counters),
            (hops, &mut indices.hops),
            (uplinks, &mut indices.uplinks),
        ] {
            for index in gone {
                indices.give_back(index, now);
            }
        }
    }
}

impl Placed {
    /// How the table leads to it: by the addresses and ports of the service, and
    /// with this entry, but for its key.
    pub fn listed(&self) -> Option<(Arc<Service>, VipEntry)> {
        let plan = self.plan.as_ref()?;
        // In doubt the slots are those of whom the next agent is to believe, too.
        let is_forsaken = !plan.available.contains(&true) && plan.condition.doubt.is_none();
        let entry = VipEntry {
            kind: EntryKind::Service as u32,
            service: self.number,
            ring_offset: self.ring.0,
            ring_mask: self.ring.1 - 1,
            forsaken: u32::from(is_forsaken),
            idle: u32::from(idle(&plan.service)),
            ..VipEntry::default()
        };
        Some((Arc::clone(&plan.service), entry))
    }
}

impl Retired {
    fn append(&mut self, other: &mut Self) {
        self.numbers.append(&mut other.numbers);
        self.rings.append(&mut other.rings);
        self.records.append(&mut other.records);
        self.counters.append(&mut other.counters);
        self.hops.append(&mut other.hops);
        self.uplinks.append(&mut other.uplinks);
    }
}
