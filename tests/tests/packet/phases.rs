//! Flows stay where they are while their slots change hands, through drains,
//! deaths, new records, larger rings, and agents that come and go.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use aya::programs::{TestRun, TestRunOptions};
use vipd::{
    dataplane::{
        apply::{Applied, Applier, PhaseCount},
        clock,
        kernel::Kernel,
        pins::Pins,
    },
    netlink::way::Ways,
};
use vipd_abi::{BackendRecord, Phase, Slot, Stamp, Tick};
use vipd_control::{
    decide::{Decider, Desired, HealthView},
    model::{Mode, Model, Protocol, Service},
    standing::Standing,
};

use crate::{
    bench::{INGRESS, address, count, reach, service, settings, way},
    frames::{Payload, tcp},
};

const VIP: &str = "198.51.100.10";
const BACKENDS: [&str; 4] = ["192.0.2.21", "192.0.2.22", "192.0.2.23", "192.0.2.24"];
/// TCP flags.
const FIN: u8 = 0x11;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// One service, a program, and an agent that can be replaced.
struct Lab {
    pins: Scratch,
    service: Arc<Service>,
    standing: BTreeMap<IpAddr, Standing>,
    ways: Ways,
    desired: Desired,
    plane: Option<(Kernel, Applier)>,
    applied: Applied,
    /// When each port has sent last, at the earliest.
    sent: BTreeMap<u16, Tick>,
}

/// Flows by their ports, and where they are to stay.
type Flows = BTreeMap<u16, IpAddr>;

/// Pins of one test, removed whatever happens.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Pins::new(&self.0).remove();
    }
}

struct View<'a>(&'a BTreeMap<IpAddr, Standing>);

impl HealthView for View<'_> {
    fn standing(&self, service: &Service) -> Vec<Standing> {
        let backends = service.backends.iter();
        backends.map(|b| self.0[&b.address]).collect()
    }
    fn drained(&self, service: &Service) -> Vec<bool> {
        let standing = self.standing(service).into_iter();
        standing.map(|s| s == Standing::Draining).collect()
    }
}

impl Lab {
    /// So many backends, all of them available, a small ring.
    fn new(name: &str, backends: usize, idle: Duration) -> Self {
        let path = format!("/sys/fs/bpf/vipd-test-{}-{name}", std::process::id());
        let backends: Vec<_> = BACKENDS[..backends].iter().map(|b| (*b, 1)).collect();
        let service = service("web", VIP, Protocol::Tcp, Mode::Ipip, &backends);
        let mut service = Service::clone(&service);
        (service.idle, service.ring_size) = (idle, 64);
        let available = |b: &(&str, u16)| (address(b.0), Standing::Available);
        let mut lab = Self {
            pins: Scratch(path.into()),
            service: Arc::new(service),
            standing: backends.iter().map(available).collect(),
            ways: BACKENDS
                .map(|b| (address(b), way(INGRESS, "192.0.2.11")))
                .into(),
            desired: Desired::default(),
            plane: None,
            applied: Applied::default(),
            sent: BTreeMap::new(),
        };
        lab.start_agent();
        lab.apply();
        lab
    }

    fn start_agent(&mut self) {
        self.plane = None;
        let (kernel, tables) = Kernel::load(Some(&self.pins.0), false).unwrap_or_else(|error| {
            panic!("{error}\nthe packet tier needs root and `cargo xtask setup`")
        });
        self.plane = Some((kernel, Applier::new(tables, settings())));
        self.desired = Desired::default();
    }

    fn applier(&mut self) -> &mut Applier {
        &mut self.plane.as_mut().expect("an agent").1
    }

    /// Decides, and applies with as many passes as that takes.
    fn apply(&mut self) {
        let model = Model {
            services: vec![Arc::clone(&self.service)],
        };
        self.desired = Decider::new([0; 16]).decide(&model, &View(&self.standing), &self.desired);
        self.pass();
        if let Some(at) = self.applied.retry_at {
            sleep(at.saturating_duration_since(Instant::now()));
            self.pass();
        }
        assert!(self.applied.faults.is_empty(), "{:?}", self.applied.faults);
    }

