//! The decapsulator: listed sources only, congestion carried over.

use aya::{
    Ebpf,
    maps::lpm_trie::{Key, LpmTrie},
    programs::{TestRun, TestRunOptions, Xdp},
};
use vipd::dataplane::{object, tables::mapped};

use crate::{
    balancer::hex,
    bench::{XDP_DROP, XDP_PASS, address},
    frames::{BACKEND_MAC, LB_MAC, Packet, Payload, tcp},
};

const CLIENT: &str = "203.0.113.7";
const CLIENT6: &str = "2001:db8:c::7";
const VIP: &str = "198.51.100.10";
const VIP6: &str = "2001:db8:100::10";
const BALANCER: &str = "192.0.2.11";
const BALANCER6: &str = "2001:db8:1::11";
const HERE: &str = "192.0.2.21";
const HERE6: &str = "2001:db8:1::21";

fn load() -> Ebpf {
    assert!(
        !object::DECAP.is_empty(),
        "the packet tier needs `cargo xtask build`"
    );
    let mut ebpf = Ebpf::load(object::DECAP).expect("needs root");
    let map = ebpf
        .map_mut(vipd_abi::map::DECAP_SOURCES)
        .expect("the list");
    let mut trie: LpmTrie<_, [u8; 16], u32> = map.try_into().expect("a trie");
    for (network, length) in [("192.0.2.0", 96 + 24), ("2001:db8:1::", 64)] {
        let key = Key::new(length, mapped(address(network)));
        trie.insert(&key, 1, 0).expect("room");
    }
    let program: &mut Xdp = ebpf
        .program_mut("decap")
        .expect("the program")
        .try_into()
        .expect("XDP");
    program.load().expect("the kernel takes it");
    ebpf
}

fn run(ebpf: &mut Ebpf, frame: &[u8]) -> (u32, Vec<u8>) {
    let program: &mut Xdp = ebpf
        .program_mut("decap")
        .expect("the program")
        .try_into()
        .expect("XDP");
    let mut out = vec![0; 4096];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        })
        .expect("the kernel runs it");
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// What the kernel should be shown.
fn unpacked(packet: &Packet) -> Vec<u8> {
    packet
        .clone()
        .with(|p| {
            p.from = LB_MAC;
            p.to = BACKEND_MAC;
        })
        .frame()
}

#[test]
fn what_listed_balancers_send_is_unpacked_byte_by_byte() {
    let mut ebpf = load();
    let v4 = tcp(CLIENT, VIP);
    let v6 = tcp(CLIENT6, VIP6);
    let cases = [
        ("IPv4 in IPv4", v4.inside(BALANCER, HERE), v4.clone()),
        ("IPv6 in IPv6", v6.inside(BALANCER6, HERE6), v6.clone()),
        ("IPv4 in IPv6", v4.inside(BALANCER6, HERE6), v4.clone()),
        ("IPv6 in IPv4", v6.inside(BALANCER, HERE), v6.clone()),
        (
            "IPv4 in GUE over IPv4",
            v4.inside_udp(BALANCER, HERE, 50000, 6080),
            v4.clone(),
        ),
        (
            "IPv6 in GUE over IPv6",
            v6.inside_udp(BALANCER6, HERE6, 50000, 6080),
            v6.clone(),
        ),
        (
            "IPv4 in GUE over IPv6",
            v4.inside_udp(BALANCER6, HERE6, 50000, 6080),
            v4.clone(),
        ),
    ];
    for (sentence, packet, expected) in cases {
        let (action, frame) = run(&mut ebpf, &packet.frame());
        assert_eq!(action, XDP_PASS, "{sentence}");
        assert_eq!(frame, unpacked(&expected), "{sentence}");
    }
}

