//! Every message survives the way through bytes and back, and no bytes whatever
//! make the decoder panic.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Bytes, BytesMut};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use vipd_bgp::wire::{
    AsPath, Attributes, Capability, Code, Community, Dialect, ExtendedCommunity, Family,
    HEADER_LEN, LargeCommunity, MAX_RESTART_TIME, Message, MpReach, MpUnreach, Notification, Open,
    Origin, RestartCapability, RestartFamily, RouteRefresh, Segment, SegmentKind, Update,
    keepalive,
};

const WIDE: Dialect = Dialect {
    four_octet_as: true,
    internal: true,
    extended_messages: false,
};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_open_comes_back_as_it_was(open in opens()) {
        prop_assert_eq!(decode(&open.emit(), WIDE), Message::Open(open));
    }

    #[test]
    fn an_update_comes_back_as_it_was_without_faults(update in updates(any::<u32>().boxed())) {
        prop_assert_eq!(decode(&update.emit(WIDE), WIDE), Message::Update(update, vec![]));
    }

    #[test]
    fn an_update_of_two_octet_ases_comes_back_as_it_was(
        update in updates(any::<u16>().prop_map(u32::from).boxed()),
    ) {
        let narrow = Dialect { four_octet_as: false, ..WIDE };
        prop_assert_eq!(decode(&update.emit(narrow), narrow), Message::Update(update, vec![]));
    }

    #[test]
    fn a_notification_comes_back_as_it_was(
        code: u8, subcode: u8, data in vec(any::<u8>(), 0..300),
    ) {
        let notification = Notification::new(Code { code, subcode }, data);
        prop_assert!(!notification.to_string().is_empty());
        prop_assert_eq!(decode(&notification.emit(), WIDE), Message::Notification(notification));
    }

    #[test]
    fn a_reason_comes_out_of_a_hard_reset_as_it_was(
        code: u8, subcode: u8, data in vec(any::<u8>(), 0..300),
    ) {
        let reason = Notification::new(Code { code, subcode }, data);
        let reset = Notification::hard_reset(&reason);
        prop_assert!(!reset.to_string().is_empty());
        prop_assert_eq!(reset.reset(), Some(reason));
    }

    #[test]
    fn a_shutdown_text_comes_back_cut_between_characters(text in "\\PC{0,200}") {
        let sent = Notification::with_text(Code::ADMIN_SHUTDOWN, Some(&text));
        let received = sent.text().unwrap_or_default();
        prop_assert!(text.starts_with(&received));
        prop_assert!(received.len() <= 255 && received.len() + 3 >= text.len().min(255));
    }

    #[test]
    fn a_route_refresh_comes_back_as_it_was(afi: u16, subtype: u8, safi: u8) {
        let refresh = RouteRefresh { afi, subtype, safi };
        prop_assert_eq!(decode(&refresh.emit(), WIDE), Message::RouteRefresh(refresh));
    }

    #[test]
    fn no_body_of_any_type_makes_the_decoder_panic(
        kind in 0_u8..8, body in vec(any::<u8>(), 0..400), internal: bool, four_octet_as: bool,
        extended_messages: bool,
    ) {
        let _ = take(&framed(kind, &body), Dialect { four_octet_as, internal, extended_messages });
    }

    #[test]
    fn no_flipped_octet_of_a_good_message_makes_the_decoder_panic(
        update in updates(any::<u32>().boxed()), open in opens(), at: prop::sample::Index, octet: u8,
    ) {
        for message in [update.emit(WIDE), open.emit()] {
            let mut bytes = message.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = octet;
            let _ = take(&bytes, WIDE);
        }
    }
}

#[test]
fn no_message_is_read_before_it_is_whole() {
    for message in samples() {
        for len in 0..message.len() {
            assert_eq!(
                take(&message[..len], WIDE),
                Ok(None),
                "{len} octets of {message:?}"
            );
        }
        assert!(matches!(take(&message, WIDE), Ok(Some(_))), "{message:?}");
    }
}

#[test]
fn no_body_cut_at_any_length_makes_the_decoder_panic() {
    for message in samples() {
        for len in HEADER_LEN..message.len() {
            let _ = take(&framed(message[18], &message[HEADER_LEN..len]), WIDE);
        }
    }
}

#[test]
fn messages_are_taken_from_a_stream_one_by_one() {
    let mut stream = BytesMut::from(samples().concat().as_slice());
    let mut taken = 0;
    while let Some(message) = Message::take(&mut stream, WIDE).expect("all samples are good") {
        assert!(!matches!(&message, Message::Update(_, faults) if !faults.is_empty()));
        taken += 1;
    }
    assert_eq!((taken, stream.len()), (samples().len(), 0));
}