    fn pass(&mut self) {
        let (desired, reach) = (self.desired.clone(), reach(&self.ways));
        self.applied = self
            .applier()
            .apply(&desired, &reach, false, Instant::now());
    }

    /// What the census and the agent do from time to time.
    fn tend(&mut self) {
        count(self.applier(), Instant::now());
        self.pass();
    }

    /// Tends until that holds, for at most some seconds.
    fn until(&mut self, sentence: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            let spent = start.elapsed();
            assert!(
                spent < Duration::from_secs(20),
                "{sentence}: {:#?}",
                self.applied
            );
            sleep(Duration::from_millis(50));
            self.tend();
        }
    }

    fn set(&mut self, backend: usize, standing: Standing) {
        self.standing.insert(address(BACKENDS[backend]), standing);
        self.apply();
    }

    fn change(&mut self, change: impl FnOnce(&mut Service)) {
        let mut service = Service::clone(&self.service);
        change(&mut service);
        self.service = Arc::new(service);
        self.apply();
    }

    /// Sends a segment of the flow from this port; says where it went.
    fn send(&mut self, port: u16, flags: u8) -> IpAddr {
        let packet = tcp("203.0.113.7", VIP).with(|p| {
            p.payload = Payload::Tcp {
                ports: (port, 80),
                data: Vec::new(),
            }
        });
        let mut frame = packet.frame();
        frame[47] = flags;
        self.sent.insert(port, clock::tick());
        let mut out = vec![0; 256];
        let (kernel, _) = self.plane.as_mut().expect("an agent");
        let program = kernel.program().expect("the program is there");
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).expect("the program runs");
        assert_eq!(result.return_value, crate::bench::XDP_TX, "port {port}");
        let outer: [u8; 4] = out[30..34].try_into().expect("four bytes");
        IpAddr::from(outer)
    }

    fn open(&mut self, ports: std::ops::Range<u16>) -> Flows {
        ports.map(|port| (port, self.send(port, SYN))).collect()
    }

    /// Sends on all flows. One that was silent for longer than the idle time,
    /// since this machine was slow, has ended.
    #[track_caller]
    fn assert_stay(&mut self, flows: &mut Flows, sentence: &str) {
        let idle = Tick::covering(self.service.idle.as_nanos() as u64) as u32;
        flows.retain(|port, backend| {
            let sent = self.sent[port];
            let now = self.send(*port, ACK);
            let live = clock::tick().0 - sent.0 <= idle;
            assert!(!live || now == *backend, "port {port} {sentence}");
            live
        });
    }

    fn phases(&self) -> PhaseCount {
        self.applied.phases["web"]
    }

    fn slots(&mut self) -> Vec<Slot> {
        let entries = self.applier().tables().published_entries();
        let entry = entries.values().find(|entry| entry.ring_mask != 0);
        let entry = entry.expect("the service is in the table");
        let places = entry.ring_offset..=entry.ring_offset + entry.ring_mask;
        let ring = &self.applier().tables().ring;
        places.map(|place| ring.load(place)).collect()
    }

    fn live_records(&mut self) -> usize {
        let records = Arc::clone(&self.applier().tables().records);
        let used = |i: &u32| records.load(*i) != BackendRecord::default();
        (0..records.len()).filter(used).count()
    }
}

/// Long against whatever a test does in between.
const LONG: Duration = Duration::from_secs(60);
/// Eight ticks.
const SHORT: Duration = Duration::from_millis(1070);

#[test]
fn a_drained_backend_keeps_its_flows_and_gets_no_others() {
    let mut lab = Lab::new("drain", 2, SHORT);
    let mut old = lab.open(10_000..10_040);
    let drained = address(BACKENDS[0]);
    lab.set(0, Standing::Draining);
    lab.assert_stay(&mut old, "is moved by the drain");
    for (port, backend) in lab.open(20_000..20_040) {
        assert_ne!(backend, drained, "port {port} is new");
    }
    assert_ne!(lab.phases().learn, 0, "{:?}", lab.phases());
    let start = Instant::now();
    while lab.phases().learn != 0 {
        lab.assert_stay(&mut old, "goes on while its slot learns");
        lab.tend();
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            lab.phases()
        );
    }
    lab.assert_stay(&mut old, "goes on when its slot tracks");
    lab.tend();
    let flows = lab.applied.flows["web"][BACKENDS[0]];
    let expected = old.values().filter(|b| **b == drained).count() as u64;
    assert!(flows.live >= expected && flows.closing == 0, "{flows:?}");
    lab.until("nobody sends any more", |lab| {
        lab.phases().is_settled() && lab.applied.flows.is_empty()
    });
    assert_eq!(lab.applied.look_at, None, "all is at rest");
}

