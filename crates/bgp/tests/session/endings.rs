//! NOTIFICATIONs both ways, stops, and connections that break.

use std::time::Duration;

use vipd_bgp::wire::{Capability, Code, Family, Notification, RestartCapability, keepalive};
use vipd_bgp::{Bfd, BfdMode, Direction, Event, Input, PeerConfig, State, StopReason};

use crate::bfd::down;
use crate::scripted::{Scripted, open_for};
use crate::world::{A, B, World, ebgp, restart, routes};

#[test]
fn a_stop_tells_the_peer_why() {
    let check = |reason, text: Option<&str>, code: Code, shown: &str| {
        let (a, b) = ebgp();
        let mut world = World::new(a, b).established();
        world.input(
            A,
            Input::Stop {
                reason,
                text: text.map(str::to_owned),
            },
        );
        world.pump();
        let state = world.speakers[A].session.state();
        assert_eq!(state, State::Idle, "{}", world.dump());
        assert_eq!(
            world.speakers[A].session.poll_timeout(),
            None,
            "nothing is tried any more"
        );
        let received = world.speakers[B]
            .events
            .iter()
            .rev()
            .find_map(|event| match event {
                Event::NotificationReceived { notification, .. } => Some(notification.clone()),
                _ => None,
            });
        let received = received.expect("B was told");
        assert_eq!(
            (received.code, received.to_string().as_str()),
            (code, shown)
        );
        let error = world.speakers[B].session.status().last_error.unwrap().words;
        let wanted = format!("the peer ended the connection: {shown}; ");
        assert!(error.starts_with(&wanted), "{error}");

        world.input(A, Input::Start);
        world.run(Duration::from_secs(20));
        world.assert_states(State::Established, State::Established);
    };
    check(
        StopReason::AdminShutdown,
        Some("moving to \"rack 7\""),
        Code::ADMIN_SHUTDOWN,
        r#"Cease / Administrative Shutdown (6/2): "moving to \"rack 7\"""#,
    );
    check(
        StopReason::AdminReset,
        None,
        Code::ADMIN_RESET,
        "Cease / Administrative Reset (6/4)",
    );
    check(
        StopReason::PeerDeconfigured,
        Some("not carried by this code"),
        Code::PEER_DECONFIGURED,
        "Cease / Peer De-configured (6/3)",
    );
    check(
        StopReason::ConfigurationChange,
        None,
        Code::CONFIGURATION_CHANGE,
        "Cease / Other Configuration Change (6/6)",
    );
}

#[test]
fn notifications_are_shown_in_words() {
    let check = |code: u8, subcode: u8, data: &[u8], shown: &str| {
        let notification = Notification::new(Code { code, subcode }, data);
        assert_eq!(notification.to_string(), shown);
    };
    check(2, 2, &[], "OPEN Message Error / Bad Peer AS (2/2)");
    check(
        2,
        7,
        &[1, 4, 0, 1, 0, 1],
        "OPEN Message Error / Unsupported Capability (2/7): IPv4 unicast",
    );
    check(
        2,
        1,
        &[0, 4],
        "OPEN Message Error / Unsupported Version Number (2/1): the highest version supported is 4",
    );
    check(4, 0, &[], "Hold Timer Expired (4/0)");
    check(
        5,
        3,
        &[],
        "Finite State Machine Error / Receive Unexpected Message in Established State (5/3)",
    );
    check(
        6,
        1,
        &[0, 2, 1, 0, 0, 0, 50],
        "Cease / Maximum Number of Prefixes Reached (6/1): the limit for IPv6 unicast is 50",
    );
    check(6, 2, &[], "Cease / Administrative Shutdown (6/2)");
    check(6, 2, &[0], "Cease / Administrative Shutdown (6/2)");
    check(
        6,
        2,
        &[9, b'h', b'i'],
        "Cease / Administrative Shutdown (6/2)",
    );
    check(
        6,
        4,
        &[2, b'h', b'i'],
        r#"Cease / Administrative Reset (6/4): "hi""#,
    );
    check(
        6,
        2,
        &[3, b'a', b'\n', 0xff],
        "Cease / Administrative Shutdown (6/2): \"a\\n\u{fffd}\"",
    );
    check(
        6,
        9,
        &[6, 2, 2, b'h', b'i'],
        r#"Cease / Hard Reset (6/9): Cease / Administrative Shutdown (6/2): "hi""#,
    );
    check(6, 9, &[6], "Cease / Hard Reset (6/9)");
    check(6, 9, &[6, 9, 6, 9, 6, 2], "Cease / Hard Reset (6/9)");
    check(6, 10, &[], "Cease / BFD Down (6/10)");
    check(8, 0, &[], "Send Hold Timer Expired (8/0)");
    check(6, 99, &[], "Cease (6/99)");
    check(77, 1, &[], "unknown error (77/1)");
}

