//! What the capturing program hands over, and that it forwards as the other.

use aya::{
    maps::{MapData, RingBuf},
    programs::{TestRun, TestRunOptions},
};
use ipnet::IpNet;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use vipd::{
    capture::Request,
    dataplane::{
        pins::Pins,
        tap::{Tap, captured},
    },
    explain::{Names, Transport},
    netlink::way::Ways,
};
use vipd_abi::{CaptureFilter, Captured, Verdict};
use vipd_control::model::{Mode, Protocol};
use vipd_tests::Scratch;

use crate::{
    bench::{Bench, INGRESS, address, service, way},
    frames::{Payload, tcp, udp},
};

const WEB: &str = "198.51.100.10";
const SIX: &str = "2001:db8:100::10";
const BACKEND: &str = "192.0.2.21";
const BACKEND6: &str = "2001:db8:1::21";
const CLIENT: &str = "203.0.113.7";
const CLIENT6: &str = "2001:db8:c::7";

#[test]
fn a_filter_lets_through_what_it_names_and_nothing_else() {
    let scratch = Scratch::new("capture-filter");
    let mut tapped = Tapped::new(&scratch);
    let net = |text: &str| Some(text.parse::<IpNet>().expect("a prefix"));
    let any = Request::default;
    let v4 = tcp(CLIENT, WEB).frame();
    let v6 = tcp(CLIENT6, SIX).frame();
    let dns = udp(CLIENT, WEB).frame();
    let stranger = tcp(CLIENT, "198.51.100.99").frame();
    let tagged = [&v4[..12], &[0x81, 0, 0, 100], &v4[12..]].concat();
    let options = tcp(CLIENT, WEB)
        .with(|p| p.options = vec![1, 1, 1, 0])
        .frame();
    let later = {
        let mut frame = v4.clone();
        frame[21] = 5;
        frame
    };
    let source = |text| Request {
        source: net(text),
        ..any()
    };
    let destination = |text| Request {
        destination: net(text),
        ..any()
    };
    let port = |port| Request {
        port: Some(port),
        ..any()
    };
    let protocol = |protocol| Request {
        protocol: Some(protocol),
        ..any()
    };
    let verdicts = |names: &[&str]| Request {
        verdicts: names.iter().map(ToString::to_string).collect(),
        ..any()
    };
    let named = |name: &str| Request {
        service: Some(name.to_owned()),
        ..any()
    };
    let both = |from, port| Request {
        port: Some(port),
        ..source(from)
    };
    let cases: Vec<(&str, Request, &[u8], bool)> = vec![
        ("all", any(), &v4, true),
        ("all, IPv6", any(), &v6, true),
        ("all, for nobody here", any(), &stranger, true),
        ("its source", source("203.0.113.7/32"), &v4, true),
        ("its source's prefix", source("203.0.112.0/23"), &v4, true),
        ("another source", source("203.0.113.8/32"), &v4, false),
        ("every IPv4 source", source("0.0.0.0/0"), &v4, true),
        ("every IPv4 source, IPv6", source("0.0.0.0/0"), &v6, false),
        (
            "its IPv6 source's prefix",
            source("2001:db8:c::/48"),
            &v6,
            true,
        ),
        (
            "another IPv6 source",
            source("2001:db8:c::8/128"),
            &v6,
            false,
        ),
        (
            "an IPv6 source, IPv4",
            source("2001:db8:c::/48"),
            &v4,
            false,
        ),
        ("its destination", destination("198.51.100.0/24"), &v4, true),
        (
            "another destination",
            destination("198.51.101.0/24"),
            &v4,
            false,
        ),
        (
            "its destination behind a tag",
            destination("198.51.100.10/32"),
            &tagged,
            true,
        ),
        (
            "another destination behind a tag",
            destination("198.51.100.11/32"),
            &tagged,
            false,
        ),
        ("its destination port", port(80), &v4, true),
        ("its source port", port(40000), &v6, true),
        ("another port", port(81), &v4, false),
        ("its port behind options", port(80), &options, true),
        ("another port behind options", port(81), &options, false),
        ("a port of a later fragment", port(80), &later, false),
        ("its protocol", protocol(Transport::Udp), &dns, true),
        ("another protocol", protocol(Transport::Udp), &v4, false),
        (
            "one of two verdicts",
            verdicts(&["too_big", "not_vip"]),
            &stranger,
            true,
        ),
        (
            "another verdict",
            verdicts(&["too_big", "not_vip"]),
            &v4,
            false,
        ),
        ("its service", named("web"), &v4, true),
        ("another service", named("six"), &v4, false),
        ("a service, for nobody here", named("web"), &stranger, false),
        (
            "both of two conditions",
            both("203.0.113.7/32", 80),
            &v4,
            true,
        ),
        (
            "one of two conditions",
            both("203.0.113.7/32", 81),
            &v4,
            false,
        ),
    ];
    for (sentence, request, frame, expected) in cases {
        tapped.ask_for(&request);
        let got = tapped.run(frame).1.is_some();
        assert_eq!(got, expected, "{sentence}: {request:?}");
    }
}

