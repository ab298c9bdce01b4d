//! How sessions come about, and what keeps them from it.

use std::net::Ipv4Addr;
use std::time::Duration;

use vipd_bgp::wire::{Capability, Code, Family, Message, Open, keepalive};
use vipd_bgp::{ConfigError, Direction, Event, Input, PeerConfig, Session, State, StopReason};

use crate::scripted::{Scripted, open_for};
use crate::world::{A, B, World, ebgp, ibgp, restart};

#[test]
fn two_speakers_establish_a_session() {
    let check = |sentence: &str, (a, b): (PeerConfig, PeerConfig), families: &[Family]| {
        println!("{sentence}");
        let world = World::new(a, b).established();
        let [a, b] = [A, B].map(|side| world.speakers[side].session.status());
        let (at_a, at_b) = (a.agreed.expect("agreed"), b.agreed.expect("agreed"));
        assert!(at_a.families.iter().eq(families), "{}", world.dump());
        assert_eq!(at_a.families, at_b.families);
        assert_eq!(
            (at_a.hold_time, at_a.keepalive),
            (at_b.hold_time, at_b.keepalive)
        );
        assert_eq!(at_a.peer_capabilities, b.local_capabilities);
        assert_eq!(at_a.peer_router_id, Ipv4Addr::new(192, 0, 2, 2));
        assert!(at_a.dialect.four_octet_as);
        assert_eq!((a.last_error, b.last_error), (None, None));
    };
    let with = |(a, b): (PeerConfig, PeerConfig), edit: fn(&mut PeerConfig, &mut PeerConfig)| {
        let (mut a, mut b) = (a, b);
        edit(&mut a, &mut b);
        (a, b)
    };
    let both = &Family::ALL;

    check("across ASes", ebgp(), both);
    check("within an AS of four octets", ibgp(), both);
    check(
        "one side waits",
        with(ebgp(), |a, _| a.passive = true),
        both,
    );
    check(
        "the other side waits",
        with(ebgp(), |_, b| b.passive = true),
        both,
    );
    check(
        "one side offers IPv6 only",
        with(ebgp(), |a, _| a.families = [Family::Ipv6Unicast].into()),
        &[Family::Ipv6Unicast],
    );
    check(
        "no hold timer",
        with(ebgp(), |a, _| a.hold_time = Duration::ZERO),
        both,
    );
    check(
        "the shortest hold time",
        with(ebgp(), |_, b| b.hold_time = Duration::from_secs(3)),
        both,
    );
    check(
        "same router id, other AS (RFC 6286)",
        with(ebgp(), |a, b| {
            a.router_id = Ipv4Addr::new(192, 0, 2, 2);
            b.router_id = a.router_id;
        }),
        both,
    );
}

#[test]
fn of_two_connections_the_one_dialled_by_the_higher_router_id_stays() {
    let check = |sentence: &str, (a, b): (PeerConfig, PeerConfig), survivor: usize| {
        println!("{sentence}");
        let mut world = World::new(a, b);
        world.input(A, Input::Start);
        world.input(B, Input::Start);
        world.pump();
        world.assert_states(State::Established, State::Established);
        let dials = [A, B].map(|side| world.speakers[side].dials.len());
        assert_eq!(
            dials,
            [1, 1],
            "both dialled, and only once: {}",
            world.dump()
        );
        let established = [A, B].map(|side| world.speakers[side].session.admits_incoming());
        assert_eq!(
            established,
            [survivor == A, survivor == B],
            "{}",
            world.dump()
        );
        let ceases = [A, B]
            .iter()
            .flat_map(|&side| world.speakers[side].notifications_sent());
        let codes: Vec<Code> = ceases.map(|notification| notification.code).collect();
        assert!(
            !codes.is_empty() && codes.iter().all(|&c| c == Code::COLLISION),
            "{codes:?}"
        );
        for side in [A, B] {
            let status = world.speakers[side].session.status();
            assert_eq!(status.last_error, None, "a collision is no error");
            assert_eq!(status.established_count, 1, "{}", world.dump());
        }
    };
    let swapped = |(a, b): (PeerConfig, PeerConfig)| (b, a);
    let same_id = |(a, b): (PeerConfig, PeerConfig)| {
        let router_id = a.router_id;
        (a, PeerConfig { router_id, ..b })
    };

    check("B has the higher id", ebgp(), B);
    check("A has the higher id", swapped(ebgp()), A);
    check("B has the higher id, iBGP", ibgp(), B);
    check("same id, B has the higher AS", same_id(ebgp()), B);
}

