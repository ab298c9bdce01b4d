//! Questions as packets, and explanations as text.

use super::*;

fn question(source: &str, destination: &str, protocol: Transport, opens: bool) -> Question {
    Question {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol,
        opens,
        interface: None,
    }
}

#[test]
fn a_question_becomes_a_packet_of_its_flow() {
    #[track_caller]
    fn check(question: &Question, expected: &[&str]) {
        let frame = question.frame([2, 0, 0, 0, 0, 0x11]).unwrap();
        assert_eq!(headers::lines(&frame, None)[1..], *expected, "{question:?}");
    }
    let (client, vip) = ("203.0.113.7:40000", "198.51.100.10:80");
    let v4 = "IPv4 203.0.113.7 > 198.51.100.10, TTL 64, DF";
    check(
        &question(client, vip, Transport::Tcp, false),
        &[v4, "TCP 40000 > 80 [ACK]"],
    );
    check(
        &question(client, vip, Transport::Tcp, true),
        &[v4, "TCP 40000 > 80 [SYN]"],
    );
    check(
        &question(client, vip, Transport::Udp, false),
        &[v4, "UDP 40000 > 80"],
    );
    check(
        &question(
            "[2001:db8::7]:1",
            "[2001:db8::10]:53",
            Transport::Udp,
            false,
        ),
        &[
            "IPv6 2001:db8::7 > 2001:db8::10, hop limit 64",
            "UDP 1 > 53",
        ],
    );
}

#[test]
fn the_checksum_of_the_packet_is_right() {
    let question = question(
        "203.0.113.7:40000",
        "198.51.100.10:80",
        Transport::Tcp,
        false,
    );
    let frame = question.frame([0; 6]).unwrap();
    assert_eq!(checksum(&frame[14..34]), 0);
}

#[test]
fn addresses_of_two_families_are_no_flow() {
    let mixed = question("203.0.113.7:1", "[2001:db8::10]:80", Transport::Tcp, false);
    assert_eq!(mixed.frame([0; 6]), Err(TwoFamilies));
}

#[test]
fn an_explanation_reads_from_the_question_to_the_wire() {
    let explanation = Explanation {
        but: None,
        interface: "eth0".to_owned(),
        verdict: "forwarded".to_owned(),
        meaning: "Forwarded to a backend.".to_owned(),
        action: "transmit".to_owned(),
        service: Some("web".to_owned()),
        hash: Some("00000000000004d2".to_owned()),
        slot: Some(SlotView {
            number: 1234,
            of: 4096,
            phase: "learn".to_owned(),
        }),
        because: Some("the flow is recorded".to_owned()),
        recorded: Some(true),
        backend: Some(Backend {
            name: Some("b1".to_owned()),
            address: "192.0.2.21".parse().unwrap(),
        }),
        leaves: Some(Leaves {
            interface: "eth0".to_owned(),
            next_hop: "02:00:00:00:00:21".to_owned(),
            headers: vec!["outer".to_owned(), "inner".to_owned()],
            bytes: 74,
        }),
    };
    insta::assert_snapshot!(explanation.render(), @r"
    verdict    forwarded: Forwarded to a backend.
    comes by   eth0
    service    web
    flow hash  00000000000004d2
    slot       1234 of 4096, learn
    backend    b1 (192.0.2.21)
    because    the flow is recorded
    leaves by  eth0 to 02:00:00:00:00:21, 74 bytes
    headers    outer
               inner
    ");
    let text = explanation.render();
    let but = Some("eth0 is down".to_owned());
    let explanation = Explanation { but, ..explanation };
    assert_eq!(
        explanation.render(),
        format!("but        eth0 is down\n{text}"),
        "what keeps packets from it comes first"
    );
}
