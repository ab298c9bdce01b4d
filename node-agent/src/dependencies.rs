//! What services depend on besides their backends: interfaces and routes of this
//! host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use vipd_control::model::{Depends, Model};

use crate::{engine::Plan, netlink::Netlink};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// What this host lacks, by the names of the services that depend on it.
pub type Lacks = BTreeMap<Arc<str>, String>;

/// Looks again and again, and at once when the configuration has changed.
pub async fn run(
    netlink: Netlink,
    mut plans: watch::Receiver<Plan>,
    lacks: watch::Sender<Arc<Lacks>>,
) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = plans.changed() => if changed.is_err() {
                return;
            },
        }
        let model = Arc::clone(&plans.borrow_and_update().model);
        let found = look(&model, &netlink).await;
        lacks.send_if_modified(|lacks| {
            let changed = **lacks != found;
            if changed {
                *lacks = Arc::new(found);
            }
            changed
        });
    }
}

/// What is lacking now.
pub async fn look(model: &Model, netlink: &Netlink) -> Lacks {
    let all = || model.services.iter().map(|service| &service.depends);
    let interfaces: BTreeSet<_> = all().flat_map(|depends| &depends.interfaces).collect();
    let routes: BTreeSet<_> = all().flat_map(|depends| &depends.routes).collect();
    let mut host = Host::default();
    for name in interfaces {
        // What the kernel does not say is no reason to withdraw anything.
        if let Ok(link) = netlink.link(name).await {
            let state = match link {
                None => Some("is not there"),
                Some(link) if !link.up => Some("is down"),
                Some(link) if !link.carrier => Some("has no carrier"),
                Some(_) => None,
            };
            host.interfaces
                .extend(state.map(|state| (Arc::clone(name), state)));
        }
    }
    for address in routes {
        if let Ok(None) = netlink.prefix_length(*address).await {
            host.unreachable.insert(*address);
        }
    }
    let services = model.services.iter();
    services
        .filter_map(|service| Some((Arc::clone(&service.name), host.lacks(&service.depends)?)))
        .collect()
}

/// What is wrong with this host.
#[derive(Default)]
struct Host {
    /// Interfaces that cannot send, and why.
    interfaces: BTreeMap<Arc<str>, &'static str>,
    /// Addresses that no route leads to.
    unreachable: BTreeSet<IpAddr>,
}

impl Host {
    /// What of this it lacks, in plain words.
    fn lacks(&self, depends: &Depends) -> Option<String> {
        let interfaces = depends.interfaces.iter().filter_map(|name| {
            let state = self.interfaces.get(name)?;
            Some(format!("it depends on {name}, which {state}"))
        });
        let routes = depends.routes.iter();
        let routes = routes.filter(|address| self.unreachable.contains(address));
        let routes = routes.map(|address| format!("it depends on a route to {address}"));
        interfaces.chain(routes).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_told_of_what_is_depended_on() {
        let host = Host {
            interfaces: [("eth1".into(), "has no carrier")].into(),
            unreachable: [[203, 0, 113, 1].into()].into(),
        };
        let check = |interfaces: &[&str], routes: &[[u8; 4]], expected: Option<&str>| {
            let depends = Depends {
                interfaces: interfaces.iter().map(|name| Arc::from(*name)).collect(),
                routes: routes.iter().map(|octets| (*octets).into()).collect(),
            };
            assert_eq!(host.lacks(&depends).as_deref(), expected, "{depends:?}");
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
    }
}
