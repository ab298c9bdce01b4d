//! The data-plane applier: makes the maps what is desired.
//!
//! A pass compares with what the maps really hold, slot by slot: what has
//! changed, and of the rest a part, so that what has drifted heals. The order
//! keeps packets whole at any moment, also when the agent is killed in between: records and next hops first, then the slots
//! that name them, then the table that names the ring; only after that is
//! anything taken away, and its place rests before it is used again.

mod hops;
mod place;
mod placed;
mod publish;
mod reach;
mod report;
mod review;
mod slots;
mod tend;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use vipd_abi::{
    BACKENDS, BackendKind, COUNTERS, Counter, FlowKey, Head, MACS, NEXT_HOPS, RING_SLOTS, Tick,
    UPLINKS, Uplink,
};
use vipd_control::{
    decide::{Desired, ServicePlan},
    model::Service,
};

use self::{
    placed::{Placed, PlacedBackend},
    publish::{Outgoing, Retired, Unpublished, Wanted},
    reach::Look,
    report::Touched,
    review::Walk,
    tend::Former,
};
pub use self::{
    reach::Reach,
    report::{Applied, Counters, Flows, FlowsByService, PhaseCount, Usage},
};
use super::{
    adopt::Adopted,
    census::Count,
    listing::Listing,
    record::TunnelSources,
    space::{Indices, Stretches},
    tables::{Tables, unmapped},
    vip_table::Half,
};

/// What holds for all services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Keys the flow hash.
    pub flow_key: FlowKey,
    /// Outer source addresses that the configuration prescribes.
    pub sources: TunnelSources,
    /// MAC addresses of the interfaces with the program, as in [`Head`].
    pub macs: [u64; MACS],
}

impl Settings {
    fn head(&self) -> Head {
        Head {
            flow_key: self.flow_key,
            macs: self.macs,
            ..Head::default()
        }
    }
}

/// How soon a pass that did not get through is repeated.
const RETRY: Duration = Duration::from_secs(1);

/// Why a service could not be placed.
#[derive(Debug, Error)]
enum PlaceError {
    #[error("the {0} are full ({1} in use)")]
    Full(&'static str, u32),
    #[error("it has more than 65535 backends")]
    TooManyBackends,
}

/// Brings the maps to what is desired.
pub struct Applier {
    tables: Tables,
    settings: Settings,
    services: BTreeMap<Arc<str>, Placed>,
    hops: BTreeMap<HopKey, u32>,
    uplinks: BTreeMap<u32, Uplink>,
    indices: AllIndices,
    ring: Stretches,
    /// What the table in force says.
    listing: Arc<Listing>,
    /// What it is to say, until something changes that.
    wanted: Option<Wanted>,
    half: Option<Half>,
    /// Whether the maps are to be compared with `half` once more.
    half_in_doubt: bool,
    /// When the table was published last, at the latest.
    published_at: Option<Instant>,
    /// What no longer has a name but may still be published.
    retired: Retired,
    /// What the last pass has taken out of force. It is given back by the next
    /// one, so that its rest begins when it is really out of reach.
    outgoing: Outgoing,
    adopted: Adopted,
    /// Records of services that are gone, while flows name them.
    orphans: BTreeMap<u32, Former>,
    /// The last word on the ways, and what was wrong with them.
    reach: Reach,
    hop_faults: BTreeMap<HopKey, String>,
    /// Whether there may be next hops that no record names.
    hops_changed: bool,
    /// How far the comparison of what is unchanged has come.
    reviewed: Walk,
    /// When slots and former records are to be looked at, and how far that is.
    look_at: Option<Instant>,
    tended: Walk,
    /// What the last census has found, and what that means for backends.
    count: Option<Arc<Count>>,
    flows: Arc<FlowsByService>,
    /// What the last pass has told, and the services that may be another case.
    told: Applied,
    touched: Touched,
}

/// A destination and whether frames must go to it directly.
type HopKey = (IpAddr, bool);

struct AllIndices {
    numbers: Indices,
    records: Indices,
    counters: Indices,
    hops: Indices,
    uplinks: Indices,
}

impl Applier {
    /// Takes over the maps with whatever they hold.
    #[must_use]
    pub fn new(tables: Tables, settings: Settings) -> Self {
        let adopted = Adopted::read(&tables);
        let records = || adopted.records();
        let mut indices = AllIndices {
            numbers: Indices::new(1, u32::MAX),
            records: Indices::new(1, BACKENDS),
            counters: Indices::new(Counter::FIRST_BACKEND, COUNTERS),
            hops: Indices::new(1, NEXT_HOPS),
            uplinks: Indices::new(1, UPLINKS),
        };
        let set = |values: &mut dyn Iterator<Item = u32>| values.collect::<BTreeSet<u32>>();
        indices
            .numbers
            .adopt(&set(&mut adopted.services.keys().copied()));
        indices
            .records
            .adopt(&set(&mut records().map(|(index, _)| index)));
        indices
            .counters
            .adopt(&set(&mut records().map(|(_, r)| r.counter)));
        indices
            .hops
            .adopt(&set(&mut records().map(|(_, r)| r.next_hop)));
        indices
            .uplinks
            .adopt(&set(&mut adopted.uplinks.keys().copied()));
        let hops = records()
            .map(|(_, record)| {
                let on_link = record.kind == BackendKind::L2 as u32;
                ((unmapped(record.destination), on_link), record.next_hop)
            })
            .collect();
        let rings = adopted.services.values().map(|s| s.ring).collect();
        let orphans = adopted.orphans.clone();
        let mut applier = Self {
            ring: Stretches::new(RING_SLOTS, &rings),
            listing: Arc::new(adopted.listing.clone()),
            wanted: None,
            uplinks: adopted.uplinks.clone(),
            tables,
            settings,
            services: BTreeMap::new(),
            hops,
            indices,
            half: None,
            half_in_doubt: false,
            published_at: None,
            retired: Retired::default(),
            outgoing: Outgoing::default(),
            adopted,
            orphans: BTreeMap::new(),
            reach: Reach::default(),
            hop_faults: BTreeMap::new(),
            hops_changed: false,
            reviewed: Walk::default(),
            look_at: None,
            tended: Walk::default(),
            count: None,
            flows: Arc::default(),
            told: Applied::default(),
            touched: Touched::All,
        };
        for (index, record) in orphans {
            applier.orphan(index, record, None);
        }
        applier
    }

