//! What a pass tells of flows and of slots that change hands.

use std::{collections::BTreeMap, sync::Arc};

use vipd_abi::Phase;

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
