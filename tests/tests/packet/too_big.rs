//! Packets that do not fit with their outer header: what their senders are
//! told.

use vipd_abi::{BackendKind, Verdict};

use crate::{
    balancer::hex,
    bench::{XDP_DROP, XDP_TX},
    carry::TAGS,
    frames::{LB_MAC, Packet, Payload, ROUTER_MAC, icmp, tcp, udp},
    world::{CLIENT, CLIENT6, EXITS, VIPS, World},
};

/// A TCP packet of so many bytes, IP header included.
fn sized(packet: Packet, length: u32) -> Packet {
    let header = if packet.source.is_ipv4() { 40 } else { 60 };
    packet.with(|p| {
        p.payload = Payload::Tcp {
            ports: (40000, 80),
            data: (0..length - header).map(|i| i as u8).collect(),
        };
    })
}

fn outer(kind: BackendKind) -> u32 {
    match kind {
        BackendKind::L2 | BackendKind::Unset => 0,
        BackendKind::Ipip4 => 20,
        BackendKind::Ipip6 => 40,
        BackendKind::Gue4 => 28,
        BackendKind::Gue6 => 48,
    }
}

/// What its sender should be told.
fn told(packet: &Packet, mtu: u32) -> Packet {
    let (client, vip) = (packet.source.to_string(), packet.destination.to_string());
    let mtu = mtu.to_be_bytes();
    let answer = if packet.source.is_ipv4() {
        let message = [&[3, 4, 0, 0][..], &mtu, &packet.ip()[..128]].concat();
        icmp(&vip, &client, &message).with(|p| p.tos = 0xc0)
    } else {
        let message = [&[2, 0, 0, 0][..], &mtu, &packet.ip()[..256]].concat();
        icmp(&vip, &client, &message)
    };
    answer.with(|p| (p.from, p.to) = (LB_MAC, ROUTER_MAC))
}

#[test]
fn senders_are_told_how_much_fits_byte_by_byte() {
    let mut world = World::new();
    for exit in &EXITS {
        world.leave_by(exit);
        for (kind, v4, v6) in VIPS {
            let mut packets = vec![tcp(CLIENT, v4), tcp(CLIENT, v4).with(|p| p.tos = 0xbb)];
            if !v6.is_empty() {
                packets.push(tcp(CLIENT6, v6));
            }
            for packet in packets {
                for tags in TAGS {
                    // Of two tags the kernel lets one pass for nothing.
                    let second = exit.verdict == Verdict::Redirected && tags.len() == 2;
                    let fits = exit.mtu - outer(kind) - if second { 4 } else { 0 };
                    let sentence = format!("{kind:?}, {exit:?}, {}, {tags:?}", packet.source);
                    let fitting = sized(packet.clone(), fits).tagged(tags);
                    assert_eq!(world.run(&fitting).verdict, exit.verdict, "{sentence}");
                    for length in [fits + 1, 1700, 3000] {
                        let packet = sized(packet.clone(), length);
                        let outcome = world.run(&packet.tagged(tags));
                        let seen = (outcome.verdict, outcome.action);
                        let wanted = (Verdict::TooBigAnswered, XDP_TX);
                        assert_eq!(seen, wanted, "{sentence}, {length}");
                        let expected = told(&packet, fits).tagged(tags);
                        assert_eq!(hex(&outcome.frame), hex(&expected), "{sentence}, {length}");
                    }
                }
                // No more than that per tick.
                std::thread::sleep(std::time::Duration::from_millis(140));
            }
        }
    }
}

#[test]
fn an_ipv6_sender_is_never_told_less_than_every_link_takes() {
    let mut world = World::new();
    let narrow = vipd_abi::Uplink {
        mtu: 1300,
        ..world.tables.uplinks.load(1)
    };
    world.tables.uplinks.store(1, narrow);
    let packet = |length| sized(tcp(CLIENT6, VIPS[2].2), length);
    let fits = world.run(&packet(1260).frame()).verdict;
    assert_eq!(fits, Verdict::Forwarded);
    let outcome = world.run(&packet(1281).frame());
    assert_eq!(outcome.verdict, Verdict::TooBigAnswered);
    assert_eq!(hex(&outcome.frame), hex(&told(&packet(1281), 1280).frame()));
    // Nor told again and again what it does already.
    for length in [1261, 1280] {
        let outcome = world.run(&packet(length).frame());
        let seen = (outcome.verdict, outcome.action);
        assert_eq!(seen, (Verdict::TooBig, XDP_DROP), "{length} bytes");
    }
}

