//! The balancer: packet in, packet out, verdict.

use ipnet::IpNet;
use vipd::netlink::way::Ways;
use vipd_abi::Verdict;
use vipd_control::model::{Mode, Protocol, Service};

use crate::{
    bench::{
        Bench, ELSEWHERE, INGRESS, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX, address, service, way,
    },
    carry::labelled,
    frames::{BACKEND_MAC, LB_MAC, Packet, Payload, ROUTER_MAC, tcp, udp},
};

const CLIENT: &str = "203.0.113.7";
const CLIENT6: &str = "2001:db8:c::7";
const SOURCE: &str = "192.0.2.11";
const SOURCE6: &str = "2001:db8:1::11";
const BACKEND: &str = "192.0.2.21";
const BACKEND6: &str = "2001:db8:1::21";
const REMOTE: &str = "192.0.2.24";
const LOST: &str = "192.0.2.25";

const IPIP: &str = "198.51.100.10";
const IPIP6: &str = "2001:db8:100::10";
const FOUR_IN_SIX: &str = "198.51.100.11";
const DSR: &str = "198.51.100.12";
const DSR6: &str = "2001:db8:100::12";
const OTHER_IFACE: &str = "198.51.100.13";
const NO_WAY: &str = "198.51.100.14";
const NEVER: &str = "198.51.100.15";

fn bench() -> Bench {
    use Mode::{Ipip, L2Dsr};
    use Protocol::{Tcp, Udp};
    let services = vec![
        service("ipip", IPIP, Tcp, Ipip, &[(BACKEND, 1)]),
        service("ipip-udp", IPIP, Udp, Ipip, &[(BACKEND, 1)]),
        service("ipip6", IPIP6, Tcp, Ipip, &[(BACKEND6, 1)]),
        service("ipip6-udp", IPIP6, Udp, Ipip, &[(BACKEND6, 1)]),
        service("4in6", FOUR_IN_SIX, Tcp, Ipip, &[(BACKEND6, 1)]),
        service("dsr", DSR, Tcp, L2Dsr, &[(BACKEND, 1)]),
        service("dsr6", DSR6, Tcp, L2Dsr, &[(BACKEND6, 1)]),
        service("other", OTHER_IFACE, Tcp, Ipip, &[(REMOTE, 1)]),
        service("lost", NO_WAY, Tcp, Ipip, &[(LOST, 1)]),
        service("never", NEVER, Tcp, Ipip, &[("192.0.2.26", 1)]),
    ];
    let ways = Ways::from([
        (address(BACKEND), way(INGRESS, SOURCE)),
        (address(BACKEND6), way(INGRESS, SOURCE6)),
        (address(REMOTE), way(ELSEWHERE, SOURCE)),
        (address("192.0.2.26"), way(INGRESS, SOURCE)),
    ]);
    Bench::new(services, &ways, |backend| backend != address("192.0.2.26"))
}

/// The packet as it goes to a backend on the same link.
fn rewritten(packet: Packet) -> Packet {
    packet.forwarded().with(|p| {
        p.from = LB_MAC;
        p.to = BACKEND_MAC;
    })
}

