//! Fragments follow their first one, in every mode.

use vipd::dataplane::clock;
use vipd_abi::{BackendKind, FRAGMENT_BUCKETS, FlowBucket, FlowEntry, Tick, Verdict};
use vipd_control::model::Protocol;

use crate::{
    carry::check,
    frames::{Packet, Payload, icmp, tcp},
    world::{CLIENT, CLIENT6, IPIP, L2, MANY, RANGED, VIPS, World},
};

/// A packet in fragments of 64 bytes.
fn fragments(packet: &Packet, id: u32) -> Vec<Packet> {
    let header = if packet.source.is_ipv4() { 20 } else { 40 };
    let ip = packet.ip();
    let protocol = ip[if header == 20 { 9 } else { 6 }];
    let pieces: Vec<_> = ip[header..].chunks(64).collect();
    let count = pieces.len();
    let fragment = |(i, piece): (usize, &&[u8])| {
        let (more, offset) = (i + 1 < count, u16::try_from(i * 8).expect("few"));
        packet.clone().with(|p| {
            if header == 20 {
                (p.id, p.fragment, p.offset, p.may_fragment) = (id as u16, more, offset, true);
                p.payload = Payload::Raw(protocol, piece.to_vec());
            } else {
                let [a, b] = (offset << 3 | u16::from(more)).to_be_bytes();
                let [c, d, e, f] = id.to_be_bytes();
                let header = [protocol, 0, a, b, c, d, e, f];
                p.payload = Payload::Raw(44, [&header[..], *piece].concat());
            }
        })
    };
    pieces.iter().enumerate().map(fragment).collect()
}

/// A packet of four fragments.
fn long(protocol: Protocol, vip: &str, port: u16) -> Packet {
    let client = if vip.contains(':') { CLIENT6 } else { CLIENT };
    let (ports, data) = ((40000, port), vec![0x5a; 200]);
    tcp(client, vip).with(|p| {
        p.payload = match protocol {
            Protocol::Tcp => Payload::Tcp { ports, data },
            Protocol::Udp => Payload::Udp { ports, data },
        };
    })
}

#[test]
fn fragments_go_where_their_first_fragment_went() {
    let mut world = World::new();
    let mut packets: Vec<_> = RANGED
        .map(|(kind, protocol, vip, port)| (kind, long(protocol, vip, port)))
        .into();
    for (kind, v4, v6) in VIPS {
        let both = [v4, v6].into_iter().filter(|vip| !vip.is_empty());
        packets.extend(both.map(|vip| (kind, long(Protocol::Udp, vip, 80))));
    }
    for (id, (kind, packet)) in (0x1_0001..).zip(packets) {
        let sentence = format!("to {}", packet.destination);
        let pieces = fragments(&packet, id);
        let mut late = |id| world.run(&fragments(&packet, id)[1].frame()).verdict;
        let lost = Verdict::FragmentWithoutFirst;
        assert_eq!(late(id), lost, "{sentence}: not yet");
        for (i, piece) in pieces.iter().enumerate() {
            check(&mut world, &format!("fragment {i} {sentence}"), piece, kind);
        }
        let mut late = |id| world.run(&fragments(&packet, id)[1].frame()).verdict;
        assert_eq!(late(id ^ 0x100), lost, "{sentence}: another id");
        if packet.source.is_ipv6() {
            assert_eq!(late(id ^ 0x1_0000), lost, "{sentence}: another long id");
        }
    }
    // Of many backends, the one that has the first.
    let packet = long(Protocol::Udp, MANY, 80);
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
fn a_first_fragment_is_remembered_for_four_seconds() {
    let mut world = World::new();
    let pieces = fragments(&long(Protocol::Udp, IPIP, 80), 7);
    for (ticks, verdict) in [
        (20, Verdict::Forwarded),
        (40, Verdict::FragmentWithoutFirst),
    ] {
        assert_eq!(world.run(&pieces[0].frame()).verdict, Verdict::Forwarded);
        let (bucket, mut content) = remembered(&world);
        let then = Tick(clock::coarse().0.wrapping_sub(ticks));
        content.0 = content.0.map(|entry| entry.refreshed(then, false));
        world.tables.fragments.store(bucket, content);
        let found = world.run(&pieces[1].frame()).verdict;
        assert_eq!(found, verdict, "after {ticks} ticks");
    }
}

#[test]
fn packets_under_way_are_not_forgotten_for_new_ones() {
    let mut world = World::new();
    let pieces = fragments(&long(Protocol::Udp, IPIP, 80), 7);
    world.run(&pieces[0].frame());
    let (bucket, mut content) = remembered(&world);
    // Of other packets, of the same age.
    content.0 = content.0.map(|_| {
        let one = content.0.iter().find(|entry| **entry != FlowEntry::FREE);
        FlowEntry(one.expect("the packet's own").0 ^ 1 << 63)
    });
    world.tables.fragments.store(bucket, content);
    assert_eq!(world.run(&pieces[0].frame()).verdict, Verdict::Forwarded);
    assert_eq!(
        world.tables.fragments.load(bucket),
        content,
        "all are there"
    );
    let verdict = world.run(&pieces[1].frame()).verdict;
    assert_eq!(verdict, Verdict::FragmentWithoutFirst, "there was no room");
}

/// The bucket of the only fragmented packet there is.
fn remembered(world: &World) -> (u32, FlowBucket) {
    (0..FRAGMENT_BUCKETS)
        .map(|bucket| (bucket, world.tables.fragments.load(bucket)))
        .find(|(_, content)| *content != FlowBucket::default())
        .expect("a first fragment was seen")
}

#[test]
fn fragments_of_what_is_no_more_or_without_ports_are_dropped() {
    let mut world = World::new();
    let pieces = fragments(&long(Protocol::Udp, IPIP, 80), 7);
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
