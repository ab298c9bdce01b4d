//! Gathers what the judgement needs, from the kernel as it is now.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use vipd_control::model::{Mode, Model, Vip};

use crate::{
    config::{Config, InterfaceName, XdpMode},
    netlink::{
        Error, Netlink,
        address::Address,
        link::Link,
        watch::watch_ways,
        way::{Problems, Ways},
    },
};

use super::ethtool::{Ethtool, Feature};

/// How long backends have to show a way to them.
const ENOUGH: Duration = Duration::from_secs(1);
/// The `rp_filter` that drops what came by another interface than the answer
/// would leave by (RFC 3704, strict reverse path forwarding).
const STRICT: u8 = 1;

/// What there is to judge.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where the XDP program is to run.
    pub mode: XdpMode,
    /// The interfaces it is to be attached to.
    pub interfaces: Vec<Interface>,
    /// Interfaces that drop IPv4 packets whose answers would leave by another,
    /// where there are several.
    pub strict: Vec<String>,
    /// Whether the kernel takes IPv4 packets of clients here (mode `local`).
    pub serves: bool,
    /// The ways that were found.
    pub ways: Ways,
    /// What there is to say of them.
    pub paths: Vec<Path>,
    /// Why there is none to the other backends.
    pub problems: Problems,
    /// Hosts that would be cut off.
    pub cut_off: Vec<CutOff>,
    /// How many neighbours the kernel keeps; `None` where it does not tell, as
    /// in all network namespaces but the first.
    pub neighbour_limit: Option<usize>,
    /// Processors that there may be; 0 if the kernel does not tell.
    pub processors: usize,
}

/// An interface of the configuration.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What the kernel says about it; `None` when there is none of that name.
    pub link: Option<Link>,
    /// Its driver.
    pub driver: Option<String>,
    /// Whether it takes VLAN tags off received frames.
    pub rx_vlan: Feature,
    /// Whether it merges received TCP segments (LRO).
    pub lro: Feature,
    /// Whether it merges them so that they can be taken apart again (GRO_HW).
    pub gro_hw: Feature,
}

/// A host inside an aggregate, with no route to it that is as long.
#[derive(Clone, Debug)]
pub struct CutOff {
    /// What it is.
    pub role: &'static str,
    /// Where it is.
    pub address: IpAddr,
    /// The aggregate.
    pub aggregate: Vip,
}

/// The way to a backend.
#[derive(Clone, Debug)]
pub struct Path {
    /// The backend.
    pub backend: IpAddr,
    /// The interface packets leave by.
    pub interface: String,
    /// The largest packet that fits.
    pub mtu: u32,
    /// The largest that fits the interface; the route may say less.
    pub link_mtu: u32,
    /// Bytes a packet grows by on this way.
    pub overhead: u32,
    /// Whether IPv6 packets of clients go this way.
    pub carries_ipv6: bool,
    /// Whether the backend is a neighbour itself.
    pub on_link: bool,
}

impl Facts {
    /// What this host is for what it is to do.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn gather(config: &Config, netlink: &Netlink) -> Result<Self, Error> {
        let links = netlink.links().await?;
        let addresses = netlink.addresses().await?;
        let strict = entrances(config, &links, &addresses)
            .into_iter()
            .filter(|name| in_force(name, "rp_filter") == STRICT);
        let plain = Self {
            strict: strict.map(str::to_owned).collect(),
            serves: serves(&config.model),
            ..Self::nothing()
        };
        let Some(dataplane) = &config.dataplane else {
            return Ok(plain);
        };
        let loads = loads(&config.model);
        let (ways, problems) = look(loads.keys().copied().collect()).await;
        // Some interface may have changed meanwhile.
        let links = netlink.links().await?;
        let names = dataplane.interfaces.iter().map(InterfaceName::as_str);
        let ethtool = Ethtool::open().ok();
        Ok(Self {
            mode: dataplane.xdp_mode,
            interfaces: names
                .map(|name| {
                    let link = links.values().find(|link| link.name == name);
                    Interface::gather(name, link, ethtool.as_ref())
                })
                .collect(),
            paths: paths(&loads, &ways, &links),
            ways,
            problems,
            cut_off: cut_off(config, netlink).await?,
            neighbour_limit: read_number("/proc/sys/net/ipv4/neigh/default/gc_thresh3"),
            processors: aya::util::nr_cpus().unwrap_or(0),
            ..plain
        })
    }

    fn nothing() -> Self {
        Self {
            mode: XdpMode::Native,
            interfaces: Vec::new(),
            strict: Vec::new(),
            serves: false,
            ways: Ways::new(),
            paths: Vec::new(),
            problems: Problems::new(),
            cut_off: Vec::new(),
            neighbour_limit: None,
            processors: 0,
        }
    }
}

