//! UPDATEs that are wrong, one by one, and what RFC 7606 makes of each.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use bytes::BytesMut;
use vipd_bgp::wire::Handling::{AttributeDiscard, TreatAsWithdraw};
use vipd_bgp::wire::{Code, Dialect, Handling, Message, Update, WireError};

const EBGP: Dialect = Dialect {
    four_octet_as: true,
    internal: false,
    extended_messages: false,
};
const IBGP: Dialect = Dialect {
    four_octet_as: true,
    internal: true,
    extended_messages: false,
};
const NARROW: Dialect = Dialect {
    four_octet_as: false,
    internal: false,
    extended_messages: false,
};

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfb, 0xf0];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
const NLRI: &[u8] = &[24, 203, 0, 113];

/// MP_REACH_NLRI of 2001:db8::/32 via 2001:db8::1.
const MP_REACH: &[u8] = &[
    0x80, 14, 26, 0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 32, 0x20,
    1, 0xd, 0xb8,
];

#[test]
fn a_good_update_has_no_faults() {
    let check = |sentence: &str, dialect, attributes: &[&[u8]], nlri: &[u8]| {
        println!("{sentence}");
        let (_, faults) = parse(&body(&[], &attributes.concat(), nlri), dialect).unwrap();
        assert_eq!(faults, []);
    };
    check("classic", EBGP, &[ORIGIN, AS_PATH, NEXT_HOP], NLRI);
    check(
        "multiprotocol, which needs no NEXT_HOP",
        EBGP,
        &[MP_REACH, ORIGIN, AS_PATH],
        &[],
    );
    check("nothing: an End-of-RIB", EBGP, &[], &[]);
    check(
        "a withdrawal needs no attributes",
        EBGP,
        &[&[0x80, 15, 3, 0, 2, 1]],
        &[],
    );
    check(
        "an unknown optional attribute",
        EBGP,
        &[&[0xc0, 99, 1, 7]],
        &[],
    );
    check(
        "a family we do not know",
        EBGP,
        &[&[0x80, 14, 7, 0, 25, 65, 1, 9, 0, 7]],
        &[],
    );
    check(
        "a path of two octets",
        NARROW,
        &[ORIGIN, &[0x40, 2, 4, 2, 1, 0, 9], NEXT_HOP],
        NLRI,
    );
    check(
        "all that is only checked",
        IBGP,
        &[
            &[0x40, 6, 0],
            &[0xc0, 7, 8, 0, 0, 0, 1, 192, 0, 2, 1],
            &[0x80, 9, 4, 192, 0, 2, 1],
            &[0x80, 10, 4, 192, 0, 2, 1],
        ],
        &[],
    );
    check(
        "an extended length where a short one would do",
        EBGP,
        &[&[0x90, 4, 0, 4, 0, 0, 0, 1]],
        &[],
    );
}

