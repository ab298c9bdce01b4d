//! BFD ends sessions (RFC 9384), and in strict mode they wait for it.

use std::time::Duration;

use vipd_bgp::wire::{Capability, Code, Message, Open, keepalive};
use vipd_bgp::{Bfd, BfdMode, Input, PeerConfig, State};

use crate::restart::{helper, restarting};
use crate::scripted::{Scripted, open_for};
use crate::world::{A, B, World, ebgp, routes};

fn with(bfd: BfdMode) -> PeerConfig {
    PeerConfig { bfd, ..ebgp().0 }
}

/// BFD that is down, for a reason.
pub fn down() -> Bfd {
    Bfd::Down("nothing was heard of the peer for 900ms".into())
}

#[test]
fn bfd_that_goes_down_ends_a_session_and_nothing_else_does() {
    let check = |sentence: &str, mode, says: &[Bfd], ends: bool| {
        println!("{mode:?}: {sentence}");
        let mut speaker = Scripted::connected(with(mode));
        let (first, then) = says.split_first().unwrap();
        speaker.input(Input::Bfd(first.clone()));
        speaker.receive(&open_for(&ebgp().0).emit());
        speaker.receive(&keepalive());
        assert_eq!(
            speaker.session.state(),
            State::Established,
            "{}",
            speaker.dump()
        );
        for says in then {
            speaker.input(Input::Bfd(says.clone()));
        }
        let state = if ends {
            State::Active
        } else {
            State::Established
        };
        assert_eq!(speaker.session.state(), state, "{}", speaker.dump());
        if ends {
            assert_eq!(speaker.last_words[0].code, Code::BFD_DOWN);
            let words = speaker.session.status().last_error.unwrap().words;
            assert_eq!(
                words,
                "BFD says that packets do not pass: nothing was heard of the peer for 900ms"
            );
        }
    };
    let (up, off, unknown) = (|| Bfd::Up, || Bfd::AdminDown, Bfd::default);
    for mode in [BfdMode::On, BfdMode::Strict] {
        let check = |sentence, says: &[Bfd], ends| check(sentence, mode, says, ends);
        check("it was up", &[up(), down()], true);
        check(
            "the peer's operator has turned it off",
            &[up(), off()],
            false,
        );
        check(
            "it begins anew after that",
            &[up(), off(), down(), up()],
            false,
        );
        check("and fails then", &[up(), off(), down(), up(), down()], true);
        check("nobody says anything any more", &[up(), unknown()], false);
        check(
            "it begins anew after that",
            &[up(), unknown(), down()],
            false,
        );
        check("and comes up", &[up(), unknown(), down(), up()], false);
        check("and fails then", &[up(), unknown(), up(), down()], true);
    }
    let on = BfdMode::On;
    check("nothing was ever said", on, &[unknown(), unknown()], false);
    check("it has never been up", on, &[unknown(), down()], false);
    check("it comes up late", on, &[down(), up()], false);
    check("it has no say", BfdMode::Off, &[up(), down()], false);
}

#[test]
fn bfd_that_goes_down_before_the_peer_agrees_counts_in_strict_mode_only() {
    for (mode, state) in [
        (BfdMode::Strict, State::Active),
        (BfdMode::On, State::OpenConfirm),
        (BfdMode::Off, State::OpenConfirm),
    ] {
        let mut speaker = Scripted::connected(with(mode));
        speaker.input(Input::Bfd(Bfd::Up));
        speaker.receive(&open_for(&ebgp().0).emit());
        assert_eq!(speaker.session.state(), State::OpenConfirm);
        speaker.input(Input::Bfd(down()));
        assert_eq!(speaker.session.state(), state, "{}", speaker.dump());
        let codes: Vec<Code> = speaker.last_words.iter().map(|n| n.code).collect();
        let said = state == State::Active;
        assert_eq!(codes, vec![Code::BFD_DOWN; usize::from(said)]);
    }
}

