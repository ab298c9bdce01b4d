//! ICMP: errors follow their flow, echo requests are answered.

use vipd_abi::Verdict;
use vipd_control::model::Protocol;

use crate::{
    balancer::hex,
    bench::{Outcome, XDP_TX},
    carry::{TAGS, check, extensions},
    frames::{LB_MAC, Packet, Payload, ROUTER_MAC, icmp, tcp},
    world::{
        CLIENT, CLIENT6, IPIP, IPIP6, L2, L2_6, MANY, PREFIX, PREFIX6, RANGED, SOURCE, VIPS, World,
    },
};

#[test]
fn errors_go_to_the_backend_of_the_flow_that_they_are_about() {
    let mut world = World::new();
    const ROUTER: &str = "203.0.113.254";
    const ROUTER6: &str = "2001:db8:c::fe";
    // What a backend has sent to the client, as far as the error carries it.
    let answer = |vip: &str, client: &str| {
        tcp(vip, client).with(|p| {
            p.payload = Payload::Tcp {
                ports: (80, 40000),
                data: Vec::new(),
            };
        })
    };
    let error = |kind: u8, router: &str, vip: &str, carried: &[u8]| {
        icmp(
            router,
            vip,
            &[&[kind, 0, 0, 0, 0, 0, 0, 0], carried].concat(),
        )
    };
    let options = vec![1; 8];
    for (kind, v4, v6) in VIPS {
        let plain = answer(v4, CLIENT).ip();
        let with = answer(v4, CLIENT)
            .with(|p| p.options = options.clone())
            .ip();
        let mut cases = vec![
            (
                "unreachable, eight bytes",
                error(3, ROUTER, v4, &plain[..28]),
            ),
            ("time exceeded, all of it", error(11, ROUTER, v4, &plain)),
            (
                "parameter problem, options inside",
                error(12, ROUTER, v4, &with[..36]),
            ),
            (
                "options outside",
                error(3, ROUTER, v4, &plain).with(|p| p.options = vec![1; 4]),
            ),
        ];
        if !v6.is_empty() {
            let plain = answer(v6, CLIENT6).ip();
            let behind = answer(v6, CLIENT6).behind(0, &extensions(6)).ip();
            cases.extend([
                ("unreachable, IPv6", error(1, ROUTER6, v6, &plain[..48])),
                ("too big, IPv6", error(2, ROUTER6, v6, &plain)),
                ("time exceeded, IPv6", error(3, ROUTER6, v6, &plain)),
                (
                    "extension headers inside",
                    error(4, ROUTER6, v6, &behind[..80]),
                ),
                (
                    "extension headers outside",
                    error(4, ROUTER6, v6, &plain).behind(0, &extensions(58)),
                ),
            ]);
        }
        for (sentence, packet) in cases {
            check(&mut world, sentence, &packet, kind);
        }
    }
    for (kind, protocol, vip, port) in RANGED {
        let (router, client, error_type) = if vip.contains(':') {
            (ROUTER6, CLIENT6, 1)
        } else {
            (ROUTER, CLIENT, 3)
        };
        let (ports, data) = ((port, 40000), Vec::new());
        let back = tcp(vip, client).with(|p| {
            p.payload = match protocol {
                Protocol::Tcp => Payload::Tcp { ports, data },
                Protocol::Udp => Payload::Udp { ports, data },
            };
        });
        let sentence = format!("about {protocol:?} {port} of {vip}");
        let packet = error(error_type, router, vip, &back.ip());
        check(&mut world, &sentence, &packet, kind);
    }
    // Of many backends, the one that has the flow.
    for port in 1000..1100 {
        let flow = tcp(CLIENT, MANY).with(|p| {
            p.payload = Payload::Tcp {
                ports: (port, 80),
                data: Vec::new(),
            };
        });
        let back = tcp(MANY, CLIENT).with(|p| {
            p.payload = Payload::Tcp {
                ports: (80, port),
                data: Vec::new(),
            };
        });
        let flow = world.run(&flow.frame());
        let about = world.run(&error(3, ROUTER, MANY, &back.ip()[..28]).frame());
        let backend = |outcome: &Outcome| outcome.frame[30..34].to_vec();
        assert_eq!(backend(&flow), backend(&about), "port {port}");
    }

    let back = answer(IPIP, CLIENT).ip();
    let back6 = answer(IPIP6, CLIENT6).ip();
    let later = answer(IPIP, CLIENT).with(|p| p.offset = 4).ip();
    let port = tcp(IPIP, CLIENT).ip();
    let ping = icmp(IPIP, CLIENT, &[0; 8]).ip();
    let five = [
        &[60, 0, 0, 0, 0, 0, 0, 0].repeat(4)[..],
        &[6, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let five = answer(IPIP6, CLIENT6).behind(60, &five).ip();
    let cases = [
        ("about another address", error(3, ROUTER, L2, &back)),
        (
            "about another IPv6 address",
            error(1, ROUTER6, L2_6, &back6),
        ),
        (
            "seven bytes of layer 4",
            error(3, ROUTER, IPIP, &back[..27]),
        ),
        ("seven bytes, IPv6", error(1, ROUTER6, IPIP6, &back6[..47])),
        ("nothing inside", error(3, ROUTER, IPIP, &[])),
        ("about a later fragment", error(3, ROUTER, IPIP, &later)),
        ("about a port nobody serves", error(3, ROUTER, IPIP, &port)),
        ("about a ping", error(3, ROUTER, IPIP, &ping)),
        (
            "too many extension headers inside",
            error(1, ROUTER6, IPIP6, &five),
        ),
    ];
    for (sentence, packet) in cases {
        let verdict = world.run(&packet.frame()).verdict;
        assert_eq!(verdict, Verdict::IcmpUnrelated, "{sentence}");
    }
    let cases = [
        ("a redirect", error(5, ROUTER, IPIP, &back)),
        (
            "a neighbour solicitation",
            error(135, ROUTER6, IPIP6, &back6),
        ),
        ("an answer to a ping", error(0, ROUTER, IPIP, &back)),
    ];
    for (sentence, packet) in cases {
        let verdict = world.run(&packet.frame()).verdict;
        assert_eq!(verdict, Verdict::UnservedProtocol, "{sentence}");
    }
}

#[test]
fn echo_requests_for_virtual_addresses_are_answered() {
    let mut world = World::new();
    let ping = |kind: u8, from: &str, to: &str| {
        let message = [&[kind, 0, 0, 0, 0x12, 0x34, 0, 7], &b"are you there?"[..]].concat();
        icmp(from, to, &message)
    };
    let cases = [
        ("an address", ping(8, CLIENT, IPIP), ping(0, IPIP, CLIENT)),
        (
            "in a prefix",
            ping(8, CLIENT, PREFIX),
            ping(0, PREFIX, CLIENT),
        ),
        ("IPv6", ping(128, CLIENT6, IPIP6), ping(129, IPIP6, CLIENT6)),
        (
            "in an IPv6 prefix",
            ping(128, CLIENT6, PREFIX6),
            ping(129, PREFIX6, CLIENT6),
        ),
    ];
    for (sentence, request, answer) in cases {
        for ttl in [1, 64, 255] {
            for tags in TAGS {
                let request = request.clone().with(|p| (p.ttl, p.tos) = (ttl, 0x20));
                let outcome = world.run(&request.tagged(tags));
                let seen = (outcome.verdict, outcome.action);
                assert_eq!(seen, (Verdict::EchoAnswered, XDP_TX), "{sentence}");
                let answer = answer.clone().with(|p| {
                    (p.from, p.to, p.tos) = (LB_MAC, ROUTER_MAC, 0x20);
                });
                assert_eq!(hex(&outcome.frame), hex(&answer.tagged(tags)), "{sentence}");
            }
        }
    }
    use Verdict::{NotVip, OtherHost, UnservedProtocol};
    let cases = [
        ("for the host itself", ping(8, CLIENT, SOURCE), NotVip),
        (
            "from everybody",
            ping(8, "255.255.255.255", IPIP),
            UnservedProtocol,
        ),
        (
            "from a group",
            ping(128, "ff02::1", IPIP6),
            UnservedProtocol,
        ),
        ("from nobody", ping(128, "::", IPIP6), UnservedProtocol),
        (
            "from nobody, IPv4",
            ping(8, "0.0.0.1", IPIP),
            UnservedProtocol,
        ),
        ("from itself", ping(8, "127.0.0.1", IPIP), UnservedProtocol),
        (
            "from itself, IPv6",
            ping(128, "::1", IPIP6),
            UnservedProtocol,
        ),
        (
            "in a frame for another host",
            ping(8, CLIENT, IPIP).with(|p| p.to = ROUTER_MAC),
            OtherHost,
        ),
        (
            "with options",
            ping(8, CLIENT, IPIP).with(|p| p.options = vec![1; 4]),
            UnservedProtocol,
        ),
        (
            "ICMPv6 in IPv4",
            with_protocol(ping(8, CLIENT, IPIP), 58),
            UnservedProtocol,
        ),
    ];
    for (sentence, packet, verdict) in cases {
        assert_eq!(world.run(&packet.frame()).verdict, verdict, "{sentence}");
    }
}

fn with_protocol(packet: Packet, number: u8) -> Packet {
    packet.with(|p| {
        if let Payload::Raw(protocol, _) = &mut p.payload {
            *protocol = number;
        }
    })
}
