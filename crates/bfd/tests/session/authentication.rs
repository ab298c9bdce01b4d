//! Who does not know the key has no effect.

use std::num::NonZeroU32;
use std::time::Instant;

use vipd_bfd::packet::{self, MAX_LEN};
use vipd_bfd::{Authentication, Config, Discard, Hold, KeyError, Method, Session, State};

use crate::scripted::{config, ms};

fn with(method: Method, key_id: u8, key: &str) -> Config {
    let authentication = Authentication::new(method, key_id, key.as_bytes()).unwrap();
    Config {
        authentication: Some(authentication),
        ..config()
    }
}

fn session(config: Config, discriminator: u32, now: Instant) -> Session {
    Session::new(config, NonZeroU32::new(discriminator).unwrap(), 1, now)
}

/// The next packet of a session that is made to send one.
fn packet_of(session: &mut Session, now: Instant) -> Vec<u8> {
    let mut buffer = [0; MAX_LEN];
    let len = session.poll_transmit(now, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn deliver(bytes: &[u8], to: &mut Session, now: Instant) -> Result<(), Discard> {
    to.receive(&packet::parse(bytes).unwrap(), now)
}

#[test]
fn packets_that_another_program_has_made_are_taken() {
    // Discriminator 7, Down, key 42 "secret", sequence number 16; made with
    // Python's hashlib.
    let table = [
        (
            Method::Simple,
            "204403210000000700000000000f4240000186a00000000001092a736563726574",
        ),
        (
            Method::KeyedMd5,
            "204403300000000700000000000f4240000186a00000000002182a0000000010\
             174209fa3474a477f4f89493f3570d2f",
        ),
        (
            Method::MeticulousKeyedSha1,
            "204403340000000700000000000f4240000186a000000000051c2a0000000010\
             e9c98644dcec7b0b95da9bad8daaf2f2021848a1",
        ),
    ];
    for (method, hex) in table {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let now = Instant::now();
        let mut ours = session(with(method, 42, "secret"), 1, now);
        assert_eq!(deliver(&bytes, &mut ours, now), Ok(()), "{method:?}");
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            if let Ok(received) = packet::parse(&forged) {
                let covered = method != Method::Simple || at >= packet::MIN_LEN;
                let taken = ours.receive(&received, now);
                assert!(!covered || taken.is_err(), "{method:?}, byte {at} changed");
            }
        }
    }
}

#[test]
fn every_method_works_between_two_sessions() {
    for method in Method::ALL {
        let now = Instant::now();
        let mut a = session(with(method, 1, "one secret"), 1, now);
        let mut b = session(with(method, 1, "one secret"), 2, now);
        for _ in 0..2 {
            let bytes = packet_of(&mut a, now);
            assert_eq!(deliver(&bytes, &mut b, now), Ok(()), "{method:?}");
            let bytes = packet_of(&mut b, now);
            assert_eq!(deliver(&bytes, &mut a, now), Ok(()), "{method:?}");
        }
        assert_eq!((a.state(), b.state()), (State::Up, State::Up), "{method:?}");
    }
}

#[test]
fn whoever_has_another_key_or_none_is_discarded_with_the_reason() {
    let right = || Some(with(Method::KeyedSha1, 1, "right"));
    let table = [
        (
            "another key",
            right(),
            Some(with(Method::KeyedSha1, 1, "wrong")),
            Discard::WrongKey,
        ),
        (
            "another password",
            Some(with(Method::Simple, 1, "right")),
            Some(with(Method::Simple, 1, "wrong")),
            Discard::WrongKey,
        ),
        (
            "the start of the password",
            Some(with(Method::Simple, 1, "right")),
            Some(with(Method::Simple, 1, "righ")),
            Discard::WrongKey,
        ),
        (
            "another key number",
            right(),
            Some(with(Method::KeyedSha1, 2, "right")),
            Discard::OtherKey,
        ),
        (
            "another method",
            right(),
            Some(with(Method::KeyedMd5, 1, "right")),
            Discard::OtherKey,
        ),
        ("no key", right(), None, Discard::NotAuthenticated),
        (
            "a key, and none here",
            None,
            right(),
            Discard::Authenticated,
        ),
    ];
    for (sentence, ours, theirs, reason) in table {
        let now = Instant::now();
        let mut ours = session(ours.unwrap_or_else(config), 1, now);
        let mut theirs = session(theirs.unwrap_or_else(config), 2, now);
        let taken = deliver(&packet_of(&mut theirs, now), &mut ours, now);
        assert_eq!(taken, Err(reason), "{sentence}");
        assert_eq!(ours.state(), State::Down, "{sentence}");
        let status = ours.status(now);
        assert_eq!(status.counters.discarded.of(reason), 1, "{sentence}");
        assert_eq!(status.last_discard, Some(reason), "{sentence}");
        assert_eq!(status.remote, None, "{sentence}");

        ours.configure(theirs.config().clone());
        let taken = deliver(&another(&mut theirs, now), &mut ours, now);
        assert_eq!(taken, Ok(()), "{sentence}, and the same key then");
        let status = ours.status(now);
        assert_eq!(
            (status.state, status.last_discard),
            (State::Init, None),
            "{sentence}"
        );
    }
}

/// Makes the session send a packet at once, without a change of its pace.
fn another(session: &mut Session, now: Instant) -> Vec<u8> {
    session.hold(Some(Hold::Admin), now);
    session.hold(None, now);
    packet_of(session, now)
}

#[test]
fn a_repeated_packet_is_taken_only_by_methods_that_are_not_meticulous() {
    let table = [
        (Method::KeyedMd5, Ok(())),
        (Method::MeticulousKeyedMd5, Err(Discard::Sequence)),
        (Method::KeyedSha1, Ok(())),
        (Method::MeticulousKeyedSha1, Err(Discard::Sequence)),
    ];
    for (method, again) in table {
        let now = Instant::now();
        let mut ours = session(with(method, 1, "key"), 1, now);
        let mut theirs = session(with(method, 1, "key"), 2, now);
        let first = packet_of(&mut theirs, now);
        let second = another(&mut theirs, now);
        assert_eq!(deliver(&first, &mut ours, now), Ok(()), "{method:?}");
        assert_eq!(deliver(&second, &mut ours, now), Ok(()), "{method:?}");
        assert_eq!(
            deliver(&second, &mut ours, now),
            again,
            "{method:?}: the last one"
        );
        let old = deliver(&first, &mut ours, now);
        assert_eq!(old, Err(Discard::Sequence), "{method:?}: one before");
    }
}

#[test]
fn sequence_numbers_may_run_ahead_by_three_times_the_multiplier() {
    for (lost, taken) in [(8, Ok(())), (9, Err(Discard::Sequence))] {
        let now = Instant::now();
        let mut ours = session(with(Method::MeticulousKeyedSha1, 1, "key"), 1, now);
        let mut theirs = session(with(Method::MeticulousKeyedSha1, 1, "key"), 2, now);
        deliver(&packet_of(&mut theirs, now), &mut ours, now).unwrap();
        for _ in 0..lost {
            another(&mut theirs, now);
        }
        assert_eq!(
            deliver(&another(&mut theirs, now), &mut ours, now),
            taken,
            "{lost} lost"
        );
    }
}

#[test]
fn a_peer_that_has_started_anew_is_taken_after_twice_the_detection_time() {
    let mut now = Instant::now();
    let method = Method::MeticulousKeyedMd5;
    let mut ours = session(with(method, 1, "key"), 1, now);
    let mut theirs = session(with(method, 1, "key"), 2, now);
    deliver(&packet_of(&mut theirs, now), &mut ours, now).unwrap();
    let mut anew = Session::new(with(method, 1, "key"), 3.try_into().unwrap(), 99, now);
    let taken = deliver(&packet_of(&mut anew, now), &mut ours, now);
    assert_eq!(taken, Err(Discard::Sequence));

    // Three times the slow pace of a session that is not up, and that twice.
    now += ms(5999);
    ours.handle_timeout(now);
    assert_eq!(
        deliver(&another(&mut anew, now), &mut ours, now),
        Err(Discard::Sequence)
    );
    now += ms(1);
    ours.handle_timeout(now);
    assert_eq!(deliver(&another(&mut anew, now), &mut ours, now), Ok(()));
}

#[test]
fn a_key_must_have_a_length_that_its_method_takes() {
    for method in Method::ALL {
        let max = method.key_max();
        let key = vec![b'k'; max + 1];
        let of = |len: usize| Authentication::new(method, 1, &key[..len]).err();
        assert_eq!(of(0), Some(KeyError::Empty));
        assert_eq!(of(1), None);
        assert_eq!(of(max), None);
        assert_eq!(of(max + 1), Some(KeyError::TooLong { len: max + 1, max }));
    }
}

#[test]
fn a_key_is_never_printed() {
    let config = with(Method::Simple, 1, "hunter2");
    let printed = format!("{config:?}");
    assert!(
        !printed.contains("hunter2") && !printed.contains("104, 117"),
        "{printed}"
    );
}