#[test]
fn the_flows_of_the_dead_end_and_no_others() {
    let mut lab = Lab::new("death", 3, LONG);
    let before = lab.open(10_000..10_040);
    let dead = address(BACKENDS[0]);
    lab.set(0, Standing::Dead);
    let mut during = BTreeMap::new();
    for (port, backend) in &before {
        let now = lab.send(*port, ACK);
        assert_ne!(now, dead, "port {port} goes to the dead");
        if *backend != dead {
            assert_eq!(now, *backend, "port {port} was moved needlessly");
        }
        during.insert(*port, now);
    }
    lab.set(0, Standing::Available);
    lab.assert_stay(&mut during, "is moved by the return");
    assert!(
        lab.open(20_000..20_040).values().any(|b| *b == dead),
        "new flows go to who is back"
    );
    lab.set(1, Standing::Failing);
    lab.assert_stay(&mut during, "is moved by a failing check");
    lab.set(1, Standing::Dead);
    during.retain(|_, backend| *backend != address(BACKENDS[1]));
    lab.assert_stay(&mut during, "is moved by another's death");
    lab.tend();
    sleep(Duration::from_millis(700));
    lab.tend();
    assert_eq!(
        lab.live_records(),
        3,
        "the first of those that died is free"
    );
}

#[test]
fn a_new_agent_goes_on_where_the_old_one_was() {
    let mut lab = Lab::new("adopt-phases", 3, SHORT);
    let mut old = lab.open(10_000..10_030);
    lab.set(0, Standing::Draining);
    lab.assert_stay(&mut old, "is moved by the drain");
    let words = lab.slots();
    lab.start_agent();
    let service = Arc::clone(&lab.service);
    let found = BACKENDS[..3]
        .iter()
        .map(|b| lab.applier().adopted().standing(&service, address(b)));
    let found: Vec<_> = found.collect();
    assert_eq!(found[0], Some(Standing::Draining));
    assert_eq!(found[1..], [Some(Standing::Available); 2]);
    let drained = lab
        .applier()
        .adopted()
        .drained(&service, address(BACKENDS[0]));
    assert!(drained);
    lab.apply();
    assert_eq!(lab.slots(), words, "no slot was touched");
    assert_ne!(lab.phases().learn, 0, "and they learn on");
    let start = Instant::now();
    while lab.phases().learn != 0 {
        lab.assert_stay(&mut old, "goes on under a new agent");
        lab.tend();
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            lab.phases()
        );
    }
    lab.start_agent();
    lab.apply();
    assert_ne!(lab.phases().track, 0, "now they track");
    lab.assert_stay(&mut old, "goes on under a third agent");
    lab.until("nobody sends any more", |lab| lab.phases().is_settled());
}

