//! Control packets: what is read, what is written, and what is refused.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use vipd_bfd::packet::{self, MAX_LEN, Packet};
use vipd_bfd::{Diagnostic, Discard, State};

/// Up, asking for an answer, with each field another value.
const GOOD: [u8; 24] = [
    0x23, 0xe8, 3, 24, // version 1, diagnostic 3; Up, poll, C; 3 intervals
    0, 0, 0, 5, 0, 0, 0, 6, // discriminators
    0, 0x04, 0x93, 0xe0, // 300 ms
    0, 0, 0xc3, 0x50, // 50 ms
    0, 0, 0, 0,
];

/// Bytes of a packet, by their place.
type Changes = &'static [(usize, u8)];

fn good() -> Packet {
    Packet {
        diagnostic: Diagnostic::NEIGHBOR_SIGNALED_DOWN,
        state: State::Up,
        poll: true,
        answer: false,
        independent: true,
        demand: false,
        multiplier: 3.try_into().unwrap(),
        my_discriminator: 5.try_into().unwrap(),
        your_discriminator: Some(6.try_into().unwrap()),
        desired_min_tx: Duration::from_millis(300),
        required_min_rx: Duration::from_millis(50),
        required_min_echo_rx: Duration::ZERO,
    }
}

#[test]
fn a_packet_is_these_bytes() {
    assert_eq!(good().emit(), GOOD);
    let received = packet::parse(&GOOD).unwrap();
    assert_eq!(received.packet, good());
    assert!(!received.authenticated);
}

#[test]
fn what_follows_a_packet_in_its_datagram_is_left_alone() {
    let datagram = [GOOD.as_slice(), &[0xff; 9]].concat();
    assert_eq!(packet::parse(&datagram).unwrap().bytes, GOOD);
}

#[test]
fn each_broken_rule_has_a_reason() {
    let table: [(&str, Changes, Discard); 11] = [
        ("version 0", &[(0, 0x03)], Discard::Version),
        ("version 2", &[(0, 0x43)], Discard::Version),
        ("a length below 24", &[(3, 23)], Discard::Short),
        (
            "a length below 26 when authenticated",
            &[(1, 0xec), (3, 25)],
            Discard::Short,
        ),
        (
            "a length beyond the datagram",
            &[(3, 25)],
            Discard::Truncated,
        ),
        ("multiplier 0", &[(2, 0)], Discard::Multiplier),
        ("the multipoint bit", &[(1, 0xe9)], Discard::Multipoint),
        ("my discriminator 0", &[(7, 0)], Discard::MyDiscriminator),
        (
            "your discriminator 0 in Up",
            &[(11, 0)],
            Discard::YourDiscriminator,
        ),
        (
            "your discriminator 0 in Init",
            &[(11, 0), (1, 0x80)],
            Discard::YourDiscriminator,
        ),
        (
            "the first of several faults counts",
            &[(0, 0), (2, 0)],
            Discard::Version,
        ),
    ];
    for (sentence, changes, reason) in table {
        let mut bytes = GOOD;
        for &(at, value) in changes {
            bytes[at] = value;
        }
        assert_eq!(packet::parse(&bytes), Err(reason), "{sentence}");
    }
    for state in [0x00, 0x40] {
        let mut bytes = GOOD;
        (bytes[1], bytes[11]) = (state, 0);
        let unknown = packet::parse(&bytes).unwrap().packet.your_discriminator;
        assert_eq!(unknown, None, "Down and AdminDown need no discriminator");
    }
    for len in 0..GOOD.len() {
        let reason = if len < 4 {
            Discard::Short
        } else {
            Discard::Truncated
        };
        assert_eq!(packet::parse(&GOOD[..len]), Err(reason), "{len} bytes");
    }
}

fn packets() -> impl Strategy<Value = Packet> {
    let interval = || any::<u32>().prop_map(|micros| Duration::from_micros(micros.into()));
    let flags = any::<[bool; 4]>();
    let state = prop::sample::select(State::ALL.to_vec());
    let discriminators = (1_u32.., 1_u32..);
    let intervals = (interval(), interval(), interval());
    (0_u8..32, state, flags, 1_u8.., discriminators, intervals).prop_map(
        |(diagnostic, state, [poll, answer, independent, demand], multiplier, ids, intervals)| {
            Packet {
                diagnostic: Diagnostic::from_number(diagnostic),
                state,
                poll,
                answer,
                independent,
                demand,
                multiplier: multiplier.try_into().unwrap(),
                my_discriminator: ids.0.try_into().unwrap(),
                your_discriminator: Some(ids.1.try_into().unwrap()),
                desired_min_tx: intervals.0,
                required_min_rx: intervals.1,
                required_min_echo_rx: intervals.2,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_is_read_as_it_was_written(packet in packets()) {
        prop_assert_eq!(packet::parse(&packet.emit()).unwrap().packet, packet);
    }

    #[test]
    fn no_bytes_make_the_codec_panic(
        bytes in vec(any::<u8>(), 0..MAX_LEN + 4), version_and_length: bool,
    ) {
        let mut bytes = bytes;
        if version_and_length && bytes.len() > 3 {
            bytes[0] = 0x20;
            bytes[3] = bytes.len() as u8;
        }
        if let Ok(received) = packet::parse(&bytes) {
            prop_assert_eq!(received.bytes.len(), usize::from(bytes[3]));
        }
    }
}
