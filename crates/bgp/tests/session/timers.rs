//! Hold timer, keepalives, and the pauses between attempts.

use std::time::Duration;

use vipd_bgp::wire::{Capability, Code, Message, Notification, keepalive};
use vipd_bgp::{Direction, Input, PeerConfig, State};

use crate::scripted::{Scripted, open_for};
use crate::world::{A, B, World, ebgp};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_peer_that_falls_silent_is_dropped_after_the_hold_time_and_let_in_when_it_is_back() {
    for hold_time in [secs(3), secs(90)] {
        let (a, b) = ebgp();
        let mut world = World::new(PeerConfig { hold_time, ..a }, b).established();
        world.silent = true;
        world.run(hold_time / 3 * 2 - Duration::from_millis(1));
        world.assert_states(State::Established, State::Established);
        world.run(hold_time / 3 + Duration::from_millis(1));
        for side in [A, B] {
            let speaker = &world.speakers[side];
            assert_ne!(
                speaker.session.state(),
                State::Established,
                "{}",
                world.dump()
            );
            let last = speaker.notifications_sent().pop().expect("it says why");
            assert_eq!(last.code, Code::HOLD_TIMER_EXPIRED);
        }
        world.run(secs(300));
        world.silent = false;
        world.run(secs(20));
        world.assert_states(State::Established, State::Established);
    }
}

#[test]
fn an_idle_session_stays_up_for_a_day_and_keepalives_keep_their_rate() {
    for (hold_time, least, most) in [(3, 86_400, 115_200), (90, 2_880, 3_840), (0, 1, 1)] {
        let (a, b) = ebgp();
        let config = PeerConfig {
            hold_time: secs(hold_time),
            ..a
        };
        let mut world = World::new(config, b).established();
        world.run(secs(86_400));
        world.assert_states(State::Established, State::Established);
        let status = world.speakers[A].session.status();
        assert_eq!(status.established_count, 1);
        let sent = status.counters.sent.keepalive;
        assert!(
            (least..=most + 100).contains(&sent),
            "{sent} at hold time {hold_time}"
        );
    }
}

#[test]
fn a_peer_that_accepts_but_never_speaks_is_dropped() {
    let mut speaker = Scripted::connected(ebgp().0);
    speaker.advance(secs(59));
    assert_eq!(speaker.session.state(), State::OpenSent);
    speaker.advance(secs(1));
    assert_eq!(speaker.session.state(), State::Active, "{}", speaker.dump());
    assert_eq!(speaker.last_words[0].code, Code::HOLD_TIMER_EXPIRED);
}

#[test]
fn a_peer_that_takes_nothing_in_is_dropped_after_the_send_hold_time() {
    let check = |hold_time: u64, send_hold_time: Option<u64>, wanted: Option<u64>| {
        let config = PeerConfig {
            hold_time: secs(hold_time),
            send_hold_time: send_hold_time.map(secs),
            ..ebgp().0
        };
        let mut open = open_for(&config);
        open.hold_time = 65535;
        let mut speaker = Scripted::established_with(config, &open);
        let live = |speaker: &mut Scripted, limit: u64, writes: bool| {
            let begun = speaker.now;
            while speaker.session.state() == State::Established {
                if speaker.now - begun > secs(limit) {
                    return None;
                }
                speaker.advance(secs(1));
                speaker.receive(&keepalive());
                if writes {
                    speaker.session.wrote(Direction::Outgoing, speaker.now);
                }
            }
            Some((speaker.now - begun).as_secs())
        };
        assert_eq!(live(&mut speaker, 3_000, true), None, "{}", speaker.dump());
        assert_eq!(
            live(&mut speaker, 3_000, false),
            wanted,
            "{}",
            speaker.dump()
        );
        if wanted.is_some() {
            assert_eq!(speaker.last_words[0].code, Code::SEND_HOLD_TIMER_EXPIRED);
            let words = speaker.session.status().last_error.unwrap().words;
            assert!(words.starts_with("send hold timer expired"), "{words}");
            assert_eq!(speaker.session.state(), State::Active);
        }
    };
    check(90, None, Some(480));
    check(600, None, Some(1_200));
    check(90, Some(91), Some(91));
    check(0, None, None);
}

#[test]
fn keepalives_do_not_pile_up_while_the_socket_is_full() {
    let (config, _) = ebgp();
    let mut speaker = Scripted::established(config);
    for _ in 0..7 {
        speaker.advance(secs(60));
        speaker.receive(&keepalive());
    }
    assert_eq!(speaker.session.state(), State::Established);
    assert_eq!(speaker.sent(), [Message::Keepalive]);
}