impl Interface {
    fn gather(name: &str, link: Option<&Link>, ethtool: Option<&Ethtool>) -> Self {
        let ethtool = ethtool.filter(|_| link.is_some());
        let features = ethtool.and_then(|ethtool| ethtool.features(name).ok());
        let feature = |wanted| {
            let features = features.as_ref();
            features.and_then(|features| features.get(wanted).copied())
        };
        Self {
            name: name.to_owned(),
            link: link.cloned(),
            driver: ethtool.and_then(|ethtool| ethtool.driver(name).ok()),
            rx_vlan: feature("rx-vlan-hw-parse").unwrap_or_default(),
            lro: feature("rx-lro").unwrap_or_default(),
            gro_hw: feature("rx-gro-hw").unwrap_or_default(),
        }
    }
}

/// Interfaces that IPv4 packets may come by, if there is more than one: those of the
/// data plane, and whichever is up, has a carrier and an address. Nothing comes by a loopback
/// or dummy interface, and what comes by a port of a bond comes by the bond.
fn entrances<'l>(
    config: &Config,
    links: &'l BTreeMap<u32, Link>,
    addresses: &[Address],
) -> Vec<&'l str> {
    let dataplane = config.dataplane.iter();
    let carries = |link: &Link| {
        let mut named = dataplane.clone().flat_map(|it| &it.interfaces);
        named.any(|name| name.as_str() == link.name)
    };
    let has_address = |link: &Link| {
        let mut here = addresses.iter();
        here.any(|found| found.ifindex == link.ifindex && found.address.is_ipv4())
    };
    let is_silent =
        |link: &Link| link.name == "lo" || link.ours || (link.mac.is_some() && !link.arp);
    let found = links.values().filter(|link| {
        let by_itself = link.sends() && !is_silent(link) && has_address(link);
        carries(link) || by_itself
    });
    let names: Vec<_> = found.map(|link| &*link.name).collect();
    if names.len() > 1 { names } else { Vec::new() }
}

fn serves(model: &Model) -> bool {
    let services = model.services.iter();
    let mut local = services.filter(|service| service.mode == Mode::Local);
    local.any(|service| service.vips.iter().any(|vip| vip.address().is_ipv4()))
}

/// The value of a setting of an interface, where the greater of its own and
/// that for all interfaces is in force.
pub(crate) fn in_force(interface: &str, setting: &str) -> u8 {
    let values = ["all", interface]
        .into_iter()
        .filter_map(|scope| read_number(&format!("/proc/sys/net/ipv4/conf/{scope}/{setting}")));
    values.max().unwrap_or(0)
}

/// Routers and backends that this host could not reach any more while an
/// aggregate around them is held.
async fn cut_off(config: &Config, netlink: &Netlink) -> Result<Vec<CutOff>, Error> {
    let Some(bgp) = &config.bgp else {
        return Ok(Vec::new());
    };
    let routers = bgp.peers.iter().map(|peer| ("peer", peer.address.ip()));
    let services = config.model.services.iter();
    let backends = services.flat_map(|service| &service.backends);
    let backends = backends.map(|backend| ("backend", backend.address));
    let hosts: BTreeSet<_> = routers.chain(backends).collect();
    let mut cut_off = Vec::new();
    for (role, address) in hosts {
        let around = |vip: Vip| vip.contains(address.into());
        let aggregates = bgp.aggregates.iter().map(|aggregate| aggregate.prefix);
        for aggregate in aggregates.filter(|prefix| around(*prefix)) {
            let length = netlink.prefix_length(address).await?;
            if length < Some(aggregate.prefix().prefix_len()) {
                cut_off.push(CutOff {
                    role,
                    address,
                    aggregate,
                });
            }
        }
    }
    Ok(cut_off)
}

/// What a backend is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    /// Bytes a packet grows by, at most.
    overhead: u32,
    /// Whether IPv6 packets are among it.
    ipv6: bool,
}

fn loads(model: &Model) -> BTreeMap<IpAddr, Load> {
    let mut loads = BTreeMap::new();
    let services = model.services.iter();
    for service in services.filter(|service| service.mode.forwards()) {
        let ipv6 = service.vips.iter().any(|vip| vip.address().is_ipv6());
        for backend in &service.backends {
            let overhead = match (service.mode, backend.address) {
                (Mode::L2Dsr | Mode::Local, _) => 0,
                (Mode::Ipip, IpAddr::V4(_)) => 20,
                (Mode::Ipip, IpAddr::V6(_)) => 40,
                (Mode::Gue(_), IpAddr::V4(_)) => 28,
                (Mode::Gue(_), IpAddr::V6(_)) => 48,
            };
            let load: &mut Load = loads.entry(backend.address).or_default();
            load.overhead = overhead.max(load.overhead);
            load.ipv6 |= ipv6;
        }
    }
    loads
}

