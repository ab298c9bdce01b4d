//! Which addresses are bound on this host, and which are to be: a state machine
//! that is shown what the kernel has, and says what is to be done.
//!
//! An address that was bound and is gone while its interface is up has been taken
//! away by somebody, who is not contradicted: it counts as not bound until it is
//! back, or until [`Binder::anew`]. One that went with its interface is bound
//! again with it.

mod sight;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use vipd_control::model::Vip;

use self::sight::{Sight, Target};
use crate::{
    config::{Binding, Found, Place, Wish},
    netlink::{address::Address, link::Link},
};

/// The interface that vipd makes for addresses.
pub const OWN: &str = "vipd0";
/// Has them where the kernel cannot make one.
const LOOPBACK: &str = "lo";

/// What the kernel refused is asked for again after so long.
pub const RETRY: Duration = Duration::from_secs(10);
/// What an earlier agent has bound, and nobody wants, is taken away after so
/// long: routers may still send to it.
const INHERITED: Duration = Duration::from_secs(60);

/// What the kernel has.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Interfaces by index.
    pub links: BTreeMap<u32, Link>,
    /// All addresses on them.
    pub addresses: Vec<Address>,
    /// Interfaces that were down or gone since the snapshot before.
    pub downed: BTreeSet<u32>,
}

/// What the kernel is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Make [`OWN`].
    Make,
    /// Bind an address.
    Bind(IpAddr, Site),
    /// Take an address away.
    Unbind(IpAddr, Site),
    /// Take [`OWN`] away.
    Remove(u32),
}

/// An interface, and how an address is known on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub interface: Arc<str>,
    /// The label of the address.
    pub label: Option<Arc<str>>,
}

/// How an address stands: where it is bound and by whom, or why it is not.
pub type Standing = Result<Bound, String>;

/// Where an address is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The interface.
    pub interface: Arc<str>,
    /// Whether vipd has bound it.
    pub ours: bool,
    /// What the service takes it from, if it does.
    pub taken_from: Option<Arc<Wish>>,
}

/// The addresses that are to be bound, and how far each is.
#[derive(Debug, Default)]
pub struct Binder {
    entries: BTreeMap<Vip, Entry>,
    /// Bound by this agent or one before, by address and interface: what the
    /// kernel's mark would tell, where it keeps none.
    remembered: BTreeSet<(IpAddr, Arc<str>)>,
    /// When each that nobody wants is taken away.
    strays: BTreeMap<(IpAddr, u32), Instant>,
    /// Wanted by this agent once, and not any more.
    left: BTreeSet<IpAddr>,
    /// The kernel cannot make an interface of our own.
    without_own: bool,
}

#[derive(Debug)]
struct Entry {
    binding: Binding,
    progress: Progress,
    /// It is about to leave: nobody wants it bound any more.
    leaving: bool,
}

#[derive(Clone, Debug)]
enum Progress {
    /// It is to be bound.
    Open,
    /// It was found bound on this interface.
    Found(u32),
    /// It was taken from this interface while that was up.
    Taken(Arc<str>),
    /// The kernel has refused it then.
    Refused(String, Instant),
}

impl Binder {
    /// A binder that takes these addresses, each on an interface, for bound by an
    /// agent before.
    #[must_use]
    pub fn new(remembered: BTreeSet<(IpAddr, Arc<str>)>) -> Self {
        Self {
            remembered,
            ..Self::default()
        }
    }

