//! Judges a host: one small function per thing that can be wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{config::XdpMode, netlink::link::Link};

use super::{
    Finding, Severity,
    facts::{Facts, Interface},
};

/// The largest packet a client sends: what fits Ethernet.
const CLIENT_MTU: u32 = 1500;
/// More backends than this with the same fault are only counted.
const NAMED: usize = 5;
/// The `rp_filter` that drops what came by another interface than the answer
/// would leave by (RFC 3704, strict reverse path forwarding).
const STRICT: u8 = 1;

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
                    findings.extend(lro(interface));
                }
                if facts.interfaces.len() > 1 {
                    findings.extend(reverse_path(interface));
                }
            }
        }
    }
    findings.extend(mtu(facts));
    findings.extend(other_interfaces(facts));
    findings.extend(neighbour_limit(facts));
    findings.extend(unreached(facts));
    findings
}

fn missing(interface: &Interface) -> Finding {
    Finding {
        severity: Severity::Error,
        subject: interface.name.clone(),
        message: "there is no such interface on this host".to_owned(),
        fix: Some("ip -brief link".to_owned()),
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
        severity: Severity::Warning,
        subject: link.name.clone(),
        message: message.to_owned(),
        fix,
    })
}

fn no_ethernet(link: &Link) -> Option<Finding> {
    link.mac.is_none().then(|| Finding {
        severity: Severity::Error,
        subject: link.name.clone(),
        message: "this is no Ethernet interface, and vipd forwards Ethernet frames only".to_owned(),
        fix: None,
    })
}

fn driver(interface: &Interface) -> Option<Finding> {
    let (severity, message) = match interface.driver.as_deref() {
        Some("veth") => (
            Severity::Info,
            "frames that XDP sends by a veth arrive only if its other end runs an XDP program \
             too, or has GRO on; turn checksum offload off at both ends"
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
        severity,
        subject: interface.name.clone(),
        message,
        fix: None,
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
        severity,
        subject: interface.name.clone(),
        message: message.to_owned(),
        fix,
    })
}

fn lro(interface: &Interface) -> Option<Finding> {
    interface.lro.on.then(|| Finding {
        severity: Severity::Warning,
        subject: interface.name.clone(),
        message: "LRO is on: it merges received segments into packets too big to send on, and \
                  most drivers refuse XDP with it"
            .to_owned(),
        fix: Some(format!("ethtool -K {} lro off", interface.name)),
    })
}

/// XDP takes VIP traffic before this check, so it is only about what this host
/// itself sends and receives, and only where answers may come another way.
fn reverse_path(interface: &Interface) -> Option<Finding> {
    (interface.rp_filter == STRICT).then(|| Finding {
        severity: Severity::Warning,
        subject: interface.name.clone(),
        message: "strict reverse path filtering is on: answers to health checks and multihop BGP \
                  that come by another interface than this host would send by are dropped \
                  (traffic for VIPs is not touched by it)"
            .to_owned(),
        fix: Some(format!(
            "sysctl -w net.ipv4.conf.{}.rp_filter=2",
            interface.name
        )),
    })
}

/// One finding for all backends that are reached with the same numbers.
fn mtu(facts: &Facts) -> Vec<Finding> {
    let mut narrow: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for path in &facts.paths {
        if path.mtu < CLIENT_MTU + path.overhead {
            let by_route = path.mtu < path.link_mtu;
            let numbers = (path.interface.as_str(), path.mtu, path.overhead, by_route);
            narrow
                .entry(numbers)
                .or_default()
                .push(path.backend.to_string());
        }
    }
    let findings = narrow
        .into_iter()
        .map(|((interface, mtu, overhead, by_route), backends)| {
            let needed = CLIENT_MTU + overhead;
            let grown = if overhead > 0 {
                format!(", with {overhead} bytes of outer header {needed}")
            } else {
                String::new()
            };
            // The TCP and IP headers of the smaller family.
            let mss = mtu.saturating_sub(overhead + 40);
            Finding {
                severity: Severity::Warning,
                subject: interface.to_owned(),
                message: format!(
                    "packets of {mtu} bytes fit on the way to {}, but a client may send \
                 {CLIENT_MTU}{grown}: what is bigger is dropped; raise the MTU on the whole way, \
                 or let the backends advertise a TCP MSS of at most {mss}, for IPv6 20 less \
                 (`ip route ... advmss {mss}`)",
                    names(&backends)
                ),
                // Where the route itself is narrower, its maker knows why.
                fix: (!by_route)
                    .then(|| format!("ip link set {interface} mtu {}", needed.max(1600))),
            }
        });
    findings.collect()
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
        severity: Severity::Warning,
        subject: interface.to_owned(),
        message: format!(
            "the way to {} leads through this interface, which is not in dataplane.interfaces: \
             many drivers send frames from another interface only while an XDP program is \
             attached to them too",
            names(&backends)
        ),
        fix: None,
    });
    findings.collect()
}