#[test]
fn a_mark_of_a_route_refresh_must_have_its_exact_length() {
    for (subtype, good) in [(0, true), (1, false), (2, false), (3, true)] {
        let message = framed(5, &[0, 1, subtype, 1, 9]);
        match take(&message, WIDE) {
            Ok(Some(_)) => assert!(good, "subtype {subtype}"),
            Err(error) => {
                assert!(!good, "subtype {subtype}: {error}");
                let Notification { code, data } = error.notification;
                assert_eq!((code, data), (Code::INVALID_REFRESH_LENGTH, message));
            }
            Ok(None) => panic!("subtype {subtype} is whole"),
        }
    }
}

#[test]
fn only_an_extended_session_takes_more_than_4096_octets() {
    let extended = Dialect {
        extended_messages: true,
        ..WIDE
    };
    let check = |kind: u8, len: u16, dialect, good: bool| {
        let bytes = [&[0xff; 16][..], &len.to_be_bytes(), &[kind]].concat();
        let taken = take(&bytes, dialect);
        assert_eq!(taken.is_ok(), good, "type {kind}, {len} octets: {taken:?}");
    };
    for (kind, name, takes) in [
        (1, "OPEN", false),
        (2, "UPDATE", true),
        (3, "NOTIFICATION", true),
        (5, "ROUTE-REFRESH", true),
    ] {
        println!("{name}");
        check(kind, 4096, WIDE, true);
        check(kind, 4097, WIDE, false);
        check(kind, 4097, extended, takes);
        check(kind, 65535, extended, takes);
    }
    check(4, 20, extended, false);
}

#[test]
fn an_end_of_rib_is_known_from_other_updates() {
    for family in Family::ALL {
        let mark = Update::end_of_rib(family);
        let Message::Update(read, faults) = decode(&mark.emit(WIDE), WIDE) else {
            panic!("{mark:?}");
        };
        assert_eq!((read.ended_family(), faults), (Some(family), vec![]));
        let mut more = mark.clone();
        more.withdrawn.push("203.0.113.1/32".parse().unwrap());
        assert_eq!(more.ended_family(), None);
        more = mark;
        more.attributes.med = Some(1);
        assert_eq!(more.ended_family(), None);
    }
    let of_another = framed(2, &[0, 0, 0, 6, 0x80, 15, 3, 0, 25, 65]);
    let Message::Update(read, faults) = decode(&of_another, WIDE) else {
        panic!("{of_another:?}");
    };
    assert_eq!((read.ended_family(), faults), (None, vec![]));
}

/// One message of each type, with all there is in it.
fn samples() -> Vec<Bytes> {
    let capabilities = vec![
        Capability::family(Family::Ipv4Unicast),
        Capability::RouteRefresh,
        Capability::FourOctetAs(65536),
        Capability::GracefulRestart(RestartCapability {
            restart_time: 120,
            families: vec![RestartFamily {
                afi: 1,
                safi: 1,
                forwarding: true,
            }],
            ..RestartCapability::default()
        }),
        Capability::Other {
            code: 73,
            value: vec![0, 120],
        },
    ];
    let router_id = Ipv4Addr::new(192, 0, 2, 1);
    let open = Open {
        my_as: 23456,
        hold_time: 90,
        router_id,
        capabilities,
    };
    let family = Family::Ipv6Unicast;
    let v6: Vec<IpNet> = vec![
        "2001:db8::/32".parse().unwrap(),
        "2001:db8::1/128".parse().unwrap(),
    ];
    let v4: Vec<IpNet> = vec![
        "203.0.113.0/24".parse().unwrap(),
        "0.0.0.0/0".parse().unwrap(),
    ];
    let next_hop = "2001:db8::2".parse().unwrap();
    let attributes = Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::repeated(65536, 300)),
        as4_path: None,
        next_hop: Some(router_id),
        med: Some(1),
        local_pref: Some(2),
        communities: vec![Community(3), Community(4)],
        extended_communities: vec![ExtendedCommunity(5)],
        large_communities: vec![LargeCommunity {
            global: 6,
            local1: 7,
            local2: 8,
        }],
        mp_reach: Some(MpReach {
            family,
            next_hop,
            link_local: None,
            prefixes: v6.clone(),
        }),
        mp_unreach: Some(MpUnreach {
            family,
            prefixes: v6,
        }),
        other_family: false,
    };
    let update = Update {
        withdrawn: v4.clone(),
        attributes,
        announced: v4,
    };
    vec![
        open.emit(),
        update.emit(WIDE),
        Notification::with_text(Code::ADMIN_RESET, Some("back in a minute")).emit(),
        keepalive(),
        RouteRefresh::new(family).emit(),
    ]
}

fn decode(bytes: &[u8], dialect: Dialect) -> Message {
    let message = take(bytes, dialect).expect("what we write is good");
    message.expect("what we write is whole")
}