#[test]
fn what_is_for_a_service_goes_to_its_backend_byte_by_byte() {
    let mut bench = bench();
    let v4 = || tcp(CLIENT, IPIP);
    let v6 = || tcp(CLIENT6, IPIP6);
    let inside4 = |p: Packet| p.forwarded().inside(SOURCE, BACKEND);
    let inside6 = |p: Packet| p.forwarded().inside(SOURCE6, BACKEND6);
    let cases: Vec<(&str, Packet, Packet)> = vec![
        ("TCP over IPv4 in IPv4", v4(), inside4(v4())),
        (
            "UDP over IPv4 in IPv4",
            udp(CLIENT, IPIP),
            inside4(udp(CLIENT, IPIP)),
        ),
        ("TCP over IPv6 in IPv6", v6(), inside6(v6())),
        (
            "UDP over IPv6 in IPv6",
            udp(CLIENT6, IPIP6),
            inside6(udp(CLIENT6, IPIP6)),
        ),
        (
            "TCP over IPv4 in IPv6",
            tcp(CLIENT, FOUR_IN_SIX),
            inside6(tcp(CLIENT, FOUR_IN_SIX)),
        ),
        (
            "IPv4 on the link",
            tcp(CLIENT, DSR),
            rewritten(tcp(CLIENT, DSR)),
        ),
        (
            "IPv6 on the link",
            tcp(CLIENT6, DSR6),
            rewritten(tcp(CLIENT6, DSR6)),
        ),
        (
            "TOS and ECN are carried outside, over IPv4",
            v4().with(|p| p.tos = 0xb9),
            inside4(v4().with(|p| p.tos = 0xb9)),
        ),
        (
            "traffic class and ECN are carried outside, over IPv6",
            v6().with(|p| p.tos = 0xb9),
            inside6(v6().with(|p| p.tos = 0xb9)),
        ),
        (
            "lengths come from the IP header, not from a padded frame",
            v4().with(|p| p.padding = 6),
            inside4(v4().with(|p| p.padding = 6)),
        ),
        (
            "IPv4 options stay",
            v4().with(|p| p.options = vec![1, 1, 1, 0]),
            inside4(v4().with(|p| p.options = vec![1, 1, 1, 0])),
        ),
        (
            "the last hop but one, when a checksum's carry wraps",
            v4().with(|p| p.ttl = 2),
            inside4(v4().with(|p| p.ttl = 2)),
        ),
        (
            "as much as the interface takes",
            v4().with(|p| payload(p, 1600 - 20 - 20 - 20)),
            inside4(v4().with(|p| payload(p, 1600 - 20 - 20 - 20))),
        ),
    ];
    for (sentence, packet, expected) in cases {
        let outcome = bench.run(&packet.frame());
        assert_eq!(outcome.verdict, Verdict::Forwarded, "{sentence}");
        assert_eq!(outcome.action, XDP_TX, "{sentence}");
        let expected = labelled(expected, &outcome.frame, 0);
        assert_eq!(hex(&outcome.frame), hex(&expected.frame()), "{sentence}");
    }
}

#[test]
fn another_interface_is_reached_by_redirection() {
    let mut bench = bench();
    let packet = tcp(CLIENT, OTHER_IFACE);
    let outcome = bench.run(&packet.frame());
    assert_eq!(
        (outcome.verdict, outcome.action),
        (Verdict::Redirected, XDP_REDIRECT)
    );
    let expected = packet.forwarded().inside(SOURCE, REMOTE);
    assert_eq!(hex(&outcome.frame), hex(&expected.frame()));
}

#[test]
fn every_checksum_survives_the_hop() {
    let mut bench = bench();
    for ttl in 2..=255 {
        for port in [1, 255, 40000, 65535] {
            let packet = tcp(CLIENT, DSR).with(|p| {
                p.ttl = ttl;
                p.payload = Payload::Tcp {
                    ports: (port, 80),
                    data: vec![0; usize::from(ttl)],
                };
            });
            let outcome = bench.run(&packet.frame());
            let expected = rewritten(packet).frame();
            assert_eq!(
                hex(&outcome.frame),
                hex(&expected),
                "TTL {ttl}, port {port}"
            );
        }
    }
}

#[test]
fn what_is_for_nobody_here_passes_untouched() {
    let mut bench = bench();
    let strangers = tcp(CLIENT, "198.51.100.99");
    let cases: Vec<(&str, Vec<u8>, Verdict)> = vec![
        ("another address", strangers.frame(), Verdict::NotVip),
        (
            "another IPv6 address",
            tcp(CLIENT6, "2001:db8:100::99").frame(),
            Verdict::NotVip,
        ),
        (
            "an IPv6 packet to the mapped form of an IPv4 VIP",
            tcp(CLIENT6, &format!("::ffff:{IPIP}")).frame(),
            Verdict::NotVip,
        ),
        (
            "a fragment for another address",
            strangers.clone().with(|p| p.fragment = true).frame(),
            Verdict::NotVip,
        ),
        (
            "ICMP for another address",
            strangers
                .clone()
                .with(|p| p.payload = Payload::Raw(1, vec![8; 16]))
                .frame(),
            Verdict::NotVip,
        ),
        ("ARP", arp(), Verdict::NotIp),
        ("a runt", vec![0; 14], Verdict::NotIp),
        (
            "a frame for another host, flooded by the switch",
            tcp(CLIENT, IPIP).with(|p| p.to = ROUTER_MAC).frame(),
            Verdict::OtherHost,
        ),
    ];
    for (sentence, frame, verdict) in cases {
        let outcome = bench.run(&frame);
        assert_eq!(
            (outcome.verdict, outcome.action),
            (verdict, XDP_PASS),
            "{sentence}"
        );
        assert_eq!(hex(&outcome.frame), hex(&frame), "{sentence}");
    }
}

