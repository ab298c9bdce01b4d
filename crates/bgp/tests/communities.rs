//! Communities as operators write them.

use proptest::prelude::*;
use vipd_bgp::wire::{Administrator, Community, ExtendedCommunity};

#[test]
fn extended_communities_are_written_and_shown() {
    let check = |text: &str, octets: u64, shown: &str| {
        let community: ExtendedCommunity = text.parse().unwrap();
        assert_eq!(community, ExtendedCommunity(octets), "{text}");
        assert_eq!(community.to_string(), shown);
        assert_eq!(shown.parse(), Ok(community));
    };
    let same = |text: &str, octets| check(text, octets, text);
    same("rt:64496:70000", 0x0002_fbf0_0001_1170);
    same("rt:65550:7", 0x0202_0001_000e_0007);
    same("rt:192.0.2.1:7", 0x0102_c000_0201_0007);
    same("soo:64496:1", 0x0003_fbf0_0000_0001);
    check("ro:64496:1", 0x0003_fbf0_0000_0001, "soo:64496:1");
    same("generic:0x03060000:0x00000064", 0x0306_0000_0000_0064);
    check(
        "generic:0x0002fbf0:0x1",
        0x0002_fbf0_0000_0001,
        "rt:64496:1",
    );
    check(
        "generic:0x02020000:0xfbf00001",
        0x0202_0000_fbf0_0001,
        "generic:0x02020000:0xfbf00001",
    );
}

#[test]
fn what_is_no_extended_community_is_refused_in_words() {
    for text in [
        "",
        "rt",
        "rt:64496",
        "rt:64496:",
        "rt::1",
        "rt:64496:4294967296",
        "rt:65536:65536",
        "rt:192.0.2.1:65536",
        "rt:2001:db8::1:1",
        "rt:4294967296:1",
        "64496:1",
        "RT:64496:1",
        "generic:1:2",
        "generic:0x1",
        "generic:0x100000000:0x0",
        "rt:64496:1:1",
        "rt:-1:1",
    ] {
        let error = text.parse::<ExtendedCommunity>().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("`{text}` is not a community; write rt:WHO:VALUE")),
            "{error}"
        );
    }
}

#[test]
fn graceful_shutdown_has_its_number_and_name() {
    assert_eq!(Community::GRACEFUL_SHUTDOWN, Community(0xffff_0000));
    assert_eq!(
        "graceful-shutdown".parse(),
        Ok(Community::GRACEFUL_SHUTDOWN)
    );
    assert_eq!(
        Community::GRACEFUL_SHUTDOWN.to_string(),
        "graceful-shutdown"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_extended_community_comes_back_from_its_text(octets: u64, kind in 0_u64..4) {
        for octets in [octets, octets >> 8 | kind << 56, octets >> 16 | kind << 56 | 2 << 48] {
            let community = ExtendedCommunity(octets);
            prop_assert_eq!(community.to_string().parse(), Ok(community));
        }
    }

    #[test]
    fn parts_are_what_a_community_was_made_of(
        subtype: u8, asn: u32, address: std::net::Ipv4Addr, value: u16,
    ) {
        let value = value.into();
        for of in [Administrator::As(asn), Administrator::Address(address)] {
            let made = ExtendedCommunity::specific(subtype, of, value).unwrap();
            prop_assert_eq!(made.parts(), Some((subtype, of, value)));
        }
    }
}
