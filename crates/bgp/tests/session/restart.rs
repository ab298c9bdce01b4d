//! Graceful restart (RFC 4724, RFC 8538): what is offered, when the end of the
//! routes is told, and how sessions end so that the peer keeps what it should.

use std::time::Duration;

use vipd_bgp::wire::{
    Capability, Code, Family, Message, Notification, Open, RestartCapability, RestartFamily,
    Update, keepalive,
};
use vipd_bgp::{Direction, Event, Input, PeerConfig, State, StopReason};

use crate::scripted::{Scripted, open_for};
use crate::world::{ebgp, restart, routes};

const V4: &str = "203.0.113.1/32";

/// With a restart time of two minutes, after a restart.
pub fn restarting() -> PeerConfig {
    PeerConfig {
        graceful_restart: Some(restart(Duration::from_secs(120))),
        next_hop_v6: "2001:db8::a".parse().ok(),
        ..ebgp().0
    }
}

/// The peer's OPEN with this capability.
fn open_with(restart: RestartCapability) -> Open {
    let mut open = open_for(&ebgp().0);
    open.capabilities.push(Capability::GracefulRestart(restart));
    open
}

/// A peer that only helps, with or without the N bit.
pub fn helper(notification: bool) -> Open {
    open_with(RestartCapability {
        notification,
        ..RestartCapability::default()
    })
}

/// What our OPEN says of restarts on a connection that was just made.
fn offered(speaker: &mut Scripted) -> Option<RestartCapability> {
    let sent = speaker.sent();
    let [Message::Open(open)] = &sent[..] else {
        panic!("{sent:?}");
    };
    open.graceful_restart().cloned()
}

#[test]
fn our_open_says_what_survived() {
    let check = |sentence: &str, config: PeerConfig, wanted: Option<RestartCapability>| {
        println!("{sentence}");
        assert_eq!(offered(&mut Scripted::connected(config)), wanted);
    };
    let family = |family: Family, forwarding| RestartFamily {
        afi: family.afi(),
        safi: family.safi(),
        forwarding,
    };
    let [v4, v6] = Family::ALL;
    let wanted = |restarting, forwarding: [bool; 2]| {
        Some(RestartCapability {
            restarting,
            notification: true,
            restart_time: 120,
            families: vec![family(v4, forwarding[0]), family(v6, forwarding[1])],
        })
    };
    let with = |edit: fn(&mut vipd_bgp::GracefulRestart)| {
        let mut config = restarting();
        config.graceful_restart.as_mut().map(edit);
        config
    };
    check("no graceful restart", ebgp().0, None);
    check("all survived", restarting(), wanted(true, [true, true]));
    check(
        "a first start",
        with(|r| r.restarting = false),
        wanted(false, [true, true]),
    );
    check(
        "IPv6 survived",
        with(|r| _ = r.forwarding.pop_first()),
        wanted(true, [false, true]),
    );
    check(
        "nothing survived",
        with(|r| r.forwarding.clear()),
        wanted(true, [false, false]),
    );
}

#[test]
fn what_both_sides_offer_is_agreed() {
    let check = |sentence: &str, config: PeerConfig, open: &Open, wanted: Option<(bool, bool)>| {
        println!("{sentence}");
        let speaker = Scripted::established_with(config, open);
        let agreed = speaker.session.status().agreed.expect("agreed");
        let terms = agreed.restart.as_ref();
        assert_eq!(terms.map(|r| (r.notification, r.peer.restarting)), wanted);
        if let Some(terms) = terms {
            assert_eq!(terms.kept, agreed.families);
        }
    };
    let back = open_with(RestartCapability {
        restarting: true,
        ..RestartCapability::default()
    });
    let mut twice = helper(false);
    let last = helper(true).capabilities.pop();
    twice.capabilities.extend(last);
    check("neither", ebgp().0, &open_for(&ebgp().0), None);
    check("the peer alone", ebgp().0, &helper(true), None);
    check("we alone", restarting(), &open_for(&ebgp().0), None);
    check("both", restarting(), &helper(true), Some((true, false)));
    check(
        "both, without NOTIFICATIONs",
        restarting(),
        &helper(false),
        Some((false, false)),
    );
    check(
        "a peer that has restarted",
        restarting(),
        &back,
        Some((false, true)),
    );
    check(
        "of two the last counts",
        restarting(),
        &twice,
        Some((true, false)),
    );
}