#[test]
fn the_end_of_a_connection_is_told_with_what_helps() {
    let check = |notification: Notification, wanted: &str| {
        let mut speaker = Scripted::established(ebgp().0);
        speaker.receive(&notification.emit());
        let words = speaker.session.status().last_error.unwrap().words;
        let words = words
            .strip_prefix("the peer ended the connection: ")
            .unwrap();
        assert!(words.contains(wanted), "{words}");
    };
    let plain = |code, wanted| check(Notification::new(code, []), wanted);
    plain(
        Code::BAD_PEER_AS,
        "(2/2); it expects another AS than ours, which is 64496",
    );
    plain(Code::BAD_BGP_IDENTIFIER, "our router id 192.0.2.1");
    plain(Code::UNACCEPTABLE_HOLD_TIME, "our hold time of 90 s");
    plain(Code::UNSUPPORTED_VERSION, "does not speak BGP-4");
    plain(
        Code::UNSUPPORTED_OPTIONAL_PARAMETER,
        "does not know capabilities",
    );
    plain(
        Code::UNSUPPORTED_CAPABILITY,
        "activate the same address families",
    );
    plain(Code::ROLE_MISMATCH, "insists on a role");
    plain(Code::HOLD_TIMER_EXPIRED, "heard nothing from us");
    plain(
        Code::SEND_HOLD_TIMER_EXPIRED,
        "taken in nothing of what it sends",
    );
    plain(
        Code::ADMIN_SHUTDOWN,
        "an operator has shut the session down there",
    );
    plain(Code::PEER_DECONFIGURED, "not configured there any more");
    plain(Code::ADMIN_RESET, "an operator has restarted");
    plain(
        Code::CONNECTION_REJECTED,
        "(6/5); it does not let this node in",
    );
    plain(Code::CONFIGURATION_CHANGE, "it has been reconfigured");
    plain(Code::COLLISION, "another connection with us");
    plain(Code::OUT_OF_RESOURCES, "no room for the session");
    plain(Code::BFD_DOWN, "its BFD says");
    plain(Code::MAXIMUM_PREFIXES, "it takes fewer prefixes");
    check(
        Notification::maximum_prefixes(Family::Ipv6Unicast, 50),
        "it takes at most 50 prefixes of IPv6 unicast",
    );
    let inner = Notification::with_text(Code::PEER_DECONFIGURED, None);
    check(
        Notification::hard_reset(&inner),
        "not configured there any more; it keeps none of our routes",
    );
    check(
        Notification::new(
            Code {
                code: 77,
                subcode: 1,
            },
            [],
        ),
        "unknown error (77/1)",
    );
}

