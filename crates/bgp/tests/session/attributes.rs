//! The attributes that a peer is sent with a route.

use std::net::IpAddr;

use ipnet::IpNet;
use vipd_bgp::wire::{
    AsPath, Attributes, Capability, Community, ExtendedCommunity, Family, LargeCommunity, MpReach,
    Origin, Update,
};
use vipd_bgp::{PeerConfig, Route, Routes};

use crate::scripted::{Scripted, open_for};
use crate::world::{ebgp, ibgp, routes};

const V4: &str = "203.0.113.1/32";
const V6: &str = "2001:db8::1/128";

#[test]
fn attributes_are_rendered_for_the_kind_of_peer() {
    let check =
        |sentence: &str, config: PeerConfig, narrow: bool, route: Route, wanted: Attributes| {
            println!("{sentence}");
            let mut open = open_for(&config);
            if narrow {
                open.capabilities
                    .retain(|c| !matches!(c, Capability::FourOctetAs(_)));
            }
            let mut speaker = Scripted::established_with(config, &open);
            speaker
                .session
                .set_routes(Routes::from([(V4.parse().unwrap(), route.into())]));
            let updates = speaker.updates();
            let announced = vec![V4.parse().unwrap()];
            assert_eq!(
                updates,
                [Update {
                    withdrawn: vec![],
                    attributes: wanted,
                    announced
                }]
            );
        };
    let own = "192.0.2.1".parse().ok();
    let plain = |asn, times| Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::repeated(asn, times)),
        next_hop: own,
        ..Attributes::default()
    };
    let (ebgp, ibgp) = (ebgp().0, ibgp().0);
    let wide = PeerConfig {
        local_as: 65550,
        ..ebgp.clone()
    };

    check(
        "eBGP",
        ebgp.clone(),
        false,
        Route::default(),
        plain(64496, 1),
    );
    check(
        "iBGP: empty path, local preference",
        ibgp.clone(),
        false,
        Route {
            prepend: 3,
            ..Route::default()
        },
        Attributes {
            local_pref: Some(100),
            ..plain(65536, 0)
        },
    );
    check(
        "everything on iBGP",
        ibgp.clone(),
        false,
        everything(),
        Attributes {
            local_pref: Some(200),
            ..rendered(plain(65536, 0))
        },
    );
    check(
        "everything on eBGP",
        ebgp.clone(),
        false,
        everything(),
        rendered(plain(64496, 3)),
    );
    check(
        "the longest path",
        ebgp.clone(),
        false,
        Route {
            prepend: 255,
            ..Route::default()
        },
        plain(64496, 256),
    );
    let behind = |asns: &[u32], prepend| Route {
        as_path: asns.to_vec(),
        prepend,
        ..Route::default()
    };
    let path = |asns: &[u32], plain| Attributes {
        as_path: Some(AsPath::sequence(asns)),
        ..plain
    };
    check(
        "a path behind our own AS and its prepends",
        ebgp.clone(),
        false,
        behind(&[64510, 65551], 1),
        path(&[64496, 64496, 64510, 65551], plain(64496, 1)),
    );
    check(
        "a path on iBGP",
        ibgp,
        false,
        behind(&[64510], 1),
        Attributes {
            local_pref: Some(100),
            ..path(&[64510], plain(65536, 0))
        },
    );
    check(
        "a path with a wide AS towards a peer of two octets",
        ebgp.clone(),
        true,
        behind(&[65551], 0),
        Attributes {
            as4_path: Some(AsPath::sequence(&[64496, 65551])),
            ..path(&[64496, 23456], plain(64496, 1))
        },
    );
    check(
        "a path of two octets",
        ebgp.clone(),
        true,
        Route::default(),
        plain(64496, 1),
    );
    check(
        "a wide AS towards a peer of two octets",
        wide.clone(),
        true,
        Route {
            prepend: 1,
            ..Route::default()
        },
        Attributes {
            as4_path: Some(AsPath::repeated(65550, 2)),
            ..plain(23456, 2)
        },
    );
    check(
        "a wide AS towards a peer of four octets",
        wide,
        false,
        Route::default(),
        plain(65550, 1),
    );
    check(
        "a configured next hop",
        PeerConfig {
            next_hop_v4: "192.0.2.77".parse().ok(),
            ..ebgp.clone()
        },
        false,
        Route::default(),
        Attributes {
            next_hop: "192.0.2.77".parse().ok(),
            ..plain(64496, 1)
        },
    );
    check(
        "the route's own next hop is before the configured one",
        PeerConfig {
            next_hop_v4: "192.0.2.77".parse().ok(),
            ..ebgp
        },
        false,
        Route {
            next_hop: "192.0.2.88".parse().ok(),
            ..Route::default()
        },
        Attributes {
            next_hop: "192.0.2.88".parse().ok(),
            ..plain(64496, 1)
        },
    );
}

