//! How a packet of any kind is carried to its backend, byte by byte.

use vipd_abi::BackendKind;

use crate::{
    balancer::hex,
    frames::{Packet, Payload},
    world::{EXITS, GUE_PORT, World, ends},
};

/// No tag, one, and two, each an EtherType and what follows it.
pub const TAGS: [&[(u16, u16)]; 3] = [&[], &[(0x8100, 0x2064)], &[(0x88a8, 0xe00a), (0x8100, 7)]];

/// The packet as it goes to the backend; what a flow has chosen is taken over
/// from what came out: the port for GUE, and the flow label over IPv6.
fn carried(packet: &Packet, kind: BackendKind, out: &[u8], tags: usize) -> Packet {
    let packet = packet.clone().forwarded();
    let (source, backend) = ends(kind);
    let in_udp = |header: usize| {
        let at = 14 + 4 * tags + header;
        let port = u16::from_be_bytes([out[at], out[at + 1]]);
        assert!(port >= 0xc000, "source port {port}");
        packet.inside_udp(source, backend, port, GUE_PORT)
    };
    match kind {
        BackendKind::L2 => packet,
        BackendKind::Ipip4 => packet.inside(source, backend),
        BackendKind::Ipip6 => labelled(packet.inside(source, backend), out, tags),
        BackendKind::Gue4 => in_udp(20),
        BackendKind::Gue6 => labelled(in_udp(40), out, tags),
        BackendKind::Unset => panic!("no backend"),
    }
}

/// A packet in a tunnel over IPv6, with the flow label that came out; any other
/// packet as it is.
pub fn labelled(packet: Packet, out: &[u8], tags: usize) -> Packet {
    let is_tunnel = matches!(packet.payload, Payload::Raw(4 | 17 | 41, _));
    if packet.source.is_ipv4() || !is_tunnel {
        return packet;
    }
    let at = 14 + 4 * tags;
    let word = u32::from_be_bytes(out[at..at + 4].try_into().expect("four"));
    let label = word & 0xf_ffff;
    assert_ne!(label, 0, "every flow has one");
    packet.with(|p| p.label = label)
}

/// Expects that the packet is carried so by every exit, whatever tags it has.
#[track_caller]
pub fn check(world: &mut World, sentence: &str, packet: &Packet, kind: BackendKind) {
    for exit in &EXITS {
        world.leave_by(exit);
        for tags in TAGS {
            let outcome = world.run(&packet.tagged(tags));
            let sentence = format!(
                "{sentence}, {kind:?}, {:?}, {} tags",
                exit.verdict,
                tags.len()
            );
            let seen = (outcome.verdict, outcome.action);
            assert_eq!(seen, (exit.verdict, exit.action), "{sentence}");
            let expected = carried(packet, kind, &outcome.frame, tags.len())
                .with(|p| (p.from, p.to) = (exit.from, exit.to));
            assert_eq!(
                hex(&outcome.frame),
                hex(&expected.tagged(tags)),
                "{sentence}"
            );
        }
    }
    world.leave_by(&EXITS[0]);
}

/// Options to hop by hop, a routing header used up, and destination options of
/// sixteen bytes.
pub fn extensions(last: u8) -> Vec<u8> {
    let hop = [43, 0, 1, 4, 0, 0, 0, 0];
    let routing = [60, 0, 4, 0, 0, 0, 0, 0];
    let destination = [last, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    [&hop[..], &routing, &destination].concat()
}
