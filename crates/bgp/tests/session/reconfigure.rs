//! What a new configuration does to a session that is running.

use std::net::Ipv4Addr;
use std::time::Duration;

use vipd_bgp::wire::{Capability, Code, Family, Message, Open, RestartCapability, keepalive};
use vipd_bgp::{
    BfdMode, ConfigError, Direction, Input, PeerConfig, Reconfigured, Route, State, StopReason,
};

use crate::bfd::down;
use crate::scripted::{Scripted, open_for};
use crate::world::{A, B, World, ebgp, restart, routes};

const V4: &str = "203.0.113.1/32";
type Edit = fn(&mut PeerConfig);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn what_both_sides_agreed_on_needs_a_new_session_and_nothing_else_does() {
    let check = |sentence: &str, edit: Edit, wanted: Reconfigured| {
        println!("{sentence}");
        let mut speaker = Scripted::established(ebgp().0);
        speaker.session.set_routes(routes(&[V4]));
        speaker.sent();
        let before = speaker.dials;
        assert_eq!(speaker.reconfigure(edit), wanted);
        if wanted == Reconfigured::InPlace {
            assert_eq!(speaker.session.state(), State::Established);
            assert_eq!((speaker.closed.len(), speaker.sent()), (0, vec![]));
            return;
        }
        let codes: Vec<Code> = speaker.last_words.iter().map(|n| n.code).collect();
        assert_eq!(codes, [Code::CONFIGURATION_CHANGE]);
        assert_eq!(
            (speaker.session.state(), speaker.dials),
            (State::Connect, before + 1)
        );
        assert_eq!(speaker.session.status().last_error, None, "it is no error");
    };
    let new = |sentence, edit| check(sentence, edit, Reconfigured::NewSession);
    new("our AS", |c| c.local_as = 64500);
    new("the peer's AS", |c| c.peer_as = 64500);
    new("the router id", |c| {
        c.router_id = Ipv4Addr::new(192, 0, 2, 9);
    });
    new("the hold time", |c| c.hold_time = secs(9));
    new("the families", |c| _ = c.families.pop_last());
    new("graceful restart", |c| {
        c.graceful_restart = Some(restart(secs(120)));
    });

    let in_place = |sentence, edit| check(sentence, edit, Reconfigured::InPlace);
    in_place("nothing", |_| ());
    in_place("the pauses", |c| {
        (c.retry_min, c.retry_max) = (secs(2), secs(30));
    });
    in_place("the time a dial may take", |c| c.connect_timeout = secs(9));
    in_place("who dials", |c| c.passive = true);
    in_place("a limit to prefixes", |c| c.max_prefixes = Some(1));
    in_place("the pause behind it", |c| c.max_prefixes_pause = secs(9));
    in_place("the send hold time", |c| c.send_hold_time = Some(secs(100)));
    in_place("BFD", |c| c.bfd = BfdMode::Strict);
    in_place("a next hop of a family without routes", |c| {
        c.next_hop_v6 = "2001:db8::7".parse().ok();
    });
    in_place("the same next hop in writing", |c| {
        c.next_hop_v4 = "192.0.2.1".parse().ok();
    });
}

#[test]
fn a_configuration_that_cannot_work_changes_nothing() {
    let mut speaker = Scripted::established(ebgp().0);
    let bad = PeerConfig {
        local_as: 0,
        ..ebgp().0
    };
    let outcome = speaker.session.reconfigure(bad, speaker.now);
    assert_eq!(outcome, Err(ConfigError::ReservedAs(0)));
    assert_eq!(*speaker.session.config(), ebgp().0);
    assert_eq!(speaker.session.state(), State::Established);
}

