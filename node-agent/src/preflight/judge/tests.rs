//! The judgement, in a table per matter.

use ipnet::IpNet;

use crate::{
    netlink::{
        link::Xdp,
        way::{Problems, Ways},
    },
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
            arp: true,
            carrier: true,
            xdp: Xdp::None,
            ours: false,
        }),
        driver: Some("ixgbe".to_owned()),
        rx_vlan: Feature::default(),
        lro: Feature::default(),
        gro_hw: Feature::default(),
    }
}

fn path(last: u8) -> Path {
    Path {
        backend: [192, 0, 2, last].into(),
        interface: "eth0".to_owned(),
        mtu: 1600,
        link_mtu: 1600,
        overhead: 20,
        carries_ipv6: false,
        on_link: true,
    }
}

/// A host that nothing is wrong with.
fn host() -> Facts {
    Facts {
        mode: XdpMode::Native,
        interfaces: vec![interface("eth0")],
        strict: Vec::new(),
        serves: false,
        ways: Ways::new(),
        paths: vec![path(21), path(22)],
        problems: Problems::new(),
        cut_off: Vec::new(),
        neighbour_limit: Some(1024),
        processors: 256,
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
        "segments merged by the card",
        |facts| facts.interfaces[0].gro_hw = ON,
        &[(Warning, "eth0", "`ethtool -K eth0 rx-gro-hw off`")],
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
fn strict_reverse_path_filtering_is_told_with_what_it_drops() {
    let strict = |names: &'static [&str], serves| {
        move |facts: &mut Facts| {
            facts.strict = names.iter().map(|name| (*name).to_owned()).collect();
            facts.serves = serves;
        }
    };
    check("nowhere", strict(&[], true), &[]);
    check(
        "where XDP takes what is for virtual addresses",
        strict(&["eth0", "eth1"], false),
        &[
            (Warning, "eth0", "dropped (traffic that XDP forwards is not"),
            (
                Warning,
                "eth1",
                "`sysctl -w net.ipv4.conf.eth1.rp_filter=2`",
            ),
        ],
    );
    check(
        "where the kernel does",
        strict(&["eth0"], true),
        &[(
            Warning,
            "eth0",
            "virtual addresses that this host serves itself",
        )],
    );
    check(
        "on an interface with a dot in its name",
        strict(&["eth0.7"], true),
        &[(
            Warning,
            "eth0.7",
            "`sysctl -w net.ipv4.conf.eth0/7.rp_filter=2`",
        )],
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
    let narrow = |mtu, carries_ipv6| {
        move |facts: &mut Facts| {
            let path = &mut facts.paths[0];
            (path.mtu, path.link_mtu, path.carries_ipv6) = (mtu, mtu, carries_ipv6);
        }
    };
    check(
        "just enough for what every IPv6 sender may send",
        narrow(1300, true),
        &[(Warning, "eth0", "advmss 1240`); try")],
    );
    check(
        "one byte too little for that",
        narrow(1299, true),
        &[(Warning, "eth0", "its packets are lost without a word; try")],
    );
    check(
        "the same without IPv6",
        narrow(1299, false),
        &[(Warning, "eth0", "advmss 1239`); try")],
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
fn there_are_no_more_processors_than_are_counted() {
    check(
        "one too many",
        |facts| facts.processors = 257,
        &[(Warning, "processors", "the first 256 only")],
    );
    check(
        "as many as are counted",
        |facts| facts.processors = 256,
        &[],
    );
    check(
        "a kernel that does not tell",
        |facts| facts.processors = 0,
        &[],
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
    let one = (
        Warning,
        "backend 198.51.100.1",
        "could not be reached: no route",
    );
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

#[test]
fn what_an_aggregate_would_cut_off_is_told() {
    check(
        "a backend inside, by the default route",
        |facts| {
            facts.cut_off = vec![CutOff {
                role: "backend",
                address: [198, 51, 100, 21].into(),
                aggregate: IpNet::new_assert([198, 51, 100, 0].into(), 24).into(),
            }];
        },
        &[(Warning, "backend 198.51.100.21", "it would be cut off")],
    );
}