#[test]
fn an_agent_killed_at_any_moment_leaves_every_flow_in_place() {
    // How many of the slots were changed when it was killed.
    for done in [0, 1, 32, 64] {
        for standing in [Standing::Draining, Standing::Failing, Standing::Dead] {
            let case = format!("{standing:?} {done}");
            let mut lab = Lab::new(&format!("killed-{standing:?}-{done}"), 3, LONG);
            let mut flows = lab.open(10_000..10_020);
            // Half of the slots are not stable to begin with.
            lab.set(1, Standing::Draining);
            lab.set(1, Standing::Available);
            lab.assert_stay(&mut flows, "is moved to begin with");
            let before = lab.slots();
            lab.set(0, standing);
            let after = lab.slots();
            for place in (0..64).filter(|place| *place >= done) {
                lab.applier()
                    .tables()
                    .ring
                    .publish(place, before[place as usize]);
            }
            if standing == Standing::Dead {
                flows.retain(|_, backend| *backend != address(BACKENDS[0]));
            }
            lab.start_agent();
            // The maps tell it, as far as they can.
            let service = Arc::clone(&lab.service);
            let found = lab
                .applier()
                .adopted()
                .standing(&service, address(BACKENDS[0]));
            if standing == Standing::Failing {
                assert!(
                    matches!(found, Some(Standing::Failing | Standing::Available)),
                    "{case}: {found:?}"
                );
            } else {
                assert_eq!(found, Some(standing), "{case}");
            }
            lab.assert_stay(&mut flows, &format!("before the new agent: {case}"));
            lab.set(0, found.expect("the service is known"));
            lab.assert_stay(&mut flows, &format!("under the new agent: {case}"));
            lab.set(0, standing);
            lab.assert_stay(&mut flows, &format!("once it knows all: {case}"));
            let current = |slots: &[Slot]| slots.iter().map(|s| s.current()).collect::<Vec<_>>();
            assert_eq!(current(&lab.slots()), current(&after), "{case}");
        }
    }
}

#[test]
fn a_new_record_of_the_same_backend_takes_its_flows_along() {
    let mut lab = Lab::new("moved", 2, LONG);
    let mut old = lab.open(10_000..10_030);
    lab.set(0, Standing::Draining);
    lab.assert_stay(&mut old, "is moved by the drain");
    let phases: Vec<Phase> = lab.slots().iter().map(|s| s.phase()).collect();
    let records: Vec<u32> = lab.slots().iter().map(|s| s.current()).collect();
    for way in lab.ways.values_mut() {
        way.source = Some(address("192.0.2.12"));
    }
    lab.apply();
    let slots = lab.slots();
    assert!(slots.iter().zip(&records).all(|(s, r)| s.current() != *r));
    assert_eq!(slots.iter().map(|s| s.phase()).collect::<Vec<_>>(), phases);
    lab.assert_stay(&mut old, "is moved by a new record");
    assert_eq!(
        lab.live_records(),
        4,
        "the old ones are there while flows name them"
    );
    lab.until("the old records are given up", |lab| {
        // Their flows are moved by one walk and found gone by a later one.
        lab.applied
            .usage
            .iter()
            .any(|u| u.map == "BACKEND_RECORDS" && u.used == 2)
    });
    assert_eq!(lab.live_records(), 2);
    lab.assert_stay(&mut old, "is lost with the old record");
    lab.start_agent();
    lab.apply();
    lab.assert_stay(&mut old, "is lost by a new agent");
}

#[test]
fn a_growing_ring_takes_its_flows_along() {
    let mut lab = Lab::new("grow", 3, LONG);
    let mut first = lab.open(10_000..10_030);
    lab.set(0, Standing::Draining);
    let mut flows = lab.open(20_000..20_030);
    lab.assert_stay(&mut first, "is moved by the drain");
    flows.extend(first);
    lab.change(|service| service.ring_size = 256);
    assert_eq!(lab.slots().len(), 256);
    lab.assert_stay(&mut flows, "is moved by a larger ring");
}

#[test]
fn a_backend_that_is_taken_out_ends_its_flows_in_peace() {
    let mut lab = Lab::new("removed", 3, SHORT);
    let mut flows = lab.open(10_000..10_030);
    let gone = address(BACKENDS[0]);
    let backends = lab.service.backends.clone();
    lab.change(|service| drop(service.backends.remove(0)));
    lab.assert_stay(&mut flows, "is moved when its backend is taken out");
    lab.change(|service| service.backends.clone_from(&backends));
    lab.assert_stay(&mut flows, "is moved when its backend is back");
    assert_eq!(lab.live_records(), 3, "under the record it had");
    lab.change(|service| drop(service.backends.remove(0)));
    lab.assert_stay(&mut flows, "is moved when its backend is taken out again");
    flows.retain(|_, backend| *backend == gone);
    for port in flows.keys() {
        assert_eq!(lab.send(*port, FIN), gone, "port {port} ends");
    }
    lab.until("its record is given up", |lab| {
        lab.applied
            .usage
            .iter()
            .any(|u| u.map == "BACKEND_RECORDS" && u.used == 2)
    });
    for (port, backend) in lab.open(10_000..10_030) {
        assert_ne!(backend, gone, "port {port} begins anew");
    }
}