#[test]
fn a_captured_packet_is_what_came_and_what_leaves() {
    let scratch = Scratch::new("capture-content");
    let mut tapped = Tapped::new(&scratch);
    tapped.ask_for(&Request::default());
    let long = |length| {
        tcp(CLIENT, WEB).with(|p| {
            p.payload = Payload::Tcp {
                ports: (40000, 80),
                data: vec![0x5a; length],
            };
        })
    };
    let cases = [
        ("short", long(0).frame(), Verdict::Forwarded),
        (
            "just as long as is kept",
            long(256 - 54).frame(),
            Verdict::Forwarded,
        ),
        ("longer", long(1000).frame(), Verdict::Forwarded),
        ("IPv6", tcp(CLIENT6, SIX).frame(), Verdict::Forwarded),
        (
            "dropped",
            tcp(CLIENT, WEB).with(|p| p.ttl = 1).frame(),
            Verdict::TtlExpired,
        ),
        (
            "passed",
            tcp(CLIENT, "198.51.100.99").frame(),
            Verdict::NotVip,
        ),
        ("as short as can be", vec![0; 14], Verdict::NotIp),
    ];
    for (sentence, frame, verdict) in cases {
        let plain = tapped.bench.run(&frame);
        let (out, captured) = tapped.run(&frame);
        let captured = captured.expect(sentence);
        assert_eq!(out, plain.frame, "{sentence}: both programs do the same");
        assert_eq!(captured.trace.verdict(), Some(verdict), "{sentence}");
        let head = |bytes: &[u8]| bytes[..bytes.len().min(256)].to_vec();
        assert_eq!(captured.came(), head(&frame), "{sentence}");
        assert_eq!(captured.length_in as usize, frame.len(), "{sentence}");
        assert_eq!(captured.came_by, INGRESS, "{sentence}");
        if verdict == Verdict::Forwarded {
            assert_eq!(captured.left(), head(&out), "{sentence}");
            assert_eq!(captured.length_out as usize, out.len(), "{sentence}");
            assert_eq!(captured.trace.leaves_by, INGRESS, "{sentence}");
            let record = tapped
                .tap
                .record(captured.trace.backend)
                .expect("a backend");
            let backend = tapped.names.backend(&record).name.expect("a name");
            let expected = if frame[12] == 8 { BACKEND } else { BACKEND6 };
            assert_eq!(backend, expected, "{sentence}");
        } else {
            assert_eq!(captured.left(), [0; 0], "{sentence}: nothing leaves");
        }
    }
}

