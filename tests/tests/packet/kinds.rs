//! Every kind of packet: tags, options, extension headers, fragments, ICMP,
//! port ranges and prefixes; what goes out, byte by byte.

use vipd_abi::{BackendKind, Verdict};

use crate::{
    balancer::hex,
    bench::{Outcome, XDP_PASS, XDP_TX},
    frames::{BACKEND_MAC, LB_MAC, Packet, Payload, ROUTER_MAC, icmp, tcp, udp},
    world::{
        BACKEND, BACKEND6, GUE_PORT, MANY, NARROW, PREFIX, PREFIX6, RANGES, RANGES6, SOURCE,
        SOURCE6, VIPS, World,
    },
};

const CLIENT: &str = "203.0.113.7";
const CLIENT6: &str = "2001:db8:c::7";
const L2: &str = VIPS[0].1;
const L2_6: &str = VIPS[0].2;
const IPIP: &str = VIPS[1].1;
const IPIP6: &str = VIPS[2].2;

/// The packet as it goes to the backend; the port that a flow has chosen for
/// GUE is taken over from what came out.
fn carried(packet: &Packet, kind: BackendKind, out: &[u8], tags: usize) -> Packet {
    let packet = packet.clone().forwarded();
    let port = |header: usize| {
        let at = 14 + 4 * tags + header;
        let port = u16::from_be_bytes([out[at], out[at + 1]]);
        assert!(port >= 0xc000, "source port {port}");
        port
    };
    match kind {
        BackendKind::L2 => packet.with(|p| (p.from, p.to) = (LB_MAC, BACKEND_MAC)),
        BackendKind::Ipip4 => packet.inside(SOURCE, BACKEND),
        BackendKind::Ipip6 => packet.inside(SOURCE6, BACKEND6),
        BackendKind::Gue4 => packet.inside_udp(SOURCE, BACKEND, port(20), GUE_PORT),
        BackendKind::Gue6 => packet.inside_udp(SOURCE6, BACKEND6, port(40), GUE_PORT),
        BackendKind::Unset => panic!("no backend"),
    }
}

#[track_caller]
fn check(world: &mut World, sentence: &str, packet: &Packet, kind: BackendKind) {
    for tags in [
        &[][..],
        &[(0x8100, 0x2064)],
        &[(0x88a8, 0xe00a), (0x8100, 7)],
    ] {
        let outcome = world.run(&packet.tagged(tags));
        let sentence = format!("{sentence}, {kind:?}, {} tags", tags.len());
        assert_eq!(outcome.verdict, Verdict::Forwarded, "{sentence}");
        assert_eq!(outcome.action, XDP_TX, "{sentence}");
        let expected = carried(packet, kind, &outcome.frame, tags.len()).tagged(tags);
        assert_eq!(hex(&outcome.frame), hex(&expected), "{sentence}");
    }
}