#[test]
fn the_end_of_rib_comes_once_behind_all_routes_and_not_before_they_are_complete() {
    for (sentence, config, open) in [
        ("with graceful restart", restarting(), helper(true)),
        (
            "without",
            PeerConfig {
                graceful_restart: None,
                ..restarting()
            },
            open_for(&ebgp().0),
        ),
    ] {
        println!("{sentence}");
        let mut speaker = Scripted::established_with(config, &open);
        let marks = |updates: Vec<Update>| -> Vec<Option<Family>> {
            updates.iter().map(Update::ended_family).collect()
        };
        speaker.session.set_routes(routes(&[V4]));
        assert_eq!(
            marks(speaker.updates()),
            [None],
            "the state of some VIPs is not known"
        );
        assert!(speaker.session.is_flushed());

        speaker.session.set_routes(routes(&[V4, "2001:db8::1/128"]));
        speaker.session.set_complete(true);
        assert!(!speaker.session.is_flushed());
        let [v4, v6] = Family::ALL.map(Some);
        assert_eq!(marks(speaker.updates()), [v4, None, v6]);
        let status = speaker.session.status();
        assert!(status.complete && status.end_of_rib_sent.iter().eq(&Family::ALL));

        println!("never again on this session");
        speaker.session.set_complete(false);
        speaker.session.set_complete(true);
        speaker.session.set_routes(routes(&[]));
        assert_eq!(marks(speaker.updates()), [None, None]);
        let ends = speaker
            .events
            .iter()
            .filter(|event| matches!(event, Event::EndOfRib(_)));
        assert_eq!(ends.count(), 2);
    }
}

#[test]
fn a_family_that_is_busy_does_not_hold_up_the_end_of_another() {
    let mut speaker = Scripted::established_with(restarting(), &helper(true));
    speaker.session.set_complete(true);
    speaker.session.set_routes(routes(&["2001:db8::1/128"]));
    let ended: Vec<_> = speaker.updates().iter().map(Update::ended_family).collect();
    assert_eq!(
        ended,
        [Some(Family::Ipv4Unicast), None, Some(Family::Ipv6Unicast)]
    );
}

#[test]
fn an_end_of_rib_of_the_peer_is_told_in_the_status() {
    let mut speaker = Scripted::established_with(restarting(), &helper(true));
    for family in Family::ALL {
        let before = speaker.session.status().end_of_rib_received;
        assert!(!before.contains(&family));
        speaker.receive(&Update::end_of_rib(family).emit(speaker.dialect));
        assert!(
            speaker
                .session
                .status()
                .end_of_rib_received
                .contains(&family)
        );
    }
    let reason = "reset by the peer".to_owned();
    let direction = Direction::Outgoing;
    speaker.input(Input::TcpClosed { direction, reason });
    assert!(speaker.session.status().end_of_rib_received.is_empty());
}

/// Breaks the session and brings it back up to our OPEN.
fn reconnect(speaker: &mut Scripted) -> RestartCapability {
    let reason = "reset by the peer".to_owned();
    let direction = Direction::Outgoing;
    speaker.input(Input::TcpClosed { direction, reason });
    while speaker.session.state() != State::Connect {
        speaker.advance(Duration::from_millis(100));
    }
    speaker.connect();
    offered(speaker).expect("it is offered")
}

#[test]
fn a_restart_is_over_once_all_routes_have_been_told_and_not_before() {
    let mut speaker = Scripted::established_with(restarting(), &helper(true));
    speaker.session.set_routes(routes(&[V4]));
    speaker.updates();
    println!("the first session broke before its End-of-RIB");
    assert!(reconnect(&mut speaker).restarting);

    println!("a session that was not established told nothing");
    speaker.session.set_complete(true);
    assert!(reconnect(&mut speaker).restarting);

    println!("one that told the end of one family did not tell all");
    speaker.receive(&helper(true).emit());
    speaker.receive(&keepalive());
    speaker.session.set_routes(routes(&[V4]));
    for message in ["KEEPALIVE", "End-of-RIB of IPv6", "the route"] {
        let sent = speaker.session.poll_transmit(Direction::Outgoing);
        assert!(sent.is_some(), "{message}");
    }
    assert_eq!(speaker.session.status().end_of_rib_sent.len(), 1);
    assert!(reconnect(&mut speaker).restarting);

    speaker.receive(&helper(true).emit());
    speaker.receive(&keepalive());
    assert_eq!(speaker.updates().len(), 3, "a route and two ends");
    println!("now it is over");
    let offer = reconnect(&mut speaker);
    assert!(!offer.restarting && offer.families.iter().all(|family| family.forwarding));
}