#[test]
fn a_second_connection_to_an_established_session_is_refused_after_its_open() {
    let (config, _) = ebgp();
    let mut speaker = Scripted::established(config.clone());
    let local = Ipv4Addr::new(192, 0, 2, 1).into();
    speaker.input(Input::TcpConnected {
        direction: Direction::Incoming,
        local,
    });
    let open = open_for(&config).emit();
    speaker.input(Input::Received {
        direction: Direction::Incoming,
        bytes: &open,
    });
    assert_eq!(speaker.session.state(), State::Established);
    assert_eq!(
        speaker
            .last_words
            .iter()
            .map(|n| n.code)
            .collect::<Vec<_>>(),
        [Code::COLLISION]
    );
}

#[test]
fn an_established_session_gives_up_its_dial_and_its_silent_connection() {
    let check = |sentence: &str, dial_connected: bool, last_words: &[Code]| {
        println!("{sentence}");
        let (config, _) = ebgp();
        let mut speaker = Scripted::new(config.clone());
        if dial_connected {
            speaker.connect();
        }
        speaker.connect_by(Direction::Incoming);
        speaker.receive_by(Direction::Incoming, &open_for(&config).emit());
        speaker.receive_by(Direction::Incoming, &keepalive());
        assert_eq!(speaker.session.state(), State::Established);
        assert_eq!(speaker.closed, [Direction::Outgoing], "{}", speaker.dump());
        let codes: Vec<Code> = speaker.last_words.iter().map(|n| n.code).collect();
        assert_eq!(codes, last_words);
        speaker.advance(Duration::from_secs(60));
        assert_eq!(
            (speaker.session.state(), speaker.dials),
            (State::Established, 1)
        );
    };
    check("a dial under way", false, &[]);
    check(
        "a connection without the peer's OPEN",
        true,
        &[Code::COLLISION],
    );
}

#[test]
fn a_start_ends_the_pause_after_an_error() {
    let mut speaker = Scripted::connected(ebgp().0);
    speaker.receive(&[0; 19]);
    assert_eq!(speaker.session.state(), State::Idle);
    speaker.input(Input::Start);
    assert_eq!(
        (speaker.session.state(), speaker.dials),
        (State::Connect, 2)
    );
    speaker.advance(Duration::from_secs(4));
    assert_eq!(
        speaker.dials, 2,
        "the end of the pause dials no second time"
    );
}

#[test]
fn a_stop_ends_every_kind_of_waiting() {
    let check = |sentence: &str, mut speaker: Scripted, state: State| {
        println!("{sentence}");
        assert_eq!(speaker.session.state(), state, "{}", speaker.dump());
        let dials = speaker.dials;
        let reason = StopReason::AdminShutdown;
        speaker.input(Input::Stop { reason, text: None });
        assert_eq!(speaker.session.state(), State::Idle);
        assert_eq!(speaker.session.poll_timeout(), None);
        speaker.advance(Duration::from_secs(600));
        assert_eq!(
            (speaker.session.state(), speaker.dials),
            (State::Idle, dials)
        );
    };
    let (config, _) = ebgp();
    let mut held = Scripted::connected(config.clone());
    held.receive(&[0; 19]);
    let mut refused = Scripted::new(config.clone());
    refused.input(Input::TcpFailed {
        reason: "connection refused".into(),
    });
    check("the pause after an error", held, State::Idle);
    check("the pause between dials", refused, State::Active);
    check("a dial", Scripted::new(config.clone()), State::Connect);
    check(
        "the peer's OPEN",
        Scripted::connected(config.clone()),
        State::OpenSent,
    );
    check("nothing", Scripted::established(config), State::Established);
}