#[test]
fn a_peer_of_graceful_restart_keeps_our_routes_over_a_change() {
    let check = |sentence: &str, notification: bool, wanted: &[Code]| {
        println!("{sentence}");
        let config = PeerConfig {
            graceful_restart: Some(restart(secs(120))),
            ..ebgp().0
        };
        let mut open = open_for(&config);
        open.capabilities
            .push(Capability::GracefulRestart(RestartCapability {
                notification,
                ..RestartCapability::default()
            }));
        let mut speaker = Scripted::established_with(config, &open);
        assert_eq!(
            speaker.reconfigure(|c| c.hold_time = secs(9)),
            Reconfigured::NewSession
        );
        let codes: Vec<Code> = speaker.last_words.iter().map(|n| n.code).collect();
        assert_eq!(
            (&codes[..], &speaker.closed[..]),
            (wanted, &[Direction::Outgoing][..])
        );
    };
    check(
        "it survives NOTIFICATIONs",
        true,
        &[Code::CONFIGURATION_CHANGE],
    );
    check("it does not", false, &[]);
}

#[test]
fn the_flags_of_a_restart_count_from_the_next_open_on() {
    let config = PeerConfig {
        graceful_restart: Some(restart(secs(120))),
        ..ebgp().0
    };
    let mut speaker = Scripted::connected(config);
    speaker.sent();
    let edit = |c: &mut PeerConfig| {
        let restart = c.graceful_restart.as_mut().unwrap();
        restart.restart_time = secs(60);
        restart.restarting = false;
        restart.forwarding.clear();
    };
    let offered = speaker.session.status().local_capabilities;
    assert_eq!(speaker.reconfigure(edit), Reconfigured::InPlace);
    let status = speaker.session.status();
    assert_eq!(
        status.local_capabilities, offered,
        "what was said stays said"
    );
    speaker.connect_by(Direction::Incoming);
    let bytes = speaker.session.poll_transmit(Direction::Incoming).unwrap();
    let Message::Open(open) = crate::world::decode(&bytes, speaker.dialect) else {
        panic!("{bytes:?}");
    };
    let offer = open.graceful_restart().unwrap();
    assert_eq!((offer.restarting, offer.restart_time), (false, 60));
    assert!(offer.families.iter().all(|family| !family.forwarding));
}

#[test]
fn a_new_next_hop_is_sent_for_the_routes_that_have_none_of_their_own() {
    let mut speaker = Scripted::established(ebgp().0);
    let own = Route {
        next_hop: "192.0.2.50".parse().ok(),
        ..Route::default()
    };
    let mut wanted = routes(&[V4, "2001:db8::1/128"]);
    wanted.insert("203.0.113.2/32".parse().unwrap(), own.into());
    speaker.session.set_routes(wanted);
    assert_eq!(speaker.updates().len(), 2);
    assert_eq!(speaker.session.status().unsent.len(), 1);

    println!("another one");
    speaker.reconfigure(|c| c.next_hop_v4 = "192.0.2.7".parse().ok());
    let updates = speaker.updates();
    assert_eq!(updates.len(), 1, "{updates:#?}");
    assert_eq!(updates[0].announced, [V4.parse().unwrap()]);
    assert_eq!(updates[0].attributes.next_hop, "192.0.2.7".parse().ok());

    println!("the first one of a family");
    speaker.reconfigure(|c| c.next_hop_v6 = "2001:db8::7".parse().ok());
    let updates = speaker.updates();
    assert_eq!(updates.len(), 1, "{updates:#?}");
    assert!(updates[0].attributes.mp_reach.is_some());

    println!("none any more");
    speaker.reconfigure(|c| c.next_hop_v6 = None);
    let updates = speaker.updates();
    assert_eq!(updates.len(), 1, "{updates:#?}");
    assert!(updates[0].attributes.mp_unreach.is_some());
    assert_eq!(speaker.session.advertised().count(), 2);
}

