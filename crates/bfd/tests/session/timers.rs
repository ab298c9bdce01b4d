//! When packets are sent, and how intervals change.

use std::time::Duration;

use vipd_bfd::State;
use vipd_bfd::packet::Packet;

use crate::scripted::{Scripted, config, ms, peer, timing};

/// The times between packets.
fn gaps(sent: &[(Duration, Packet)]) -> Vec<Duration> {
    sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

fn assert_between(gaps: &[Duration], range: std::ops::RangeInclusive<u64>) {
    let (low, high) = (ms(*range.start()), ms(*range.end()));
    assert!(gaps.len() > 20, "{gaps:?}");
    assert!(
        gaps.iter().all(|gap| (low..=high).contains(gap)),
        "{gaps:?}"
    );
    assert!(gaps.iter().min() < gaps.iter().max(), "no jitter: {gaps:?}");
}

#[test]
fn until_it_is_up_a_session_sends_once_a_second() {
    let mut scripted = Scripted::new(config());
    let sent = scripted.run(ms(60_000));
    assert_eq!(sent[0].0, Duration::ZERO);
    assert_between(&gaps(&sent), 750..=1000);
    assert!(
        sent.iter()
            .all(|(_, packet)| packet.desired_min_tx == ms(1000))
    );
}

#[test]
fn the_slower_of_both_sides_sets_the_pace() {
    // Our min_tx, the peer's min_rx, the interval in milliseconds.
    for (ours, theirs, interval) in [(100, 100, 100), (100, 400, 400), (400, 100, 400)] {
        let config = timing(ms(ours), ms(100), 3);
        let mut scripted = Scripted::in_state(config, State::Up);
        let up = Packet {
            required_min_rx: ms(theirs),
            ..peer(State::Up)
        };
        scripted.hear(up);
        scripted.run_hearing(ms(2000), up);
        let sent = scripted.run_hearing(ms(20_000), up);
        assert_between(&gaps(&sent), interval * 3 / 4 - 1..=interval);
    }
}

#[test]
fn with_a_multiplier_of_one_no_packet_comes_at_the_last_moment() {
    let config = timing(ms(100), ms(100), 1);
    let mut scripted = Scripted::in_state(config, State::Up);
    let sent = scripted.run_hearing(ms(20_000), peer(State::Up));
    assert_between(&gaps(&sent), 74..=90);
}

#[test]
fn a_peer_that_can_receive_nothing_is_sent_nothing_but_answers() {
    let mut scripted = Scripted::in_state(config(), State::Up);
    let deaf = Packet {
        required_min_rx: Duration::ZERO,
        ..peer(State::Up)
    };
    scripted.hear(deaf);
    assert_eq!(scripted.run_hearing(ms(1000), deaf), []);
    scripted.hear(Packet { poll: true, ..deaf });
    let sent = scripted.sent();
    assert!(
        matches!(
            sent[..],
            [Packet {
                answer: true,
                poll: false,
                ..
            }]
        ),
        "{sent:?}"
    );
}

#[test]
fn the_detection_time_is_the_peers_multiplier_of_the_slower_pace() {
    // Our min_rx, the peer's min_tx and multiplier, in milliseconds.
    for (ours, theirs, multiplier, time) in [
        (100, 100, 3, 300),
        (100, 200, 3, 600),
        (400, 100, 2, 800),
        (100, 100, 5, 500),
    ] {
        let config = timing(ms(100), ms(ours), 4);
        let mut scripted = Scripted::in_state(config, State::Up);
        let multiplier = multiplier.try_into().unwrap();
        scripted.hear(Packet {
            desired_min_tx: ms(theirs),
            multiplier,
            ..peer(State::Up)
        });
        let status = scripted.session.status(scripted.now);
        assert_eq!(status.detection_time, Some(ms(time)));
    }
}

#[test]
fn a_poll_is_answered_at_once_in_every_state_but_admin_down() {
    let once = &[false][..];
    let table = [
        (State::AdminDown, &[][..]),
        (State::Down, once),
        (State::Init, once),
        (State::Up, once),
    ];
    for (state, expected) in table {
        let mut scripted = Scripted::in_state(config(), state);
        scripted.hear(Packet {
            poll: true,
            ..peer(state)
        });
        let answers = scripted.sent().into_iter().filter(|packet| packet.answer);
        let answers: Vec<_> = answers.map(|packet| packet.poll).collect();
        assert_eq!(answers, expected, "in {state}");
        assert!(scripted.sent().is_empty(), "one answer per poll");
    }
}

#[test]
fn the_pace_of_a_session_that_comes_up_is_agreed_by_a_poll() {
    let mut scripted = Scripted::in_state(config(), State::Init);
    scripted.hear(peer(State::Up));
    let sent = scripted.run_hearing(ms(300), peer(State::Up));
    assert!(
        sent.iter()
            .all(|(_, packet)| packet.poll && packet.desired_min_tx == ms(100))
    );
    scripted.hear(Packet {
        answer: true,
        ..peer(State::Up)
    });
    let sent = scripted.run_hearing(ms(300), peer(State::Up));
    assert!(
        !sent.is_empty() && sent.iter().all(|(_, packet)| !packet.poll),
        "{sent:?}"
    );
}

/// Up, with the poll sequence of coming up answered.
fn agreed() -> Scripted {
    let mut scripted = Scripted::in_state(config(), State::Up);
    scripted.hear(Packet {
        answer: true,
        ..peer(State::Up)
    });
    assert!(
        scripted
            .run_hearing(ms(200), peer(State::Up))
            .iter()
            .all(|(_, sent)| !sent.poll)
    );
    scripted
}

#[test]
fn a_slower_pace_is_told_at_once_and_kept_from_the_peers_consent_on() {
    let mut scripted = agreed();
    scripted.session.configure(timing(ms(500), ms(100), 3));
    let sent = scripted.run_hearing(ms(5000), peer(State::Up));
    assert!(
        sent.iter()
            .all(|(_, packet)| packet.poll && packet.desired_min_tx == ms(500))
    );
    assert_between(&gaps(&sent)[1..], 74..=100);
    scripted.hear(Packet {
        answer: true,
        ..peer(State::Up)
    });
    scripted.run_hearing(ms(500), peer(State::Up));
    let sent = scripted.run_hearing(ms(20_000), peer(State::Up));
    assert_between(&gaps(&sent), 374..=500);
}

#[test]
fn a_faster_pace_is_kept_at_once() {
    let mut scripted = agreed();
    scripted.session.configure(timing(ms(20), ms(100), 3));
    let eager = Packet {
        required_min_rx: ms(10),
        ..peer(State::Up)
    };
    scripted.hear(eager);
    let sent = scripted.run_hearing(ms(2000), eager);
    assert!(sent.iter().all(|(_, packet)| packet.poll));
    assert_between(&gaps(&sent)[1..], 14..=20);
}

#[test]
fn a_peer_that_shall_send_faster_is_given_the_old_time_until_it_consents() {
    let mut scripted = agreed();
    scripted.session.configure(timing(ms(100), ms(50), 3));
    let fast = Packet {
        desired_min_tx: ms(10),
        ..peer(State::Up)
    };
    scripted.hear(fast);
    assert_eq!(
        scripted.session.status(scripted.now).detection_time,
        Some(ms(300))
    );
    scripted.run_hearing(ms(200), fast);
    scripted.hear(Packet {
        answer: true,
        ..fast
    });
    assert_eq!(
        scripted.session.status(scripted.now).detection_time,
        Some(ms(150))
    );
}

#[test]
fn a_peer_that_may_send_slower_is_given_the_new_time_at_once() {
    let mut scripted = agreed();
    scripted.session.configure(timing(ms(100), ms(700), 3));
    assert_eq!(
        scripted.session.status(scripted.now).detection_time,
        Some(ms(2100))
    );
}

#[test]
fn a_change_during_a_poll_is_polled_for_by_itself() {
    let mut scripted = agreed();
    scripted.session.configure(timing(ms(300), ms(100), 3));
    scripted.sent();
    scripted.session.configure(timing(ms(600), ms(100), 3));
    scripted.sent();
    // This may be the answer to the packet before the second change.
    scripted.hear(Packet {
        answer: true,
        ..peer(State::Up)
    });
    let sent = scripted.run_hearing(ms(3000), peer(State::Up));
    let polls: Vec<bool> = sent.iter().map(|(_, packet)| packet.poll).collect();
    assert_eq!(polls[..2], [false, false], "a pause between the two");
    assert!(
        polls.len() > 10 && polls[2..].iter().all(|poll| *poll),
        "{polls:?}"
    );
    assert_between(&gaps(&sent), 74..=100);
    scripted.hear(Packet {
        answer: true,
        ..peer(State::Up)
    });
    scripted.run_hearing(ms(600), peer(State::Up));
    let sent = scripted.run_hearing(ms(20_000), peer(State::Up));
    assert_between(&gaps(&sent), 449..=600);
}

#[test]
fn a_peer_in_demand_mode_is_sent_nothing_while_both_are_up() {
    let mut scripted = agreed();
    let demanding = Packet {
        demand: true,
        ..peer(State::Up)
    };
    scripted.hear(demanding);
    assert_eq!(scripted.run_hearing(ms(1000), demanding), []);
    // What changes is told nevertheless, by a poll sequence.
    scripted.session.configure(timing(ms(200), ms(100), 3));
    assert!(scripted.run_hearing(ms(1000), demanding).len() > 5);
    scripted.hear(Packet {
        answer: true,
        ..demanding
    });
    assert_eq!(scripted.run_hearing(ms(1000), demanding), []);
    scripted.hear(peer(State::Up));
    assert!(scripted.run_hearing(ms(1000), peer(State::Up)).len() > 4);
}

#[test]
fn our_own_delay_is_seen() {
    let mut scripted = agreed();
    scripted.run_hearing(ms(1000), peer(State::Up));
    let status = scripted.session.status(scripted.now);
    assert!(status.worst_gap.delay() < ms(1), "{:?}", status.worst_gap);
    scripted.now += ms(250);
    scripted.sent();
    let status = scripted.session.status(scripted.now);
    assert!(status.worst_gap.real >= ms(250), "{:?}", status.worst_gap);
    assert!(
        status.worst_gap.expected <= ms(100),
        "{:?}",
        status.worst_gap
    );
    assert_eq!(status.worst_gap, status.worst_gap_last_minute);
}

#[test]
fn a_peer_that_asks_for_a_faster_pace_makes_us_no_later() {
    let mut scripted = agreed();
    let slow = Packet {
        required_min_rx: ms(1000),
        ..peer(State::Up)
    };
    scripted.hear(slow);
    scripted.run_hearing(ms(5000), slow);
    let quick = scripted.run_hearing(ms(700), peer(State::Up));
    assert!(quick.len() > 4, "{quick:?}");
    let status = scripted.session.status(scripted.now);
    assert!(status.worst_gap.delay() < ms(1), "{:?}", status.worst_gap);
}