    /// What a previous agent left, for whoever starts from it.
    #[must_use]
    pub fn adopted(&self) -> &Adopted {
        &self.adopted
    }

    /// The tables, for whoever shows them.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Puts other settings into force with the next pass.
    pub fn configure(&mut self, settings: Settings) {
        if self.settings.sources != settings.sources {
            // Every record may change.
            for placed in self.services.values_mut() {
                placed.settled = false;
            }
        }
        if self.settings.head() != settings.head() {
            self.half = None;
        }
        self.settings = settings;
    }

    /// One pass. With `full`, all that is unchanged is compared too; otherwise
    /// what [`Applier::review`] has chosen.
    pub fn apply(&mut self, desired: &Desired, reach: &Reach, full: bool, now: Instant) -> Applied {
        let (mut faults, mut retry_at) = (BTreeMap::new(), None);
        self.give_back(now);
        if full {
            self.reviewed = Walk::default();
            while !self.review() {}
        }
        let moved = self.follow(reach);
        let due = self.due(desired);
        self.write_hops(&due, moved, now);
        for plan in due {
            if let Err(error) = self.place(plan, desired, now) {
                let name = &plan.service.name;
                faults.insert(
                    format!("service {name}"),
                    format!("the data plane keeps its last state: {error}"),
                );
                retry_at = Some(now + RETRY);
            }
        }
        self.retire_removed(desired);
        self.tend(now);
        match self.publish(desired, now) {
            Ok(()) => {}
            Err(Unpublished::Rests(until)) => retry_at = Some(until),
            Err(Unpublished::Refused(error)) => {
                faults.insert("VIP table".to_owned(), format!("stays as it was: {error}"));
                retry_at = Some(now + RETRY);
            }
        }
        self.tell(desired);
        faults.extend(self.hop_faults());
        Applied {
            flows: Arc::clone(&self.flows),
            faults,
            usage: self.usage(),
            retry_at,
            look_at: self.look_at.filter(|_| self.is_restless()),
            ..self.told.clone()
        }
    }

    /// Takes over the word on the ways. Services that it changes more for than
    /// next hops are placed again. Says whether it is another.
    fn follow(&mut self, reach: &Reach) -> bool {
        let before = std::mem::replace(&mut self.reach, reach.clone());
        if before.is(reach) {
            return false;
        }
        let addresses = self.hops.keys().map(|(address, _)| *address);
        let moved = addresses.filter(|address| !before.is_alike(reach, *address));
        let moved: BTreeSet<IpAddr> = moved.collect();
        for placed in self.services.values_mut().filter(|_| !moved.is_empty()) {
            let mut addresses = placed.backends.keys();
            placed.settled &= !addresses.any(|address| moved.contains(address));
        }
        true
    }

    /// Whether what is planned for a service is in the maps, all of it.
    #[must_use]
    pub fn has_placed(&self, plan: &Arc<ServicePlan>) -> bool {
        let placed = self.services.get(&plan.service.name);
        placed.is_some_and(|placed| placed.holds(plan))
    }

    /// The plans that the last pass did not get through with, or whose outcome
    /// is in doubt.
    fn due<'a>(&self, desired: &'a Desired) -> Vec<&'a Arc<ServicePlan>> {
        // Both are in the order of their names.
        let mut services = self.services.iter().peekable();
        let plans = desired.services.iter();
        let is_due = |plan: &&Arc<ServicePlan>| {
            let name = &plan.service.name;
            while services.next_if(|(other, _)| *other < name).is_some() {}
            let placed = services.next_if(|(other, _)| *other == name);
            !placed.is_some_and(|(_, placed)| placed.holds(plan))
        };
        plans.filter(is_due).collect()
    }

    /// Services no longer wanted leave the table with the next publication.
    fn retire_removed(&mut self, desired: &Desired) {
        let names = desired.services.iter().map(|plan| &plan.service.name);
        if self.adopted.services.is_empty() && self.services.keys().eq(names) {
            return;
        }
        self.hops_changed = true;
        let wanted: BTreeSet<&str> = desired.services.iter().map(|p| &*p.service.name).collect();
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.services)
            .into_iter()
            .partition(|(name, _)| wanted.contains(&**name));
        self.services = kept;
        if !gone.is_empty() || !self.adopted.services.is_empty() {
            self.wanted = None;
        }
        for placed in gone.into_values() {
            self.retired.retire(placed);
        }
        // What a previous agent left and the configuration does not name.
        for (number, adopted) in std::mem::take(&mut self.adopted.services) {
            let placed = self.take_over(number, adopted);
            self.retired.retire(placed);
        }
    }
}

/// How long a flow of the service is remembered, in ticks.
fn idle(service: &Service) -> u16 {
    let nanos = u64::try_from(service.idle.as_nanos()).unwrap_or(u64::MAX);
    let ticks = u16::try_from(Tick::covering(nanos)).unwrap_or(u16::MAX);
    ticks.min(Tick::LONGEST_IDLE)
}
