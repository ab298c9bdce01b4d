//! Messages of more than 4,096 octets (RFC 8654).

use vipd_bgp::wire::{Capability, Code, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN, Message, Update};
use vipd_bgp::{Routes, State};

use crate::scripted::{Scripted, open_for};
use crate::world::{ebgp, many_routes};

#[test]
fn messages_are_as_large_as_the_peer_takes_them() {
    let check = |offered: bool, max: usize, least: usize| {
        let (config, _) = ebgp();
        let mut open = open_for(&config);
        if offered {
            open.capabilities.push(Capability::ExtendedMessages);
        }
        let mut speaker = Scripted::established_with(config, &open);
        for wanted in [many_routes(40_000), Routes::new()] {
            speaker.session.set_routes(wanted);
            let messages = speaker.sent_bytes();
            let largest = messages.iter().map(bytes::Bytes::len).max();
            assert!(
                largest.is_some_and(|largest| (least..=max).contains(&largest)),
                "{largest:?}"
            );
        }
    };
    check(false, MAX_MESSAGE_LEN, 4_000);
    check(true, MAX_EXTENDED_LEN, 65_000);
}

#[test]
fn a_large_message_is_taken_since_it_was_offered_but_none_before_the_open() {
    let (config, _) = ebgp();
    let withdrawn = (0..2_000_u32).map(|n| std::net::Ipv4Addr::from_bits(n << 8));
    let update = Update {
        withdrawn: withdrawn
            .map(|address| ipnet::Ipv4Net::new_assert(address, 24).into())
            .collect(),
        ..Update::default()
    };
    let mut speaker = Scripted::established(config.clone());
    let bytes = update.emit(speaker.dialect);
    assert!(bytes.len() > MAX_MESSAGE_LEN);
    speaker.receive(&bytes);
    assert_eq!(
        speaker.session.state(),
        State::Established,
        "{}",
        speaker.dump()
    );
    assert_eq!(speaker.session.status().counters.prefixes_withdrawn, 2_000);

    let mut early = Scripted::connected(config);
    early.receive(&bytes);
    let codes: Vec<Code> = early.last_words.iter().map(|n| n.code).collect();
    assert_eq!(codes, [Code::BAD_MESSAGE_LENGTH]);
    assert!(matches!(early.sent()[..], [] | [Message::Open(_)]));
}
