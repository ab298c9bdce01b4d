//! Next hops and uplinks: one word per backend address, so that a neighbour's
//! new MAC address is one store.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use vipd_abi::{NextHop, Uplink};
use vipd_control::{decide::Desired, model::Mode};

use super::{Applier, HopKey, Look, Placed, Reach};

impl Applier {
    /// Next hops first: the records will name them. Those of all services, or
    /// of those whose plan has changed.
    pub(super) fn write_hops(&mut self, desired: &Desired, reach: &Reach, all: bool, now: Instant) {
        if all {
            self.hop_faults.clear();
        }
        let plans = desired.services.iter();
        let wanted: BTreeSet<HopKey> = plans
            .filter(|plan| all || !self.holds(plan))
            .flat_map(|plan| {
                let on_link = plan.service.mode == Mode::L2Dsr;
                let backends = plan.service.backends.iter();
                backends.map(move |backend| (backend.address, on_link))
            })
            .collect();
        for (address, on_link) in wanted {
            if let Some(words) = wrong_mode(reach, address, on_link) {
                self.hop_faults.insert(format!("backend {address}"), words);
            }
            let word = match reach.look(address, on_link) {
                Look::Unknown if self.hops.contains_key(&(address, on_link)) => continue,
                Look::Unknown | Look::None => NextHop::UNRESOLVED,
                Look::Way(way) => match self.uplink(way.uplink, now) {
                    Some(uplink) => NextHop::new(way.mac, uplink),
                    None => {
                        let words = "no more interfaces can be remembered".to_owned();
                        self.hop_faults.insert(format!("backend {address}"), words);
                        NextHop::UNRESOLVED
                    }
                },
            };
            if let Some(index) = self.hop((address, on_link), now) {
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
    fn uplink(&mut self, uplink: Uplink, now: Instant) -> Option<u16> {
        let known = self.uplinks.iter().find(|(_, known)| **known == uplink);
        let index = match known {
            Some((index, _)) => *index,
            None => {
                let index = self.indices.uplinks.take(now)?;
                self.tables.uplinks.store(index, uplink);
                self.uplinks.insert(index, uplink);
                index
            }
        };
        u16::try_from(index).ok()
    }

    /// Retires the next hops that no record names and the uplinks that no next
    /// hop names.
    pub(super) fn retire_hops(&mut self) {
        let retired = [&self.retired, &self.outgoing.retired];
        let retired = retired.into_iter().flat_map(|retired| &retired.records);
        let named: BTreeSet<u32> = self
            .services
            .values()
            .flat_map(Placed::records)
            .chain(self.orphans.values().map(|former| &former.record))
            .chain(retired.map(|(_, record)| record))
            .map(|record| record.next_hop)
            .collect();
        let retired = &mut self.retired;
        self.hops.retain(|_, index| {
            let keep = named.contains(index);
            retired.hops.extend((!keep).then_some(*index));
            keep
        });
        let hops = &self.tables.hops;
        let leaving: BTreeSet<u32> = self
            .hops
            .values()
            .map(|index| hops.load(*index).uplink())
            .collect();
        self.uplinks.retain(|index, _| {
            let keep = leaving.contains(index);
            retired.uplinks.extend((!keep).then_some(*index));
            keep
        });
    }
}

/// What to say when a backend must be on the link and is not.
fn wrong_mode(reach: &Reach, address: IpAddr, on_link: bool) -> Option<String> {
    let gateway = reach.ways.get(&address)?.gateway.filter(|_| on_link)?;
    Some(format!(
        "mode l2-dsr needs it on the same link, but the route leads over {gateway}; use mode \
         ipip or mend the route"
    ))
}
