//! A peer that announces more than it may.

use std::time::Duration;

use vipd_bgp::wire::{AsPath, Attributes, Code, Family, MpReach, Origin, Update};
use vipd_bgp::{PeerConfig, State};

use crate::restart::{helper, restarting};
use crate::scripted::Scripted;
use crate::world::ebgp;

const PAUSE: Duration = Duration::from_secs(200);

/// What the peer says.
enum Say {
    Announce(&'static [&'static str]),
    Withdraw(&'static [&'static str]),
    /// Without an ORIGIN: it counts as a withdrawal (RFC 7606).
    Malformed(&'static [&'static str]),
    Both(&'static str),
}
use Say::{Announce, Both, Malformed, Withdraw};

fn update(say: &Say) -> Update {
    let announced = |prefixes: &[&str], origin| {
        let (v4, v6) = prefixes
            .iter()
            .map(|prefix| prefix.parse::<ipnet::IpNet>().unwrap())
            .partition(|prefix| Family::of(prefix) == Family::Ipv4Unicast);
        Update {
            attributes: Attributes {
                origin,
                as_path: Some(AsPath::repeated(64497, 1)),
                next_hop: "192.0.2.2".parse().ok(),
                mp_reach: Some(MpReach {
                    family: Family::Ipv6Unicast,
                    next_hop: "2001:db8::2".parse().unwrap(),
                    link_local: None,
                    prefixes: v6,
                }),
                ..Attributes::default()
            },
            announced: v4,
            ..Update::default()
        }
    };
    match say {
        Announce(prefixes) => announced(prefixes, Some(Origin::Igp)),
        Malformed(prefixes) => announced(prefixes, None),
        Withdraw(prefixes) => Update {
            withdrawn: prefixes
                .iter()
                .map(|prefix| prefix.parse().unwrap())
                .collect(),
            ..Update::default()
        },
        Both(prefix) => Update {
            withdrawn: vec![prefix.parse().unwrap()],
            ..announced(&[prefix], Some(Origin::Igp))
        },
    }
}

#[test]
fn a_peer_is_let_go_when_it_has_announced_more_than_it_may_and_not_before() {
    let check = |sentence: &str, limit, says: &[Say], beyond: Option<Family>| {
        println!("{sentence}");
        let mut speaker = Scripted::established(PeerConfig {
            max_prefixes: limit,
            max_prefixes_pause: PAUSE,
            ..ebgp().0
        });
        for say in says {
            assert_eq!(
                speaker.session.state(),
                State::Established,
                "{}",
                speaker.dump()
            );
            let bytes = update(say).emit(speaker.dialect);
            speaker.receive(&bytes);
        }
        let Some(family) = beyond else {
            assert_eq!(
                speaker.session.state(),
                State::Established,
                "{}",
                speaker.dump()
            );
            return;
        };
        assert_eq!(speaker.session.state(), State::Idle, "{}", speaker.dump());
        let [cease] = &speaker.last_words[..] else {
            panic!("{}", speaker.dump());
        };
        let number = u8::try_from(family.afi()).unwrap();
        assert_eq!(
            (cease.code, &cease.data[..]),
            (Code::MAXIMUM_PREFIXES, &[0, number, 1, 0, 0, 0, 2][..])
        );
        let words = speaker.session.status().last_error.unwrap().words;
        assert!(
            words.contains(&format!("more than 2 prefixes of {family}")),
            "{words}"
        );

        println!("it is left alone for the pause");
        assert!(!speaker.session.admits_incoming());
        speaker.advance(PAUSE - Duration::from_millis(1));
        assert_eq!((speaker.session.state(), speaker.dials), (State::Idle, 1));
        speaker.advance(Duration::from_millis(1));
        assert_eq!(speaker.dials, 2);
    };
    let (v4, v6) = (Some(Family::Ipv4Unicast), Some(Family::Ipv6Unicast));
    let two = || Announce(&["10.0.0.0/8", "10.1.0.0/16"]);
    let third = || Announce(&["10.2.0.0/16"]);

    check("no limit", None, &[two(), third()], None);
    check("as many as it may", Some(2), &[two()], None);
    check("one too many", Some(2), &[two(), third()], v4);
    check(
        "too many at once",
        Some(2),
        &[Announce(&["::/0", "2001:db8::/32", "2001:db8::/48"])],
        v6,
    );
    check(
        "families count by themselves",
        Some(2),
        &[two(), Announce(&["::/0", "2001:db8::/32"])],
        None,
    );
    check(
        "the same again and again",
        Some(2),
        &[two(), two(), two(), two()],
        None,
    );
    check(
        "another instead",
        Some(2),
        &[two(), Withdraw(&["10.0.0.0/8"]), third()],
        None,
    );
    check(
        "withdrawals of what was never there",
        Some(2),
        &[two(), Withdraw(&["10.9.0.0/16"]), third()],
        v4,
    );
    check(
        "malformed counts as withdrawn",
        Some(2),
        &[two(), Malformed(&["10.0.0.0/8", "10.3.0.0/16"]), third()],
        None,
    );
    check(
        "in both counts as announced",
        Some(2),
        &[two(), Both("10.0.0.0/8"), third()],
        v4,
    );
}

