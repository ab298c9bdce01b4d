//! What the kernel's tables say together: from links, neighbours and routes to
//! ways and problems, without any I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vipd_abi::{NextHop, Uplink};

use super::{
    event::Change,
    link::Link,
    neighbour::{Neighbour, Neighbours, Target},
    route::Route,
    way::{Problems, Way, Ways},
};

/// The kernel's tables as far as they matter here.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All interfaces by index.
    pub links: BTreeMap<u32, Link>,
    /// All neighbours.
    pub neighbours: Neighbours,
    /// The route to each wanted address. One that may have changed is taken
    /// out, which makes it one to be looked up.
    pub routes: BTreeMap<IpAddr, Route>,
}

/// What a change asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing.
    None,
    /// Look up the routes that are missing, and draw the conclusion anew.
    Conclude,
    /// Read everything anew.
    Reread,
}

/// A neighbour on the way to an address.
struct Hop<'a> {
    link: &'a Link,
    target: Target,
}

impl Snapshot {
    /// Takes over a change.
    pub fn apply(&mut self, change: Change) -> Effect {
        let changed = match change {
            Change::Link(link) => self.set_link(link),
            Change::LinkGone(ifindex) => {
                self.routes.clear();
                self.links.remove(&ifindex).is_some()
            }
            Change::Neighbour(target, neighbour) => {
                self.neighbours.set(target, neighbour) && self.leads_by(target)
            }
            Change::NeighbourGone(target) => {
                self.neighbours.remove(target) && self.leads_by(target)
            }
            Change::Route(prefix) => {
                let before = self.routes.len();
                self.routes.retain(|address, _| !prefix.contains(address));
                self.routes.len() != before
            }
            Change::AnyRoute => {
                self.routes.clear();
                true
            }
            Change::Lost => return Effect::Reread,
        };
        if changed {
            Effect::Conclude
        } else {
            Effect::None
        }
    }

    /// The kernel drops the routes of an interface that goes down, and takes
    /// back those of one that comes up, without a message for each.
    fn set_link(&mut self, link: Link) -> bool {
        if self.links.get(&link.ifindex) == Some(&link) {
            return false;
        }
        self.links.insert(link.ifindex, link);
        self.routes.clear();
        true
    }

    fn leads_by(&self, target: Target) -> bool {
        let mut routes = self.routes.iter();
        routes.any(|(address, route)| next(*address, route) == Some(target))
    }

    /// The ways, and why there is none to the other addresses.
    pub fn conclude(&self) -> (Ways, Problems) {
        let mut ways = Ways::new();
        let mut problems = Problems::new();
        for (address, route) in &self.routes {
            match self.way(*address, route) {
                Ok(way) => {
                    ways.insert(*address, way);
                }
                Err(problem) => {
                    problems.insert(*address, problem);
                }
            }
        }
        (ways, problems)
    }

    /// The neighbours on the way that the kernel should ask for (again).
    pub fn to_resolve(&self) -> BTreeSet<Target> {
        let hops = self
            .routes
            .iter()
            .filter_map(|(address, route)| self.hop(*address, route).ok());
        hops.map(|hop| hop.target)
            .filter(|target| {
                !matches!(
                    self.neighbours.of(*target),
                    Some(Neighbour::Known { stale: false, .. })
                )
            })
            .collect()
    }

    fn way(&self, address: IpAddr, route: &Route) -> Result<Way, String> {
        let Hop { link, target } = self.hop(address, route)?;
        let Some(own) = link.mac else {
            return Err(format!(
                "the route to {address} leads through {}, which is no Ethernet interface: \
                 give {address} a route through one that is",
                link.name
            ));
        };
        let mac = match self.neighbours.of(target) {
            Some(Neighbour::Known { mac, .. }) => mac,
            Some(Neighbour::Silent) => return Err(silent(link, target.address)),
            Some(Neighbour::Asked) | None => return Err(unanswered(link, target.address)),
        };
        let Route::Via {
            gateway,
            source,
            mtu,
            ..
        } = *route
        else {
            return Err(format!("there is no way to {address}"));
        };
        Ok(Way {
            mac,
            uplink: Uplink {
                mac_bits: NextHop::new(own, 0).mac_bits(),
                ifindex: link.ifindex,
                mtu: mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            },
            gateway,
            source,
        })
    }

    /// The neighbour a packet for `address` goes to first, if it can be sent.
    fn hop(&self, address: IpAddr, route: &Route) -> Result<Hop<'_>, String> {
        let Some(target) = next(address, route) else {
            return Err(nowhere(address, route));
        };
        let Some(link) = self.links.get(&target.ifindex) else {
            return Err(format!(
                "the route to {address} leads through interface number {}, which is not there",
                target.ifindex
            ));
        };
        if !link.sends() {
            let (state, advice) = if link.up {
                ("has no carrier", "check cable and switch port".to_owned())
            } else {
                (
                    "is down",
                    format!("set it up with `ip link set {} up`", link.name),
                )
            };
            return Err(format!(
                "the route to {address} leads through {}, which {state}: {advice}",
                link.name
            ));
        }
        Ok(Hop { link, target })
    }
}