#[test]
fn later_fragments_are_answered_over_ipv6() {
    let mut world = World::new();
    let fragment = |offset: u8, length: usize| {
        let header = [17, 0, 0, offset << 3 | 1, 0, 0, 0, 7];
        let data = [&[0x9c, 0x40, 0, 80][..], &vec![0; length - 12]].concat();
        udp(CLIENT6, VIPS[2].2)
            .with(|p| p.payload = Payload::Raw(44, [&header[..], &data].concat()))
    };
    let first = world.run(&fragment(0, 64).frame()).verdict;
    assert_eq!(first, Verdict::Forwarded, "a first fragment that fits");
    for tags in TAGS {
        let packet = fragment(8, 1440);
        let outcome = world.run(&packet.tagged(tags));
        assert_eq!(outcome.verdict, Verdict::TooBigAnswered);
        let expected = told(&packet, 1460).tagged(tags);
        assert_eq!(hex(&outcome.frame), hex(&expected));
    }
}

#[test]
fn what_may_not_be_answered_is_dropped() {
    let mut world = World::new();
    let (vip, vip6) = (VIPS[1].1, VIPS[2].2);
    let long = |packet: Packet| sized(packet, 1490);
    let error = |kind: u8, vip: &str, client: &str| {
        let back = sized(tcp(vip, client), 1490).with(|p| {
            if let Payload::Tcp { ports, .. } = &mut p.payload {
                *ports = (80, 40000);
            }
        });
        let carried = &back.ip()[..1460];
        icmp(
            client,
            vip,
            &[&[kind, 0, 0, 0, 0, 0, 0, 0], carried].concat(),
        )
    };
    let fragment = |offset: u16, length: usize| {
        udp(CLIENT, vip).with(|p| {
            // It may not be fragmented any further.
            (p.id, p.offset, p.fragment) = (7, offset, true);
            p.payload = Payload::Raw(
                17,
                [&[0x9c, 0x40, 0, 80][..], &vec![0; length - 4]].concat(),
            );
        })
    };
    let first = world.run(&fragment(0, 64).frame()).verdict;
    assert_eq!(first, Verdict::Forwarded, "a first fragment that fits");
    let cases = [
        (
            "may be fragmented",
            long(tcp(CLIENT, vip)).with(|p| p.may_fragment = true),
        ),
        ("an error", error(3, vip, CLIENT)),
        ("an error, IPv6", error(1, vip6, CLIENT6)),
        ("too big, IPv6", error(2, vip6, CLIENT6)),
        ("a later fragment, IPv4", fragment(8, 1464)),
        ("from a group", long(tcp("224.0.0.5", vip))),
        ("from everybody", long(tcp("255.255.255.255", vip))),
        ("from nobody", long(tcp("0.0.0.0", vip))),
        ("from itself", long(tcp("127.0.0.1", vip))),
        ("from a group, IPv6", long(tcp("ff02::1", vip6))),
        ("from nobody, IPv6", long(tcp("::", vip6))),
        ("from itself, IPv6", long(tcp("::1", vip6))),
    ];
    for (sentence, packet) in cases {
        let verdict = world.run(&packet.frame()).verdict;
        assert_eq!(verdict, Verdict::TooBig, "{sentence}");
    }
}

#[test]
fn senders_are_told_only_so_often() {
    for packet in [tcp(CLIENT, VIPS[1].1), tcp(CLIENT6, VIPS[2].2)] {
        let mut world = World::new();
        let source = packet.source;
        let frame = sized(packet, 1490).frame();
        let limited = (0..20_000).find(|_| world.run(&frame).verdict == Verdict::TooBigLimited);
        assert!(
            limited.is_some_and(|after| after >= 100),
            "{source}: {limited:?}"
        );
        let start = std::time::Instant::now();
        while world.run(&frame).verdict != Verdict::TooBigAnswered {
            assert!(start.elapsed().as_secs() < 10, "{source}: and then again");
        }
    }
}
