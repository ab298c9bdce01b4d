//! A session that is kept down from outside.

use vipd_bfd::{Diagnostic, Hold, State};

use crate::scripted::{Scripted, config, ms, peer};

fn link_gone() -> Hold {
    Hold::Down {
        diagnostic: Diagnostic::PATH_DOWN,
        why: "eth0 has no carrier".into(),
    }
}

#[test]
fn a_failure_takes_the_session_down_and_keeps_it_there() {
    for state in [State::Down, State::Init, State::Up] {
        let mut scripted = Scripted::in_state(config(), state);
        scripted.session.hold(Some(link_gone()), scripted.now);
        let sent = scripted.sent();
        assert_eq!(sent.len(), 1, "it is told at once");
        assert_eq!(
            (sent[0].state, sent[0].diagnostic),
            (State::Down, Diagnostic::PATH_DOWN)
        );
        for heard in State::ALL {
            scripted.run_hearing(ms(2000), peer(heard));
            assert_eq!(scripted.session.state(), State::Down, "hears {heard}");
        }
        assert!(scripted.session.status(scripted.now).held);
        let last = scripted.session.status(scripted.now).last_down.unwrap();
        assert_eq!(last.cause.to_string(), "eth0 has no carrier");
    }
}

#[test]
fn when_the_failure_is_over_the_session_comes_up_again() {
    let mut scripted = Scripted::in_state(config(), State::Up);
    scripted.session.hold(Some(link_gone()), scripted.now);
    scripted.session.hold(None, scripted.now);
    scripted.hear(peer(State::Down));
    scripted.hear(peer(State::Up));
    assert_eq!(scripted.session.state(), State::Up);
}

#[test]
fn an_operators_wish_is_admin_down_and_tells_so_until_the_peer_has_heard_it() {
    let mut scripted = Scripted::in_state(config(), State::Up);
    scripted.hear(peer(State::Up));
    scripted.session.hold(Some(Hold::Admin), scripted.now);
    let sent = scripted.run_hearing(ms(5000), peer(State::Up));
    assert!(sent.len() >= 5, "{sent:?}");
    for (_, packet) in sent {
        assert_eq!(packet.state, State::AdminDown);
        assert_eq!(packet.diagnostic, Diagnostic::ADMINISTRATIVELY_DOWN);
    }
    assert!(!scripted.session.peer_is_down());
    scripted.hear(peer(State::Down));
    assert!(scripted.session.peer_is_down());
    assert_eq!(scripted.session.state(), State::AdminDown);

    scripted.session.hold(None, scripted.now);
    scripted.hear(peer(State::Down));
    assert_eq!(scripted.session.state(), State::Init);
}

#[test]
fn a_peer_that_is_not_heard_counts_as_down() {
    let mut scripted = Scripted::in_state(config(), State::Up);
    scripted.hear(peer(State::Up));
    assert!(!scripted.session.peer_is_down());
    scripted.run(ms(300));
    assert!(scripted.session.peer_is_down());
}

#[test]
fn a_peer_that_our_init_or_up_may_have_taken_up_is_not_down_before_it_says_so_again() {
    // What it has said last, by which we have come there.
    for (ours, theirs) in [(State::Init, State::Down), (State::Up, State::Init)] {
        let mut scripted = Scripted::new(config());
        scripted.hear(peer(theirs));
        assert_eq!(scripted.session.state(), ours);
        assert!(scripted.session.peer_is_down(), "it was not told yet");
        scripted.run_hearing(ms(1500), peer(theirs));
        scripted.session.hold(Some(Hold::Admin), scripted.now);
        assert!(!scripted.session.peer_is_down(), "{ours:?}");
        scripted.hear(peer(State::Up));
        assert!(!scripted.session.peer_is_down(), "{ours:?}");
        scripted.hear(peer(State::Down));
        assert!(scripted.session.peer_is_down(), "{ours:?}");
    }
}