fn next(address: IpAddr, route: &Route) -> Option<Target> {
    match *route {
        Route::Via {
            ifindex, gateway, ..
        } => Some(Target {
            ifindex,
            address: gateway.unwrap_or(address),
        }),
        Route::Missing | Route::Local | Route::Refused(_) | Route::Strange(_) => None,
    }
}

fn nowhere(address: IpAddr, route: &Route) -> String {
    match route {
        Route::Via { .. } => format!("there is no way to {address}"),
        Route::Missing => format!(
            "no route to {address}: add one with `ip route add {address} via GATEWAY`, \
             or give this host an address in its network"
        ),
        Route::Local => format!(
            "the route to {address} leads to this host itself: \
             is the backend's address bound here?"
        ),
        Route::Refused(kind) => format!(
            "the route to {address} is of type {kind}: \
             find it with `ip route show type {kind}` and remove it, or add a closer one"
        ),
        Route::Strange(what) => {
            format!("no route to {address} that can be used, {what}: see `ip route get {address}`")
        }
    }
}

fn silent(link: &Link, neighbour: IpAddr) -> String {
    format!(
        "neighbour {neighbour} on {} does not answer ({}): is it up and on this link?",
        link.name,
        protocol(neighbour)
    )
}

fn unanswered(link: &Link, neighbour: IpAddr) -> String {
    format!(
        "neighbour {neighbour} on {} has been asked for and has not answered yet ({})",
        link.name,
        protocol(neighbour)
    )
}

fn protocol(neighbour: IpAddr) -> &'static str {
    match neighbour {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "neighbour discovery",
    }
}