#[test]
fn an_unacceptable_open_is_answered_with_its_error() {
    let check =
        |sentence: &str, bytes: &[u8], internal: bool, code: Code, data: &[u8], words: &str| {
            println!("{sentence}");
            let config = if internal { ibgp().0 } else { ebgp().0 };
            let mut speaker = Scripted::connected(config);
            speaker.receive(bytes);
            let [notification] = &speaker.last_words[..] else {
                panic!("{}", speaker.dump());
            };
            assert_eq!((notification.code, &notification.data[..]), (code, data));
            assert_eq!(speaker.session.state(), State::Idle);
            assert!(!speaker.session.admits_incoming());
            let error = speaker
                .session
                .status()
                .last_error
                .expect("an error is kept")
                .words;
            assert!(error.contains(words), "{error}");
            speaker.advance(Duration::from_secs(2));
            assert_eq!(speaker.dials, 2, "it tries again: {}", speaker.dump());
        };
    let open = |edit: fn(&mut Open)| {
        let mut open = open_for(&ebgp().0);
        edit(&mut open);
        open.emit().to_vec()
    };
    let patched = |at: usize, octets: &[u8]| {
        let mut bytes = open(|_| ());
        bytes[at..at + octets.len()].copy_from_slice(octets);
        bytes
    };

    check(
        "version 3",
        &patched(19, &[3]),
        false,
        Code::UNSUPPORTED_VERSION,
        &[0, 4],
        "version 3",
    );
    check(
        "another AS",
        &open(|o| o.capabilities.push(Capability::FourOctetAs(65550))),
        true,
        Code::BAD_PEER_AS,
        &[],
        "AS 64497, but AS 65536",
    );
    check(
        "another AS, by the two-octet field",
        &open(|o| {
            o.my_as = 64511;
            o.capabilities.clear();
        }),
        false,
        Code::BAD_PEER_AS,
        &[],
        "AS 64511, but AS 64497",
    );
    check(
        "router id 0.0.0.0",
        &open(|o| o.router_id = Ipv4Addr::UNSPECIFIED),
        false,
        Code::BAD_BGP_IDENTIFIER,
        &[],
        "0.0.0.0",
    );
    let mut own_id = open_for(&ibgp().0);
    own_id.router_id = ibgp().0.router_id;
    check(
        "our own router id on iBGP",
        &own_id.emit(),
        true,
        Code::BAD_BGP_IDENTIFIER,
        &[],
        "our own router id 192.0.2.1",
    );
    for hold_time in [1_u8, 2] {
        check(
            "a hold time of 1 or 2 s",
            &patched(22, &[0, hold_time]),
            false,
            Code::UNACCEPTABLE_HOLD_TIME,
            &[],
            "hold time of",
        );
    }
    check(
        "no common family",
        &open(|o| {
            o.capabilities
                .retain(|c| matches!(c, Capability::FourOctetAs(_)));
            o.capabilities
                .push(Capability::Multiprotocol { afi: 25, safi: 65 });
        }),
        false,
        Code::UNSUPPORTED_CAPABILITY,
        &[1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1],
        "none of the address families",
    );
    check(
        "an unknown optional parameter",
        &patched(29, &[1]),
        false,
        Code::UNSUPPORTED_OPTIONAL_PARAMETER,
        &[],
        "optional parameter 1",
    );
    check(
        "a capability longer than its parameter",
        &patched(32, &[200]),
        false,
        Code::OPEN_UNSPECIFIC,
        &[],
        "cut off",
    );
    check(
        "a broken marker",
        &patched(3, &[0]),
        false,
        Code::NOT_SYNCHRONIZED,
        &[],
        "marker",
    );
    check(
        "a length below the smallest OPEN",
        &patched(16, &[0, 28]),
        false,
        Code::BAD_MESSAGE_LENGTH,
        &[0, 28],
        "28 octets",
    );
    check(
        "a length above the largest message",
        &patched(16, &[16, 1]),
        false,
        Code::BAD_MESSAGE_LENGTH,
        &[16, 1],
        "4097 octets",
    );
    check(
        "type 9",
        &patched(18, &[9]),
        false,
        Code::BAD_MESSAGE_TYPE,
        &[9],
        "type 9",
    );
    check(
        "a KEEPALIVE before the OPEN",
        &keepalive(),
        false,
        Code::UNEXPECTED_IN_OPEN_SENT,
        &[],
        "KEEPALIVE",
    );
    check(
        "a second OPEN",
        &open(|_| ()).repeat(2),
        false,
        Code::UNEXPECTED_IN_OPEN_CONFIRM,
        &[],
        "OPEN",
    );
    check(
        "an OPEN in Established",
        &[open(|_| ()), keepalive().to_vec(), open(|_| ())].concat(),
        false,
        Code::UNEXPECTED_IN_ESTABLISHED,
        &[],
        "OPEN",
    );
}

