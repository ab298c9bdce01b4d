//! What services depend on besides their backends: interfaces and routes of this
//! host, and that its data plane does not drop too much.
//!
//! The kernel tells when something of it may have changed. What it does not say
//! stays as it was, and lacks what was never seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    time::sleep,
};
use tracing::warn;
use vipd_control::model::{Depends, Model, Service};

use crate::netlink::{Error, Netlink, host::HostEvents, link::Link};

/// What is read anew now and then, so that what came without a message heals.
const REREAD: Duration = Duration::from_secs(30);
/// Between two looks, however much is told.
const GAP: Duration = Duration::from_millis(20);
/// Between two looks while the kernel tells nothing.
const POLL: Duration = Duration::from_millis(500);

/// What this host lacks, by the names of the services that depend on it.
pub type Lacks = BTreeMap<Arc<str>, String>;

/// Looks at what services depend on. Clones share what was seen.
#[derive(Clone)]
pub struct Dependencies {
    netlink: Netlink,
    models: watch::Sender<Arc<Model>>,
    /// One look at a time.
    host: Arc<Mutex<Host>>,
    /// Why the data plane is not to be relied on, if so.
    plane: watch::Receiver<Option<String>>,
    lacks: watch::Sender<Arc<Lacks>>,
}

impl Dependencies {
    /// With the word on the data plane; nothing is depended on yet.
    #[must_use]
    pub fn new(netlink: Netlink, plane: watch::Receiver<Option<String>>) -> Self {
        Self {
            netlink,
            models: watch::Sender::default(),
            host: Arc::default(),
            plane,
            lacks: watch::Sender::default(),
        }
    }

    /// What is lacking.
    #[must_use]
    pub fn lacks(&self) -> watch::Receiver<Arc<Lacks>> {
        self.lacks.subscribe()
    }

    /// Looks for these services from now on. Ends when all they depend on has been
    /// looked at, so that nothing new is judged before. What others lack, which may
    /// still be in force, is known until the next look.
    pub async fn follow(&self, model: &Model) {
        let mut host = self.host.lock().await;
        let before = Arc::clone(&self.lacks.borrow());
        host.look(model, &self.netlink).await;
        let mut found = host.lacking(model, self.plane.borrow().as_deref());
        for (name, words) in before.iter() {
            let is_known = model.services.iter().any(|service| service.name == *name);
            if !is_known {
                found.insert(Arc::clone(name), words.clone());
            }
        }
        publish(&self.lacks, found);
        self.models.send_replace(Arc::new(model.clone()));
    }

    /// Looks whenever something may have changed.
    pub async fn run(mut self) {
        let mut models = self.models.subscribe();
        let mut events: Option<HostEvents> = None;
        loop {
            let is_asked = {
                let mut host = self.host.lock().await;
                // Only now: who had the lock may have brought a new one.
                let model = Arc::clone(&models.borrow_and_update());
                let reasons = self.plane.borrow_and_update().clone();
                let mut services = model.services.iter();
                let is_asked = services.any(|service| service.depends != Depends::default());
                if is_asked && events.is_none() {
                    // Before the look, which so misses nothing.
                    events = Netlink::way_events()
                        .inspect_err(|error| warn!("cannot follow links and routes: {error}"))
                        .ok();
                }
                host.look(&model, &self.netlink).await;
                publish(&self.lacks, host.lacking(&model, reasons.as_deref()));
                is_asked
            };
            let again = match (&events, is_asked) {
                (None, true) => POLL,
                _ => REREAD,
            };
            tokio::select! {
                changed = models.changed() => if changed.is_err() { return },
                changed = self.plane.changed() => if changed.is_err() { return },
                told = next(&mut events) => if let Err(error) = told {
                    warn!("cannot follow links and routes: {error}");
                    events = None;
                },
                () = sleep(again) => {}
            }
            sleep(GAP).await;
        }
    }
}