/// Options to hop by hop, a routing header used up, and destination options of
/// sixteen bytes.
fn extensions(last: u8) -> Vec<u8> {
    let hop = [43, 0, 1, 4, 0, 0, 0, 0];
    let routing = [60, 0, 4, 0, 0, 0, 0, 0];
    let destination = [last, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    [&hop[..], &routing, &destination].concat()
}

#[test]
fn odd_packets_are_carried_like_plain_ones_in_every_mode_and_with_their_tags() {
    let mut world = World::new();
    for (kind, v4, v6) in VIPS {
        let mut cases = vec![
            ("TCP", tcp(CLIENT, v4)),
            ("UDP with padding", udp(CLIENT, v4).with(|p| p.padding = 9)),
            ("options", tcp(CLIENT, v4).with(|p| p.options = vec![1; 40])),
            ("TOS and ECN", udp(CLIENT, v4).with(|p| p.tos = 0xbb)),
            ("the last but one hop", tcp(CLIENT, v4).with(|p| p.ttl = 2)),
            (
                "may be fragmented",
                tcp(CLIENT, v4).with(|p| p.may_fragment = true),
            ),
        ];
        if !v6.is_empty() {
            let atomic = [6, 0, 0, 0, 0, 0, 0, 9];
            cases.extend([
                ("TCP over IPv6", tcp(CLIENT6, v6)),
                ("traffic class", udp(CLIENT6, v6).with(|p| p.tos = 0xbb)),
                (
                    "extension headers",
                    tcp(CLIENT6, v6).behind(0, &extensions(6)),
                ),
                (
                    "the same before UDP",
                    udp(CLIENT6, v6).behind(0, &extensions(17)),
                ),
                (
                    "a fragment that is all",
                    tcp(CLIENT6, v6).behind(44, &atomic),
                ),
            ]);
        }
        for (sentence, packet) in cases {
            check(&mut world, sentence, &packet, kind);
        }
    }
}

#[test]
fn ports_are_found_in_ranges_and_addresses_in_prefixes() {
    let mut world = World::new();
    let to = |packet: Packet, port: u16| {
        packet.with(|p| match &mut p.payload {
            Payload::Tcp { ports, .. } | Payload::Udp { ports, .. } => ports.1 = port,
            Payload::Raw(..) => {}
        })
    };
    use BackendKind::{Gue4, Ipip4, Ipip6, L2};
    let cases = [
        ("a port of its own", tcp(CLIENT, RANGES), 80, Some(L2)),
        ("any other port", tcp(CLIENT, RANGES), 81, Some(Ipip6)),
        (
            "the first of a range",
            udp(CLIENT, RANGES),
            1000,
            Some(Ipip4),
        ),
        (
            "the last of a range",
            udp(CLIENT, RANGES),
            1999,
            Some(Ipip4),
        ),
        (
            "the first of a narrower one",
            udp(CLIENT, RANGES),
            1500,
            Some(Gue4),
        ),
        (
            "the last of a narrower one",
            udp(CLIENT, RANGES),
            1509,
            Some(Gue4),
        ),
        ("one behind it", udp(CLIENT, RANGES), 1510, Some(Ipip4)),
        ("one before the range", udp(CLIENT, RANGES), 999, None),
        ("one behind the range", udp(CLIENT, RANGES), 2000, None),
        ("any port, IPv6", tcp(CLIENT6, RANGES6), 65535, Some(Ipip6)),
        ("a protocol without ranges", udp(CLIENT6, RANGES6), 80, None),
        ("a prefix", tcp(CLIENT, PREFIX), 1, Some(Ipip4)),
        (
            "a prefix without the protocol",
            udp(CLIENT, PREFIX),
            53,
            None,
        ),
        ("a narrower prefix", udp(CLIENT, NARROW), 53, Some(Gue4)),
        (
            "what it leaves to the wider",
            tcp(CLIENT, NARROW),
            53,
            Some(Ipip4),
        ),
        ("what both leave", udp(CLIENT, NARROW), 54, None),
        ("an IPv6 prefix", tcp(CLIENT6, PREFIX6), 443, Some(Ipip6)),
        ("its other protocol", udp(CLIENT6, PREFIX6), 443, None),
    ];
    for (sentence, packet, port, kind) in cases {
        let packet = to(packet, port);
        match kind {
            Some(kind) => check(&mut world, sentence, &packet, kind),
            None => {
                let verdict = world.run(&packet.frame()).verdict;
                assert_eq!(verdict, Verdict::UnservedPort, "{sentence}");
            }
        }
    }
    let outside = ["198.51.100.127", "198.51.101.128"].map(|vip| tcp(CLIENT, vip));
    let outside6 = ["2001:db8:201::", "2001:db8:1ff:ffff::"].map(|vip| tcp(CLIENT6, vip));
    for packet in outside.into_iter().chain(outside6) {
        let outcome = world.run(&packet.frame());
        let seen = (outcome.verdict, outcome.action);
        assert_eq!(seen, (Verdict::NotVip, XDP_PASS), "{}", packet.destination);
        assert_eq!(outcome.frame, packet.frame());
    }
}

/// A UDP packet in fragments of 64 bytes.
fn fragments(packet: &Packet, id: u16) -> Vec<Packet> {
    let header = if packet.source.is_ipv4() { 20 } else { 40 };
    let data = packet.ip()[header..].to_vec();
    let pieces: Vec<_> = data.chunks(64).collect();
    let count = pieces.len();
    let fragment = |(i, piece): (usize, &&[u8])| {
        let (more, offset) = (i + 1 < count, u16::try_from(i * 8).expect("few"));
        packet.clone().with(|p| {
            if header == 20 {
                (p.id, p.fragment, p.offset, p.may_fragment) = (id, more, offset, true);
                p.payload = Payload::Raw(17, piece.to_vec());
            } else {
                let [a, b] = (offset << 3 | u16::from(more)).to_be_bytes();
                let [c, d] = id.to_be_bytes();
                p.payload = Payload::Raw(44, [&[17, 0, a, b, 0, 0, c, d], *piece].concat());
            }
        })
    };
    pieces.iter().enumerate().map(fragment).collect()
}

#[test]
fn fragments_go_where_their_first_fragment_went() {
    let mut world = World::new();
    let long = |p: &mut Packet| {
        p.payload = Payload::Udp {
            ports: (40000, 80),
            data: vec![0x5a; 200],
        };
    };
    let mut id = 0;
    for (kind, v4, v6) in VIPS {
        let mut packets = vec![udp(CLIENT, v4).with(long)];
        if !v6.is_empty() {
            packets.push(udp(CLIENT6, v6).with(long));
        }
        for packet in packets {
            id += 1;
            let pieces = fragments(&packet, id);
            let late = world.run(&pieces[1].frame()).verdict;
            assert_eq!(late, Verdict::FragmentWithoutFirst, "{kind:?}: not yet");
            for (i, piece) in pieces.iter().enumerate() {
                check(&mut world, &format!("fragment {i}"), piece, kind);
            }
            let other = &fragments(&packet, id + 1000)[1];
            let other = world.run(&other.frame()).verdict;
            assert_eq!(other, Verdict::FragmentWithoutFirst, "{kind:?}: another id");
        }
    }
    // Of many backends, the one that has the first.
    let packet = udp(CLIENT, MANY).with(long);
    for id in 2000..2100 {
        let backends: Vec<_> = fragments(&packet, id)
            .iter()
            .map(|piece| world.run(&piece.frame()).frame[30..34].to_vec())
            .collect();
        assert!(
            backends.windows(2).all(|pair| pair[0] == pair[1]),
            "{backends:?}"
        );
    }
}

#[test]
fn fragments_of_what_is_no_more_or_without_ports_are_dropped() {
    let mut world = World::new();
    let packet = udp(CLIENT, IPIP).with(|p| {
        p.payload = Payload::Udp {
            ports: (40000, 80),
            data: vec![0; 100],
        };
    });
    let pieces = fragments(&packet, 7);
    assert_eq!(world.run(&pieces[0].frame()).verdict, Verdict::Forwarded);
    let index = BackendKind::Ipip4 as u32;
    let record = world.tables.records.load(index);
    let dead = vipd_abi::BackendRecord {
        state: vipd_abi::BackendRecord::DEAD,
        ..record
    };
    world.tables.records.store(index, dead);
    let verdict = world.run(&pieces[1].frame()).verdict;
    assert_eq!(
        verdict,
        Verdict::FragmentWithoutFirst,
        "the backend has died"
    );

    let tiny = tcp(CLIENT, L2).with(|p| {
        p.fragment = true;
        p.payload = Payload::Raw(6, vec![0; 16]);
    });
    let ping = icmp(CLIENT, L2, &[8, 0, 0, 0, 0, 1, 0, 1]).with(|p| p.fragment = true);
    let cases = [
        (
            "a first fragment without the TCP header",
            tiny,
            Verdict::Malformed,
        ),
        (
            "a first fragment of a ping",
            ping,
            Verdict::UnservedProtocol,
        ),
    ];
    for (sentence, packet, verdict) in cases {
        assert_eq!(world.run(&packet.frame()).verdict, verdict, "{sentence}");
    }
}

#[test]
fn extension_headers_are_looked_through_up_to_a_bound() {
    let mut world = World::new();
    let options = |next: u8, words: u8| {
        let mut header = vec![0; 8 + 8 * usize::from(words)];
        (header[0], header[1]) = (next, words);
        header
    };
    let chain = |count: usize| {
        let mut all = Vec::new();
        (1..count).for_each(|_| all.extend(options(60, 0)));
        [all, options(6, 0)].concat()
    };
    let of = |first, bytes: &[u8]| tcp(CLIENT6, L2_6).behind(first, bytes);
    let cases = [
        ("four headers", of(60, &chain(4)), Verdict::Forwarded),
        ("five headers", of(60, &chain(5)), Verdict::ExtensionHeaders),
        ("256 bytes", of(60, &options(6, 31)), Verdict::Forwarded),
        (
            "264 bytes",
            of(60, &options(6, 32)),
            Verdict::ExtensionHeaders,
        ),
        (
            "a header beyond the packet",
            of(60, &[6, 9]),
            Verdict::Malformed,
        ),
        (
            "nothing behind them",
            of(60, &options(59, 0)),
            Verdict::UnservedProtocol,
        ),
        (
            "encryption",
            of(60, &options(50, 0)),
            Verdict::UnservedProtocol,
        ),
    ];
    for (sentence, packet, verdict) in cases {
        assert_eq!(world.run(&packet.frame()).verdict, verdict, "{sentence}");
    }
}

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
            for tags in [&[][..], &[(0x8100, 100)], &[(0x88a8, 10), (0x8100, 7)]] {
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

#[test]
fn three_tags_are_left_to_the_kernel() {
    let mut world = World::new();
    let frame = tcp(CLIENT, IPIP).tagged(&[(0x88a8, 1), (0x8100, 2), (0x8100, 3)]);
    let outcome = world.run(&frame);
    assert_eq!(
        (outcome.verdict, outcome.action),
        (Verdict::NotIp, XDP_PASS)
    );
    assert_eq!(outcome.frame, frame);
    for to in [ROUTER_MAC, [0; 6]] {
        let frame = tcp(CLIENT, IPIP).with(|p| p.to = to).tagged(&[(0x8100, 2)]);
        assert_eq!(world.run(&frame).verdict, Verdict::OtherHost, "{to:02x?}");
    }
}

#[test]
fn the_verifier_has_much_patience_left() {
    // It gives up after a million instructions, and older ones, which see fewer
    // shortcuts, need more for the same program.
    let verified = World::new().verified();
    println!("{verified} instructions");
    assert!(verified < 300_000, "{verified} instructions");
}
