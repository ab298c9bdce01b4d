//! The judgement, in a table.

use std::net::IpAddr;

use vipd_abi::Uplink;
use vipd_control::model::Mode;

use super::*;
use crate::{
    dataplane::{kernel, record::TunnelSources},
    doctor::{
        attached::{Attached, Program},
        facts::Agent,
        firewall::Port,
        reach::{Inquiry, Reached},
    },
    netlink::way::Way,
};

fn reached(mode: Mode) -> Reached {
    let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
    let way = Way {
        mac: [2, 0, 0, 0, 0, 1],
        uplink: Uplink {
            mac_bits: 0,
            ifindex: 2,
            mtu: 1600,
        },
        gateway: None,
        source: Some(ip(11)),
    };
    Reached {
        inquiry: Inquiry {
            service: "web".to_owned(),
            backend: "b1".to_owned(),
            lane: crate::tunnel::lane::Lane::new(mode, ip(21), way, &TunnelSources::default()),
            interface: "eth0".to_owned(),
            vip: [198, 51, 100, 10].into(),
            port: Some(80),
            ours: ip(11),
            near: ip(11),
        },
        plain: true,
        carried: mode != Mode::L2Dsr,
        vip: true,
        whole: true,
    }
}

/// A host that nothing is wrong with.
fn host() -> Facts {
    Facts {
        kernel: Some((6, 1)),
        agent: Some(Agent {
            pid: 7,
            files: Some(1024),
        }),
        sockets: 201,
        reached: vec![reached(Mode::Ipip), reached(Mode::L2Dsr)],
        ..Facts::default()
    }
}

/// Changes the host; expects exactly these findings, each by its name, severity
/// and some words of its text or command.
fn check(
    sentence: &str,
    change: impl FnOnce(&mut Facts),
    expected: &[(&str, Severity, &str)],
) -> Vec<Finding> {
    let mut facts = host();
    change(&mut facts);
    let findings = judge(&facts);
    let as_expected = findings.len() == expected.len()
        && findings
            .iter()
            .zip(expected)
            .all(|(finding, (name, severity, words))| {
                finding.name.word() == *name
                    && finding.severity == *severity
                    && finding.to_string().contains(words)
            });
    assert!(as_expected, "{sentence}: {findings:#?} {facts:#?}");
    findings
}

use Severity::{Error, Info, Warning};

#[test]
fn a_host_is_fit() {
    check("nothing is wrong", |_| {}, &[]);
    check(
        "an old kernel",
        |facts| facts.kernel = Some((5, 15)),
        &[("kernel", Error, "Linux 5.15")],
    );
    check(
        "a kernel that is not understood",
        |facts| facts.kernel = None,
        &[],
    );
    check(
        "no compiler",
        |facts| facts.interpreted = true,
        &[("bpf-jit", Warning, "bpf_jit_enable=1")],
    );
    check(
        "no place for pins",
        |facts| facts.no_bpf_fs = Some("/sys/fs/bpf".into()),
        &[("bpf-fs", Error, "mount -t bpf -o mode=0700 bpf /sys/fs/bpf")],
    );
    check(
        "a router",
        |facts| facts.forwarding = vec!["a.forwarding", "b.forwarding"],
        &[(
            "forwarding",
            Info,
            "`sysctl -w a.forwarding=0 b.forwarding=0`",
        )],
    );
    check(
        "several next hops",
        |facts| facts.by_addresses = vec!["net.ipv4.fib_multipath_hash_policy"],
        &[("multipath-hash", Warning, "hash_policy=1")],
    );
    check(
        "no MD5",
        |facts| facts.no_md5 = Some("Protocol not available".to_owned()),
        &[("tcp-md5", Error, "CONFIG_TCP_MD5SIG")],
    );
    check(
        "no agent, and its port taken",
        |facts| (facts.agent, facts.taken) = (None, Some(179)),
        &[
            ("port-taken", Warning, "tcp port 179"),
            ("agent", Info, "does not run"),
        ],
    );
    check(
        "few files",
        |facts| facts.sockets = 1025,
        &[("open-files", Warning, "prlimit --pid 7 --nofile=1025:1025")],
    );
    check(
        "no BFD",
        |facts| facts.no_bfd = Some("no BFD process".to_owned()),
        &[("bfd-process", Error, "no BFD process; routers")],
    );
}

