//! Judges a host: one small function per thing that can be wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{config::XdpMode, netlink::link::Link};

use super::{
    Finding, Name, Severity,
    ethtool::Feature,
    facts::{CutOff, Facts, Interface},
};

/// The largest packet a client sends: what fits Ethernet.
const CLIENT_MTU: u32 = 1500;
/// What every IPv6 link takes, so that no sender makes less of a packet
/// (RFC 8200, section 5).
const LEAST_MTU_6: u32 = 1280;
/// More backends than this with the same fault are only counted.
const NAMED: usize = 5;

/// Drivers that are known to run XDP programs themselves, by the names they
/// give to ethtool.
const NATIVE_DRIVERS: [&str; 38] = [
    "am65-cpsw-nuss",
    "atlantic",
    "bnxt_en",
    "bonding",
    "cpsw",
    "ena",
    "fec",
    "fsl_dpa",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "lan966x-switch",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mtk_soc_eth",
    "mvneta",
    "mvpp2",
    "netdevsim",
    "netsec",
    "nfp",
    "nicvf",
    "qede",
    "rvu_nicpf",
    "sfc",
    "st_gmac",
    "tsnep",
    "tun",
    "veth",
    "virtio_net",
    "vmxnet3",
];

/// All that is worth saying, in the order of the facts.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for interface in &facts.interfaces {
        match &interface.link {
            None => findings.push(missing(interface)),
            Some(link) => {
                findings.extend(state(link));
                findings.extend(no_ethernet(link));
                if facts.mode == XdpMode::Native {
                    findings.extend(driver(interface));
                    findings.extend(rx_vlan(interface));
                    findings.extend(merging(interface, "LRO", "lro", interface.lro));
                    findings.extend(merging(interface, "GRO_HW", "rx-gro-hw", interface.gro_hw));
                }
            }
        }
    }
    findings.extend(reverse_path(facts));
    findings.extend(mtu(facts));
    findings.extend(other_interfaces(facts));
    findings.extend(neighbour_limit(facts));
    findings.extend(processors(facts));
    findings.extend(unreached(facts));
    findings.extend(cut_off(facts));
    findings
}

fn missing(interface: &Interface) -> Finding {
    Finding {
        name: Name::InterfaceMissing,
        severity: Severity::Error,
        subject: interface.name.clone(),
        message: "there is no such interface on this host".to_owned(),
        fix: Some("ip -brief link".to_owned()),
        at: None,
    }
}

fn state(link: &Link) -> Option<Finding> {
    let (message, fix) = match (link.up, link.carrier) {
        (true, true) => return None,
        (true, false) => ("there is no carrier: check cable and switch port", None),
        (false, _) => (
            "the interface is down",
            Some(format!("ip link set {} up", link.name)),
        ),
    };
    Some(Finding {
        name: Name::InterfaceDown,
        severity: Severity::Warning,
        subject: link.name.clone(),
        message: message.to_owned(),
        fix,
        at: None,
    })
}

fn no_ethernet(link: &Link) -> Option<Finding> {
    link.mac.is_none().then(|| Finding {
        name: Name::NoEthernet,
        severity: Severity::Error,
        subject: link.name.clone(),
        message: "this is no Ethernet interface, and vipd forwards Ethernet frames only".to_owned(),
        fix: None,
        at: None,
    })
}

fn driver(interface: &Interface) -> Option<Finding> {
    let (severity, message) = match interface.driver.as_deref() {
        Some("veth") => (
            Severity::Info,
            "frames that XDP sends by a veth arrive only if its other end runs an XDP program \
             too; turn checksum offload off at both ends"
                .to_owned(),
        ),
        Some(driver) if NATIVE_DRIVERS.contains(&driver) => return None,
        Some(driver) => (
            Severity::Warning,
            format!(
                "the driver {driver} is not known to run XDP itself; if attaching fails, \
                 set xdp_mode to generic, which is slower"
            ),
        ),
        None => (
            Severity::Info,
            "the driver does not give its name, so nobody knows whether it runs XDP itself"
                .to_owned(),
        ),
    };
    Some(Finding {
        name: Name::Driver,
        severity,
        subject: interface.name.clone(),
        message,
        fix: None,
        at: None,
    })
}