#[test]
fn a_peer_of_graceful_restart_keeps_no_routes_when_bfd_goes_down() {
    let plain = "Cease / BFD Down (6/10)";
    let hard = format!("Cease / Hard Reset (6/9): {plain}");
    for mode in [BfdMode::On, BfdMode::Strict] {
        for (sentence, open, said) in [
            ("it would survive a NOTIFICATION", helper(true), &*hard),
            ("it would not", helper(false), plain),
            ("it has no graceful restart", open_for(&ebgp().0), plain),
        ] {
            println!("{mode:?}: {sentence}");
            let mut speaker = Scripted::connected(PeerConfig {
                bfd: mode,
                ..restarting()
            });
            speaker.input(Input::Bfd(Bfd::Up));
            speaker.receive(&open.emit());
            speaker.receive(&keepalive());
            assert_eq!(speaker.session.state(), State::Established);
            speaker.input(Input::Bfd(down()));
            let words: Vec<_> = speaker.last_words.iter().map(ToString::to_string).collect();
            assert_eq!(words, [said]);
        }
    }
}

/// What was sent, by name.
fn names(speaker: &mut Scripted) -> Vec<&'static str> {
    let name = |message: &Message| match message {
        Message::Open(_) => "OPEN",
        Message::Keepalive => "KEEPALIVE",
        Message::Update(..) => "UPDATE",
        _ => "other",
    };
    speaker.sent().iter().map(name).collect()
}

#[test]
fn in_strict_mode_a_session_waits_in_open_confirm_without_its_consent() {
    let check = |sentence: &str, consent_first: bool, says: &[Bfd]| {
        println!("{sentence}");
        let mut speaker = Scripted::connected(with(BfdMode::Strict));
        speaker.session.set_routes(routes(&["203.0.113.1/32"]));
        speaker.receive(&open_for(&ebgp().0).emit());
        if consent_first {
            speaker.receive(&keepalive());
            speaker.receive(&keepalive());
        }
        for says in says {
            speaker.input(Input::Bfd(says.clone()));
        }
        speaker.advance(Duration::from_secs(80));
        assert_eq!(
            speaker.session.state(),
            State::OpenConfirm,
            "{}",
            speaker.dump()
        );
        assert_eq!(names(&mut speaker), ["OPEN"]);

        speaker.input(Input::Bfd(Bfd::Up));
        if !consent_first {
            assert_eq!(speaker.session.state(), State::OpenConfirm);
            speaker.receive(&keepalive());
        }
        assert_eq!(
            speaker.session.state(),
            State::Established,
            "{}",
            speaker.dump()
        );
        assert_eq!(names(&mut speaker), ["KEEPALIVE", "UPDATE"]);
        speaker.advance(Duration::from_secs(89));
        assert_eq!(
            speaker.session.state(),
            State::Established,
            "the hold time is whole"
        );
    };
    check("the peer agrees meanwhile", true, &[]);
    check("the peer agrees afterwards", false, &[]);
    check(
        "the peer's operator has turned it off",
        true,
        &[Bfd::AdminDown],
    );
    check("it is down", true, &[down(), down()]);
    check("nobody says anything", true, &[Bfd::default()]);
}

#[test]
fn what_was_up_once_is_not_enough_for_strict_mode() {
    let mut speaker = Scripted::connected(with(BfdMode::Strict));
    speaker.input(Input::Bfd(Bfd::Up));
    speaker.input(Input::Bfd(Bfd::default()));
    speaker.receive(&open_for(&ebgp().0).emit());
    speaker.receive(&keepalive());
    assert_eq!(speaker.session.state(), State::OpenConfirm);
    assert_eq!(names(&mut speaker), ["OPEN"]);
}