    /// What is to be bound from now on. `None` is an address that is about to
    /// leave: bound as it was before.
    pub fn want<'a>(&mut self, wanted: impl Iterator<Item = (Vip, Option<&'a Binding>)>) {
        let mut before = std::mem::take(&mut self.entries);
        for (vip, binding) in wanted {
            let entry = match (before.remove(&vip), binding) {
                (Some(entry), None) => Some(Entry {
                    leaving: true,
                    ..entry
                }),
                (Some(entry), Some(binding)) if entry.binding == *binding => Some(Entry {
                    leaving: false,
                    ..entry
                }),
                (_, Some(binding)) => Some(Entry {
                    binding: binding.clone(),
                    progress: Progress::Open,
                    leaving: false,
                }),
                (None, None) => None,
            };
            self.entries.extend(entry.map(|entry| (vip, entry)));
        }
        self.left.extend(before.keys().map(|vip| vip.address()));
        self.left
            .retain(|address| !self.entries.contains_key(&(*address).into()));
    }

    /// What was taken away, or refused, is to be bound all the same, but for what is
    /// about to leave.
    pub fn anew(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| !entry.leaving) {
            if matches!(entry.progress, Progress::Taken(_) | Progress::Refused(..)) {
                entry.progress = Progress::Open;
            }
        }
    }

    /// The kernel has refused a job.
    pub fn refused(&mut self, job: &Job, reason: &str, now: Instant) {
        let target = |entry: &Entry| matches!(entry.binding, Binding::At(_));
        let waiting = self.entries.iter_mut().filter(|(_, entry)| target(entry));
        for (vip, entry) in waiting {
            let concerned = match job {
                Job::Make => entry.binding == Binding::At(Place::default()),
                Job::Bind(address, _) => vip.address() == *address,
                Job::Unbind(..) | Job::Remove(_) => false,
            };
            if concerned {
                entry.progress = Progress::Refused(reason.to_owned(), now);
            }
        }
    }

    /// A job has been done.
    pub fn done(&mut self, job: &Job) {
        match job {
            Job::Bind(address, site) => {
                let key = (*address, Arc::clone(&site.interface));
                self.remembered.insert(key);
            }
            Job::Unbind(address, site) => {
                self.remembered
                    .remove(&(*address, Arc::clone(&site.interface)));
            }
            Job::Make | Job::Remove(_) => {}
        }
    }

    /// The kernel cannot make an interface of our own.
    pub fn cannot_make(&mut self) {
        self.without_own = true;
    }

    /// What others have bound for good, as services may take it.
    #[must_use]
    pub fn found(&self, snapshot: &Snapshot) -> Vec<Found> {
        let theirs = snapshot.addresses.iter().filter(|found| found.permanent);
        let mut theirs: Vec<_> = theirs
            .filter_map(|found| {
                let link = snapshot.links.get(&found.ifindex)?;
                let interface = Arc::from(&*link.name);
                (!self.is_ours(found, &interface)).then(|| Found {
                    interface,
                    address: found.address,
                    label: found.label.as_deref().map(Arc::from),
                })
            })
            .collect();
        theirs.sort_unstable();
        theirs
    }

    /// What vipd has bound, for an agent that is started again.
    #[must_use]
    pub const fn remembered(&self) -> &BTreeSet<(IpAddr, Arc<str>)> {
        &self.remembered
    }

    /// Takes in what the kernel has. Gives back what is to be done, and how each
    /// address stands; one that is about to be bound is not among them.
    #[must_use]
    pub fn look(
        &mut self,
        snapshot: &Snapshot,
        now: Instant,
    ) -> (Vec<Job>, BTreeMap<Vip, Standing>) {
        let mut jobs = Vec::new();
        let mut standings = BTreeMap::new();
        self.forget_gone(snapshot);
        let mut entries = std::mem::take(&mut self.entries);
        for (vip, entry) in &mut entries {
            let sight = self.see(vip.address(), entry, snapshot);
            if let Some(standing) = sight.judge(entry, snapshot, now, &mut jobs) {
                standings.insert(*vip, standing);
            }
        }
        self.entries = entries;
        // Several addresses want it made once.
        let mut made = false;
        jobs.retain(|job| *job != Job::Make || !std::mem::replace(&mut made, true));
        jobs.extend(self.tidy(snapshot, now));
        (jobs, standings)
    }

    /// When [`Binder::look`] has something to do without news from the kernel.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let refused = self
            .entries
            .values()
            .filter_map(|entry| match entry.progress {
                Progress::Refused(_, at) => Some(at + RETRY),
                _ => None,
            });
        refused.chain(self.strays.values().copied()).min()
    }

    /// All that vipd has bound, to be taken away.
    #[must_use]
    pub fn release(&self, snapshot: &Snapshot) -> Vec<Job> {
        let ours = self.ours(snapshot);
        let mut jobs: Vec<_> = ours
            .map(|(address, site)| Job::Unbind(address, site))
            .collect();
        let theirs = |found: &Address, link: &Link| {
            found.keeps(link) && !self.is_ours(found, &link.name.as_str().into())
        };
        let made = made(snapshot).filter(|link| {
            let mut addresses = snapshot.addresses.iter();
            !addresses.any(|found| theirs(found, link))
        });
        jobs.extend(made.map(|link| Job::Remove(link.ifindex)));
        jobs
    }

    /// What vipd has bound, where it is now.
    fn ours(&self, snapshot: &Snapshot) -> impl Iterator<Item = (IpAddr, Site)> {
        let found = snapshot.addresses.iter().filter_map(|found| {
            let site = Site::of(snapshot.links.get(&found.ifindex)?);
            self.is_ours(found, &site.interface)
                .then_some((found.address, site))
        });
        found.collect::<Vec<_>>().into_iter()
    }

    fn is_ours(&self, found: &Address, interface: &Arc<str>) -> bool {
        let key = (found.address, Arc::clone(interface));
        found.marked || self.remembered.contains(&key)
    }

    /// What has gone and comes back is not ours any more, but for its mark.
    fn forget_gone(&mut self, snapshot: &Snapshot) {
        let found = snapshot.addresses.iter().filter_map(|found| {
            let link = snapshot.links.get(&found.ifindex)?;
            Some((found.address, &*link.name))
        });
        let found: BTreeSet<_> = found.collect();
        let is_there =
            |(address, interface): &(IpAddr, Arc<str>)| found.contains(&(*address, &**interface));
        self.remembered.retain(is_there);
    }

    /// What nobody wants any more: at once what this agent has bound, and later
    /// what an agent before has.
    fn tidy(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut strays = BTreeMap::new();
        for (address, site) in self.ours(snapshot) {
            if self.entries.contains_key(&address.into()) {
                continue;
            }
            let key = (address, site.ifindex);
            let at = self.strays.get(&key).copied().unwrap_or(now + INHERITED);
            if at <= now || self.left.contains(&address) {
                jobs.push(Job::Unbind(address, site));
            } else {
                strays.insert(key, at);
            }
        }
        self.strays = strays;
        let on_own = |vips: &BTreeMap<Vip, Entry>| {
            let mut entries = vips.values();
            entries.any(|entry| entry.binding == Binding::At(Place::default()))
        };
        if let Some(link) = made(snapshot)
            && !on_own(&self.entries)
            && !snapshot.addresses.iter().any(|found| found.keeps(link))
        {
            jobs.push(Job::Remove(link.ifindex));
        }
        jobs
    }

    /// What there is to see of an address.
    fn see<'a>(&self, address: IpAddr, entry: &Entry, snapshot: &'a Snapshot) -> Sight<'a> {
        let target = match &entry.binding {
            Binding::ByOthers => Target::Anywhere,
            Binding::Taken(wish) => Target::Taken(Arc::clone(wish)),
            Binding::At(place) => self.target(place, snapshot),
        };
        let found = snapshot
            .addresses
            .iter()
            .filter(|found| found.address == address);
        let found = found.filter_map(|found| {
            let link = snapshot.links.get(&found.ifindex)?;
            // Elsewhere it is another one.
            if matches!(&target, Target::Taken(wish) if wish.interface.as_str() != link.name) {
                return None;
            }
            let ours = self.is_ours(found, &Arc::from(&*link.name));
            Some((found, link, ours))
        });
        let found = found.collect();
        Sight {
            address,
            target,
            found,
        }
    }

    fn target<'a>(&self, place: &Place, snapshot: &'a Snapshot) -> Target<'a> {
        let label = place.label.as_ref().map(|label| label.as_str().into());
        let named = |name: &str| {
            let mut links = snapshot.links.values();
            links.find(|link| link.name == name)
        };
        let link = match &place.interface {
            Some(name) => match named(name.as_str()) {
                Some(link) => link,
                None => return Target::Missing(name.as_str().to_owned()),
            },
            None => match (own(snapshot), named(LOOPBACK)) {
                (Some(link), _) => link,
                (None, Some(link)) if self.without_own => link,
                (None, _) => return Target::ToBeMade,
            },
        };
        Target::On(link, label)
    }
}

/// The interface of vipd's own, whoever has made it.
fn own(snapshot: &Snapshot) -> Option<&Link> {
    snapshot.links.values().find(|link| link.name == OWN)
}

/// The same, if vipd has made it.
fn made(snapshot: &Snapshot) -> Option<&Link> {
    own(snapshot).filter(|link| link.ours)
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make => write!(f, "make the interface {OWN} for addresses"),
            Self::Bind(address, site) => write!(f, "bind {address} on {}", site.interface),
            Self::Unbind(address, site) => write!(f, "take {address} from {}", site.interface),
            Self::Remove(_) => write!(f, "take away the interface {OWN}"),
        }
    }
}

impl Site {
    fn of(link: &Link) -> Self {
        Self {
            ifindex: link.ifindex,
            interface: link.name.as_str().into(),
            label: None,
        }
    }
}

impl Address {
    /// Whether the interface cannot go for its sake.
    fn keeps(&self, link: &Link) -> bool {
        let is_kernels = match self.address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        self.ifindex == link.ifindex && !is_kernels
    }
}