#[test]
fn what_is_dangerous_about_a_session_is_told_while_it_stands() {
    let check = |sentence: &str,
                 edit: fn(&mut PeerConfig),
                 says: Bfd,
                 peer_restarts: bool,
                 wanted: &[&str]| {
        println!("{sentence}");
        let (mut config, _) = ebgp();
        edit(&mut config);
        let mut open = open_for(&config);
        if peer_restarts {
            let restart = RestartCapability::default();
            open.capabilities.push(Capability::GracefulRestart(restart));
        }
        let mut speaker = Scripted::connected(config);
        assert!(speaker.session.status().warnings.is_empty());
        speaker.receive(&open.emit());
        speaker.receive(&keepalive());
        speaker.input(Input::Bfd(says));
        let warnings = speaker.session.status().warnings;
        assert_eq!(warnings.len(), wanted.len(), "{warnings:?}");
        for (warning, wanted) in warnings.iter().zip(wanted) {
            assert!(warning.contains(wanted), "{warning}");
        }
    };
    let off = |sentence, edit, peer_restarts, wanted: &[&str]| {
        check(sentence, edit, Bfd::default(), peer_restarts, wanted);
    };
    let short: fn(&mut PeerConfig) = |c| c.hold_time = Duration::from_secs(30);
    off("a short hold time", short, false, &[]);
    off("a long hold time", |_| (), false, &["90 s and no BFD runs"]);
    off(
        "no hold time",
        |c| c.hold_time = Duration::ZERO,
        false,
        &["never noticed"],
    );
    let restarts: fn(&mut PeerConfig) = |c| {
        c.hold_time = Duration::from_secs(9);
        c.graceful_restart = Some(restart(Duration::from_secs(120)));
    };
    off(
        "a peer without graceful restart",
        restarts,
        false,
        &["routes flap"],
    );
    off(
        "graceful restart without BFD",
        restarts,
        true,
        &["for up to 129 s after it has died: run BFD"],
    );

    let long: fn(&mut PeerConfig) = |c| c.bfd = BfdMode::On;
    let none: fn(&mut PeerConfig) = |c| (c.hold_time, c.bfd) = (Duration::ZERO, BfdMode::On);
    let all: fn(&mut PeerConfig) = |c| {
        c.bfd = BfdMode::On;
        c.hold_time = Duration::from_secs(9);
        c.graceful_restart = Some(restart(Duration::from_secs(120)));
    };
    for (sentence, edit) in [
        ("a long hold time with BFD", long),
        ("no hold time with BFD", none),
        ("graceful restart with BFD", all),
    ] {
        check(sentence, edit, Bfd::Up, true, &[]);
    }
    let unknown = || Bfd::Unknown("the BFD process is not reached".into());
    check(
        "a long hold time, BFD is down",
        long,
        down(),
        true,
        &["90 s and BFD is not up (nothing was heard of the peer for 900ms): a silent"],
    );
    check(
        "no hold time, BFD is turned off by hand",
        none,
        Bfd::AdminDown,
        true,
        &["and BFD is administratively down: a silent death is never noticed; see `vipd show bfd`"],
    );
    check(
        "graceful restart, and nobody knows of BFD",
        all,
        unknown(),
        true,
        &[
            "it is not known whether BFD is up (the BFD process is not reached): a silent death is \
             noticed only at the end of the hold time, 9 s; see `vipd show bfd`",
            "for up to 129 s after it has died: see `vipd show bfd`",
        ],
    );
}

#[test]
fn the_status_tells_the_connection_and_its_timers() {
    let secs = Duration::from_secs;
    let mut speaker = Scripted::new(ebgp().0);
    let status = speaker.session.status();
    assert_eq!(
        (status.connection, status.deadlines),
        (None, Default::default())
    );
    speaker.connect_by(Direction::Incoming);
    let status = speaker.session.status();
    let local = "192.0.2.1".parse().unwrap();
    assert_eq!(status.connection, Some((Direction::Incoming, local)));
    assert_eq!(status.deadlines.hold, Some(speaker.now + secs(60)));
    assert_eq!(
        (status.deadlines.keepalive, status.deadlines.send_hold),
        (None, None)
    );

    let mut speaker = Scripted::established(ebgp().0);
    let deadlines = speaker.session.status().deadlines;
    let in_secs =
        |deadline: Option<std::time::Instant>| (deadline.unwrap() - speaker.now).as_secs();
    assert_eq!(
        (in_secs(deadlines.hold), in_secs(deadlines.send_hold)),
        (90, 480)
    );
    assert!(
        (22..=30).contains(&in_secs(deadlines.keepalive)),
        "{deadlines:?}"
    );
    let reason = StopReason::AdminShutdown;
    speaker.input(Input::Stop { reason, text: None });
    let status = speaker.session.status();
    assert_eq!(
        (status.connection, status.deadlines),
        (None, Default::default())
    );
}

