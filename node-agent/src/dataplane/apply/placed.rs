//! What is in the maps for one service.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use vipd_abi::{BackendRecord, NextHop};
use vipd_control::{decide::ServicePlan, phases::Unsettled};

use super::{Counters, tend::Former};
use crate::dataplane::tables::Tables;

/// One service as placed.
pub struct Placed {
    pub number: u32,
    pub ring: (u32, u32),
    /// Whether the table in force names this ring.
    pub in_force: bool,
    /// The ring that it names otherwise, if any.
    pub outgoing_ring: Option<(u32, u32)>,
    /// Slots that are not stable.
    pub unsettled: Unsettled,
    pub backends: BTreeMap<IpAddr, PlacedBackend>,
    /// Records that slots or flows may still name besides.
    pub former: BTreeMap<u32, Former>,
    /// Whether slots may name other records than when that was looked at.
    pub has_new_names: bool,
    /// What the slots and the table say; `None` before the first success.
    pub plan: Option<Arc<ServicePlan>>,
    /// Whether the last pass got through with it.
    pub settled: bool,
    /// Whether enough of its backends can be reached.
    pub reachable: bool,
    pub counters: Counters,
}

/// One of its backends.
#[derive(Clone, Copy)]
pub struct PlacedBackend {
    pub index: u32,
    pub record: BackendRecord,
    /// Whether slots or flows may ever have named it.
    pub used: bool,
}

impl Placed {
    /// A service without a ring.
    pub fn new(number: u32) -> Self {
        Self {
            number,
            ring: (0, 0),
            in_force: false,
            outgoing_ring: None,
            unsettled: Unsettled::default(),
            backends: BTreeMap::new(),
            former: BTreeMap::new(),
            has_new_names: true,
            plan: None,
            settled: false,
            reachable: false,
            counters: Counters::default(),
        }
    }

    /// Whether the last pass got through with just this plan.
    pub fn holds(&self, plan: &Arc<ServicePlan>) -> bool {
        self.settled
            && self
                .plan
                .as_ref()
                .is_some_and(|held| Arc::ptr_eq(held, plan))
    }

    /// Whether enough of the backends on duty can be reached, by the words that
    /// packets read.
    pub fn count_reachable(&self, tables: &Tables) -> bool {
        let Some(plan) = self.plan.as_ref().filter(|_| self.settled) else {
            return false;
        };
        plan.is_enough(|place| {
            let placed = self.backends.get(&plan.service.backends[place].address);
            placed.is_some_and(|placed| {
                tables.hops.load(placed.record.next_hop) != NextHop::UNRESOLVED
            })
        })
    }
}
