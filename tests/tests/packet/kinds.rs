//! Every kind of packet: tags, options, extension headers, port ranges and
//! prefixes; what goes out, byte by byte.

use vipd_abi::{BackendKind, Verdict};

use crate::{
    bench::{XDP_DROP, XDP_PASS, address},
    carry::{TAGS, check, extensions},
    frames::{Packet, Payload, ROUTER_MAC, tcp, udp},
    world::{
        CLIENT, CLIENT6, EXITS, IPIP, L2, L2_6, NARROW, PREFIX, PREFIX6, RANGES, RANGES6, SOURCE,
        SOURCE6, VIPS, World,
    },
};

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
                    "a flow label",
                    tcp(CLIENT6, v6).with(|p| p.label = 0x9_8765),
                ),
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
fn a_source_route_that_leads_on_is_not_forwarded() {
    let mut world = World::new();
    let v4 = |options: &[u8]| tcp(CLIENT, IPIP).with(|p| p.options = options.to_vec());
    let v6 = |first: u8, headers: &[u8]| tcp(CLIENT6, L2_6).behind(first, headers);
    let loose = |pointer| [131, 7, pointer, 192, 0, 2, 99, 0];
    let strict = |pointer| [137, 7, pointer, 192, 0, 2, 99, 0];
    let padded = |route: [u8; 8]| [&[1, 1, 1, 130, 5, 0, 0, 0][..], &route, &[0; 4]].concat();
    let far = [&[7, 27][..], &[0; 25], &[1], &loose(4)].concat();
    let routing = |left| [&[6, 2, 4, left, 0, 0, 0, 0][..], &[0; 16]].concat();
    let second = |left| [&[43, 0, 1, 4, 0, 0, 0, 0][..], &routing(left)].concat();
    use Verdict::{Forwarded, SourceRouted};
    let cases = [
        ("a loose one", v4(&loose(4)), SourceRouted),
        ("a strict one", v4(&strict(4)), SourceRouted),
        ("behind other options", v4(&padded(strict(4))), SourceRouted),
        ("at the end of them", v4(&far), SourceRouted),
        (
            "in a first fragment",
            v4(&loose(4)).with(|p| p.fragment = true),
            SourceRouted,
        ),
        (
            "in a later fragment",
            v4(&loose(4)).with(|p| p.offset = 8),
            SourceRouted,
        ),
        ("used up", v4(&loose(8)), Forwarded),
        ("used up, behind others", v4(&padded(strict(8))), Forwarded),
        (
            "behind the end",
            v4(&[&[0; 4], &loose(4)[..]].concat()),
            Forwarded,
        ),
        (
            "in another option",
            v4(&[&[7, 11, 4, 0][..], &loose(4)].concat()),
            Forwarded,
        ),
        (
            "behind an option without a length",
            v4(&[&[7, 0, 0, 0][..], &loose(4)].concat()),
            Forwarded,
        ),
        ("a routing header", v6(43, &routing(1)), SourceRouted),
        ("behind other headers", v6(0, &second(1)), SourceRouted),
        ("a routing header used up", v6(43, &routing(0)), Forwarded),
        ("the same behind others", v6(0, &second(0)), Forwarded),
    ];
    for (sentence, packet, verdict) in cases {
        for tags in TAGS {
            let outcome = world.run(&packet.tagged(tags));
            assert_eq!(outcome.verdict, verdict, "{sentence}");
        }
    }
    let stranger = v4(&loose(4)).with(|p| p.destination = address("198.51.100.99"));
    assert_eq!(world.run(&stranger.frame()).verdict, Verdict::NotVip);
}

#[test]
fn a_frame_from_the_backend_itself_goes_in_a_circle() {
    let mut world = World::new();
    for exit in &EXITS {
        world.leave_by(exit);
        for packet in [
            tcp(CLIENT, L2),
            tcp(CLIENT, L2).with(|p| p.options = vec![1; 4]),
            tcp(CLIENT6, L2_6),
            tcp(CLIENT6, L2_6).behind(0, &extensions(6)),
        ] {
            for tags in TAGS {
                let packet = packet.clone().with(|p| p.from = exit.to);
                let outcome = world.run(&packet.tagged(tags));
                let seen = (outcome.verdict, outcome.action);
                assert_eq!(seen, (Verdict::Loop, XDP_DROP), "{packet:?} {tags:?}");
            }
        }
    }
}

#[test]
fn what_is_for_nobody_here_passes_untouched_with_its_tags() {
    let mut world = World::new();
    for packet in [
        tcp(CLIENT, "198.51.100.99"),
        udp(CLIENT, SOURCE),
        tcp(CLIENT6, "2001:db8:100::99"),
        tcp(CLIENT6, SOURCE6).behind(0, &extensions(6)),
    ] {
        for tags in TAGS {
            let frame = packet.tagged(tags);
            let outcome = world.run(&frame);
            let seen = (outcome.verdict, outcome.action);
            assert_eq!(seen, (Verdict::NotVip, XDP_PASS), "{packet:?} {tags:?}");
            assert_eq!(outcome.frame, frame, "{packet:?} {tags:?}");
        }
    }
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