#[test]
fn bfd_that_is_turned_off_and_on_again_ends_no_session() {
    for mode in [BfdMode::On, BfdMode::Strict] {
        let mut speaker = Scripted::established(ebgp().0);
        speaker.input(Input::Bfd(Bfd::Up));
        speaker.reconfigure(|c| c.bfd = mode);
        for (bfd, says) in [
            (BfdMode::Off, Bfd::Unknown("it has no BFD session".into())),
            (mode, down()),
        ] {
            speaker.reconfigure(|c| c.bfd = bfd);
            speaker.input(Input::Bfd(says));
            assert_eq!(speaker.session.state(), State::Established);
        }
    }
}

#[test]
fn strict_mode_says_what_it_waits_for() {
    for (says, wanted) in [
        (
            down(),
            "(strict mode): BFD is not up (nothing was heard of the peer for 900ms); see \
             `vipd show bfd`, whether BFD runs on the peer, and what filters its packets",
        ),
        (
            Bfd::Unknown("the BFD process is not reached".into()),
            "it is not known whether BFD is up (the BFD process is not reached); see \
             `vipd show bfd`",
        ),
        (
            Bfd::AdminDown,
            "BFD is administratively down; see `vipd show bfd`",
        ),
    ] {
        let mut speaker = Scripted::connected(with(BfdMode::Strict));
        speaker.input(Input::Bfd(says));
        speaker.receive(&open_for(&ebgp().0).emit());
        speaker.advance(Duration::from_secs(90));
        let words = speaker.session.status().last_error.unwrap().words;
        assert!(words.ends_with(wanted), "{words}");
    }
}

#[test]
fn the_wait_for_bfd_ends_after_the_hold_time() {
    for (hold_time, secs) in [(90, 90), (3, 3), (0, 60)] {
        let mut open = open_for(&ebgp().0);
        open.hold_time = hold_time;
        let mut speaker = Scripted::connected(with(BfdMode::Strict));
        speaker.receive(&open.emit());
        for _ in 0..secs - 1 {
            speaker.advance(Duration::from_secs(1));
            speaker.receive(&keepalive());
        }
        assert_eq!(
            speaker.session.state(),
            State::OpenConfirm,
            "{}",
            speaker.dump()
        );
        speaker.advance(Duration::from_secs(1));
        assert_eq!(speaker.session.state(), State::Active, "{}", speaker.dump());
        assert_eq!(speaker.last_words[0].code, Code::BFD_DOWN);
        let words = speaker.session.status().last_error.unwrap().words;
        assert!(
            words.starts_with("BFD with the peer does not come up"),
            "{words}"
        );
    }
}

#[test]
fn two_speakers_in_strict_mode_come_up_with_bfd_and_go_down_with_it() {
    for (mode_b, both) in [(BfdMode::Strict, true), (BfdMode::Off, false)] {
        let (_, b) = ebgp();
        let mut world = World::new(with(BfdMode::Strict), PeerConfig { bfd: mode_b, ..b });
        world.input(A, Input::Start);
        world.input(B, Input::Start);
        world.run(Duration::from_secs(600));
        for side in [A, B] {
            assert_eq!(
                world.speakers[side].session.status().established_count,
                0,
                "{}",
                world.dump()
            );
        }
        for says in [Bfd::Up, down()] {
            world.input(A, Input::Bfd(says.clone()));
            world.input(B, Input::Bfd(says.clone()));
            world.run(Duration::from_secs(100));
            let state = world.speakers[A].session.state();
            assert_eq!(
                state == State::Established,
                says == Bfd::Up,
                "{}",
                world.dump()
            );
            if says == Bfd::Up {
                let agreed = world.speakers[A].session.status().agreed.unwrap();
                assert_eq!(agreed.bfd_strict, both);
            }
        }
    }
}

#[test]
fn strict_mode_is_offered() {
    for (mode, wanted) in [
        (BfdMode::Off, false),
        (BfdMode::On, false),
        (BfdMode::Strict, true),
    ] {
        let sent = Scripted::connected(with(mode)).sent();
        let [Message::Open(Open { capabilities, .. })] = &sent[..] else {
            panic!("{sent:?}");
        };
        assert_eq!(capabilities.contains(&Capability::BfdStrict), wanted);
    }
}
