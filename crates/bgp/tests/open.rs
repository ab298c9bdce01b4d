//! OPENs and the capabilities in them, as bytes and in words.

use std::net::Ipv4Addr;

use bytes::BytesMut;
use vipd_bgp::wire::{
    Capability, Code, Dialect, HEADER_LEN, Message, Open, RestartCapability, RestartFamily,
    WireError,
};

const DIALECT: Dialect = Dialect {
    four_octet_as: true,
    internal: true,
    extended_messages: false,
};

fn open(capabilities: Vec<Capability>) -> Open {
    Open {
        my_as: 64496,
        hold_time: 90,
        router_id: Ipv4Addr::new(192, 0, 2, 1),
        capabilities,
    }
}

/// The OPEN that these octets are.
fn read(bytes: &[u8]) -> Result<Open, WireError> {
    match Message::take(&mut BytesMut::from(bytes), DIALECT)? {
        Some(Message::Open(open)) => Ok(open),
        other => panic!("{other:?}"),
    }
}

#[test]
fn capabilities_of_more_than_253_octets_take_the_extended_form() {
    let check = |count: usize, at_28: &[u8]| {
        let open = open(vec![Capability::FourOctetAs(64496); count]);
        let bytes = open.emit();
        assert_eq!(&bytes[28..28 + at_28.len()], at_28, "{count} capabilities");
        assert_eq!(read(&bytes), Ok(open));
    };
    check(0, &[0]);
    check(42, &[254, 2, 252]);
    check(43, &[255, 255, 1, 5, 2, 1, 2]);
    check(600, &[255, 255, 14, 19, 2, 14, 16]);
}

#[test]
fn the_extended_form_counts_whatever_the_classic_length_says() {
    let check = |sentence: &str, parameters: &[u8], wanted: Result<usize, Code>| {
        println!("{sentence}");
        let body = [&[4, 0xfb, 0xf0, 0, 90, 192, 0, 2, 1], parameters].concat();
        let len = u16::try_from(HEADER_LEN + body.len()).expect("a short body");
        let bytes = [&[0xff; 16], len.to_be_bytes().as_slice(), &[1], &body].concat();
        let count = read(&bytes).map(|open| open.capabilities.len());
        let count = count.map_err(|error| error.notification.code);
        assert_eq!(count, wanted);
    };
    let refresh = [2, 0, 2, 2, 0];
    let with = |head: &[u8]| [head, &refresh].concat();
    check("as it should be", &with(&[255, 255, 0, 5]), Ok(1));
    check("a length that means nothing", &with(&[9, 255, 0, 5]), Ok(1));
    check("no parameters", &[255, 255, 0, 0], Ok(0));
    check(
        "classic, with a length of 255",
        &[&[255][..], &[2, 253, 73, 251], &[0; 251]].concat(),
        Ok(1),
    );
    check(
        "more than there is",
        &with(&[255, 255, 0, 6]),
        Err(Code::OPEN_UNSPECIFIC),
    );
    check(
        "less than there is",
        &with(&[255, 255, 0, 4]),
        Err(Code::OPEN_UNSPECIFIC),
    );
    check("no length", &[255, 255, 0], Err(Code::OPEN_UNSPECIFIC));
    check(
        "a parameter of type 255 in it",
        &[255, 255, 0, 3, 255, 0, 0],
        Err(Code::UNSUPPORTED_OPTIONAL_PARAMETER),
    );
}

#[test]
fn a_capability_that_is_malformed_is_kept_and_means_nothing() {
    let check = |sentence: &str, code: u8, value: &[u8]| {
        println!("{sentence}");
        let sent = Capability::Other {
            code,
            value: value.to_vec(),
        };
        let open = open(vec![sent]);
        assert_eq!(read(&open.emit()), Ok(open));
    };
    check("multiprotocol of three octets", 1, &[0, 1, 0]);
    check("route refresh with a value", 2, &[0]);
    check("extended messages with a value", 6, &[0]);
    check("graceful restart of nothing", 64, &[]);
    check("graceful restart of one octet", 64, &[0]);
    check("graceful restart with half a family", 64, &[0, 120, 0, 1]);
    check("an AS of two octets", 65, &[0xfb, 0xf0]);
    check("enhanced route refresh with a value", 70, &[1]);
    check("BFD strict mode with a value", 74, &[1]);
}

#[test]
fn capabilities_are_shown_in_words() {
    let check = |capability: Capability, words: &str| assert_eq!(capability.to_string(), words);
    let families = vec![
        RestartFamily {
            afi: 1,
            safi: 1,
            forwarding: true,
        },
        RestartFamily {
            afi: 25,
            safi: 65,
            forwarding: false,
        },
    ];
    check(
        Capability::GracefulRestart(RestartCapability {
            restarting: true,
            notification: true,
            restart_time: 120,
            families,
        }),
        "graceful restart (120 s, restarting, with NOTIFICATIONs, IPv4 unicast forwarding kept, AFI 25 SAFI 65)",
    );
    check(Capability::ExtendedMessages, "extended messages");
    check(Capability::EnhancedRouteRefresh, "enhanced route refresh");
    check(Capability::BfdStrict, "BFD strict mode");
    check(
        Capability::Other {
            code: 69,
            value: vec![],
        },
        "ADD-PATH",
    );
    check(
        Capability::Other {
            code: 200,
            value: vec![],
        },
        "capability 200",
    );
}
