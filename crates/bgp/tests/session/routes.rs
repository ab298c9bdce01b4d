//! What a peer is told of our routes, and that it is told once.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use vipd_bgp::wire::{Community, Family, MAX_MESSAGE_LEN, Update};
use vipd_bgp::{Direction, Input, PeerConfig, Route, Routes, Unsent};

use crate::scripted::{Scripted, open_for};
use crate::world::{A, B, World, ebgp, many_routes, routes};

const V4: &str = "203.0.113.1/32";
const V6: &str = "2001:db8::1/128";

#[test]
fn an_ipv6_session_carries_both_families() {
    let (a, b) = ebgp();
    let a = PeerConfig {
        next_hop_v4: "192.0.2.1".parse().ok(),
        ..a
    };
    let locals = ["2001:db8::a", "2001:db8::b"].map(|local| local.parse().unwrap());
    let mut world = World::between(a, b, locals);
    world.speakers[A].session.set_routes(routes(&[V4, V6]));
    let world = world.established();
    let status = world.speakers[B].session.status();
    assert_eq!(status.counters.prefixes_reachable, 2, "{}", world.dump());
    assert_eq!(world.speakers[A].session.status().unsent, []);
}

#[test]
fn a_route_that_cannot_be_sent_says_why() {
    let check = |sentence: &str, prefix: &str, config: PeerConfig, route: Route, why: Unsent| {
        println!("{sentence}");
        let mut open = open_for(&config);
        open.capabilities
            .truncate(if config.passive { 1 } else { 9 });
        let config = PeerConfig {
            passive: false,
            ..config
        };
        let mut speaker = Scripted::established_with(config, &open);
        let prefix: IpNet = prefix.parse().unwrap();
        speaker
            .session
            .set_routes(Routes::from([(prefix, route.into())]));
        assert_eq!(speaker.updates(), []);
        assert!(speaker.session.is_flushed());
        assert_eq!(speaker.session.status().unsent, [(prefix, why)]);
    };
    let (config, _) = ebgp();
    // `passive` marks the peer that offers IPv4 only.
    let v4_only = PeerConfig {
        passive: true,
        ..config.clone()
    };
    let via = |next_hop: &str| Route {
        next_hop: next_hop.parse().ok(),
        ..Route::default()
    };
    let v6 = Family::Ipv6Unicast;
    check(
        "not offered",
        V6,
        v4_only,
        via("2001:db8::a"),
        Unsent::FamilyNotNegotiated(v6),
    );
    check(
        "IPv6 over IPv4",
        V6,
        config.clone(),
        Route::default(),
        Unsent::NoNextHop(v6),
    );
    let unfit = |next_hop: &str| Unsent::UnfitNextHop(next_hop.parse().unwrap());
    check(
        "IPv6 next hop",
        V4,
        config.clone(),
        via("2001:db8::a"),
        unfit("2001:db8::a"),
    );
    check(
        "IPv4 next hop",
        V6,
        config.clone(),
        via("192.0.2.9"),
        unfit("192.0.2.9"),
    );
    check(
        "link-local next hop",
        V6,
        config.clone(),
        via("fe80::1"),
        unfit("fe80::1"),
    );
    let many = Route {
        communities: vec![Community(1); 501],
        ..Route::default()
    };
    check(
        "too many communities",
        V4,
        config.clone(),
        many,
        Unsent::TooManyCommunities(2004),
    );
    let path = |asns: &[u32]| Route {
        as_path: asns.to_vec(),
        ..Route::default()
    };
    let path_check = |sentence, asns: &[u32], why| {
        check(sentence, V4, config.clone(), path(asns), why);
    };
    path_check(
        "our own AS in the path",
        &[64510, 64496],
        Unsent::AsLoop(64496),
    );
    path_check("the peer's AS in the path", &[64497], Unsent::AsLoop(64497));
    path_check("AS 0 in the path", &[0], Unsent::ReservedAs(0));
    path_check("AS_TRANS in the path", &[23456], Unsent::ReservedAs(23456));
    path_check(
        "a path that is too long",
        &[64510; 65],
        Unsent::AsPathTooLong(65),
    );
}

#[test]
fn the_same_announcement_is_never_repeated() {
    let mut speaker = Scripted::established(ebgp().0);
    speaker.session.set_routes(routes(&[V4, "203.0.113.2/32"]));
    assert_eq!(speaker.updates().len(), 1);
    for _ in 0..10 {
        speaker.session.set_routes(routes(&[V4, "203.0.113.2/32"]));
        assert_eq!(speaker.updates(), []);
    }

    println!("only what is new is sent");
    speaker
        .session
        .set_routes(routes(&[V4, "203.0.113.2/32", "203.0.113.3/32"]));
    let updates = speaker.updates();
    assert_eq!(updates.len(), 1);
    assert_eq!(
        updates[0].announced,
        ["203.0.113.3/32".parse::<IpNet>().unwrap()]
    );

    println!("a change replaces without a withdrawal");
    let worse = Route {
        med: Some(9),
        ..Route::default()
    };
    let mut changed = routes(&["203.0.113.2/32", "203.0.113.3/32"]);
    changed.insert(V4.parse().unwrap(), worse.into());
    speaker.session.set_routes(changed);
    let updates = speaker.updates();
    assert_eq!(updates.len(), 1);
    assert_eq!(
        (updates[0].withdrawn.len(), updates[0].attributes.med),
        (0, Some(9))
    );

    println!("a change taken back before it was sent is not sent");
    let before: Routes = speaker
        .session
        .advertised()
        .map(|(p, r)| (*p, Arc::new(r.clone())))
        .collect();
    speaker.session.set_routes(routes(&[V4]));
    assert_eq!(speaker.session.status().pending, 3);
    speaker.session.set_routes(before);
    assert_eq!(
        (speaker.session.status().pending, speaker.updates()),
        (0, vec![])
    );

    println!("bits behind the prefix length make no other route");
    speaker.session.set_routes(routes(&["198.51.100.0/24"]));
    speaker.updates();
    speaker.session.set_routes(routes(&["198.51.100.7/24"]));
    assert_eq!(speaker.updates(), []);
}