#[cfg(test)]
mod tests {
    use crate::netlink::link::Xdp;

    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 7];
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const BACKEND: &str = "198.51.100.21";
    const ROUTER: &str = "192.0.2.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn target(address: &str) -> Target {
        Target {
            ifindex: 7,
            address: ip(address),
        }
    }

    fn link() -> Link {
        Link {
            ifindex: 7,
            name: "eth0".to_owned(),
            mac: Some(OWN),
            mtu: 1500,
            up: true,
            arp: true,
            carrier: true,
            xdp: Xdp::None,
            ours: false,
        }
    }

    fn known(stale: bool) -> Neighbour {
        Neighbour::Known { mac: MAC, stale }
    }

    fn via(gateway: Option<&str>, mtu: Option<u32>) -> Route {
        Route::Via {
            ifindex: 7,
            gateway: gateway.map(ip),
            source: Some(ip("192.0.2.10")),
            mtu,
        }
    }

    /// The backend behind a router that is known.
    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.links.insert(7, link());
        snapshot.neighbours.set(target(ROUTER), known(false));
        snapshot.routes.insert(ip(BACKEND), via(Some(ROUTER), None));
        snapshot
    }

    fn way() -> Way {
        Way {
            mac: MAC,
            uplink: Uplink {
                mac_bits: NextHop::new(OWN, 0).mac_bits(),
                ifindex: 7,
                mtu: 1500,
            },
            gateway: Some(ip(ROUTER)),
            source: Some(ip("192.0.2.10")),
        }
    }

    /// Changes the snapshot, and compares the way to the backend or the words
    /// in the problem, and whom the kernel is to ask for.
    fn check(
        sentence: &str,
        change: impl FnOnce(&mut Snapshot),
        expected: Result<Way, &str>,
        to_resolve: &[&str],
    ) {
        let mut snapshot = snapshot();
        change(&mut snapshot);
        let (ways, problems) = snapshot.conclude();
        let way = ways.get(&ip(BACKEND));
        let problem = problems.get(&ip(BACKEND));
        match expected {
            Ok(expected) => {
                assert_eq!(
                    way,
                    Some(&expected),
                    "{sentence}: {problem:?} {snapshot:#?}"
                );
                assert_eq!(problem, None, "{sentence}");
            }
            Err(words) => {
                assert_eq!(way, None, "{sentence}: {snapshot:#?}");
                let problem = problem.expect("no way and no problem");
                assert!(problem.contains(words), "{sentence}: {problem}");
            }
        }
        let expected: BTreeSet<_> = to_resolve.iter().map(|address| target(address)).collect();
        assert_eq!(snapshot.to_resolve(), expected, "{sentence}: {snapshot:#?}");
    }

    #[test]
    fn a_way_needs_a_route_a_link_and_a_neighbour() {
        check("all there", |_| {}, Ok(way()), &[]);
        check(
            "on the link itself the backend is the neighbour",
            |snapshot| {
                snapshot.routes.insert(ip(BACKEND), via(None, None));
                snapshot.neighbours.set(target(BACKEND), known(false));
            },
            Ok(Way {
                gateway: None,
                ..way()
            }),
            &[],
        );
        check(
            "a smaller MTU of the route counts",
            |snapshot| {
                snapshot
                    .routes
                    .insert(ip(BACKEND), via(Some(ROUTER), Some(1400)));
            },
            Ok(Way {
                uplink: Uplink {
                    mtu: 1400,
                    ..way().uplink
                },
                ..way()
            }),
            &[],
        );
        check(
            "a greater MTU of the route does not",
            |snapshot| {
                snapshot
                    .routes
                    .insert(ip(BACKEND), via(Some(ROUTER), Some(9000)));
            },
            Ok(way()),
            &[],
        );
        check(
            "a stale neighbour is used and asked for",
            |snapshot| {
                snapshot.neighbours.set(target(ROUTER), known(true));
            },
            Ok(way()),
            &[ROUTER],
        );
        check(
            "a neighbour never asked for",
            |snapshot| {
                snapshot.neighbours.remove(target(ROUTER));
            },
            Err("neighbour 192.0.2.1 on eth0 has been asked for and has not answered yet (ARP)"),
            &[ROUTER],
        );
        check(
            "a neighbour that fails takes the way away",
            |snapshot| {
                snapshot.neighbours.set(target(ROUTER), Neighbour::Silent);
            },
            Err("neighbour 192.0.2.1 on eth0 does not answer (ARP)"),
            &[ROUTER],
        );
        check(
            "a link without Ethernet address",
            |snapshot| {
                snapshot.links.insert(
                    7,
                    Link {
                        mac: None,
                        ..link()
                    },
                );
            },
            Err("eth0, which is no Ethernet interface"),
            &[],
        );
        check(
            "a link without carrier",
            |snapshot| {
                snapshot.links.insert(
                    7,
                    Link {
                        carrier: false,
                        ..link()
                    },
                );
            },
            Err("eth0, which has no carrier"),
            &[],
        );
        check(
            "a link that is down",
            |snapshot| {
                snapshot.links.insert(
                    7,
                    Link {
                        up: false,
                        ..link()
                    },
                );
            },
            Err("`ip link set eth0 up`"),
            &[],
        );
        check(
            "a link that is gone",
            |snapshot| snapshot.links.clear(),
            Err("interface number 7, which is not there"),
            &[],
        );
    }

    #[test]
    fn a_route_that_leads_nowhere_is_explained() {
        let routes = [
            (
                Route::Missing,
                "no route to 198.51.100.21: add one with `ip route add",
            ),
            (Route::Local, "leads to this host itself"),
            (
                Route::Refused("blackhole"),
                "`ip route show type blackhole`",
            ),
            (
                Route::Strange("for once".to_owned()),
                "for once: see `ip route get",
            ),
        ];
        for (route, words) in routes {
            let sentence = format!("{route:?}");
            let change = |snapshot: &mut Snapshot| {
                snapshot.routes.insert(ip(BACKEND), route);
            };
            check(&sentence, change, Err(words), &[]);
        }
    }

    /// Applies a change and compares its effect and whether the backend's
    /// route has to be looked up anew.
    fn check_change(sentence: &str, change: Change, effect: Effect, looked_up: bool) {
        let mut snapshot = snapshot();
        assert_eq!(snapshot.apply(change), effect, "{sentence}: {snapshot:#?}");
        assert_eq!(
            snapshot.routes.is_empty(),
            looked_up,
            "{sentence}: {snapshot:#?}"
        );
    }

    #[test]
    fn a_change_costs_only_what_it_touches() {
        let prefix = |text: &str| Change::Route(text.parse().unwrap());
        let moved = Neighbour::Known {
            mac: [9; 6],
            stale: false,
        };

        check_change("the same link", Change::Link(link()), Effect::None, false);
        let mtu = Link {
            mtu: 9000,
            ..link()
        };
        check_change("another MTU", Change::Link(mtu), Effect::Conclude, true);
        check_change("a link gone", Change::LinkGone(7), Effect::Conclude, true);
        check_change(
            "the router's new address",
            Change::Neighbour(target(ROUTER), moved),
            Effect::Conclude,
            false,
        );
        check_change(
            "the router grows old",
            Change::Neighbour(target(ROUTER), known(true)),
            Effect::None,
            false,
        );
        check_change(
            "the router is forgotten",
            Change::NeighbourGone(target(ROUTER)),
            Effect::Conclude,
            false,
        );
        check_change(
            "somebody else's address",
            Change::Neighbour(target("192.0.2.99"), moved),
            Effect::None,
            false,
        );
        check_change(
            "a route that covers it",
            prefix("198.51.100.0/24"),
            Effect::Conclude,
            true,
        );
        check_change(
            "a default route",
            prefix("0.0.0.0/0"),
            Effect::Conclude,
            true,
        );
        check_change(
            "a route elsewhere",
            prefix("203.0.113.0/24"),
            Effect::None,
            false,
        );
        check_change("the other family", prefix("::/0"), Effect::None, false);
        check_change(
            "an address of ours",
            Change::AnyRoute,
            Effect::Conclude,
            true,
        );
        check_change("messages lost", Change::Lost, Effect::Reread, false);
    }
}