#[test]
fn without_a_hold_time_silence_is_no_reason_to_end() {
    let (config, _) = ebgp();
    let mut open = open_for(&config);
    open.hold_time = 0;
    let mut speaker = Scripted::established_with(config, &open);
    assert_eq!(speaker.session.poll_timeout(), None);
    speaker.advance(secs(86_400));
    assert_eq!(speaker.session.state(), State::Established);
}

#[test]
fn pauses_between_dials_grow_to_the_limit_and_a_peer_that_is_back_is_found_within_it() {
    let (a, b) = ebgp();
    let mut world = World::new(a, PeerConfig { passive: true, ..b });
    world.listening = false;
    world.input(A, Input::Start);
    world.input(B, Input::Start);
    world.run(secs(600));
    world.assert_states(State::Active, State::Active);
    let dials = &world.speakers[A].dials;
    let pauses: Vec<Duration> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (at, pause) in pauses.iter().enumerate() {
        let whole = secs(15.min(1 << at.min(10)));
        assert!(
            (whole * 3 / 4..=whole).contains(pause),
            "pause {at} is {pause:?}: {pauses:?}"
        );
    }
    assert!((40..=60).contains(&pauses.len()), "{pauses:?}");
    let status = world.speakers[A].session.status();
    assert_eq!(
        status.last_error.unwrap().words,
        "cannot connect: connection refused"
    );
    assert!(status.retry_at.is_some());

    world.listening = true;
    world.run(secs(15));
    world.assert_states(State::Established, State::Established);
}

#[test]
fn dials_that_nobody_answers_end_at_the_time_out() {
    let mut speaker = Scripted::new(ebgp().0);
    speaker.advance(secs(5));
    let error = speaker.session.status().last_error.unwrap().words;
    assert_eq!(error, "cannot connect: no answer within 5s");
    // A dial that took longer than the pause is followed at once.
    assert_eq!(speaker.dials, 2);
    speaker.advance(secs(595));
    assert!(
        (600 / 15..=600 / 5).contains(&speaker.dials),
        "{}",
        speaker.dials
    );
}

#[test]
fn a_peer_that_always_refuses_our_terms_is_not_stormed() {
    let (a, b) = ebgp();
    let mut world = World::new(
        a,
        PeerConfig {
            peer_as: 64511,
            ..b
        },
    );
    world.input(A, Input::Start);
    world.input(B, Input::Start);
    world.run(secs(600));
    for side in [A, B] {
        let opens = world.speakers[side].session.status().counters.sent.open;
        assert!(
            (30..=130).contains(&opens),
            "{opens} OPENs in ten minutes: {}",
            world.dump()
        );
    }
    let error = world.speakers[B].session.status().last_error.unwrap().words;
    assert!(error.contains("AS 64496, but AS 64511"), "{error}");
}

#[test]
fn a_session_that_falls_as_soon_as_it_stands_backs_off() {
    let (config, _) = ebgp();
    let mut speaker = Scripted::established(config.clone());
    let full = Notification::new(Code::MAXIMUM_PREFIXES, []).emit();
    for _ in 0..10 {
        speaker.receive(&full);
        assert_eq!(speaker.session.state(), State::Active, "{}", speaker.dump());
        while speaker.session.state() != State::Connect {
            speaker.advance(Duration::from_millis(100));
        }
        speaker.connect();
        speaker.receive(&open_for(&config).emit());
        speaker.receive(&keepalive());
    }
    let before = speaker.now;
    speaker.receive(&full);
    let retry_at = speaker.session.status().retry_at.unwrap();
    assert!(retry_at - before > secs(11), "{:?}", retry_at - before);
}

#[test]
fn a_peer_in_error_is_left_alone_also_while_we_dial() {
    let mut wrong = open_for(&ebgp().0);
    wrong.my_as = 64511;
    wrong.capabilities = vec![Capability::FourOctetAs(64511)];
    for (sentence, said, state) in [
        ("a wrong AS stays wrong", wrong.emit(), State::Idle),
        (
            "a shutdown may be over any time",
            Notification::new(Code::ADMIN_SHUTDOWN, []).emit(),
            State::Connect,
        ),
    ] {
        println!("{sentence}");
        let mut speaker = Scripted::new(ebgp().0);
        speaker.connect_by(Direction::Incoming);
        speaker.receive_by(Direction::Incoming, &said);
        assert_eq!(speaker.session.state(), state, "{}", speaker.dump());
        assert_eq!(speaker.session.admits_incoming(), state != State::Idle);
        let given_up = speaker.closed.contains(&Direction::Outgoing);
        assert_eq!(given_up, state == State::Idle, "{}", speaker.dump());
        speaker.advance(secs(1));
        let dials = 1 + usize::from(state == State::Idle);
        assert_eq!(
            (speaker.session.state(), speaker.dials),
            (State::Connect, dials)
        );
    }
}