async fn next(events: &mut Option<HostEvents>) -> Result<(), Error> {
    match events {
        Some(events) => events.next().await.map(drop),
        None => std::future::pending().await,
    }
}

fn publish(sender: &watch::Sender<Arc<Lacks>>, found: Lacks) {
    sender.send_if_modified(|lacks| {
        let changed = **lacks != found;
        if changed {
            *lacks = Arc::new(found);
        }
        changed
    });
}

/// This host as it was seen last.
#[derive(Default)]
struct Host {
    /// Interfaces, and why each cannot send, if so.
    interfaces: BTreeMap<Arc<str>, Option<&'static str>>,
    /// Addresses, and whether a route leads there.
    routes: BTreeMap<IpAddr, bool>,
}

impl Host {
    /// Looks at all that these services depend on, and forgets the rest.
    async fn look(&mut self, model: &Model, netlink: &Netlink) {
        let all = || model.services.iter().map(|service| &service.depends);
        let interfaces: BTreeSet<_> = all().flat_map(|depends| &depends.interfaces).collect();
        let routes: BTreeSet<_> = all().flat_map(|depends| &depends.routes).collect();
        self.interfaces.retain(|name, _| interfaces.contains(name));
        self.routes.retain(|address, _| routes.contains(address));
        for name in interfaces {
            let found = netlink.link(name).await.map(hindrance);
            learn(&mut self.interfaces, name, found);
        }
        for address in routes {
            let found = netlink.prefix_length(*address).await;
            learn(
                &mut self.routes,
                address,
                found.map(|prefix| prefix.is_some()),
            );
        }
    }

    /// What services lack, by their names.
    fn lacking(&self, model: &Model, plane: Option<&str>) -> Lacks {
        let words = |service: &Service| {
            let plane = plane.filter(|_| service.mode.forwards());
            plane
                .map(ToOwned::to_owned)
                .or_else(|| self.lacks(&service.depends))
        };
        let services = model.services.iter();
        services
            .filter_map(|service| Some((Arc::clone(&service.name), words(service)?)))
            .collect()
    }

    /// What of this it lacks, in plain words.
    fn lacks(&self, depends: &Depends) -> Option<String> {
        let interfaces =
            depends
                .interfaces
                .iter()
                .filter_map(|name| match self.interfaces.get(name) {
                    Some(None) => None,
                    Some(Some(state)) => Some(format!("it depends on {name}, which {state}")),
                    None => Some(format!(
                        "it depends on {name}, of which the kernel says nothing"
                    )),
                });
        let routes = depends
            .routes
            .iter()
            .filter_map(|address| match self.routes.get(address) {
                Some(true) => None,
                Some(false) => Some(format!("it depends on a route to {address}")),
                None => Some(format!(
                    "it depends on a route to {address}, of which the kernel says nothing"
                )),
            });
        interfaces.chain(routes).next()
    }
}

/// Takes in what was found. What could not be asked stays as it was: that is
/// neither a reason to withdraw nor one to announce.
fn learn<K: Clone + Ord, V>(known: &mut BTreeMap<K, V>, key: &K, found: Result<V, Error>) {
    if let Ok(found) = found {
        known.insert(key.clone(), found);
    }
}

