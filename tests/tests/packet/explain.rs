//! What is explained is what packets get, and asking changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use vipd::{
    dataplane::{
        explainer::{Answer, Explainer},
        pins::Pins,
        tables::{Tables, mapped},
    },
    netlink::way::Ways,
};
use vipd_abi::{
    BACKENDS, BackendRecord, Basis, COUNTERS, Counter, EntryKind, FLOW_BUCKETS, FRAGMENT_BUCKETS,
    FlowBucket, FlowEntry, RING_SLOTS, Slot, Stamp, Tick, VIP_SLOTS, Verdict, VipEntry,
    flow_bucket, flow_hash,
};
use vipd_control::model::{Mode, Protocol};
use vipd_tests::Scratch;

use crate::{
    bench::{Bench, ELSEWHERE, INGRESS, address, service, settings, way},
    frames::{Packet, Payload, tcp},
};

const FLOWS: usize = 10_000;
/// For which an entry of the flow table is believed, in ticks.
const IDLE: u16 = 1000;

const WEB: &str = "198.51.100.10";
const DSR: &str = "198.51.100.12";
const SIX: &str = "2001:db8:100::10";

#[test]
fn what_is_explained_is_what_packets_get_in_every_phase() {
    let scratch = Scratch::new("explain");
    let mut bench = bench(&scratch);
    let mut random = Rng::with_seed(7);
    unsettle(bench.applier.tables(), &mut random);
    let flows = flows(bench.applier.tables(), &mut random);

    let before = Snapshot::of(bench.applier.tables());
    let mut explainer = Explainer::load(&Pins::new(scratch.path())).expect("the program is taken");
    let answers: Vec<Answer> = flows
        .iter()
        .map(|flow| explainer.ask(&flow.frame, INGRESS).expect("an answer"))
        .collect();
    let after = Snapshot::of(bench.applier.tables());
    assert!(
        before == after,
        "asking has changed {}",
        before.differences(&after)
    );

    let mut bases = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    for (flow, answer) in flows.iter().zip(&answers) {
        let trace = &answer.trace;
        let counter = answer.record.map_or(0, |record| record.counter);
        let counted = |bench: &Bench| bench.applier.tables().counters.sum(counter).packets;
        let packets = counted(&bench);
        let outcome = bench.run(&flow.frame);
        assert_eq!(
            (trace.verdict(), answer.action, &answer.frame),
            (Some(outcome.verdict), outcome.action, &outcome.frame),
            "{flow:?}: {trace:?}"
        );
        *verdicts.entry(outcome.verdict.label()).or_insert(0) += 1;
        if matches!(outcome.verdict, Verdict::Forwarded | Verdict::Redirected) {
            assert_eq!(
                counted(&bench),
                packets + 1,
                "another backend got it: {flow:?}: {trace:?}"
            );
        }
        if trace.service == 0 {
            continue;
        }
        assert_eq!(trace.hash, flow.hash, "{flow:?}");
        let basis = trace.basis().expect("a basis");
        *bases.entry(basis.label()).or_insert(0) += 1;
        let tables = bench.applier.tables();
        let bucket = tables.flows.load(flow.bucket);
        let recorded = bucket.0.into_iter().find(|entry| {
            let ours = tables.records.load(entry.backend()).service == trace.service;
            entry.is_of(flow.hash) && ours
        });
        match basis {
            Basis::Recorded | Basis::NewlyRecorded => {
                let backend = recorded.map(FlowEntry::backend);
                assert_eq!(backend, Some(trace.backend), "{flow:?}: {trace:?}");
            }
            Basis::Refused | Basis::Previous | Basis::Current => {
                assert_eq!(recorded, None, "{flow:?}: {trace:?}");
            }
            Basis::Stable => assert_eq!(trace.backend, trace.slot.current()),
        }
    }
    for basis in Basis::ALL {
        let seen = bases.get(basis.label()).copied().unwrap_or(0);
        assert!(seen >= 100, "{basis:?} was hardly met: {bases:#?}");
    }
    assert!(
        verdicts.len() >= 6,
        "too few verdicts were met: {verdicts:#?}"
    );
}

#[test]
fn asking_uses_up_none_of_the_answers_to_what_is_too_big() {
    let scratch = Scratch::new("explain-too-big");
    let mut bench = bench(&scratch);
    let mut explainer = Explainer::load(&Pins::new(scratch.path())).expect("the program is taken");
    for packet in [tcp("203.0.113.7", WEB), tcp("2001:db8:c::7", SIX)] {
        let frame = packet.with(too_big).frame();
        for n in 0..2000 {
            let answer = explainer.ask(&frame, INGRESS).expect("an answer");
            let verdict = answer.trace.verdict();
            assert_eq!(verdict, Some(Verdict::TooBigAnswered), "question {n}");
        }
        let outcome = bench.run(&frame);
        let answer = explainer.ask(&frame, INGRESS).expect("an answer");
        assert_eq!(answer.frame, outcome.frame, "the answer that is sent");
    }
}

