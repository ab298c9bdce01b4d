//! How a packet of any kind is carried to its backend, byte by byte.

use vipd_abi::BackendKind;

use crate::{
    balancer::hex,
    frames::Packet,
    world::{EXITS, GUE_PORT, World, ends},
};

/// No tag, one, and two, each an EtherType and what follows it.
pub const TAGS: [&[(u16, u16)]; 3] = [&[], &[(0x8100, 0x2064)], &[(0x88a8, 0xe00a), (0x8100, 7)]];

/// The packet as it goes to the backend; the port that a flow has chosen for
/// GUE is taken over from what came out.
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
        BackendKind::Ipip4 | BackendKind::Ipip6 => packet.inside(source, backend),
        BackendKind::Gue4 => in_udp(20),
        BackendKind::Gue6 => in_udp(40),
        BackendKind::Unset => panic!("no backend"),
    }
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