#[test]
fn a_session_without_a_connection_does_at_once_what_it_is_told_now() {
    let check = |sentence: &str, mut speaker: Scripted, edit: Edit, state: State, dials: usize| {
        println!("{sentence}");
        let before = speaker.dials;
        speaker.reconfigure(edit);
        assert_eq!(speaker.session.state(), state, "{}", speaker.dump());
        assert_eq!(speaker.dials - before, dials, "{}", speaker.dump());
        let timed = speaker.session.poll_timeout().is_some();
        assert_eq!(
            timed,
            state == State::Connect || !speaker.session.config().passive
        );
    };
    let config = ebgp().0;
    let passive = || {
        Scripted::new(PeerConfig {
            passive: true,
            ..ebgp().0
        })
    };
    let refused = || {
        let mut speaker = Scripted::new(ebgp().0);
        speaker.input(Input::TcpFailed {
            reason: "connection refused".into(),
        });
        speaker
    };
    let mut held = Scripted::connected(config.clone());
    held.receive(&[0; 19]);
    assert_eq!(held.session.state(), State::Idle);
    check(
        "not to dial, while it dials",
        Scripted::new(config),
        |c| c.passive = true,
        State::Active,
        0,
    );
    check(
        "not to dial, between two dials",
        refused(),
        |c| c.passive = true,
        State::Active,
        0,
    );
    check(
        "to dial",
        passive(),
        |c| c.passive = false,
        State::Connect,
        1,
    );
    check(
        "another AS, in the pause after an error",
        held,
        |c| c.peer_as = 64500,
        State::Connect,
        1,
    );
    check(
        "another AS, between two dials",
        refused(),
        |c| c.peer_as = 64500,
        State::Connect,
        1,
    );
    check(
        "another AS, while it dials",
        Scripted::new(ebgp().0),
        |c| c.peer_as = 64500,
        State::Connect,
        0,
    );
    check(
        "another AS and not to dial, while it dials",
        Scripted::new(ebgp().0),
        |c| {
            (c.peer_as, c.passive) = (64500, true);
        },
        State::Active,
        0,
    );

    println!("a shorter pause ends the longer one");
    let mut speaker = Scripted::new(PeerConfig {
        retry_min: secs(1000),
        retry_max: secs(1000),
        ..ebgp().0
    });
    speaker.input(Input::TcpFailed {
        reason: "connection refused".into(),
    });
    speaker.reconfigure(|c| (c.retry_min, c.retry_max) = (secs(1), secs(3)));
    speaker.advance(secs(3));
    assert_eq!(speaker.dials, 2);
}

#[test]
fn a_session_that_was_stopped_stays_so() {
    let mut speaker = Scripted::established(ebgp().0);
    let reason = StopReason::AdminShutdown;
    speaker.input(Input::Stop { reason, text: None });
    assert_eq!(
        speaker.reconfigure(|c| c.peer_as = 64500),
        Reconfigured::InPlace
    );
    assert_eq!((speaker.session.state(), speaker.dials), (State::Idle, 1));
    assert_eq!(speaker.session.poll_timeout(), None);
    speaker.input(Input::Start);
    speaker.connect();
    let sent = speaker.sent();
    assert!(
        matches!(&sent[..], [Message::Open(Open { hold_time: 90, .. })]),
        "{sent:?}"
    );
}

#[test]
fn a_session_that_waits_for_bfd_gets_on_when_it_is_told_not_to() {
    let mut speaker = Scripted::connected(PeerConfig {
        bfd: BfdMode::Strict,
        ..ebgp().0
    });
    speaker.receive(&open_for(&ebgp().0).emit());
    speaker.receive(&keepalive());
    speaker.input(Input::Bfd(down()));
    assert_eq!(speaker.session.state(), State::OpenConfirm);
    speaker.reconfigure(|c| c.bfd = BfdMode::On);
    assert_eq!(speaker.session.state(), State::Established);
}

#[test]
fn both_sides_meet_again_after_a_change() {
    let (a, b) = ebgp();
    let mut world = World::new(a.clone(), b.clone()).established();
    world.speakers[A].session.set_routes(routes(&[V4]));
    let changed = PeerConfig {
        families: [Family::Ipv4Unicast].into(),
        hold_time: secs(6),
        ..a
    };
    let now = world.now;
    let outcome = world.speakers[A].session.reconfigure(changed, now);
    assert_eq!(outcome, Ok(Reconfigured::NewSession));
    world.run(secs(2));
    world.assert_states(State::Established, State::Established);
    let [a, b] = [A, B].map(|side| world.speakers[side].session.status());
    assert_eq!(a.agreed.unwrap().hold_time, secs(6));
    assert_eq!((a.established_count, b.counters.prefixes_reachable), (2, 1));
}