#[test]
fn withdrawals_leave_before_announcements() {
    let mut speaker = Scripted::established(PeerConfig {
        next_hop_v6: "2001:db8::a".parse().ok(),
        ..ebgp().0
    });
    speaker.session.set_routes(routes(&[V4, V6]));
    speaker.updates();
    speaker
        .session
        .set_routes(routes(&["203.0.113.7/32", "2001:db8::7/128"]));
    let updates = speaker.updates();
    let withdraws: Vec<bool> = updates
        .iter()
        .map(|update| update.unreachable().next().is_some())
        .collect();
    assert_eq!(withdraws, [true, true, false, false], "{updates:#?}");

    println!("also before announcements that wait since earlier");
    let mut many = many_routes(10_000);
    speaker.session.set_routes(many.clone());
    assert!(
        speaker.session.poll_transmit(Direction::Outgoing).is_some(),
        "withdraws"
    );
    assert!(
        speaker.session.poll_transmit(Direction::Outgoing).is_some(),
        "withdraws"
    );
    assert!(
        speaker.session.poll_transmit(Direction::Outgoing).is_some(),
        "announces some"
    );
    let (first, _) = many.pop_first().unwrap();
    speaker.session.set_routes(many);
    let next = speaker.updates().swap_remove(0);
    assert_eq!(next.withdrawn, [first]);
}

#[test]
fn a_prefix_that_flaps_while_the_socket_is_full_is_sent_once_or_not_at_all() {
    let mut speaker = Scripted::established(ebgp().0);
    for _ in 0..1000 {
        speaker.session.set_routes(routes(&[V4]));
        speaker.session.set_routes(routes(&[]));
    }
    assert!(speaker.session.is_flushed());
    assert_eq!(speaker.updates(), []);
    for med in 0..1000 {
        let route = Route {
            med: Some(med),
            ..Route::default()
        };
        speaker
            .session
            .set_routes(Routes::from([(V4.parse().unwrap(), route.into())]));
    }
    let updates = speaker.updates();
    assert_eq!(
        updates.iter().map(|u| u.attributes.med).collect::<Vec<_>>(),
        [Some(999)]
    );
}

#[test]
fn many_prefixes_share_few_messages() {
    let mut speaker = Scripted::established(PeerConfig {
        next_hop_v6: "2001:db8::a".parse().ok(),
        ..ebgp().0
    });
    let all = many_routes(10_000);
    for wanted in [all.clone(), Routes::new()] {
        speaker.session.set_routes(wanted);
        let messages = speaker.sent_bytes();
        assert!(
            messages
                .iter()
                .all(|message| message.len() <= MAX_MESSAGE_LEN)
        );
        // 5 octets each for half of them, 17 for the other half.
        assert!(
            messages.len() <= 5_000 * 22 / 4_000 + 2,
            "{} messages",
            messages.len()
        );
        assert!(speaker.session.is_flushed());
    }

    println!("and every prefix is in them once");
    speaker.session.set_routes(all.clone());
    let updates = speaker.updates();
    let sent: Vec<IpNet> = updates
        .iter()
        .flat_map(Update::reachable)
        .copied()
        .collect();
    assert_eq!(sent.len(), all.len());
    assert!(
        sent.iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .eq(all.keys())
    );

    println!("different attributes never share one");
    let distinct = all.into_keys().zip(0..).map(|(prefix, med)| {
        (
            prefix,
            Arc::new(Route {
                med: Some(med),
                ..Route::default()
            }),
        )
    });
    speaker.session.set_routes(distinct.collect());
    assert_eq!(speaker.updates().len(), 10_000);
}

#[test]
fn a_new_session_is_told_everything_and_an_old_one_leaves_nothing_behind() {
    let mut speaker = Scripted::established(ebgp().0);
    speaker.session.set_routes(routes(&[V4]));
    let first = speaker.updates();
    speaker.session.set_routes(routes(&[]));
    let reason = "reset by the peer".to_owned();
    speaker.input(Input::TcpClosed {
        direction: Direction::Outgoing,
        reason,
    });
    assert!(speaker.session.is_flushed());
    assert_eq!(speaker.session.advertised().count(), 0);

    speaker.session.set_routes(routes(&[V4]));
    while speaker.session.state() != vipd_bgp::State::Connect {
        speaker.advance(std::time::Duration::from_millis(100));
    }
    speaker.connect();
    speaker.receive(&open_for(&ebgp().0).emit());
    assert!(speaker.updates().is_empty(), "no routes before Established");
    speaker.receive(&vipd_bgp::wire::keepalive());
    assert_eq!(speaker.updates(), first);
    let status = speaker.session.status();
    assert_eq!(status.advertised[&Family::Ipv4Unicast], 1);
    assert_eq!(status.established_count, 2);
}