/// With this offload the tag of a received frame is beside it, where a program
/// in the driver cannot see it and it is lost when the frame leaves again. (A
/// generic program cannot see it either, but the kernel keeps it.)
fn rx_vlan(interface: &Interface) -> Option<Finding> {
    if !interface.rx_vlan.on {
        return None;
    }
    let fix = format!("ethtool -K {} rxvlan off", interface.name);
    let (severity, message, fix) = if interface.driver.as_deref() == Some("veth") {
        (
            Severity::Info,
            "a VLAN tag that the other end leaves to offload cannot be seen by XDP; this \
             matters only where frames are tagged",
            Some(fix),
        )
    } else if interface.rx_vlan.fixed {
        (
            Severity::Warning,
            "the driver takes VLAN tags off received frames and cannot be told not to: tagged \
             frames would be forwarded without their tag, so use an untagged port, or xdp_mode \
             generic",
            None,
        )
    } else {
        (
            Severity::Error,
            "RX VLAN offload is on: the card takes VLAN tags off received frames, so tagged \
             frames would be forwarded without their tag",
            Some(fix),
        )
    };
    Some(Finding {
        name: Name::RxVlan,
        severity,
        subject: interface.name.clone(),
        message: message.to_owned(),
        fix,
        at: None,
    })
}

fn merging(interface: &Interface, offload: &str, feature: &str, state: Feature) -> Option<Finding> {
    state.on.then(|| Finding {
        name: Name::Merging,
        severity: Severity::Warning,
        subject: interface.name.clone(),
        message: format!(
            "{offload} is on: it merges received segments into packets too big to send on, and \
             most drivers refuse XDP with it"
        ),
        fix: Some(format!("ethtool -K {} {feature} off", interface.name)),
        at: None,
    })
}

/// XDP takes packets for virtual addresses before this check, the kernel after it.
fn reverse_path(facts: &Facts) -> impl Iterator<Item = Finding> {
    let lost = if facts.serves {
        "packets for virtual addresses that this host serves itself, and answers to health \
         checks and multihop BGP, are dropped when they come by another interface than this \
         host would send to their sender by"
    } else {
        "answers to health checks and multihop BGP that come by another interface than this \
         host would send by are dropped (traffic that XDP forwards is not touched by it)"
    };
    facts.strict.iter().map(move |interface| Finding {
        name: Name::RpFilter,
        severity: Severity::Warning,
        subject: interface.clone(),
        message: format!("strict reverse path filtering is on: {lost}"),
        fix: Some(format!(
            "sysctl -w {}=2",
            ipv4_setting(interface, "rp_filter")
        )),
        at: None,
    })
}

/// As `sysctl` has it, where a dot in the name of an interface is a slash.
pub(crate) fn ipv4_setting(interface: &str, setting: &str) -> String {
    format!("net.ipv4.conf.{}.{setting}", interface.replace('.', "/"))
}

/// What a way has too little of.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Narrow<'a> {
    interface: &'a str,
    mtu: u32,
    overhead: u32,
    by_route: bool,
    /// Whether it loses IPv6 packets that are as small as they get.
    loses_ipv6: bool,
}

/// One finding for all backends that are reached with the same numbers.
fn mtu(facts: &Facts) -> Vec<Finding> {
    let mut narrow: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for path in &facts.paths {
        if path.mtu < CLIENT_MTU + path.overhead {
            let way = Narrow {
                interface: &path.interface,
                mtu: path.mtu,
                overhead: path.overhead,
                by_route: path.mtu < path.link_mtu,
                loses_ipv6: path.carries_ipv6 && path.mtu < LEAST_MTU_6 + path.overhead,
            };
            let backends = narrow.entry(way).or_default();
            backends.push(path.backend.to_string());
        }
    }
    let findings = narrow
        .iter()
        .map(|(way, backends)| too_narrow(way, backends));
    findings.collect()
}