#[test]
fn a_malformed_attribute_costs_its_routes_or_itself_but_not_the_session() {
    let check_in = |dialect, sentence: &str, attribute: &[u8], kind: u8, handling: Handling| {
        println!("{sentence}");
        // In place of a good one of its type, or behind the good ones.
        let good = [ORIGIN, AS_PATH, NEXT_HOP];
        let others = good
            .into_iter()
            .filter(|good| good.get(1) != attribute.get(1));
        let attributes: Vec<u8> = others.chain([attribute]).flatten().copied().collect();
        let (update, faults) = parse(&body(&[], &attributes, NLRI), dialect).unwrap();
        assert_eq!(update.announced.len(), 1, "the prefix is still read");
        let first = faults.first().expect("a fault");
        assert_eq!(
            (first.attribute, first.handling),
            (kind, handling),
            "{faults:?}"
        );
        let worst = faults.iter().map(|fault| fault.handling).max();
        assert_eq!(worst, Some(handling), "{faults:?}");
    };
    let check = |sentence: &str, attribute: &[u8], kind, handling| {
        check_in(EBGP, sentence, attribute, kind, handling);
    };
    check("ORIGIN of no octets", &[0x40, 1, 0], 1, TreatAsWithdraw);
    check("ORIGIN 3", &[0x40, 1, 1, 3], 1, TreatAsWithdraw);
    check(
        "ORIGIN marked optional",
        &[0xc0, 1, 1, 0],
        1,
        TreatAsWithdraw,
    );
    check(
        "AS_PATH segment of unknown type",
        &[0x40, 2, 6, 9, 1, 0, 0, 0, 1],
        2,
        TreatAsWithdraw,
    );
    check(
        "AS_PATH segment of no ASes",
        &[0x40, 2, 2, 2, 0],
        2,
        TreatAsWithdraw,
    );
    check(
        "AS_PATH segment cut off",
        &[0x40, 2, 6, 2, 2, 0, 0, 0, 1],
        2,
        TreatAsWithdraw,
    );
    check(
        "AS_PATH with an octet too many",
        &[0x40, 2, 7, 2, 1, 0, 0, 0, 1, 2],
        2,
        TreatAsWithdraw,
    );
    check(
        "NEXT_HOP of three octets",
        &[0x40, 3, 3, 192, 0, 2],
        3,
        TreatAsWithdraw,
    );
    check(
        "MED of three octets",
        &[0x80, 4, 3, 0, 0, 0],
        4,
        TreatAsWithdraw,
    );
    check(
        "MED marked transitive",
        &[0xc0, 4, 4, 0, 0, 0, 0],
        4,
        TreatAsWithdraw,
    );
    check(
        "LOCAL_PREF on eBGP",
        &[0x40, 5, 4, 0, 0, 0, 1],
        5,
        AttributeDiscard,
    );
    check(
        "malformed LOCAL_PREF on eBGP",
        &[0x40, 5, 1, 0],
        5,
        AttributeDiscard,
    );
    check(
        "ATOMIC_AGGREGATE with a value",
        &[0x40, 6, 1, 0],
        6,
        AttributeDiscard,
    );
    check(
        "AGGREGATOR of six octets",
        &[0xc0, 7, 6, 0, 1, 1, 1, 1, 1],
        7,
        AttributeDiscard,
    );
    check("no COMMUNITIES", &[0xc0, 8, 0], 8, TreatAsWithdraw);
    check(
        "half a community",
        &[0xc0, 8, 6, 0, 0, 0, 0, 0, 0],
        8,
        TreatAsWithdraw,
    );
    check(
        "ORIGINATOR_ID on eBGP",
        &[0x80, 9, 4, 1, 1, 1, 1],
        9,
        AttributeDiscard,
    );
    check(
        "CLUSTER_LIST on eBGP",
        &[0x80, 10, 4, 1, 1, 1, 1],
        10,
        AttributeDiscard,
    );
    check(
        "half an extended community",
        &[0xc0, 16, 4, 0, 0, 0, 0],
        16,
        TreatAsWithdraw,
    );
    check(
        "AS4_PATH from a wide speaker",
        &[0xc0, 17, 6, 2, 1, 0, 0, 0, 1],
        17,
        AttributeDiscard,
    );
    check(
        "AS4_AGGREGATOR from one",
        &[0xc0, 18, 8, 0, 0, 0, 1, 1, 1, 1, 1],
        18,
        AttributeDiscard,
    );
    check(
        "a third of a large community",
        &[0xc0, 32, 4, 0, 0, 0, 0],
        32,
        TreatAsWithdraw,
    );
    let large = [&[0xc0, 32, 16][..], &[0; 16]].concat();
    check("one and a third", &large, 32, TreatAsWithdraw);
    check("a length without an octet", &[0x40], 0, TreatAsWithdraw);
    check(
        "longer than all attributes",
        &[0x80, 4, 9, 0, 0, 0, 0],
        0,
        TreatAsWithdraw,
    );
    check(
        "an extended length cut off",
        &[0x90, 4, 0],
        0,
        TreatAsWithdraw,
    );
    check_in(
        IBGP,
        "LOCAL_PREF of one octet",
        &[0x40, 5, 1, 0],
        5,
        TreatAsWithdraw,
    );
    check_in(
        IBGP,
        "ORIGINATOR_ID of three",
        &[0x80, 9, 3, 1, 1, 1],
        9,
        TreatAsWithdraw,
    );
    check_in(
        IBGP,
        "CLUSTER_LIST of five",
        &[0x80, 10, 5, 1, 1, 1, 1, 1],
        10,
        TreatAsWithdraw,
    );
}

#[test]
fn attributes_from_a_peer_of_two_octets_are_read_so() {
    let check = |sentence: &str, attribute: &[u8], fault: Option<Handling>| {
        println!("{sentence}");
        let path: &[u8] = &[0x40, 2, 4, 2, 1, 0x5b, 0xa0];
        let attributes = [ORIGIN, path, NEXT_HOP, attribute].concat();
        let (update, faults) = parse(&body(&[], &attributes, NLRI), NARROW).unwrap();
        assert_eq!(update.attributes.as_path.unwrap().to_string(), "23456");
        assert_eq!(faults.first().map(|fault| fault.handling), fault);
    };
    check("AS4_PATH", &[0xc0, 17, 6, 2, 1, 0, 1, 0, 0], None);
    check(
        "malformed AS4_PATH",
        &[0xc0, 17, 5, 2, 1, 0, 1, 0],
        Some(AttributeDiscard),
    );
    check("AGGREGATOR", &[0xc0, 7, 6, 0, 1, 1, 1, 1, 1], None);
    check(
        "malformed AS4_AGGREGATOR",
        &[0xc0, 18, 1, 0],
        Some(AttributeDiscard),
    );
}

#[test]
fn a_missing_attribute_withdraws_the_routes() {
    let check = |sentence: &str, attributes: &[&[u8]], nlri: &[u8], missing: u8| {
        println!("{sentence}");
        let (_, faults) = parse(&body(&[], &attributes.concat(), nlri), EBGP).unwrap();
        let found: Vec<_> = faults
            .iter()
            .map(|fault| (fault.attribute, fault.handling))
            .collect();
        assert_eq!(found, [(missing, TreatAsWithdraw)]);
    };
    check("ORIGIN", &[AS_PATH, NEXT_HOP], NLRI, 1);
    check("AS_PATH", &[ORIGIN, NEXT_HOP], NLRI, 2);
    check("NEXT_HOP", &[ORIGIN, AS_PATH], NLRI, 3);
    check("ORIGIN of IPv6 routes", &[MP_REACH, AS_PATH], &[], 1);
}