#[test]
fn a_renamed_service_keeps_its_flows() {
    let mut lab = Lab::new("renamed", 2, LONG);
    let mut flows = lab.open(10_000..10_030);
    lab.set(0, Standing::Draining);
    lab.assert_stay(&mut flows, "is moved by the drain");
    lab.change(|service| service.name = "shop".into());
    lab.assert_stay(&mut flows, "is moved by another name");
}

#[test]
fn stamps_of_an_earlier_service_hold_nothing_up() {
    let mut lab = Lab::new("stamps", 2, SHORT);
    let now = clock::tick().0;
    for place in 0..64 {
        let (foreign, refused) = (now, now);
        let stamps = &lab.applier().tables().stamps;
        stamps.store(place, Stamp { foreign, refused });
    }
    lab.set(0, Standing::Draining);
    lab.until("all slots settle", |lab| lab.phases().is_settled());
}

/// What is known of a flow of the random run.
#[derive(Clone, Copy)]
struct Flow {
    backend: usize,
    deaths: u32,
    sent: Tick,
}

#[test]
fn under_random_changes_no_flow_leaves_a_backend_that_can_serve_it() {
    const FLOWS: u64 = 24;
    let idle = Duration::from_millis(402);
    let ticks = Tick::covering(idle.as_nanos() as u64) as u32;
    let mut lab = Lab::new("random", 4, idle);
    let mut random = Random(7);
    let mut flows: BTreeMap<u16, Flow> = BTreeMap::new();
    let mut deaths = [0; 4];
    let mut history = Vec::new();
    let (mut held, mut stranger) = (0_u32, 0_u16);
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        for _ in 0..16 {
            let port = 10_000 + random.below(FLOWS) as u16;
            let known = flows.get(&port).copied();
            let known = known.filter(|flow| {
                let standing = lab.standing[&address(BACKENDS[flow.backend])];
                standing != Standing::Dead && deaths[flow.backend] == flow.deaths
            });
            let found = lab.send(port, if known.is_some() { ACK } else { SYN });
            let sent = lab.sent[&port];
            let backend = BACKENDS.iter().position(|b| address(b) == found);
            let backend = backend.expect("one of the backends");
            let live = known.filter(|flow| clock::tick().0 - flow.sent.0 <= ticks);
            if let Some(flow) = live {
                held += 1;
                assert_eq!(backend, flow.backend, "port {port}: {history:#?}");
            }
            if lab.standing[&found] == Standing::Dead {
                flows.remove(&port);
            } else {
                let flow = Flow {
                    backend,
                    deaths: deaths[backend],
                    sent,
                };
                flows.insert(port, flow);
            }
        }
        for _ in 0..random.below(8) {
            stranger = stranger.wrapping_add(1);
            lab.send(20_000 + stranger % 40_000, SYN);
        }
        let backend = random.below(4) as usize;
        let what = random.below(24);
        match what {
            0 | 1 => lab.set(backend, Standing::Draining),
            2 => lab.set(backend, Standing::Failing),
            3 | 4 => {
                deaths[backend] += 1;
                lab.set(backend, Standing::Dead);
            }
            5..=8 => lab.set(backend, Standing::Available),
            9 => lab.change(|s| {
                let weight = &mut s.backends[backend].weight;
                *weight = 1 + *weight % 3;
            }),
            10 => {
                for way in lab.ways.values_mut() {
                    let last = 11 + random.below(4);
                    way.source = Some(address(&format!("192.0.2.{last}")));
                }
                lab.apply();
            }
            11 => {
                // A new agent: what it had known is in the maps.
                lab.start_agent();
                lab.apply();
            }
            12..=15 => lab.tend(),
            _ => continue,
        }
        let left = end.saturating_duration_since(Instant::now());
        history.push(format!("{left:?}: {what} {backend} {:?}", lab.phases()));
    }
    assert!(
        held > 200,
        "only {held} packets of live flows: {history:#?}"
    );
}

/// Numbers without a pattern, the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }
}