fn too_narrow(way: &Narrow<'_>, backends: &[String]) -> Finding {
    let &Narrow {
        interface,
        mtu,
        overhead,
        ..
    } = way;
    let needed = CLIENT_MTU + overhead;
    let grown = if overhead > 0 {
        format!(", with {overhead} bytes of outer header {needed}")
    } else {
        String::new()
    };
    // The TCP and IP headers of the smaller family.
    let mss = mtu.saturating_sub(overhead + 40);
    let lost = if way.loses_ipv6 {
        "; no IPv6 sender can be told to send less than 1280 bytes, so here its packets \
         are lost without a word"
    } else {
        ""
    };
    Finding {
        name: Name::Mtu,
        severity: Severity::Warning,
        subject: interface.to_owned(),
        message: format!(
            "packets of {mtu} bytes fit on the way to {}, but a client may send \
             {CLIENT_MTU}{grown}: what is bigger is dropped; raise the MTU on the whole way, \
             or let the backends advertise a TCP MSS of at most {mss}, for IPv6 20 less \
             (`ip route ... advmss {mss}`){lost}",
            names(backends)
        ),
        // Where the route itself is narrower, its maker knows why.
        fix: (!way.by_route).then(|| format!("ip link set {interface} mtu {}", needed.max(1600))),
        at: None,
    }
}

fn other_interfaces(facts: &Facts) -> Vec<Finding> {
    let ours: BTreeSet<_> = facts
        .interfaces
        .iter()
        .map(|interface| &interface.name)
        .collect();
    let mut others: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for path in &facts.paths {
        if !ours.contains(&path.interface) {
            others
                .entry(&path.interface)
                .or_default()
                .push(path.backend.to_string());
        }
    }
    let findings = others.into_iter().map(|(interface, backends)| Finding {
        name: Name::OtherInterface,
        severity: Severity::Warning,
        subject: interface.to_owned(),
        message: format!(
            "the way to {} leads through this interface, which is not in dataplane.interfaces: \
             many drivers send frames from another interface only while an XDP program is \
             attached to them too",
            names(&backends)
        ),
        fix: None,
        at: None,
    });
    findings.collect()
}

fn neighbour_limit(facts: &Facts) -> Option<Finding> {
    let limit = facts.neighbour_limit?;
    let count = facts.paths.iter().filter(|path| path.on_link).count() + facts.problems.len();
    (count >= limit).then(|| Finding {
        name: Name::NeighbourLimit,
        severity: Severity::Warning,
        subject: "neighbour table".to_owned(),
        message: format!(
            "up to {count} backends are neighbours of this host, and the kernel keeps at most \
             {limit}: some will not be reached"
        ),
        fix: Some(format!(
            "sysctl -w net.ipv4.neigh.default.gc_thresh3={0} net.ipv6.neigh.default.gc_thresh3={0}",
            (2 * count).next_power_of_two()
        )),
        at: None,
    })
}

fn processors(facts: &Facts) -> Option<Finding> {
    let count = facts.processors;
    (count > vipd_abi::CPUS as usize).then(|| Finding {
        name: Name::Processors,
        severity: Severity::Warning,
        subject: "processors".to_owned(),
        message: format!(
            "there may be {count} processors, and vipd counts packets of the first {} only: \
             let no interrupts of the interfaces' queues go to the others",
            vipd_abi::CPUS
        ),
        fix: None,
        at: None,
    })
}

fn unreached(facts: &Facts) -> Vec<Finding> {
    let warn = |subject: String, message: String| Finding {
        name: Name::Unreached,
        severity: Severity::Warning,
        subject,
        message,
        fix: None,
        at: None,
    };
    let problems = facts.problems.iter().take(NAMED);
    let mut findings: Vec<_> = problems
        .map(|(backend, problem)| {
            warn(
                format!("backend {backend}"),
                format!("could not be reached: {problem}"),
            )
        })
        .collect();
    if facts.problems.len() > NAMED {
        let more = facts.problems.len() - NAMED;
        let message = format!("{more} more could not be reached");
        findings.push(warn("backends".to_owned(), message));
    }
    findings
}

fn cut_off(facts: &Facts) -> impl Iterator<Item = Finding> {
    facts.cut_off.iter().take(NAMED).map(|host| {
        let CutOff {
            role,
            address,
            aggregate,
        } = host;
        Finding {
            name: Name::CutOff,
            severity: Severity::Warning,
            subject: format!("{role} {address}"),
            message: format!(
                "it is inside the aggregate {aggregate}, which is held by an unreachable route \
                 while it is announced, and the route to it is shorter: it would be cut off"
            ),
            fix: Some(format!("ip route add {address} via ROUTER")),
            at: None,
        }
    })
}

/// Backends by address, or by number when there are many.
fn names(backends: &[String]) -> String {
    match backends {
        few if few.len() <= NAMED => few.join(", "),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        [] => String::new(),
    }
}
#[cfg(test)]
mod tests;