#[test]
fn what_the_peer_says_decides_where_to_wait() {
    let check = |sentence: &str, code: Code, state: State| {
        println!("{sentence}");
        let mut speaker = Scripted::established(ebgp().0);
        speaker.receive(&Notification::new(code, []).emit());
        assert_eq!(speaker.session.state(), state, "{}", speaker.dump());
        assert_eq!(speaker.last_words, [], "a NOTIFICATION is not answered");
        assert_eq!(speaker.session.admits_incoming(), state == State::Active);
        speaker.advance(Duration::from_secs(1));
        assert_eq!(
            (speaker.session.state(), speaker.dials),
            (State::Connect, 2)
        );
    };
    check(
        "a shutdown may be over any time",
        Code::ADMIN_SHUTDOWN,
        State::Active,
    );
    check(
        "a lost peer may be back any time",
        Code::HOLD_TIMER_EXPIRED,
        State::Active,
    );
    check("a wrong AS stays wrong", Code::BAD_PEER_AS, State::Idle);
    check(
        "a bad UPDATE comes again",
        Code::MALFORMED_ATTRIBUTE_LIST,
        State::Idle,
    );
}

#[test]
fn a_broken_connection_is_replaced() {
    let mut speaker = Scripted::established(ebgp().0);
    let reason = "reset by the peer".to_owned();
    speaker.input(Input::TcpClosed {
        direction: Direction::Outgoing,
        reason,
    });
    assert_eq!(speaker.session.state(), State::Active);
    let status = speaker.session.status();
    assert_eq!(
        status.last_error.unwrap().words,
        "the connection ended: reset by the peer"
    );
    assert_eq!((status.established_at, status.agreed), (None, None));
    assert_eq!(speaker.sent(), []);
    speaker.advance(Duration::from_secs(1));
    assert_eq!(speaker.dials, 2);
}

#[test]
fn an_idle_session_refuses_connections() {
    let mut speaker = Scripted::new(ebgp().0);
    speaker.input(Input::Stop {
        reason: StopReason::AdminShutdown,
        text: None,
    });
    assert!(!speaker.session.admits_incoming());
    let local = "192.0.2.1".parse().unwrap();
    speaker.input(Input::TcpConnected {
        direction: Direction::Incoming,
        local,
    });
    assert_eq!(speaker.session.state(), State::Idle);
    assert_eq!(speaker.sent(), []);
}

#[test]
fn an_ordered_stop_withdraws_before_it_says_goodbye() {
    let (a, b) = ebgp();
    let mut world = World::new(a, PeerConfig { passive: true, ..b });
    world.speakers[A]
        .session
        .set_routes(routes(&["203.0.113.1/32", "203.0.113.2/32"]));
    let mut world = world.established();
    assert_eq!(
        world.speakers[B]
            .session
            .status()
            .counters
            .prefixes_reachable,
        2
    );

    world.speakers[A].session.set_routes(routes(&[]));
    assert!(!world.speakers[A].session.is_flushed());
    world.pump();
    assert!(world.speakers[A].session.is_flushed());
    world.input(
        A,
        Input::Stop {
            reason: StopReason::AdminShutdown,
            text: None,
        },
    );
    world.pump();
    let counters = world.speakers[B].session.status().counters;
    assert_eq!(
        (counters.prefixes_withdrawn, counters.received.notification),
        (2, 1)
    );
}