/// Makes it too long for the interface.
fn too_big(packet: &mut Packet) {
    packet.payload = Payload::Tcp {
        ports: (40000, 80),
        data: vec![0x5a; 1600],
    };
}

#[test]
fn an_interface_that_is_not_there_is_refused_in_words() {
    let scratch = Scratch::new("explain-nowhere");
    let bench = bench(&scratch);
    let mut explainer = Explainer::load(&Pins::new(scratch.path())).expect("the program is taken");
    let error = explainer.ask(&tcp("203.0.113.7", WEB).frame(), 0x7fff_ffff);
    let error = error.expect_err("no such interface").to_string();
    assert!(error.contains("does not run the program"), "{error}");
    drop(bench);
}

#[test]
fn nothing_is_explained_where_nothing_is_loaded() {
    let scratch = Scratch::new("explain-nothing");
    let Err(error) = Explainer::load(&Pins::new(scratch.path())) else {
        panic!("there is nothing to explain");
    };
    assert!(
        error.to_string().contains("no data plane is pinned"),
        "{error}"
    );
}

/// Every mode, two interfaces to leave by, and a MAC address of its own for
/// each backend.
fn bench(scratch: &Scratch) -> Bench {
    use Mode::{Ipip, L2Dsr};
    use Protocol::{Tcp, Udp};
    let four = [
        ("192.0.2.21", 1),
        ("192.0.2.22", 1),
        ("192.0.2.23", 1),
        ("192.0.2.24", 1),
    ];
    let six = [("2001:db8:1::21", 1), ("2001:db8:1::22", 1)];
    let services = vec![
        service("web", WEB, Tcp, Ipip, &four),
        service("dns", WEB, Udp, Ipip, &four),
        service("dsr", DSR, Tcp, L2Dsr, &four),
        service("six", SIX, Tcp, Ipip, &six),
    ];
    let mut ways = Ways::new();
    for (number, (backend, _)) in (0x21..).zip(four.iter().chain(&six)) {
        let source = if backend.contains(':') {
            "2001:db8:1::11"
        } else {
            "192.0.2.11"
        };
        let ingress = if *backend == four[3].0 {
            ELSEWHERE
        } else {
            INGRESS
        };
        let mut way = way(ingress, source);
        way.mac[5] = number;
        ways.insert(address(backend), way);
    }
    Bench::load(Some(scratch.path()), services, &ways, |_| true)
}

/// Puts the slots of every service into all phases, some without an owner, and
/// lets some backends die without anybody having moved their slots.
fn unsettle(tables: &Tables, random: &mut Rng) {
    let mut of_service: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for index in 1..BACKENDS {
        let record = tables.records.load(index);
        if record == BackendRecord::default() {
            continue;
        }
        of_service.entry(record.service).or_default().push(index);
        if random.u64(..4) == 0 {
            let state = BackendRecord::DEAD;
            tables
                .records
                .store(index, BackendRecord { state, ..record });
        }
    }
    let half = tables.half();
    for place in half * VIP_SLOTS..(half + 1) * VIP_SLOTS {
        let entry = tables.entries.load(place);
        if entry.kind != EntryKind::Service as u32 {
            continue;
        }
        let idle = u32::from(IDLE);
        tables.entries.store(place, VipEntry { idle, ..entry });
        let records = &of_service[&entry.service];
        for slot in entry.ring_offset..=entry.ring_offset + entry.ring_mask {
            let mut one = || match random.u64(..64) {
                0 => 0,
                n => records[n as usize % records.len()],
            };
            let (current, previous) = (one(), one());
            let word = match random.u64(..3) {
                0 => Slot::stable(current),
                1 => Slot::learn(previous, current),
                _ => Slot::track(current),
            };
            tables.ring.publish(slot, word);
        }
    }
    let mut head = tables.heads.load(half);
    head.longest_idle = u32::from(IDLE);
    tables.heads.store(half, head);
}

/// A packet, and where its flow may be recorded.
#[derive(Debug)]
struct Flow {
    frame: Vec<u8>,
    hash: u64,
    bucket: u32,
}

