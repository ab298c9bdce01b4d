//! Next hops and uplinks: one word per backend address, so that a neighbour's
//! new MAC address is one store.

use std::{collections::BTreeSet, time::Instant};

use vipd_abi::{NextHop, Uplink};
use vipd_control::{decide::Desired, model::Mode};

use super::{Applied, Applier, HopKey, usable};
use crate::netlink::way::Ways;

impl Applier {
    /// Next hops first: the records will name them.
    pub(super) fn write_hops(
        &mut self,
        desired: &Desired,
        ways: &Ways,
        now: Instant,
        applied: &mut Applied,
    ) {
        let wanted: BTreeSet<HopKey> = desired
            .services
            .iter()
            .flat_map(|plan| {
                let on_link = plan.service.mode == Mode::L2Dsr;
                plan.service
                    .backends
                    .iter()
                    .map(move |b| (b.address, on_link))
            })
            .collect();
        for key in &wanted {
            let (address, on_link) = *key;
            let way = ways.get(&address);
            if on_link && let Some(gateway) = way.and_then(|way| way.gateway) {
                applied.faults.insert(
                    format!("backend {address}"),
                    format!(
                        "mode l2-dsr needs it on the same link, but the route leads over \
                         {gateway}; use mode ipip or mend the route"
                    ),
                );
            }
            let word = usable(way, on_link)
                .and_then(|way| {
                    let uplink = u16::try_from(self.uplink(way.uplink, now)?).ok()?;
                    Some(NextHop::new(way.mac, uplink))
                })
                .unwrap_or(NextHop::UNRESOLVED);
            if let Some(index) = self.hop(*key, now) {
                self.tables.hops.publish(index, word);
            }
        }
    }

    /// The index of a next hop, given out when first asked for.
    pub(super) fn hop(&mut self, key: HopKey, now: Instant) -> Option<u32> {
        if let Some(index) = self.hops.get(&key) {
            return Some(*index);
        }
        let index = self.indices.hops.take(now)?;
        self.hops.insert(key, index);
        Some(index)
    }

    /// The index of an uplink, given out when first seen.
    fn uplink(&mut self, uplink: Uplink, now: Instant) -> Option<u32> {
        if let Some((index, _)) = self.uplinks.iter().find(|(_, known)| **known == uplink) {
            return Some(*index);
        }
        let index = self.indices.uplinks.take(now)?;
        self.tables.uplinks.store(index, uplink);
        self.uplinks.insert(index, uplink);
        Some(index)
    }
}