fn everything() -> Route {
    Route {
        next_hop: None,
        med: Some(50),
        local_pref: Some(200),
        prepend: 2,
        as_path: vec![],
        origin: Origin::Incomplete,
        communities: vec!["64496:1".parse().unwrap(), "no-export".parse().unwrap()],
        extended_communities: vec!["rt:64496:5".parse().unwrap()],
        large_communities: vec!["64496:2:3".parse().unwrap()],
    }
}

fn rendered(plain: Attributes) -> Attributes {
    Attributes {
        origin: Some(Origin::Incomplete),
        med: Some(50),
        communities: vec![Community(64496 << 16 | 1), Community(0xffff_ff01)],
        extended_communities: vec![ExtendedCommunity(0x0002_fbf0_0000_0005)],
        large_communities: vec![LargeCommunity {
            global: 64496,
            local1: 2,
            local2: 3,
        }],
        ..plain
    }
}

#[test]
fn the_largest_attributes_fit_a_message_with_a_prefix() {
    let route = Route {
        prepend: 255,
        as_path: vec![65551; 64],
        communities: vec![Community(1); 500],
        med: Some(1),
        next_hop: "2001:db8::a".parse().ok(),
        ..Route::default()
    };
    for narrow in [false, true] {
        let mut open = open_for(&ebgp().0);
        if narrow {
            open.capabilities
                .retain(|c| !matches!(c, Capability::FourOctetAs(_)));
        }
        let mut speaker = Scripted::established_with(ebgp().0, &open);
        speaker
            .session
            .set_routes(Routes::from([(V6.parse().unwrap(), route.clone().into())]));
        let updates = speaker.updates();
        assert_eq!(updates.iter().flat_map(Update::reachable).count(), 1);
    }
}

#[test]
fn ipv6_travels_in_the_multiprotocol_attributes() {
    let next_hop: IpAddr = "2001:db8::a".parse().unwrap();
    let local_v6 = "2001:db8::a".parse().ok();
    let config = PeerConfig {
        next_hop_v6: local_v6,
        ..ebgp().0
    };
    let mut speaker = Scripted::established(config);
    speaker.session.set_routes(routes(&[V6]));
    let updates = speaker.updates();
    let prefixes: Vec<IpNet> = vec![V6.parse().unwrap()];
    let reach = MpReach {
        family: Family::Ipv6Unicast,
        next_hop,
        link_local: None,
        prefixes: prefixes.clone(),
    };
    let attributes = Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::repeated(64496, 1)),
        mp_reach: Some(reach),
        ..Attributes::default()
    };
    assert_eq!(
        updates,
        [Update {
            attributes,
            ..Update::default()
        }]
    );

    speaker.session.set_routes(routes(&[]));
    let updates = speaker.updates();
    let [update] = &updates[..] else {
        panic!("{updates:?}")
    };
    assert_eq!(
        update.attributes.mp_unreach.as_ref().unwrap().prefixes,
        prefixes
    );
    assert_eq!(update.attributes.origin, None);
}