fn neighbour_limit(facts: &Facts) -> Option<Finding> {
    let limit = facts.neighbour_limit?;
    let count = facts.paths.iter().filter(|path| path.on_link).count() + facts.problems.len();
    (count >= limit).then(|| Finding {
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
    })
}

fn unreached(facts: &Facts) -> Vec<Finding> {
    let warn = |subject: String, message: String| Finding {
        severity: Severity::Warning,
        subject,
        message,
        fix: None,
    };
    let problems = facts.problems.iter().take(NAMED);
    let mut findings: Vec<_> = problems
        .map(|(backend, problem)| {
            warn(
                format!("backend {backend}"),
                format!("cannot be reached at the start: {problem}"),
            )
        })
        .collect();
    if facts.problems.len() > NAMED {
        let more = facts.problems.len() - NAMED;
        let message = format!("{more} more cannot be reached at the start");
        findings.push(warn("backends".to_owned(), message));
    }
    findings
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
mod tests {
    use crate::{
        netlink::{link::Xdp, way::Problems},
        preflight::{ethtool::Feature, facts::Path},
    };

    use super::*;

    const ON: Feature = Feature {
        on: true,
        fixed: false,
    };
    const ON_FIXED: Feature = Feature {
        on: true,
        fixed: true,
    };

    fn interface(name: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            link: Some(Link {
                ifindex: 2,
                name: name.to_owned(),
                mac: Some([2, 0, 0, 0, 0, 1]),
                mtu: 1600,
                up: true,
                carrier: true,
                xdp: Xdp::None,
            }),
            driver: Some("ixgbe".to_owned()),
            rx_vlan: Feature::default(),
            lro: Feature::default(),
            rp_filter: 0,
        }
    }

    fn path(last: u8) -> Path {
        Path {
            backend: [192, 0, 2, last].into(),
            interface: "eth0".to_owned(),
            mtu: 1600,
            link_mtu: 1600,
            overhead: 20,
            on_link: true,
        }
    }

    /// A host that nothing is wrong with.
    fn host() -> Facts {
        Facts {
            mode: XdpMode::Native,
            interfaces: vec![interface("eth0")],
            paths: vec![path(21), path(22)],
            problems: Problems::new(),
            neighbour_limit: Some(1024),
        }
    }

    /// Changes the host; expects exactly these findings, each by its severity,
    /// subject and some words of its text.
    fn check(sentence: &str, change: impl FnOnce(&mut Facts), expected: &[(Severity, &str, &str)]) {
        let mut facts = host();
        change(&mut facts);
        let findings = judge(&facts);
        let as_expected = findings.len() == expected.len()
            && findings
                .iter()
                .zip(expected)
                .all(|(finding, (severity, subject, words))| {
                    finding.severity == *severity
                        && finding.subject == *subject
                        && finding.to_string().contains(words)
                });
        assert!(as_expected, "{sentence}: {findings:#?} {facts:#?}");
    }

    fn with_link(change: impl FnOnce(&mut Link)) -> impl FnOnce(&mut Facts) {
        |facts| change(facts.interfaces[0].link.as_mut().unwrap())
    }

    use Severity::{Error, Info, Warning};

    #[test]
    fn an_interface_is_there_and_up() {
        check("nothing is wrong", |_| {}, &[]);
        check(
            "no such interface, and nothing more is said of it",
            |facts| {
                let missing = &mut facts.interfaces[0];
                missing.link = None;
                missing.driver = None;
            },
            &[(Error, "eth0", "no such interface")],
        );
        check(
            "set down",
            with_link(|link| link.up = false),
            &[(Warning, "eth0", "`ip link set eth0 up`")],
        );
        check(
            "no carrier",
            with_link(|link| link.carrier = false),
            &[(Warning, "eth0", "no carrier")],
        );
        check(
            "no Ethernet",
            with_link(|link| link.mac = None),
            &[(Error, "eth0", "no Ethernet interface")],
        );
    }

    #[test]
    fn native_mode_asks_more_of_a_driver_than_generic_mode() {
        let driver = |name: Option<&str>| {
            let name = name.map(str::to_owned);
            |facts: &mut Facts| facts.interfaces[0].driver = name
        };
        check(
            "an unknown driver",
            driver(Some("e1000e")),
            &[(Warning, "eth0", "e1000e is not known to run XDP")],
        );
        check(
            "no name",
            driver(None),
            &[(Info, "eth0", "does not give its name")],
        );
        check(
            "a veth",
            driver(Some("veth")),
            &[(Info, "eth0", "its other end")],
        );
        check(
            "tags taken off",
            |facts| facts.interfaces[0].rx_vlan = ON,
            &[(Error, "eth0", "`ethtool -K eth0 rxvlan off`")],
        );
        check(
            "tags taken off whatever one does",
            |facts| facts.interfaces[0].rx_vlan = ON_FIXED,
            &[(Warning, "eth0", "cannot be told not to")],
        );
        check(
            "tags beside the frame on a veth",
            |facts| {
                facts.interfaces[0].rx_vlan = ON;
                facts.interfaces[0].driver = Some("veth".to_owned());
            },
            &[
                (Info, "eth0", "its other end"),
                (Info, "eth0", "only where frames are tagged"),
            ],
        );
        check(
            "segments merged",
            |facts| facts.interfaces[0].lro = ON,
            &[(Warning, "eth0", "`ethtool -K eth0 lro off`")],
        );
        check(
            "none of it matters to a generic program",
            |facts| {
                facts.mode = XdpMode::Generic;
                facts.interfaces[0].driver = Some("e1000e".to_owned());
                facts.interfaces[0].rx_vlan = ON;
                facts.interfaces[0].lro = ON;
            },
            &[],
        );
    }

    #[test]
    fn strict_reverse_path_filtering_matters_with_two_interfaces() {
        let filters = |count: usize, value: u8| {
            move |facts: &mut Facts| {
                let names = ["eth0", "eth1"].into_iter().take(count);
                facts.interfaces = names.map(interface).collect();
                facts.interfaces[0].rp_filter = value;
            }
        };
        check("strict, one interface", filters(1, 1), &[]);
        check("loose, two interfaces", filters(2, 2), &[]);
        check(
            "strict, two interfaces",
            filters(2, 1),
            &[(Warning, "eth0", "net.ipv4.conf.eth0.rp_filter=2")],
        );
    }

    #[test]
    fn a_tunnelled_packet_of_a_client_fits() {
        let mtu = |mtu, overhead| {
            move |facts: &mut Facts| {
                for path in &mut facts.paths {
                    (path.mtu, path.link_mtu, path.overhead) = (mtu, mtu, overhead);
                }
            }
        };
        check("just enough", mtu(1520, 20), &[]);
        check("just enough without a tunnel", mtu(1500, 0), &[]);
        check(
            "one byte too little, said once for all backends",
            mtu(1519, 20),
            &[(
                Warning,
                "eth0",
                "1519 bytes fit on the way to 192.0.2.21, 192.0.2.22",
            )],
        );
        check(
            "how big it is, and what MSS would do",
            mtu(1500, 40),
            &[(Warning, "eth0", "40 bytes of outer header 1540")],
        );
        check(
            "the MSS that would do",
            mtu(1500, 20),
            &[(Warning, "eth0", "advmss 1440")],
        );
        check(
            "a small link",
            mtu(1400, 0),
            &[(Warning, "eth0", "a client may send 1500: ")],
        );
        check(
            "a link that can be widened",
            mtu(1500, 20),
            &[(Warning, "eth0", "try `ip link set eth0 mtu 1600`")],
        );
        let mut facts = host();
        facts.paths[0].mtu = 1400;
        let findings = judge(&facts);
        let fixes: Vec<_> = findings.iter().map(|finding| &finding.fix).collect();
        assert_eq!(
            fixes,
            [&None],
            "a route with a small MTU of its own: {facts:#?}"
        );
        check(
            "many backends are counted",
            |facts| {
                facts.paths = (1..=9)
                    .map(|last| Path {
                        mtu: 1500,
                        ..path(last)
                    })
                    .collect();
            },
            &[(Warning, "eth0", "192.0.2.1 and 8 more")],
        );
    }

    #[test]
    fn backends_are_reached_as_they_should_be() {
        check(
            "through another interface",
            |facts| facts.paths[1].interface = "eth9".to_owned(),
            &[(Warning, "eth9", "the way to 192.0.2.22")],
        );
        check(
            "more neighbours than fit",
            |facts| facts.neighbour_limit = Some(2),
            &[(Warning, "neighbour table", "gc_thresh3=4 ")],
        );
        check(
            "a limit that is not told",
            |facts| facts.neighbour_limit = None,
            &[],
        );
        let problems = |count: u8| {
            move |facts: &mut Facts| {
                let backends = (1..=count).map(|last| [198, 51, 100, last].into());
                facts.problems = backends
                    .map(|backend| (backend, "no route".to_owned()))
                    .collect();
            }
        };
        let one = (Warning, "backend 198.51.100.1", "at the start: no route");
        check("one not at all", problems(1), &[one]);
        check(
            "many not at all",
            problems(7),
            &[
                one,
                (Warning, "backend 198.51.100.2", "no route"),
                (Warning, "backend 198.51.100.3", "no route"),
                (Warning, "backend 198.51.100.4", "no route"),
                (Warning, "backend 198.51.100.5", "no route"),
                (Warning, "backends", "2 more"),
            ],
        );
    }
}