#[test]
fn the_program_on_an_interface_is_ours_and_in_the_mode_that_is_configured() {
    use kernel::Mode::{Generic, Native};

    let runs = |program: Option<Program>, agent: bool| {
        move |facts: &mut Facts| {
            facts.attached = vec![Attached {
                interface: "eth0".to_owned(),
                wanted: Native,
                runs: program,
            }];
            if !agent {
                facts.agent = None;
            }
        }
    };
    let ours = |mode| Some(Program::Ours(mode));
    let other = Some(Program::Other {
        program: "`pass`, number 7".to_owned(),
        hook: "xdpgeneric",
    });
    let away = ("agent", Info, "does not run");
    check("ours", runs(ours(Native), true), &[]);
    check("ours, kept", runs(ours(Native), false), &[away]);
    check("none, and no agent", runs(None, false), &[away]);
    check(
        "none, and an agent",
        runs(None, true),
        &[("xdp", Error, "`vipd reload`")],
    );
    check(
        "another mode",
        runs(ours(Generic), true),
        &[(
            "xdp",
            Warning,
            "in generic mode here, and native is configured",
        )],
    );
    check(
        "another's",
        runs(other.clone(), false),
        &[
            ("xdp", Error, "`ip link set dev eth0 xdpgeneric off`"),
            away,
        ],
    );
    check(
        "another's in the place of ours",
        runs(other, true),
        &[("xdp", Error, "xdpgeneric off && vipd reload`")],
    );
    check(
        "that of another version",
        runs(Some(Program::Astray), true),
        &[("xdp", Warning, "not below `pin_path`")],
    );
    check(
        "the decapsulator",
        runs(Some(Program::Decap), false),
        &[("xdp", Error, "`vipd decap detach --iface eth0`"), away],
    );
}

#[test]
fn a_virtual_address_here_is_not_told_of_by_arp() {
    let bound = |vip: &str, on_it, arp_ignore, arp_announce| {
        let vip = vip.parse().unwrap();
        move |facts: &mut Facts| {
            facts.bound = vec![Bound {
                vip,
                interface: "eth0".to_owned(),
                on_it,
                arp_ignore,
                arp_announce,
            }];
        }
    };
    let vip = "198.51.100.10";
    let told = [(
        "arp",
        Warning,
        "net.ipv4.conf.eth0.arp_ignore=1 net.ipv4.conf.eth0.arp_announce=2",
    )];
    check("kept quiet", bound(vip, None, 1, 2), &[]);
    check("answered for", bound(vip, None, 0, 2), &told);
    check("told of", bound(vip, None, 1, 1), &told);
    check("IPv6 knows no ARP", bound("2001:db8::10", None, 0, 0), &[]);
    let moved = "`ip address add 198.51.100.10/32 dev lo && ip address flush dev eth0 to \
                 198.51.100.10/32`";
    check(
        "on the interface itself, where no setting helps",
        bound(vip, Some(Placed::ByOthers), 1, 2),
        &[("arp", Warning, moved)],
    );
    check(
        "there by the configuration",
        bound(vip, Some(Placed::Configured), 1, 2),
        &[("arp", Warning, "without `interface` in [service.bind]")],
    );
    check(
        "there, where the service takes it from",
        bound(vip, Some(Placed::Taken), 1, 2),
        &[("arp", Warning, "where [service.vips_from] finds it")],
    );
    check(
        "many by one interface",
        |facts| {
            bound(vip, None, 0, 2)(facts);
            facts.bound = vec![facts.bound[0].clone(); 3];
        },
        &[("arp", Warning, "(the same 2 times more)")],
    );
}

