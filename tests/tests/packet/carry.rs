//! How a packet of any kind is carried to its backend, byte by byte.

use vipd_abi::{BackendKind, Verdict};

use crate::{
    balancer::hex,
    bench::XDP_TX,
    frames::{BACKEND_MAC, LB_MAC, Packet},
    world::{BACKEND, BACKEND6, GUE_PORT, SOURCE, SOURCE6, World},
};

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

/// Expects that the packet is carried so, whatever tags it has.
#[track_caller]
pub fn check(world: &mut World, sentence: &str, packet: &Packet, kind: BackendKind) {
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
pub fn extensions(last: u8) -> Vec<u8> {
    let hop = [43, 0, 1, 4, 0, 0, 0, 0];
    let routing = [60, 0, 4, 0, 0, 0, 0, 0];
    let destination = [last, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    [&hop[..], &routing, &destination].concat()
}