#[test]
fn our_open_says_what_is_configured() {
    let check =
        |sentence: &str, config: PeerConfig, my_as: u16, hold_time: u16, capabilities: usize| {
            println!("{sentence}");
            let mut speaker = Scripted::connected(config.clone());
            let sent = speaker.sent();
            let [Message::Open(open)] = &sent[..] else {
                panic!("{sent:?}");
            };
            assert_eq!((open.my_as, open.hold_time), (my_as, hold_time));
            assert_eq!(
                (open.asn(), open.router_id),
                (config.local_as, config.router_id)
            );
            assert_eq!(open.capabilities.len(), capabilities);
        };
    let (plain, wide) = (ebgp().0, ibgp().0);
    check("an AS of two octets", plain.clone(), 64496, 90, 6);
    check("an AS of four octets", wide, 23456, 90, 6);
    check(
        "one family and no hold timer",
        PeerConfig {
            families: [Family::Ipv6Unicast].into(),
            hold_time: Duration::ZERO,
            ..plain
        },
        64496,
        0,
        5,
    );
}

#[test]
fn an_open_comes_in_one_octet_at_a_time() {
    let (config, _) = ebgp();
    let mut speaker = Scripted::connected(config.clone());
    for octet in [open_for(&config).emit(), keepalive()].concat() {
        speaker.receive(&[octet]);
    }
    assert_eq!(
        speaker.session.state(),
        State::Established,
        "{}",
        speaker.dump()
    );
    let states: Vec<State> = speaker
        .events
        .iter()
        .filter_map(|event| match event {
            Event::StateChanged { to, .. } => Some(*to),
            _ => None,
        })
        .collect();
    let way = [
        State::Connect,
        State::OpenSent,
        State::OpenConfirm,
        State::Established,
    ];
    assert_eq!(states, way);
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let check = |sentence: &str, edit: fn(&mut PeerConfig), error: ConfigError| {
        println!("{sentence}");
        let (mut config, _) = ebgp();
        edit(&mut config);
        assert_eq!(Session::new(config, 1).err(), Some(error));
    };
    let secs = Duration::from_secs;
    check("AS 0", |c| c.local_as = 0, ConfigError::ReservedAs(0));
    check(
        "AS_TRANS",
        |c| c.peer_as = 23456,
        ConfigError::ReservedAs(23456),
    );
    check(
        "no router id",
        |c| c.router_id = Ipv4Addr::UNSPECIFIED,
        ConfigError::NoRouterId,
    );
    check(
        "hold time 2",
        |c| c.hold_time = Duration::from_secs(2),
        ConfigError::HoldTime(secs(2)),
    );
    check(
        "hold time in fractions",
        |c| c.hold_time = Duration::from_millis(3500),
        ConfigError::HoldTime(Duration::from_millis(3500)),
    );
    check(
        "a send hold time as long as the hold time",
        |c| c.send_hold_time = Some(Duration::from_secs(90)),
        ConfigError::SendHoldTime(secs(90)),
    );
    check(
        "a restart time of more than twelve bits",
        |c| c.graceful_restart = Some(restart(Duration::from_secs(4096))),
        ConfigError::RestartTime(secs(4096)),
    );
    check(
        "a restart time in fractions",
        |c| c.graceful_restart = Some(restart(Duration::from_millis(1500))),
        ConfigError::RestartTime(Duration::from_millis(1500)),
    );
    check("no family", |c| c.families.clear(), ConfigError::NoFamily);
    check(
        "no pause",
        |c| c.retry_min = Duration::ZERO,
        ConfigError::Retry,
    );
    check(
        "no pause after too many prefixes",
        |c| c.max_prefixes_pause = Duration::ZERO,
        ConfigError::Retry,
    );
    check(
        "no time to connect",
        |c| c.connect_timeout = Duration::ZERO,
        ConfigError::Retry,
    );
}