/// The ways there are, after as much time as they need and not more than
/// enough.
async fn look(backends: BTreeSet<IpAddr>) -> (Ways, Problems) {
    let count = backends.len();
    let (_wanted, wanted) = watch::channel(backends);
    let (ways_in, mut ways) = watch::channel(Ways::new());
    let (problems_in, problems) = watch::channel(Problems::new());
    tokio::select! {
        () = watch_ways(wanted, ways_in, problems_in) => {}
        _ = ways.wait_for(|ways| ways.len() == count) => {}
        () = sleep(ENOUGH) => {}
    }
    let ways = ways.borrow().clone();
    let mut problems = problems.borrow().clone();
    problems.retain(|address, _| !ways.contains_key(address));
    (ways, problems)
}

fn paths(loads: &BTreeMap<IpAddr, Load>, ways: &Ways, links: &BTreeMap<u32, Link>) -> Vec<Path> {
    let known = ways.iter().filter_map(|(backend, way)| {
        Some((
            backend,
            way,
            loads.get(backend)?,
            links.get(&way.uplink.ifindex)?,
        ))
    });
    known
        .map(|(backend, way, load, link)| Path {
            backend: *backend,
            interface: link.name.clone(),
            mtu: way.uplink.mtu,
            link_mtu: link.mtu,
            overhead: load.overhead,
            carries_ipv6: load.ipv6,
            on_link: way.gateway.is_none(),
        })
        .collect()
}

pub(crate) fn read_number<N: std::str::FromStr>(path: &str) -> Option<N> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{address::Usability, link::Xdp};

    const LOCAL: &str = r#"
[[service]]
name = "web"
vips = ["VIP"]
protocol = "tcp"
port = 80
mode = "local"
"#;
    const DATAPLANE: &str = "[dataplane]\ninterfaces = [\"eth0\", \"eth3\"]\n";

    fn config(text: &str) -> Config {
        let parsed = Config::parse(text, "vipd.toml");
        parsed.expect("a good file").0
    }

    #[test]
    fn packets_come_by_interfaces_that_are_up_and_have_an_address() {
        let link = |ifindex, name: &str| Link {
            ifindex,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            arp: true,
            carrier: true,
            ours: false,
            xdp: Xdp::None,
        };
        let silent = |ifindex, name| Link {
            arp: false,
            ..link(ifindex, name)
        };
        let links = [
            Link {
                mac: None,
                ..silent(1, "lo")
            },
            link(2, "eth0"),
            link(3, "eth1"),
            Link {
                up: false,
                ..link(4, "eth2")
            },
            link(5, "eth3"),
            silent(6, "dummy0"),
            Link {
                ours: true,
                ..link(7, "vipd0")
            },
            Link {
                mac: None,
                ..silent(8, "gre1")
            },
            Link {
                carrier: false,
                ..link(9, "bridge0")
            },
        ];
        let links = links.into_iter().map(|link| (link.ifindex, link)).collect();
        let four = |ifindex: u8| (u32::from(ifindex), IpAddr::from([192, 0, 2, ifindex]));
        let six = |ifindex| (ifindex, "2001:db8::1".parse().expect("an address"));
        for (sentence, config, addresses, expected) in [
            ("one is not told of", "", vec![four(2)], vec![]),
            ("two", "", vec![four(2), four(3)], vec!["eth0", "eth1"]),
            ("one without IPv4", "", vec![four(2), six(3)], vec![]),
            ("one that is down", "", vec![four(2), four(4)], vec![]),
            ("a bridge without ports", "", vec![four(2), four(9)], vec![]),
            (
                "those that nothing comes by",
                "",
                vec![four(1), four(2), four(6), four(7)],
                vec![],
            ),
            ("a tunnel", "", vec![four(2), four(8)], vec!["eth0", "gre1"]),
            (
                "those of the data plane, which need none",
                DATAPLANE,
                vec![four(2)],
                vec!["eth0", "eth3"],
            ),
        ] {
            let addresses = addresses.into_iter().map(|(ifindex, address)| Address {
                address,
                ifindex,
                label: None,
                usability: Usability::Usable,
                permanent: true,
                marked: false,
            });
            let addresses: Vec<_> = addresses.collect();
            let found = entrances(&self::config(config), &links, &addresses);
            assert_eq!(found, expected, "{sentence}");
        }
    }

    #[test]
    fn this_host_serves_where_a_service_has_mode_local_and_ipv4() {
        for (vip, expected) in [("198.51.100.10", true), ("2001:db8::10", false)] {
            let config = config(&LOCAL.replace("VIP", vip));
            assert_eq!(serves(&config.model), expected, "{vip}");
        }
        assert!(!serves(&config(DATAPLANE).model), "no service at all");
    }
}