#[test]
fn a_prefix_is_found_where_the_other_family_has_none() {
    let (v4, v6) = (
        tcp(CLIENT, "198.51.100.130"),
        tcp(CLIENT6, "2001:db8:200:7::99"),
    );
    let cases = [
        ("198.51.100.128/25", BACKEND, SOURCE, &v4, &v6),
        ("2001:db8:200::/48", BACKEND6, SOURCE6, &v6, &v4),
    ];
    for (prefix, backend, source, inside, stranger) in cases {
        let service = service("web", IPIP, Protocol::Tcp, Mode::Ipip, &[(backend, 1)]);
        let mut service = Service::clone(&service);
        service.vips = vec![prefix.parse::<IpNet>().expect("a prefix").into()];
        let ways = Ways::from([(address(backend), way(INGRESS, source))]);
        let mut bench = Bench::new(vec![service.into()], &ways, |_| true);
        let verdict = bench.run(&inside.frame()).verdict;
        assert_eq!(verdict, Verdict::Forwarded, "{prefix}");
        let verdict = bench.run(&stranger.frame()).verdict;
        assert_eq!(verdict, Verdict::NotVip, "{prefix}");
    }
}

#[test]
fn what_no_backend_can_have_is_dropped_with_its_reason() {
    use Verdict::{
        FragmentWithoutFirst, Loop, Malformed, NoBackend, NoNextHop, TooBig, TtlExpired,
        UnservedPort, UnservedProtocol,
    };
    let mut bench = bench();
    let v4 = || tcp(CLIENT, IPIP);
    let v6 = || tcp(CLIENT6, IPIP6);
    let dsr = || tcp(CLIENT, DSR);
    let port = |p: &mut Packet| {
        p.payload = Payload::Tcp {
            ports: (40000, 81),
            data: Vec::new(),
        };
    };
    let edited = |packet: Packet, at: usize, byte: u8| {
        let mut frame = packet.frame();
        frame[at] = byte;
        frame
    };
    let longer_than_its_packet = {
        let mut frame = edited(v4(), 14, 0x46);
        frame[16..18].copy_from_slice(&20_u16.to_be_bytes());
        frame
    };
    let cut = |packet: Packet, length: usize| packet.frame()[..length].to_vec();
    let cases: Vec<(&str, Vec<u8>, Verdict)> = vec![
        (
            "a port nobody serves",
            v4().with(port).frame(),
            UnservedPort,
        ),
        (
            "a port nobody serves, IPv6",
            v6().with(port).frame(),
            UnservedPort,
        ),
        ("the other protocol", udp(CLIENT, DSR).frame(), UnservedPort),
        (
            "ICMP",
            v4().with(|p| p.payload = Payload::Raw(1, vec![8; 16]))
                .frame(),
            UnservedProtocol,
        ),
        (
            "a tunnel packet sent to a VIP",
            v4().with(|p| p.payload = Payload::Raw(4, tcp(CLIENT, DSR).frame()))
                .frame(),
            UnservedProtocol,
        ),
        (
            "a later fragment",
            v4().with(|p| p.offset = 5).frame(),
            FragmentWithoutFirst,
        ),
        (
            "an IPv6 fragment",
            v6().with(|p| p.payload = Payload::Raw(44, vec![6, 0, 1, 0, 0, 0, 0, 9]))
                .frame(),
            FragmentWithoutFirst,
        ),
        ("a wrong version", edited(v4(), 14, 0x55), Malformed),
        (
            "a header length below 20",
            edited(v4(), 14, 0x44),
            Malformed,
        ),
        (
            "a header length beyond the packet",
            longer_than_its_packet,
            Malformed,
        ),
        (
            "a total length beyond the frame",
            edited(v4(), 16, 9),
            Malformed,
        ),
        ("a wrong version, IPv6", edited(v6(), 14, 0x50), Malformed),
        (
            "a payload length beyond the frame",
            edited(v6(), 18, 9),
            Malformed,
        ),
        (
            "a frame cut inside the TCP header",
            cut(v4(), 14 + 20 + 10),
            Malformed,
        ),
        (
            "a packet that ends inside the TCP header",
            v4().with(|p| p.payload = Payload::Raw(6, vec![0x9c, 0x40, 0, 80, 0, 0]))
                .frame(),
            Malformed,
        ),
        (
            "a packet that ends inside the UDP header",
            udp(CLIENT, IPIP)
                .with(|p| p.payload = Payload::Raw(17, vec![0; 7]))
                .frame(),
            Malformed,
        ),
        ("the last hop", v4().with(|p| p.ttl = 1).frame(), TtlExpired),
        ("no hop left", v4().with(|p| p.ttl = 0).frame(), TtlExpired),
        (
            "the last hop, IPv6",
            v6().with(|p| p.ttl = 1).frame(),
            TtlExpired,
        ),
        (
            "the last hop, on the link",
            dsr().with(|p| p.ttl = 1).frame(),
            TtlExpired,
        ),
        (
            "a frame that its own backend sends back",
            dsr().with(|p| p.from = BACKEND_MAC).frame(),
            Loop,
        ),
        (
            "no backend was ever up",
            tcp(CLIENT, NEVER).frame(),
            NoBackend,
        ),
        (
            "the next hop is not known",
            tcp(CLIENT, NO_WAY).frame(),
            NoNextHop,
        ),
        (
            "one byte more than the interface takes",
            v4().with(|p| {
                p.may_fragment = true;
                payload(p, 1600 - 20 - 20 - 20 + 1);
            })
            .frame(),
            TooBig,
        ),
    ];
    for (sentence, frame, verdict) in cases {
        let outcome = bench.run(&frame);
        assert_eq!(
            (outcome.verdict, outcome.action),
            (verdict, XDP_DROP),
            "{sentence}"
        );
    }
}