fn take(bytes: &[u8], dialect: Dialect) -> Result<Option<Message>, vipd_bgp::wire::WireError> {
    Message::take(&mut BytesMut::from(bytes), dialect)
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(HEADER_LEN + body.len()).unwrap();
    [&[0xff; 16], len.to_be_bytes().as_slice(), &[kind], body].concat()
}

fn opens() -> impl Strategy<Value = Open> {
    let capability = prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| Capability::Multiprotocol { afi, safi }),
        Just(Capability::RouteRefresh),
        Just(Capability::ExtendedMessages),
        Just(Capability::EnhancedRouteRefresh),
        Just(Capability::BfdStrict),
        restarts().prop_map(Capability::GracefulRestart),
        any::<u32>().prop_map(Capability::FourOctetAs),
        (75_u8.., vec(any::<u8>(), 0..10))
            .prop_map(|(code, value)| Capability::Other { code, value }),
    ];
    (
        any::<u16>(),
        any::<u16>(),
        any::<Ipv4Addr>(),
        vec(capability, 0..150),
    )
        .prop_map(|(my_as, hold_time, router_id, capabilities)| Open {
            my_as,
            hold_time,
            router_id,
            capabilities,
        })
}

fn restarts() -> impl Strategy<Value = RestartCapability> {
    let family = (any::<u16>(), any::<u8>(), any::<bool>()).prop_map(|(afi, safi, forwarding)| {
        RestartFamily {
            afi,
            safi,
            forwarding,
        }
    });
    (
        any::<bool>(),
        any::<bool>(),
        0..=MAX_RESTART_TIME,
        vec(family, 0..4),
    )
        .prop_map(
            |(restarting, notification, restart_time, families)| RestartCapability {
                restarting,
                notification,
                restart_time,
                families,
            },
        )
}

fn updates(asn: BoxedStrategy<u32>) -> impl Strategy<Value = Update> {
    (
        vec(v4_nets(), 0..20),
        attributes(asn),
        vec(v4_nets(), 0..20),
    )
        .prop_map(|(withdrawn, attributes, announced)| Update {
            withdrawn,
            attributes,
            announced,
        })
}

/// Attributes that announced prefixes of any family may have.
fn attributes(asn: BoxedStrategy<u32>) -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![
        Just(Origin::Igp),
        Just(Origin::Egp),
        Just(Origin::Incomplete)
    ];
    let kind = prop_oneof![
        Just(SegmentKind::Set),
        Just(SegmentKind::Sequence),
        Just(SegmentKind::ConfedSequence),
        Just(SegmentKind::ConfedSet),
    ];
    let segment = (kind, vec(asn, 1..10)).prop_map(|(kind, asns)| Segment { kind, asns });
    let as_path = vec(segment, 0..4).prop_map(|segments| AsPath { segments });
    let large = any::<[u32; 3]>().prop_map(|[global, local1, local2]| LargeCommunity {
        global,
        local1,
        local2,
    });
    let simple = (
        origin,
        as_path,
        any::<Ipv4Addr>(),
        any::<Option<u32>>(),
        any::<Option<u32>>(),
    );
    let communities = (
        vec(any::<u32>().prop_map(Community), 0..70),
        vec(any::<u64>().prop_map(ExtendedCommunity), 0..5),
        vec(large, 0..5),
    );
    let family = Family::Ipv6Unicast;
    let mp_reach = (
        any::<Ipv6Addr>(),
        any::<Option<Ipv6Addr>>(),
        vec(v6_nets(), 0..20),
    )
        .prop_map(move |(next_hop, link_local, prefixes)| MpReach {
            family,
            next_hop: IpAddr::V6(next_hop),
            link_local,
            prefixes,
        });
    let mp_unreach = vec(v6_nets(), 0..20).prop_map(move |prefixes| MpUnreach { family, prefixes });
    (
        simple,
        communities,
        option::of(mp_reach),
        option::of(mp_unreach),
    )
        .prop_map(|(simple, communities, mp_reach, mp_unreach)| Attributes {
            origin: Some(simple.0),
            as_path: Some(simple.1),
            as4_path: None,
            next_hop: Some(simple.2),
            med: simple.3,
            local_pref: simple.4,
            communities: communities.0,
            extended_communities: communities.1,
            large_communities: communities.2,
            mp_reach,
            mp_unreach,
            other_family: false,
        })
}

fn v4_nets() -> impl Strategy<Value = IpNet> {
    (any::<Ipv4Addr>(), 0_u8..=32)
        .prop_map(|(address, bits)| IpNet::V4(Ipv4Net::new(address, bits).unwrap().trunc()))
}

fn v6_nets() -> impl Strategy<Value = IpNet> {
    (any::<Ipv6Addr>(), 0_u8..=128)
        .prop_map(|(address, bits)| IpNet::V6(Ipv6Net::new(address, bits).unwrap().trunc()))
}
