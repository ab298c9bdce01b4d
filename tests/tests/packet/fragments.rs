//! Fragments follow their first one, in every mode.

use vipd_abi::{BackendKind, Verdict};

use crate::{
    carry::check,
    frames::{Packet, Payload, icmp, tcp, udp},
    world::{CLIENT, CLIENT6, IPIP, L2, MANY, VIPS, World},
};

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