#[test]
fn a_truncated_packet_is_never_forwarded_and_never_an_inconsistency() {
    let mut bench = bench();
    for packet in [
        tcp(CLIENT, IPIP),
        udp(CLIENT, IPIP),
        tcp(CLIENT6, IPIP6),
        tcp(CLIENT, DSR),
    ] {
        let frame = packet.frame();
        for length in 14..frame.len() {
            let outcome = bench.run(&frame[..length]);
            let fine = [Verdict::Malformed, Verdict::NotVip, Verdict::NotIp];
            assert!(
                fine.contains(&outcome.verdict),
                "{length} bytes: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_backend_is_counted_for_what_it_gets_and_only_that() {
    let mut bench = bench();
    let frame = tcp(CLIENT, IPIP).frame();
    for _ in 0..3 {
        bench.run(&frame);
    }
    bench.run(&tcp(CLIENT, IPIP).with(|p| p.ttl = 1).frame());
    let counter = bench.counter("ipip", BACKEND);
    assert_eq!(
        (counter.packets, counter.bytes),
        (3, 3 * frame.len() as u64)
    );
    assert_eq!(bench.counter("dsr", BACKEND).packets, 0);
}

#[test]
fn a_virtual_address_is_acknowledged_when_packets_can_be_forwarded() {
    let bench = bench();
    for (vip, acknowledged) in [(IPIP, true), (DSR6, true), (NO_WAY, false), (NEVER, false)] {
        let found = bench.applied.vips.contains_key(&address(vip).into());
        assert_eq!(found, acknowledged, "{vip}: {:#?}", bench.applied);
    }
}

/// Sets the TCP payload to so many bytes.
fn payload(packet: &mut Packet, length: usize) {
    packet.payload = Payload::Tcp {
        ports: (40000, 80),
        data: vec![0x5a; length],
    };
}

fn arp() -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&[8, 6]);
    frame
}

/// Bytes in lines of sixteen, so that a difference can be read.
pub fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).map(|line| {
        let words: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}