#[test]
fn the_outer_headers_congestion_marks_are_carried_into_the_packet() {
    let mut ebpf = load();
    let (v4, v6) = (tcp(CLIENT, VIP), tcp(CLIENT6, VIP6));
    type Tunnel = fn(&Packet) -> Packet;
    let tunnels: [(&Packet, Tunnel); 4] = [
        (&v4, |p| p.inside(BALANCER, HERE)),
        (&v4, |p| p.inside_udp(BALANCER6, HERE6, 50000, 6080)),
        (&v6, |p| p.inside(BALANCER6, HERE6)),
        (&v6, |p| p.inside_udp(BALANCER, HERE, 50000, 6080)),
    ];
    const NOT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    // RFC 6040, figure 4: for each inner mark, what each outer one makes of it.
    let marks = [NOT, ECT_0, ECT_1, CE];
    let table = [
        (NOT, [Some(NOT), Some(NOT), Some(NOT), None]),
        (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
        (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
        (CE, [Some(CE); 4]),
    ];
    for (packet, tunnel) in tunnels {
        for (inner, results) in table {
            for (outer, result) in marks.into_iter().zip(results) {
                let sentence = format!("{outer} over {inner}, {}", packet.source);
                // The rest of the byte is each header's own.
                let packet = packet.clone().with(|p| p.tos = 0xb8 | inner);
                let frame = tunnel(&packet).with(|p| p.tos = 0x20 | outer).frame();
                let (action, out) = run(&mut ebpf, &frame);
                let Some(result) = result else {
                    assert_eq!(action, XDP_DROP, "{sentence}");
                    continue;
                };
                assert_eq!(action, XDP_PASS, "{sentence}");
                let expected = packet.with(|p| p.tos = 0xb8 | result);
                assert_eq!(hex(&out), hex(&unpacked(&expected)), "{sentence}");
            }
        }
    }
}

#[test]
fn what_is_no_tunnel_packet_passes_and_what_is_not_to_be_trusted_is_dropped() {
    let mut ebpf = load();
    let v4 = tcp(CLIENT, VIP);
    let gue = |port| v4.inside_udp(BALANCER, HERE, 50000, port);
    let udp_length = |p: &mut Packet| {
        if let Payload::Raw(_, udp) = &mut p.payload {
            udp[5] += 1;
        }
    };
    let cases = [
        ("UDP to another port", gue(6081), XDP_PASS),
        (
            "a UDP fragment",
            gue(6080).with(|p| p.fragment = true),
            XDP_PASS,
        ),
        (
            "GUE from elsewhere",
            v4.inside_udp("203.0.113.66", HERE, 50000, 6080),
            XDP_DROP,
        ),
        (
            "GUE with another UDP length",
            gue(6080).with(udp_length),
            XDP_DROP,
        ),
        (
            "GUE with nothing inside",
            gue(6080).with(|p| p.payload = Payload::Raw(17, vec![1, 2, 0x17, 0xc0, 0, 8, 0, 0])),
            XDP_DROP,
        ),
        (
            "GUE of another variant",
            gue(6080).with(|p| {
                if let Payload::Raw(_, udp) = &mut p.payload {
                    udp[8] = 0;
                }
            }),
            XDP_DROP,
        ),
        ("plain TCP", tcp(CLIENT, HERE), XDP_PASS),
        ("plain TCP over IPv6", tcp(CLIENT6, HERE6), XDP_PASS),
        (
            "a tunnel from elsewhere",
            v4.inside("203.0.113.66", HERE),
            XDP_DROP,
        ),
        (
            "an IPv6 tunnel from elsewhere",
            v4.inside("2001:db8:66::1", HERE6),
            XDP_DROP,
        ),
        (
            "an outer fragment",
            v4.inside(BALANCER, HERE).with(|p| p.fragment = true),
            XDP_DROP,
        ),
        (
            "an outer header with options",
            v4.inside(BALANCER, HERE)
                .with(|p| p.options = vec![1, 1, 1, 0]),
            XDP_DROP,
        ),
        (
            "nothing inside",
            v4.inside(BALANCER, HERE)
                .with(|p| p.payload = Payload::Raw(4, Vec::new())),
            XDP_DROP,
        ),
        (
            "IPv6 inside that says it is IPv4",
            tcp(CLIENT6, VIP6).inside(BALANCER, HERE).with(|p| {
                if let Payload::Raw(protocol, _) = &mut p.payload {
                    *protocol = 4;
                }
            }),
            XDP_DROP,
        ),
    ];
    for (sentence, packet, expected) in cases {
        let frame = packet.frame();
        let (action, out) = run(&mut ebpf, &frame);
        assert_eq!(action, expected, "{sentence}");
        if expected == XDP_PASS {
            assert_eq!(out, frame, "{sentence}");
        }
    }
}
