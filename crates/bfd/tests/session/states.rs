//! Which state follows which.

use vipd_bfd::{Diagnostic, State};

use crate::scripted::{Scripted, THEIRS, config, ms, peer};

use State::{AdminDown, Down, Init, Up};

#[test]
fn each_state_follows_the_peers_state_as_the_rfc_says() {
    // Our state, then ours after the peer's AdminDown, Down, Init, Up.
    let table = [
        (AdminDown, [AdminDown, AdminDown, AdminDown, AdminDown]),
        (Down, [Down, Init, Up, Down]),
        (Init, [Down, Init, Up, Up]),
        (Up, [Down, Down, Up, Up]),
    ];
    for (from, after) in table {
        for (heard, to) in State::ALL.into_iter().zip(after) {
            let mut scripted = Scripted::in_state(config(), from);
            scripted.hear(peer(heard));
            assert_eq!(scripted.session.state(), to, "{from} hears {heard}");
        }
    }
}

#[test]
fn a_change_of_state_is_told_at_once() {
    let mut scripted = Scripted::in_state(config(), Init);
    scripted.hear(peer(Up));
    let sent = scripted.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].state, Up);
    assert_eq!(sent[0].your_discriminator.map(u32::from), Some(THEIRS));
}

#[test]
fn a_peer_that_goes_down_is_told_why_we_do_too() {
    for heard in [Down, AdminDown] {
        let mut scripted = Scripted::in_state(config(), Up);
        scripted.events();
        let diagnostic = Diagnostic::PATH_DOWN;
        scripted.hear(vipd_bfd::Packet {
            diagnostic,
            ..peer(heard)
        });
        let sent = scripted.sent();
        assert_eq!(sent[0].diagnostic, Diagnostic::NEIGHBOR_SIGNALED_DOWN);
        let told = format!("Up > Down: the peer is {heard}: Path Down");
        assert_eq!(scripted.events(), [told]);
    }
}

#[test]
fn silence_for_the_detection_time_is_the_end_of_a_session_and_of_an_attempt() {
    for state in [Init, Up] {
        let mut scripted = Scripted::in_state(config(), state);
        scripted.run(ms(299));
        assert_eq!(scripted.session.state(), state);
        scripted.events();
        let sent = scripted.run(ms(1));
        assert_eq!(scripted.session.state(), Down);
        assert_eq!(sent[0].1.diagnostic, Diagnostic::DETECTION_TIME_EXPIRED);
        assert_eq!(sent[0].1.your_discriminator, None, "the peer is forgotten");
        let told = format!("{state} > Down: nothing was heard of the peer for 300ms");
        assert_eq!(scripted.events(), [told]);
    }
}

#[test]
fn each_packet_puts_off_the_end() {
    let mut scripted = Scripted::in_state(config(), Up);
    for _ in 0..20 {
        scripted.run(ms(299));
        scripted.hear(peer(Up));
    }
    assert_eq!(scripted.session.state(), Up);
}

#[test]
fn a_passive_session_speaks_when_it_is_spoken_to() {
    let passive = vipd_bfd::Config {
        passive: true,
        ..config()
    };
    let mut scripted = Scripted::new(passive);
    assert_eq!(scripted.run(ms(10_000)).len(), 0);
    scripted.hear(vipd_bfd::Packet {
        your_discriminator: None,
        ..peer(Down)
    });
    assert_eq!(scripted.sent().len(), 1);
}

#[test]
fn ups_and_downs_are_counted() {
    let mut scripted = Scripted::in_state(config(), Up);
    scripted.run(ms(300));
    scripted.hear(peer(Init));
    let counters = scripted.session.status(scripted.now).counters;
    assert_eq!((counters.ups, counters.downs), (2, 1));
}
