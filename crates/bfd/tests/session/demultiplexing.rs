//! Which session a packet is for.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use vipd_bfd::packet::{PORT_MULTIHOP, Packet};
use vipd_bfd::{Arrival, Config, Discard, Hops, Path, Sessions, State};

use crate::scripted::{config, peer};

const MULTI: Hops = Hops::Multi;

fn address(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn path(remote: u8, hops: Hops) -> Path {
    Path {
        remote: address(remote),
        local: Some(address(11)),
        interface: None,
        hops,
    }
}

fn arrival(remote: u8, hops: Hops) -> Arrival {
    let (remote, local, port) = (address(remote), address(11), hops.port());
    Arrival {
        remote,
        local,
        bound: None,
        ttl: 255,
        port,
    }
}

/// Single hop to 1 and 2, several hops to 1, and their numbers.
fn three() -> (Sessions, [NonZeroU32; 3], Instant) {
    let now = Instant::now();
    let mut sessions = Sessions::new(1);
    let paths = [path(1, Hops::Single), path(2, Hops::Single), path(1, MULTI)];
    let config = || Config {
        min_ttl: 250,
        ..config()
    };
    let ids = paths.map(|path| sessions.add(path, config(), now));
    (sessions, ids, now)
}

#[test]
fn the_first_packet_is_known_by_its_addresses_and_port() {
    let (mut sessions, ids, now) = three();
    let first = Packet {
        your_discriminator: None,
        ..peer(State::Down)
    }
    .emit();
    let arrivals = [
        arrival(1, Hops::Single),
        arrival(2, Hops::Single),
        arrival(1, MULTI),
    ];
    for (arrival, id) in arrivals.iter().zip(ids) {
        assert_eq!(sessions.receive(arrival, &first, now), Ok(id));
        assert_eq!(sessions.get_mut(id).unwrap().state(), State::Init);
    }
}

#[test]
fn what_is_for_nobody_is_counted() {
    let (mut sessions, ids, now) = three();
    let first = Packet {
        your_discriminator: None,
        ..peer(State::Down)
    };
    let ours = Packet {
        your_discriminator: Some(ids[0]),
        ..peer(State::Down)
    };
    let other = ids
        .map(NonZeroU32::get)
        .into_iter()
        .max()
        .unwrap()
        .wrapping_add(1);
    let unknown = Packet {
        your_discriminator: NonZeroU32::new(other),
        ..first
    };
    let here = arrival(1, Hops::Single);
    let table = [
        ("a stranger", arrival(3, Hops::Single), first),
        (
            "to another address of ours",
            Arrival {
                local: address(12),
                ..here.clone()
            },
            first,
        ),
        ("a discriminator that is not ours", here.clone(), unknown),
        (
            "our discriminator from elsewhere",
            arrival(2, Hops::Single),
            ours,
        ),
        (
            "our discriminator at the other port",
            Arrival {
                port: PORT_MULTIHOP,
                ..here
            },
            ours,
        ),
    ];
    for (sentence, arrival, packet) in table {
        let taken = sessions.receive(&arrival, &packet.emit(), now);
        assert_eq!(taken, Err(Discard::NoSession), "{sentence}");
    }
    assert_eq!(sessions.discarded().of(Discard::NoSession), 5);
}

#[test]
fn a_packet_from_farther_away_is_discarded() {
    let (mut sessions, ids, now) = three();
    let first = Packet {
        your_discriminator: None,
        ..peer(State::Down)
    }
    .emit();
    let table = [
        (ids[0], Hops::Single, 254, Err(Discard::Ttl)),
        (ids[0], Hops::Single, 255, Ok(ids[0])),
        (ids[2], MULTI, 249, Err(Discard::Ttl)),
        (ids[2], MULTI, 250, Ok(ids[2])),
    ];
    for (id, hops, ttl, expected) in table {
        let arrival = Arrival {
            ttl,
            ..arrival(1, hops)
        };
        assert_eq!(
            sessions.receive(&arrival, &first, now),
            expected,
            "TTL {ttl}"
        );
        let discarded = sessions.get_mut(id).unwrap().status(now).counters.discarded;
        assert_eq!(discarded.of(Discard::Ttl), 1);
    }
}

#[test]
fn another_least_ttl_counts_from_the_next_packet_on() {
    let (mut sessions, ids, now) = three();
    let session = sessions.get_mut(ids[2]).unwrap();
    let config = Config {
        min_ttl: 252,
        ..session.config().clone()
    };
    session.configure(config);
    let first = Packet {
        your_discriminator: None,
        ..peer(State::Down)
    }
    .emit();
    for (ttl, expected) in [(251, Err(Discard::Ttl)), (252, Ok(ids[2]))] {
        let arrival = Arrival {
            ttl,
            ..arrival(1, MULTI)
        };
        let taken = sessions.receive(&arrival, &first, now);
        assert_eq!(taken, expected, "TTL {ttl}");
    }
}

#[test]
fn a_session_on_an_interface_takes_all_from_there_and_nothing_from_others() {
    let now = Instant::now();
    let mut sessions = Sessions::new(1);
    let on = |interface: Option<&str>| Path {
        interface: interface.map(Arc::from),
        ..path(1, Hops::Single)
    };
    let bound = sessions.add(on(Some("eth1")), config(), now);
    let first = Packet {
        your_discriminator: None,
        ..peer(State::Down)
    }
    .emit();
    let at = |interface: Option<&str>| Arrival {
        bound: interface.map(Arc::from),
        ..arrival(1, Hops::Single)
    };
    let nobody = Err(Discard::NoSession);
    for (interface, taken) in [
        (None, nobody),
        (Some("eth2"), nobody),
        (Some("eth1"), Ok(bound)),
    ] {
        let id = sessions.receive(&at(interface), &first, now);
        assert_eq!(id, taken, "at {interface:?}");
    }
    // To a bound socket comes what is for nobody who is bound, too.
    let any = sessions.add(on(None), config(), now);
    for (interface, id) in [(None, any), (Some("eth2"), any), (Some("eth1"), bound)] {
        let taken = sessions.receive(&at(interface), &first, now);
        assert_eq!(taken, Ok(id), "at {interface:?}");
    }
}

#[test]
fn a_removed_session_takes_nothing_any_more() {
    let (mut sessions, ids, now) = three();
    sessions.remove(ids[0]);
    let first = Packet {
        your_discriminator: None,
        ..peer(State::Down)
    }
    .emit();
    let taken = sessions.receive(&arrival(1, Hops::Single), &first, now);
    assert_eq!(taken, Err(Discard::NoSession));
}