#[test]
fn a_peer_of_graceful_restart_keeps_no_routes_when_it_is_let_go() {
    for (notification, code) in [(true, Code::HARD_RESET), (false, Code::MAXIMUM_PREFIXES)] {
        let config = PeerConfig {
            max_prefixes: Some(1),
            ..restarting()
        };
        let mut speaker = Scripted::established_with(config, &helper(notification));
        let bytes = update(&Announce(&["10.0.0.0/8", "10.1.0.0/16"])).emit(speaker.dialect);
        speaker.receive(&bytes);
        let [said] = &speaker.last_words[..] else {
            panic!("{}", speaker.dump());
        };
        assert_eq!(said.code, code);
        let words = "Maximum Number of Prefixes Reached (6/1): the limit for IPv4 unicast is 1";
        assert!(said.to_string().ends_with(words), "{said}");
    }
}

#[test]
fn what_is_remembered_is_no_more_than_the_limit_and_ends_with_the_session() {
    let mut speaker = Scripted::established(PeerConfig {
        max_prefixes: Some(3),
        ..ebgp().0
    });
    let bytes = update(&Announce(&["10.0.0.0/8", "10.1.0.0/16"])).emit(speaker.dialect);
    speaker.receive(&bytes);
    let heard = speaker.session.status().heard;
    assert_eq!(heard.get(&Family::Ipv4Unicast), Some(&2));
    let bytes = update(&Announce(&["10.3.0.0/16", "10.4.0.0/16"])).emit(speaker.dialect);
    speaker.receive(&bytes);
    assert!(speaker.session.status().heard.is_empty());
}

#[test]
fn a_limit_that_is_lowered_counts_at_once_and_one_that_is_gone_is_forgotten() {
    let speaker = || {
        let mut speaker = Scripted::established(PeerConfig {
            max_prefixes: Some(3),
            ..ebgp().0
        });
        let bytes = update(&Announce(&["10.0.0.0/8", "10.1.0.0/16"])).emit(speaker.dialect);
        speaker.receive(&bytes);
        speaker
    };
    let check = |limit, state| {
        let mut speaker = speaker();
        speaker.reconfigure(|config| config.max_prefixes = limit);
        assert_eq!(speaker.session.state(), state, "{}", speaker.dump());
        speaker.session.status().heard.len()
    };
    assert_eq!(check(Some(2), State::Established), 1);
    assert_eq!(check(Some(1), State::Idle), 0);
    assert_eq!(check(None, State::Established), 0);
}

#[test]
fn the_pause_of_a_peer_that_went_beyond_ends_with_a_higher_limit_or_none() {
    let check = |limit, passive, state| {
        println!("{limit:?}, passive: {passive}");
        let mut speaker = Scripted::established(PeerConfig {
            max_prefixes: Some(2),
            max_prefixes_pause: PAUSE,
            ..ebgp().0
        });
        let bytes = update(&Announce(&["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"]));
        speaker.receive(&bytes.emit(speaker.dialect));
        assert_eq!(speaker.session.state(), State::Idle, "{}", speaker.dump());
        speaker.reconfigure(|config| (config.max_prefixes, config.passive) = (limit, passive));
        assert_eq!(speaker.session.state(), state, "{}", speaker.dump());
        assert_eq!(speaker.session.admits_incoming(), state != State::Idle);
        assert_eq!(speaker.dials, 1 + usize::from(state == State::Connect));
    };
    check(Some(3), false, State::Connect);
    check(None, false, State::Connect);
    check(None, true, State::Active);
    check(Some(2), false, State::Idle);
    check(Some(1), false, State::Idle);
}

#[test]
fn a_limit_to_prefixes_ends_no_pause_after_an_error() {
    let mut speaker = Scripted::connected(PeerConfig {
        max_prefixes: Some(2),
        ..ebgp().0
    });
    speaker.receive(&[0; 19]);
    speaker.reconfigure(|config| config.max_prefixes = None);
    assert_eq!(speaker.session.state(), State::Idle);
}
