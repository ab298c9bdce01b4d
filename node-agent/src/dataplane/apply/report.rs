//! What a pass tells: flows, slots that change hands, and how full the maps are.

use std::{collections::BTreeMap, sync::Arc};

use vipd_abi::{BACKENDS, COUNTERS, Counter, NEXT_HOPS, PORT_RANGES, Phase, RING_SLOTS, UPLINKS};

use super::Applier;
use crate::dataplane::vip_table::{Half, MOST_ENTRIES};

/// Flows recorded for one backend of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// Used of late and not about to end.
    pub live: u64,
    /// A FIN or RST was seen.
    pub closing: u64,
}

/// Flows per service and backend; who has none may be absent.
pub type FlowsByService = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Flows>>;

/// How many slots of a service's ring are in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseCount {
    /// In [`Phase::Stable`].
    pub stable: u32,
    /// In [`Phase::Learn`].
    pub learn: u32,
    /// In [`Phase::Track`].
    pub track: u32,
}

impl PhaseCount {
    /// The slots in one phase.
    #[must_use]
    pub const fn of(self, phase: Phase) -> u32 {
        match phase {
            Phase::Stable => self.stable,
            Phase::Learn => self.learn,
            Phase::Track => self.track,
        }
    }

    /// Whether every slot is at rest: no flow depends on what is recorded.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        self.learn == 0 && self.track == 0
    }
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Name of the map.
    pub map: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Entries there are.
    pub capacity: u32,
}

impl Applier {
    /// How full each map is.
    pub(super) fn usage(&self) -> Vec<Usage> {
        let entries = u32::try_from(self.listing.entries.len()).unwrap_or(u32::MAX);
        let ranges = self.half.as_ref().map_or(0, Half::used_ranges);
        let most = u32::try_from(MOST_ENTRIES).unwrap_or(u32::MAX);
        let usage = |map, used, capacity| Usage {
            map,
            used,
            capacity,
        };
        vec![
            usage("vip_entries", entries, most),
            usage("port_ranges", ranges, PORT_RANGES),
            usage("ring_slots", self.ring.used(), RING_SLOTS),
            usage("backends", self.indices.records.used(), BACKENDS - 1),
            usage("next_hops", self.indices.hops.used(), NEXT_HOPS - 1),
            usage("uplinks", self.indices.uplinks.used(), UPLINKS - 1),
            usage(
                "counters",
                self.indices.counters.used(),
                COUNTERS - Counter::FIRST_BACKEND,
            ),
        ]
    }
}