#[test]
fn a_capture_is_bounded_by_sample_rate_copies_and_deadline() {
    // Each processor has bounds of its own, so the thread stays on one.
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).expect("a thread may stay where it is");
    let scratch = Scratch::new("capture-bounds");
    let mut tapped = Tapped::new(&scratch);
    let frame = tcp(CLIENT, WEB).frame();
    let of = |tapped: &mut Tapped, number| {
        let got = (0..number).filter(|_| tapped.run(&frame).1.is_some());
        got.count() as u64
    };

    tapped.ask_for(&Request {
        rate: Some(5),
        ..Request::default()
    });
    let before = tapped.tap.counts();
    let begin = nanos();
    let got = of(&mut tapped, 400);
    // One processor, at most so many times since then.
    let most = |begin: u64| 5 * ((nanos() - begin) / 1_000_000_000 + 2);
    let most_captured = most(begin);
    assert!(
        (1..=most_captured).contains(&got),
        "{got} of at most {most_captured}"
    );
    let after = tapped.tap.counts();
    assert_eq!(after.captured - before.captured, got);
    assert_eq!(after.limited - before.limited, 400 - got);
    assert_eq!(after.lost, 0);

    // What is not asked for is copied all the same, to find that out.
    let filter = tapped.filter(&Request {
        verdicts: vec!["too_big".to_owned()],
        ..Request::default()
    });
    let until = nanos() + 60_000_000_000;
    tapped.tap.set_filter(CaptureFilter {
        until,
        copies: 5,
        ..filter
    });
    let (before, begin) = (tapped.tap.counts(), nanos());
    assert_eq!(of(&mut tapped, 400), 0, "another verdict");
    let limited = tapped.tap.counts().limited - before.limited;
    let least = 400_u64.saturating_sub(most(begin));
    assert!(limited >= least, "{limited} of at least {least}");

    tapped.ask_for(&Request {
        sample: Some(4),
        ..Request::default()
    });
    let got = of(&mut tapped, 400);
    // Seven standard deviations about 100.
    assert!((40..=160).contains(&got), "one in four of 400: {got}");

    let filter = tapped.filter(&Request::default());
    tapped.tap.set_filter(CaptureFilter { until: 1, ..filter });
    assert_eq!(
        of(&mut tapped, 10),
        0,
        "the agent has not moved the deadline on"
    );
}

#[test]
fn what_nobody_reads_is_lost_and_counted_while_packets_are_forwarded() {
    let scratch = Scratch::new("capture-lost");
    let mut tapped = Tapped::new(&scratch);
    tapped.ask_for(&Request {
        rate: Some(100_000),
        ..Request::default()
    });
    let frame = tcp(CLIENT, WEB).frame();
    for _ in 0..3000 {
        let out = tapped.forward(&frame);
        assert_eq!(out.len(), frame.len() + 20, "forwarded");
    }
    let counts = tapped.tap.counts();
    assert!(counts.lost > 0 && counts.captured > 1000, "{counts:?}");
    assert_eq!(counts.captured + counts.lost, 3000, "{counts:?}");
}

struct Tapped {
    bench: Bench,
    tap: Tap,
    packets: RingBuf<MapData>,
    names: Names,
}

impl Tapped {
    fn new(scratch: &Scratch) -> Self {
        let services = vec![
            service("web", WEB, Protocol::Tcp, Mode::Ipip, &[(BACKEND, 1)]),
            service("dns", WEB, Protocol::Udp, Mode::Ipip, &[(BACKEND, 1)]),
            service("six", SIX, Protocol::Tcp, Mode::Ipip, &[(BACKEND6, 1)]),
        ];
        let ways = Ways::from([
            (address(BACKEND), way(INGRESS, "192.0.2.11")),
            (address(BACKEND6), way(INGRESS, "2001:db8:1::11")),
        ]);
        let bench = Bench::load(Some(scratch.path()), services, &ways, |_| true);
        let mut tap = Tap::load(&Pins::new(scratch.path())).expect("the program is taken");
        let packets = tap.packets().expect("a ring buffer");
        let names = Names::of(&bench.applied);
        Self {
            bench,
            tap,
            packets,
            names,
        }
    }

    fn filter(&self, request: &Request) -> CaptureFilter {
        request.filter(&self.names).expect("a good request")
    }

    /// Puts a filter in force for a minute.
    fn ask_for(&self, request: &Request) {
        let until = nanos() + 60_000_000_000;
        let filter = self.filter(request);
        self.tap.set_filter(CaptureFilter { until, ..filter });
    }

    /// Runs the program; gives back the frame and what was captured.
    fn run(&mut self, frame: &[u8]) -> (Vec<u8>, Option<Captured>) {
        let out = self.forward(frame);
        let packet = self.packets.next().and_then(|bytes| captured(&bytes));
        assert!(self.packets.next().is_none(), "one packet at most");
        (out, packet)
    }

    fn forward(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 4096];
        let program = self.tap.program().expect("the program is there");
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        });
        let result = result.expect("the kernel runs the program");
        out.truncate(result.data_size_out as usize);
        out
    }
}

/// The kernel's monotonic clock.
fn nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