#[test]
fn of_an_attribute_that_occurs_twice_the_first_counts() {
    let attributes = [ORIGIN, AS_PATH, NEXT_HOP, &[0x40, 1, 1, 2]].concat();
    let (update, faults) = parse(&body(&[], &attributes, NLRI), EBGP).unwrap();
    assert_eq!(update.attributes.origin, Some(vipd_bgp::wire::Origin::Igp));
    assert_eq!(faults[0].words, "ORIGIN occurs twice");
    assert_eq!(faults[0].handling, AttributeDiscard);
}

#[test]
fn an_update_whose_prefixes_cannot_be_found_resets_the_session() {
    let check = |sentence: &str, body: &[u8], code: Code| {
        println!("{sentence}");
        let error = parse(body, EBGP).expect_err("a reset");
        assert_eq!(error.notification.code, code, "{error}");
    };
    let with = |attribute: &[u8]| body(&[], &[ORIGIN, AS_PATH, attribute].concat(), &[]);
    let reach = |at: usize, octet: u8| {
        let mut attribute = MP_REACH.to_vec();
        attribute[at] = octet;
        with(&attribute)
    };
    check(
        "withdrawn routes beyond the end",
        &[0, 9, 0, 0],
        Code::MALFORMED_ATTRIBUTE_LIST,
    );
    check(
        "attributes beyond the end",
        &[0, 0, 0, 9],
        Code::MALFORMED_ATTRIBUTE_LIST,
    );
    check(
        "no room for the lengths",
        &[0, 1, 0, 0],
        Code::MALFORMED_ATTRIBUTE_LIST,
    );
    check(
        "a prefix of /33",
        &body(&[], &[], &[33, 1, 1, 1, 1, 1]),
        Code::INVALID_NETWORK_FIELD,
    );
    check(
        "a prefix cut off",
        &body(&[], &[], &[24, 203, 0]),
        Code::INVALID_NETWORK_FIELD,
    );
    check(
        "a withdrawn prefix of /33",
        &body(&[33, 1, 1, 1, 1, 1], &[], &[]),
        Code::INVALID_NETWORK_FIELD,
    );
    check(
        "MP_REACH_NLRI twice",
        &with(&[MP_REACH, MP_REACH].concat()),
        Code::MALFORMED_ATTRIBUTE_LIST,
    );
    check(
        "a next hop of 15 octets",
        &reach(6, 15),
        Code::OPTIONAL_ATTRIBUTE_ERROR,
    );
    check(
        "a next hop beyond the end",
        &reach(6, 200),
        Code::OPTIONAL_ATTRIBUTE_ERROR,
    );
    check(
        "an IPv6 prefix of /129",
        &reach(24, 129),
        Code::OPTIONAL_ATTRIBUTE_ERROR,
    );
    check(
        "an IPv6 prefix cut off",
        &reach(24, 33),
        Code::OPTIONAL_ATTRIBUTE_ERROR,
    );
    check(
        "an empty MP_REACH_NLRI",
        &with(&[0x80, 14, 0]),
        Code::OPTIONAL_ATTRIBUTE_ERROR,
    );
    check(
        "an empty MP_UNREACH_NLRI",
        &with(&[0x80, 15, 0]),
        Code::OPTIONAL_ATTRIBUTE_ERROR,
    );
    check(
        "an unknown well-known attribute",
        &with(&[0x40, 99, 0]),
        Code::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE,
    );
}

#[test]
fn an_update_cut_or_patched_anywhere_does_not_panic() {
    let attributes = [
        ORIGIN,
        AS_PATH,
        NEXT_HOP,
        MP_REACH,
        &[0xc0, 8, 4, 0, 0, 0, 1],
    ]
    .concat();
    let good = body(NLRI, &attributes, NLRI);
    for dialect in [EBGP, IBGP, NARROW] {
        for len in 0..good.len() {
            let _ = parse(&good[..len], dialect);
        }
        for at in 0..good.len() {
            for octet in 0..=255 {
                let mut bad = good.clone();
                bad[at] = octet;
                let _ = parse(&bad, dialect);
            }
        }
    }
}

fn body(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let len = |field: &[u8]| u16::try_from(field.len()).unwrap().to_be_bytes();
    [
        &len(withdrawn),
        withdrawn,
        &len(attributes),
        attributes,
        nlri,
    ]
    .concat()
}

fn parse(body: &[u8], dialect: Dialect) -> Result<(Update, Vec<vipd_bgp::wire::Fault>), WireError> {
    let len = u16::try_from(19 + body.len()).unwrap();
    let message = [[0xff; 16].as_slice(), &len.to_be_bytes(), &[2], body].concat();
    match Message::take(&mut BytesMut::from(&message[..]), dialect)? {
        Some(Message::Update(update, faults)) => Ok((update, faults)),
        other => panic!("an UPDATE became {other:?}"),
    }
}