#[test]
fn a_blocked_port_is_told_with_the_rule_that_blocks_it() {
    let blocked = |protocol, number, handle| {
        move |facts: &mut Facts| {
            facts.blocked = vec![Blocked {
                port: Port {
                    protocol,
                    number,
                    senders: [[192, 0, 2, 1].into()].into(),
                },
                chain: "inet filter in".to_owned(),
                handle,
            }];
        }
    };
    check(
        "by a rule",
        blocked("tcp", 179, Some(5)),
        &[(
            "port-blocked",
            Error,
            "dropped by rule 5 of the chain inet filter in: routers cannot connect",
        )],
    );
    check(
        "by the policy",
        blocked("udp", 3784, None),
        &[(
            "port-blocked",
            Error,
            "`nft add rule inet filter in ip saddr 192.0.2.1 udp dport 3784 accept`",
        )],
    );
    check(
        "nobody knows",
        |facts| facts.filter_unread = vec!["`nft` cannot be run".to_owned()],
        &[(
            "filter-unread",
            Info,
            "`nft` cannot be run: whether it drops",
        )],
    );
}

#[test]
fn who_answers_tells_what_is_missing() {
    // How it answers as any host, in the tunnel, for the address, and to a large
    // packet.
    let answers = |mode, [plain, carried, vip, whole]: [bool; 4]| {
        move |facts: &mut Facts| {
            facts.reached = vec![Reached {
                plain,
                carried,
                vip,
                whole,
                ..reached(mode)
            }];
        }
    };
    let (yes, no) = (true, false);
    let port = std::num::NonZeroU16::new(6080).unwrap();
    for (mode, mtu) in [(Mode::Ipip, 1420), (Mode::Gue(port), 1428)] {
        check(
            "no echo, but a server",
            answers(mode, [no, no, yes, yes]),
            &[],
        );
        check(
            "an MTU hole",
            answers(mode, [yes, yes, yes, no]),
            &[(
                "mtu-hole",
                Error,
                &format!("`ip route replace 192.0.2.21 dev eth0 mtu {mtu}`"),
            )],
        );
        let found = check(
            "no address",
            answers(mode, [yes, yes, no, no]),
            &[(
                "vip-missing",
                Error,
                "`ip address add 198.51.100.10/32 dev lo`",
            )],
        );
        assert_eq!(found[0].at, Some([192, 0, 2, 21].into()));
        check(
            "no tunnel",
            answers(mode, [yes, no, no, no]),
            &[("decapsulation-missing", Error, "--from 192.0.2.11/32")],
        );
        check(
            "nothing at all",
            answers(mode, [no, no, no, no]),
            &[("silent", Warning, "ping -c 3 192.0.2.21")],
        );
    }
    check(
        "no address on the link",
        answers(Mode::L2Dsr, [yes, no, no, no]),
        &[("vip-missing", Error, "by l2-dsr")],
    );
    check(
        "a neighbour set by hand",
        |facts| {
            answers(Mode::L2Dsr, [no, no, no, no])(facts);
            facts.fixed = vec![("eth0".to_owned(), [192, 0, 2, 21].into())];
        },
        &[(
            "neighbour-fixed",
            Error,
            "`ip neighbour del 192.0.2.21 dev eth0`",
        )],
    );
    check(
        "one cause for many",
        |facts| {
            answers(Mode::Ipip, [yes, no, no, no])(facts);
            facts.reached = vec![facts.reached[0].clone(); 3];
        },
        &[("decapsulation-missing", Error, "(the same 2 times more)")],
    );
    check(
        "nobody could be asked",
        |facts| facts.not_asked = Some("Operation not permitted".to_owned()),
        &[("not-asked", Warning, "CAP_NET_RAW")],
    );
}
