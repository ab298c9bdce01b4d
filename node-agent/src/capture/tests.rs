//! Requests, refusals, and how a packet reads.

use vipd_abi::{CaptureFilter, Verdict};

use super::*;

fn names() -> Names {
    let applied = Applied {
        numbers: Arc::new([("web".into(), 3), ("dns".into(), 5)].into()),
        ..Applied::default()
    };
    Names::of(&applied)
}

#[test]
fn a_request_becomes_the_programs_filter() {
    #[track_caller]
    fn check(request: &Request, expected: CaptureFilter) {
        assert_eq!(request.filter(&names()), Ok(expected), "{request:?}");
    }
    let all = CaptureFilter {
        sample: 1,
        rate: 1000,
        ..CaptureFilter::default()
    };
    check(&Request::default(), all);
    check(
        &Request {
            source: Some("203.0.113.0/24".parse().unwrap()),
            destination: Some("2001:db8::/32".parse().unwrap()),
            port: Some(80),
            ..Request::default()
        },
        CaptureFilter {
            source: [0, 0, 0xffff_u32.to_be(), 0xcb00_7100_u32.to_be()],
            source_mask: [u32::MAX, u32::MAX, u32::MAX, 0xffff_ff00_u32.to_be()],
            destination: [0x2001_0db8_u32.to_be(), 0, 0, 0],
            destination_mask: [u32::MAX, 0, 0, 0],
            port: u32::from(80_u16.to_be()),
            ..all
        },
    );
    check(
        &Request {
            verdicts: vec!["not_vip".to_owned(), "too_big".to_owned()],
            service: Some("dns".to_owned()),
            sample: Some(100),
            rate: Some(7),
            ..Request::default()
        },
        CaptureFilter {
            verdicts: 1 << Verdict::NotVip as u32 | 1 << Verdict::TooBig as u32,
            service: 5,
            sample: 100,
            rate: 7,
            ..all
        },
    );
}

#[test]
fn what_there_is_not_and_what_has_no_bound_is_refused_in_words() {
    #[track_caller]
    fn check(request: &Request, expected: &str) {
        let error = request.filter(&names()).expect_err("a refusal").to_string();
        assert!(error.contains(expected), "{request:?}: {error}");
    }
    let request = Request::default;
    check(
        &Request {
            service: Some("wbe".to_owned()),
            ..request()
        },
        "there are: web, dns",
    );
    check(
        &Request {
            verdicts: vec!["forwarded".to_owned(), "gone".to_owned()],
            ..request()
        },
        "no verdict `gone`",
    );
    for (request, name) in [
        (
            Request {
                seconds: Some(0),
                ..request()
            },
            "--seconds",
        ),
        (
            Request {
                seconds: Some(3601),
                ..request()
            },
            "--seconds",
        ),
        (
            Request {
                rate: Some(0),
                ..request()
            },
            "--rate",
        ),
        (
            Request {
                sample: Some(0),
                ..request()
            },
            "--sample",
        ),
        (
            Request {
                count: Some(0),
                ..request()
            },
            "--count",
        ),
    ] {
        check(&request, name);
    }
}

#[test]
fn a_packet_reads_as_a_line_and_survives_the_socket() {
    let frame = |interface: &str, bytes: &[u8]| Frame {
        interface: interface.to_owned(),
        length: 60,
        bytes: bytes.to_vec(),
    };
    let packet = Packet {
        nanos: 1,
        verdict: "forwarded".to_owned(),
        service: Some("web".to_owned()),
        backend: Some(Backend {
            name: Some("b1".to_owned()),
            address: "192.0.2.21".parse().unwrap(),
        }),
        because: Some("the slot is stable".to_owned()),
        gue: None,
        came: frame("eth0", &[0, 0x5a, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 6, 0]),
        left: Some(frame("eth1", &[])),
    };
    assert_eq!(
        packet.line(),
        "eth0 Ethernet 04:05:06:07:08:09 > 00:5a:ff:01:02:03, type 0x0806, 60 bytes: forwarded, \
         service web, backend b1 (192.0.2.21): the slot is stable -> eth1, 60 bytes"
    );
    let message = Message::Packet(Box::new(packet));
    let text = serde_json::to_string(&message).unwrap();
    assert!(text.contains("\"005aff01"), "{text}");
    assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message);
}
