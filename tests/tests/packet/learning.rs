//! Slots that learn: what each packet says about its flow, wherever its headers
//! are.

use vipd_abi::Verdict;

use crate::{
    carry::{TAGS, extensions},
    frames::{ACK, FIN, Packet, Payload, SYN, icmp, tcp, udp},
    world::{CLIENT, CLIENT6, CURRENT, LEARNING, LEARNING6, PREVIOUS, World},
};

/// Where the packet goes: to the backend of new flows, or to that of old ones.
fn goes_to(world: &mut World, packet: &Packet, tags: &[(u16, u16)]) -> &'static str {
    let outcome = world.run(&packet.tagged(tags));
    assert_eq!(outcome.verdict, Verdict::Forwarded);
    let at = 14 + 4 * tags.len() + 24;
    let backend: [u8; 16] = outcome.frame[at..at + 16].try_into().expect("sixteen");
    let is = |name: &&&str| crate::bench::address(name) == std::net::IpAddr::from(backend);
    [CURRENT, PREVIOUS].iter().find(is).expect("one of both")
}

/// A segment without data of the flow from that port, plain, behind options or
/// behind extension headers.
fn segments(port: u16, flags: u8) -> [(&'static str, Packet); 4] {
    let bare = |p: &mut Packet| {
        p.flags = flags;
        p.payload = Payload::Tcp {
            ports: (port, 80),
            data: Vec::new(),
        };
    };
    let v4 = tcp(CLIENT, LEARNING).with(bare);
    let v6 = tcp(CLIENT6, LEARNING6).with(bare);
    [
        ("IPv4", v4.clone()),
        ("options", v4.with(|p| p.options = vec![1; 40])),
        ("IPv6", v6.clone()),
        ("extension headers", v6.behind(0, &extensions(6))),
    ]
}

#[test]
fn flags_are_found_behind_tags_options_and_extension_headers() {
    let mut world = World::new();
    let cases = [
        ("a new flow", SYN, CURRENT),
        ("an old flow", ACK, PREVIOUS),
        ("the end of an old flow", FIN, PREVIOUS),
    ];
    let mut port = 1000;
    for (sentence, flags, expected) in cases {
        for shape in 0..4 {
            for tags in TAGS {
                port += 1;
                let mut send = |flags| {
                    let (name, packet) = &segments(port, flags)[shape];
                    (*name, goes_to(&mut world, packet, tags))
                };
                let (name, backend) = send(flags);
                let sentence = format!("{sentence}, {name}, {} tags", tags.len());
                assert_eq!(backend, expected, "{sentence}");
                // An end is not remembered, everything else is.
                let expected = if flags == FIN { CURRENT } else { expected };
                assert_eq!(send(SYN).1, expected, "a SYN after {sentence}");
                assert_eq!(send(ACK).1, expected, "an ACK after {sentence}");
            }
        }
    }
}

#[test]
fn an_error_teaches_nothing_about_its_flow() {
    let mut world = World::new();
    for (port, (vip, client, kind)) in
        (1000..).zip([(LEARNING, CLIENT, 3), (LEARNING6, CLIENT6, 1)])
    {
        let ports = (80, port);
        let back = tcp(vip, client).with(|p| {
            p.payload = Payload::Tcp {
                ports,
                data: Vec::new(),
            };
        });
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], &back.ip()[..]].concat();
        let error = icmp(client, vip, &message);
        assert_eq!(
            goes_to(&mut world, &error, &[]),
            PREVIOUS,
            "{vip}: not known"
        );
        let shape = if vip == LEARNING { 0 } else { 2 };
        let mut send = |flags| goes_to(&mut world, &segments(port, flags)[shape].1, &[]);
        assert_eq!(send(SYN), CURRENT, "{vip}: still a new flow");
        assert_eq!(send(FIN), CURRENT, "{vip}: its end");
        assert_eq!(goes_to(&mut world, &error, &[]), CURRENT, "{vip}: known");
    }
}

#[test]
fn datagrams_belong_to_flows_that_go_on() {
    let mut world = World::new();
    for packet in [udp(CLIENT, LEARNING), udp(CLIENT6, LEARNING6)] {
        for tags in TAGS {
            assert_eq!(goes_to(&mut world, &packet, tags), PREVIOUS, "{tags:?}");
        }
    }
}
