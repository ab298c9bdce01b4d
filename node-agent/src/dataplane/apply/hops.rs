//! Next hops and uplinks: one word per backend address, so that a neighbour's
//! new MAC address is one store.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Instant};

use vipd_abi::{NEXT_HOPS, NextHop, Uplink};
use vipd_control::{decide::ServicePlan, model::Mode};

use super::{Applier, HopKey, Look, Placed, Reach};
use crate::netlink::way::Way;

impl Applier {
    /// Next hops first: the records will name them. Those of these services, and
    /// all there are if the ways are others.
    pub(super) fn write_hops(&mut self, due: &[&Arc<ServicePlan>], moved: bool, now: Instant) {
        let backends = due.iter().flat_map(|plan| {
            let on_link = plan.service.mode == Mode::L2Dsr;
            let backends = plan.service.backends.iter();
            backends.map(move |backend| (backend.address, on_link))
        });
        let mut keys: BTreeSet<HopKey> = backends.collect();
        if moved {
            keys.extend(self.hops.keys());
        }
        for key in keys {
            match self.write_hop(key, now) {
                Some(words) => drop(self.hop_faults.insert(key, words)),
                None => drop(self.hop_faults.remove(&key)),
            }
        }
    }

    /// Says what is wrong with it.
    fn write_hop(&mut self, (address, on_link): HopKey, now: Instant) -> Option<String> {
        let mut fault = wrong_mode(&self.reach, address, on_link);
        let word = match self.reach.look(address, on_link) {
            Look::Unknown if self.hops.contains_key(&(address, on_link)) => return fault,
            Look::Unknown | Look::None => NextHop::UNRESOLVED,
            Look::Way(&Way { mac, uplink, .. }) => match self.uplink(uplink, now) {
                Some(uplink) => NextHop::new(mac, uplink),
                None => {
                    fault = Some("no more interfaces can be remembered".to_owned());
                    NextHop::UNRESOLVED
                }
            },
        };
        if let Some(index) = self.hop((address, on_link), now) {
            self.tables.hops.publish(index, word);
        }
        fault
    }

    /// What is wrong with next hops, by backend.
    pub(super) fn hop_faults(&self) -> impl Iterator<Item = (String, String)> {
        let faults = self.hop_faults.iter();
        faults.map(|((address, _), words)| (format!("backend {address}"), words.clone()))
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
        let records = self
            .services
            .values()
            .flat_map(Placed::records)
            .chain(self.orphans.values().map(|former| &former.record))
            .chain(retired.map(|(_, record)| record));
        let mut is_named = vec![false; NEXT_HOPS as usize];
        for record in records {
            if let Some(is_named) = is_named.get_mut(record.next_hop as usize) {
                *is_named = true;
            }
        }
        let retired = &mut self.retired;
        self.hops.retain(|key, index| {
            let keep = is_named[*index as usize];
            if !keep {
                retired.hops.push(*index);
                self.hop_faults.remove(key);
            }
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