/// Flows in buckets of their own, so that none changes another's fate, and what
/// the flow table knows of them: nothing, an owner, a dead one, a stranger, an
/// old one, in buckets with and without room.
fn flows(tables: &Tables, random: &mut Rng) -> Vec<Flow> {
    let records: Vec<u32> = (1..BACKENDS)
        .filter(|index| tables.records.load(*index) != BackendRecord::default())
        .collect();
    let now = tables.clock.tick();
    let mut flows = Vec::new();
    let mut taken = BTreeSet::new();
    while flows.len() < FLOWS {
        let (packet, flags) = packet(random);
        let hash = hash(&packet);
        let bucket = flow_bucket(hash, FLOW_BUCKETS);
        if !taken.insert(bucket) {
            continue;
        }
        let mut entry = |hash| {
            let age = [0, 5, IDLE / 2, 2 * IDLE][random.usize(..4)];
            let backend = records[random.usize(..records.len())];
            let entry = FlowEntry::new(hash, backend, Tick(now.0.wrapping_sub(age.into())));
            let seen = Tick(entry.seen().into());
            entry.refreshed(seen, backend.is_multiple_of(3))
        };
        let others = [entry(!hash), entry(hash ^ 1 << 63), entry(hash ^ 1 << 50)];
        let own = entry(hash);
        let mut content = FlowBucket::default();
        let full = random.u64(..2) == 0;
        for (place, others) in content.0.iter_mut().zip(others.iter().cycle()) {
            *place = match (full, random.u64(..3)) {
                // Young and somebody else's.
                (true, _) => FlowEntry::new(!hash, records[0], now),
                (false, 0) => *others,
                (false, _) => FlowEntry::FREE,
            };
        }
        if random.u64(..2) == 0 {
            content.0[random.usize(..8)] = own;
        }
        tables.flows.store(bucket, content);
        let mut frame = packet.frame();
        if let (Payload::Tcp { .. }, Some(flags)) = (&packet.payload, flags) {
            let transport = if packet.source.is_ipv4() {
                34 + packet.options.len()
            } else {
                54
            };
            frame[transport + 13] = flags;
        }
        flows.push(Flow {
            frame,
            hash,
            bucket,
        });
    }
    flows
}

/// Mostly segments of flows, with any flags; some that nobody serves.
fn packet(random: &mut Rng) -> (Packet, Option<u8>) {
    let vip = [WEB, WEB, DSR, SIX][random.usize(..4)];
    let source = if vip == SIX {
        format!("2001:db8:c::{:x}", random.u64(..0xffff))
    } else {
        format!("203.0.113.{}", random.u64(..255))
    };
    let ports = (random.u16(..0xffff), 80);
    let data = vec![0x5a; random.usize(..600)];
    let mut packet = tcp(&source, vip).with(|p| {
        p.payload = Payload::Tcp {
            ports,
            data: data.clone(),
        };
    });
    match random.u64(..64) {
        0 => packet.ttl = 1,
        1 => {
            packet.payload = Payload::Tcp {
                ports: (1, 81),
                data,
            }
        }
        2 if vip != SIX => packet.options = vec![1, 1, 1, 0],
        3 if vip != SIX => packet.fragment = true,
        4 => packet.to = packet.from,
        5..10 if vip == WEB => packet.payload = Payload::Udp { ports, data },
        10 => packet.payload = Payload::Raw(47, data),
        11 if vip != SIX => packet.destination = address("198.51.100.99"),
        // No more than a processor answers within a tick.
        12 if vip == DSR => too_big(&mut packet),
        _ => {}
    }
    // SYN, ACK, SYN+ACK, FIN+ACK, RST, none.
    let flags = [0x02, 0x10, 0x10, 0x12, 0x11, 0x04, 0x00][random.usize(..7)];
    (packet, Some(flags))
}

/// The hash of the packet's flow, from the packet as built.
fn hash(packet: &Packet) -> u64 {
    let (protocol, (source, destination)) = match &packet.payload {
        Payload::Tcp { ports, .. } => (6, *ports),
        Payload::Udp { ports, .. } => (17, *ports),
        Payload::Raw(protocol, _) => (*protocol, (0, 0)),
    };
    let words = |address: std::net::IpAddr| {
        let bytes = mapped(address);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        if address.is_ipv4() {
            [word(8) >> 32, 0]
        } else {
            [word(0), word(8)]
        }
    };
    let ports = u32::from(source.to_be()) | u32::from(destination.to_be()) << 16;
    let key = settings().flow_key;
    flow_hash(
        key,
        words(packet.source),
        words(packet.destination),
        ports,
        protocol,
    )
}

/// Everything that packets may change.
#[derive(PartialEq)]
struct Snapshot {
    counters: Vec<Counter>,
    flows: Vec<FlowBucket>,
    fragments: Vec<FlowBucket>,
    stamps: Vec<Stamp>,
    ring: Vec<Slot>,
}

impl Snapshot {
    fn of(tables: &Tables) -> Self {
        Self {
            counters: (0..COUNTERS).map(|i| tables.counters.sum(i)).collect(),
            flows: (0..FLOW_BUCKETS).map(|i| tables.flows.load(i)).collect(),
            fragments: (0..FRAGMENT_BUCKETS)
                .map(|i| tables.fragments.load(i))
                .collect(),
            stamps: (0..RING_SLOTS).map(|i| tables.stamps.load(i)).collect(),
            ring: (0..RING_SLOTS).map(|i| tables.ring.load(i)).collect(),
        }
    }

    fn differences(&self, other: &Self) -> String {
        [
            ("counters", self.counters == other.counters),
            ("flows", self.flows == other.flows),
            ("fragments", self.fragments == other.fragments),
            ("stamps", self.stamps == other.stamps),
            ("the ring", self.ring == other.ring),
        ]
        .into_iter()
        .filter_map(|(name, same)| (!same).then_some(name))
        .collect::<Vec<_>>()
        .join(", ")
    }
}