/// Why nothing can be sent by an interface.
fn hindrance(link: Option<Link>) -> Option<&'static str> {
    match link {
        None => Some("is not there"),
        Some(link) if !link.up => Some("is down"),
        Some(link) if !link.carrier => Some("has no carrier"),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;
    use vipd_control::model::Mode;

    use super::*;

    fn host() -> Host {
        Host {
            interfaces: [
                ("eth0".into(), None),
                ("eth1".into(), Some("has no carrier")),
            ]
            .into(),
            routes: [
                ([192, 0, 2, 1].into(), true),
                ([203, 0, 113, 1].into(), false),
            ]
            .into(),
        }
    }

    fn depends(interfaces: &[&str], routes: &[[u8; 4]]) -> Depends {
        Depends {
            interfaces: interfaces.iter().map(|name| Arc::from(*name)).collect(),
            routes: routes.iter().map(|octets| (*octets).into()).collect(),
        }
    }

    #[test]
    fn what_is_lacking_is_told_of_what_is_depended_on() {
        let check = |interfaces: &[&str], routes: &[[u8; 4]], expected: Option<&str>| {
            let depends = depends(interfaces, routes);
            assert_eq!(host().lacks(&depends).as_deref(), expected, "{depends:?}");
        };
        check(&[], &[], None);
        check(&["eth0"], &[[192, 0, 2, 1]], None);
        check(
            &["eth0", "eth1"],
            &[],
            Some("it depends on eth1, which has no carrier"),
        );
        check(
            &["eth0"],
            &[[203, 0, 113, 1]],
            Some("it depends on a route to 203.0.113.1"),
        );
        check(
            &["eth2"],
            &[],
            Some("it depends on eth2, of which the kernel says nothing"),
        );
        check(
            &[],
            &[[203, 0, 113, 2]],
            Some("it depends on a route to 203.0.113.2, of which the kernel says nothing"),
        );
    }

    #[test]
    fn what_the_kernel_does_not_say_stays_as_it_was() {
        let mut host = host();
        let silent = || Err(Error::Silent { step: "answer" });
        learn(&mut host.interfaces, &"eth0".into(), silent());
        learn(&mut host.interfaces, &"eth1".into(), silent());
        learn(
            &mut host.routes,
            &[203, 0, 113, 1].into(),
            Err(Error::Closed),
        );
        assert_eq!(host.lacks(&depends(&["eth0"], &[])), None);
        assert!(host.lacks(&depends(&["eth1"], &[])).is_some());
        assert!(host.lacks(&depends(&[], &[[203, 0, 113, 1]])).is_some());
        learn(&mut host.interfaces, &"eth1".into(), Ok(None));
        assert_eq!(host.lacks(&depends(&["eth1"], &[])), None);
    }

    #[test]
    fn a_bad_data_plane_is_lacking_where_packets_are_forwarded() {
        let vip = || vec![IpAddr::from([198, 51, 100, 10]).into()];
        let local = Service {
            mode: Mode::Local,
            ..Service::new("local", vip(), Vec::new())
        };
        let far = Service::new("far", vip(), Vec::new());
        let model = Model {
            services: vec![Arc::new(far), Arc::new(local)],
        };
        assert_eq!(host().lacking(&model, None), Lacks::new());
        let found = host().lacking(&model, Some("it drops"));
        assert_eq!(found, Lacks::from([("far".into(), "it drops".to_owned())]));
    }

    #[tokio::test]
    async fn a_look_that_waited_for_new_services_knows_them() {
        let vip = vec![IpAddr::from([198, 51, 100, 10]).into()];
        let new = Service {
            depends: depends(&["nowhere0"], &[]),
            ..Service::new("new", vip, Vec::new())
        };
        let model = Model {
            services: vec![Arc::new(new)],
        };
        let (_plane_in, plane) = watch::channel(None);
        let netlink = Netlink::connect().expect("netlink");
        let dependencies = Dependencies::new(netlink, plane);
        // Both wait, the one that brings the services before the one that looks.
        let held = dependencies.host.lock().await;
        let follower = dependencies.clone();
        let following = tokio::spawn(async move { follower.follow(&model).await });
        yield_now().await;
        let running = tokio::spawn(dependencies.clone().run());
        yield_now().await;
        drop(held);
        // After both of them.
        drop(dependencies.host.lock().await);
        let found = Arc::clone(&dependencies.lacks().borrow());
        assert!(following.is_finished(), "the services are there");
        let words = "it depends on nowhere0, which is not there".to_owned();
        assert_eq!(*found, Lacks::from([("new".into(), words)]));
        running.abort();
    }
}
