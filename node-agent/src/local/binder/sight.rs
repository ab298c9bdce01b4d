//! One address as it is seen on this host: how it stands, and what is to be done
//! about it.

use std::{net::IpAddr, sync::Arc, time::Instant};

use super::{Bound, Entry, Job, OWN, Progress, RETRY, Site, Snapshot, Standing};
use crate::{
    config::Wish,
    netlink::{
        address::{Address, Usability},
        link::Link,
    },
};

/// Where an address is to be.
pub(super) enum Target<'a> {
    /// Wherever others bind it.
    Anywhere,
    /// Where others have put it, for the service to take.
    Taken(Arc<Wish>),
    /// On this interface, with this label.
    On(&'a Link, Option<Arc<str>>),
    /// On an interface that is not there.
    Missing(String),
    /// On one that is not made yet.
    ToBeMade,
}

/// An address as it is seen.
pub(super) struct Sight<'a> {
    pub address: IpAddr,
    pub target: Target<'a>,
    /// Where it is, and whether vipd has bound it there.
    pub found: Vec<(&'a Address, &'a Link, bool)>,
}

impl Sight<'_> {
    /// How the address stands, and what is to be done; `None` while it is about
    /// to be bound.
    pub(super) fn judge(
        &self,
        entry: &mut Entry,
        snapshot: &Snapshot,
        now: Instant,
        jobs: &mut Vec<Job>,
    ) -> Option<Standing> {
        let usable = |(found, link, _): &&(&Address, &Link, bool)| {
            link.up && found.usability == Usability::Usable
        };
        let mut candidates: Vec<_> = self.found.iter().filter(usable).collect();
        candidates.sort_by_key(|(_, link, _)| !self.is_target(link));
        if let Some((_, link, ours)) = candidates.first() {
            entry.progress = Progress::Found(link.ifindex);
            jobs.extend(self.straighten());
            return Some(Ok(Bound {
                interface: link.name.as_str().into(),
                ours: *ours,
                taken_from: match &self.target {
                    Target::Taken(wish) => Some(Arc::clone(wish)),
                    _ => None,
                },
            }));
        }
        if let Some((found, link, _)) = self.found.first() {
            entry.progress = Progress::Open;
            return match (found.usability, link.up) {
                (_, false) => Some(Err(down(link))),
                (Usability::Duplicate, true) => Some(Err(format!(
                    "another host on the link of {} has the address (duplicate address detection)",
                    link.name
                ))),
                (_, true) => None,
            };
        }
        self.judge_absent(entry, snapshot, now, jobs)
    }

    /// The same of an address that is nowhere.
    fn judge_absent(
        &self,
        entry: &mut Entry,
        snapshot: &Snapshot,
        now: Instant,
        jobs: &mut Vec<Job>,
    ) -> Option<Standing> {
        if let Progress::Found(ifindex) = entry.progress {
            let there = snapshot.links.get(&ifindex);
            let link = there.filter(|link| link.up && !snapshot.downed.contains(&ifindex));
            entry.progress = match (link, &self.target) {
                (Some(link), _) => Progress::Taken(link.name.as_str().into()),
                // Nobody else has it made: gone is taken away, too.
                (None, Target::ToBeMade) if there.is_none() => Progress::Taken(OWN.into()),
                (None, _) => Progress::Open,
            };
        }
        let (link, label) = match &self.target {
            Target::Anywhere => {
                return Some(Err(
                    "no interface of this host has the address, which others are to bind \
                     (`bind = false`)"
                        .to_owned(),
                ));
            }
            Target::Taken(wish) => {
                return Some(Err(format!(
                    "{} does not have the address any more, from which it was taken \
                     (`vips_from`)",
                    wish.interface
                )));
            }
            Target::Missing(name) => {
                return Some(Err(format!(
                    "there is no interface {name} to bind the address on"
                )));
            }
            Target::On(link, _) if !link.up => return Some(Err(down(link))),
            Target::On(link, label) => (Some(link), label),
            Target::ToBeMade => (None, &None),
        };
        match &entry.progress {
            Progress::Taken(interface) => {
                return Some(Err(format!(
                    "somebody has taken the address from {interface}: it is announced when it is \
                     back, and `vipd reload` binds it anew"
                )));
            }
            Progress::Refused(reason, at) if *at + RETRY > now => {
                return Some(Err(reason.clone()));
            }
            Progress::Open | Progress::Found(_) | Progress::Refused(..) => {}
        }
        jobs.push(match link {
            Some(link) => self.bind(link, label.as_ref()),
            None => Job::Make,
        });
        None
    }

    fn is_target(&self, other: &Link) -> bool {
        matches!(&self.target, Target::On(link, _) if link.ifindex == other.ifindex)
    }

    /// What vipd has bound elsewhere moves to where it is to be: there first.
    fn straighten(&self) -> Vec<Job> {
        let Target::On(target, label) = &self.target else {
            return Vec::new();
        };
        let mut elsewhere = self
            .found
            .iter()
            .filter(|(_, link, ours)| *ours && !self.is_target(link));
        let there = self.found.iter().any(|(_, link, _)| self.is_target(link));
        if there {
            let unbind =
                |(_, link, _): &(&Address, &Link, bool)| Job::Unbind(self.address, Site::of(link));
            elsewhere.map(unbind).collect()
        } else if target.up && elsewhere.next().is_some() {
            vec![self.bind(target, label.as_ref())]
        } else {
            Vec::new()
        }
    }

    fn bind(&self, link: &Link, label: Option<&Arc<str>>) -> Job {
        let site = Site {
            label: label.filter(|_| self.address.is_ipv4()).cloned(),
            ..Site::of(link)
        };
        Job::Bind(self.address, site)
    }
}

fn down(link: &Link) -> String {
    let name = &link.name;
    format!("the interface {name} is down: `ip link set {name} up` announces the address again")
}