#[test]
fn a_stop_says_what_the_peer_may_keep() {
    let check = |sentence: &str, open: &Open, reason, wanted: Option<(Code, &str)>| {
        println!("{sentence}");
        let mut speaker = Scripted::established_with(restarting(), open);
        let text = Some("hi".to_owned());
        speaker.input(Input::Stop { reason, text });
        assert_eq!(
            speaker.closed,
            [Direction::Outgoing],
            "it is closed either way"
        );
        assert_eq!(speaker.session.state(), State::Idle);
        let said = speaker.last_words.iter().map(|n| (n.code, n.to_string()));
        let wanted = wanted.map(|(code, words)| (code, words.to_owned()));
        assert_eq!(said.collect::<Vec<_>>(), Vec::from_iter(wanted));
    };
    let (keeps, drops, plain) = (helper(true), helper(false), open_for(&ebgp().0));
    let shutdown = r#"Cease / Administrative Shutdown (6/2): "hi""#;
    let reset = r#"Cease / Administrative Reset (6/4): "hi""#;
    let hard = |inner: &str| format!("Cease / Hard Reset (6/9): {inner}");

    for (open, name) in [
        (&keeps, "N"),
        (&drops, "no N"),
        (&plain, "no graceful restart"),
    ] {
        println!("{name}");
        check("an upgrade", open, StopReason::Restart, None);
    }
    let all = [
        (
            "the end",
            StopReason::AdminShutdown,
            Code::ADMIN_SHUTDOWN,
            shutdown,
            true,
        ),
        (
            "a hard reset",
            StopReason::HardReset,
            Code::ADMIN_RESET,
            reset,
            true,
        ),
        (
            "a peer removed",
            StopReason::PeerDeconfigured,
            Code::PEER_DECONFIGURED,
            "Cease / Peer De-configured (6/3)",
            true,
        ),
        (
            "a reset",
            StopReason::AdminReset,
            Code::ADMIN_RESET,
            reset,
            false,
        ),
        (
            "a change",
            StopReason::ConfigurationChange,
            Code::CONFIGURATION_CHANGE,
            "Cease / Other Configuration Change (6/6)",
            false,
        ),
    ];
    for (sentence, reason, code, words, is_final) in all {
        let wrapped = hard(words);
        let (with_n, without) = if is_final {
            ((Code::HARD_RESET, &*wrapped), Some((code, words)))
        } else {
            ((code, words), None)
        };
        check(sentence, &keeps, reason, Some(with_n));
        check(sentence, &drops, reason, without);
        check(sentence, &plain, reason, Some((code, words)));
    }
}

#[test]
fn an_upgrade_says_nothing_on_a_connection_of_any_stage() {
    for stage in 0..3 {
        let mut speaker = Scripted::connected(restarting());
        let steps = [helper(true).emit(), keepalive()];
        for bytes in &steps[..stage] {
            speaker.receive(bytes);
        }
        let reason = StopReason::Restart;
        speaker.input(Input::Stop { reason, text: None });
        assert_eq!(
            (&speaker.closed[..], &speaker.last_words[..]),
            (&[Direction::Outgoing][..], &[][..])
        );
        assert_eq!(speaker.session.poll_timeout(), None);
    }
}

#[test]
fn a_hard_reset_of_the_peer_is_told_with_its_reason() {
    let mut speaker = Scripted::established_with(restarting(), &helper(true));
    let inner = Notification::with_text(Code::ADMIN_SHUTDOWN, Some("bye"));
    speaker.receive(&Notification::hard_reset(&inner).emit());
    assert_eq!(speaker.session.state(), State::Active);
    let words = speaker.session.status().last_error.unwrap().words;
    assert!(
        words.contains(r#"Hard Reset (6/9): Cease / Administrative Shutdown (6/2): "bye""#),
        "{words}"
    );
}

#[test]
fn the_status_says_how_long_a_peer_may_keep_the_routes_of_a_session_that_has_ended() {
    let check = |sentence: &str, open: &Open, end: fn(&mut Scripted), wanted: Option<u64>| {
        println!("{sentence}");
        let mut speaker = Scripted::established_with(restarting(), open);
        assert_eq!(speaker.session.status().kept_until, None, "it stands");
        end(&mut speaker);
        let until = wanted.map(|seconds| speaker.now + Duration::from_secs(seconds));
        assert_eq!(speaker.session.status().kept_until, until);
        if wanted.is_some() {
            speaker.advance(Duration::from_secs(1));
            speaker.connect();
            assert_eq!(speaker.session.status().kept_until, until, "not back yet");
            speaker.receive(&open.emit());
            speaker.receive(&keepalive());
            assert_eq!(speaker.session.status().kept_until, None, "it is back");
        }
    };
    let broken: fn(&mut Scripted) = |speaker| {
        let (direction, reason) = (Direction::Outgoing, "reset by the peer".to_owned());
        speaker.input(Input::TcpClosed { direction, reason });
    };
    let stop: fn(&mut Scripted) = |speaker| {
        let (reason, text) = (StopReason::AdminShutdown, None);
        speaker.input(Input::Stop { reason, text });
    };
    let plain = open_for(&ebgp().0);
    check("its connection breaks", &helper(true), broken, Some(120));
    check("without NOTIFICATIONs", &helper(false), broken, Some(120));
    check("without graceful restart", &plain, broken, None);
    check("an end for good", &helper(true), stop, None);
}
