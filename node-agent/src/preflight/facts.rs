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
        link::Link,
        watch::watch_ways,
        way::{Problems, Ways},
    },
};

use super::ethtool::{Ethtool, Feature};

/// How long backends have to show a way to them.
const ENOUGH: Duration = Duration::from_secs(1);

/// What there is to judge.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where the XDP program is to run.
    pub mode: XdpMode,
    /// The interfaces it is to be attached to.
    pub interfaces: Vec<Interface>,
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
    /// How it checks the source of IPv4 packets: 0 not, 1 strictly, 2 loosely.
    pub rp_filter: u8,
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
        let Some(dataplane) = &config.dataplane else {
            return Ok(Self::nothing());
        };
        let loads = loads(&config.model);
        let (ways, problems) = look(loads.keys().copied().collect()).await;
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
        })
    }

    fn nothing() -> Self {
        Self {
            mode: XdpMode::Native,
            interfaces: Vec::new(),
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
            rp_filter: link.map_or(0, |_| in_force(name, "rp_filter")),
        }
    }
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
