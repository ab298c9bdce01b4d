//! One service, the program, and an agent that can be replaced while packets
//! come.

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
        clock::Ticker,
        kernel::Kernel,
    },
    netlink::way::Ways,
};
use vipd_abi::{BackendRecord, Slot, Tick};
use vipd_control::{
    decide::{Decider, Desired, HealthView},
    model::{Mode, Model, Protocol, Service},
    standing::Standing,
};

use vipd_tests::Scratch;

use crate::{
    bench::{INGRESS, XDP_TX, address, count, reach, service, settings, way},
    frames::{Payload, tcp},
};

const VIP: &str = "198.51.100.10";
pub const BACKENDS: [&str; 4] = ["192.0.2.21", "192.0.2.22", "192.0.2.23", "192.0.2.24"];
pub use crate::frames::{ACK, FIN, SYN};

/// One service, a program, and an agent that can be replaced.
pub struct Lab {
    pins: Scratch,
    pub service: Arc<Service>,
    pub standing: BTreeMap<IpAddr, Standing>,
    pub ways: Ways,
    desired: Desired,
    plane: Option<(Kernel, Applier, Ticker)>,
    pub applied: Applied,
    /// When each port has sent last, at the earliest.
    pub sent: BTreeMap<u16, Tick>,
}

/// Flows by their ports, and where they are to stay.
pub type Flows = BTreeMap<u16, IpAddr>;

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
    pub fn new(name: &str, backends: usize, idle: Duration) -> Self {
        Self::start(name, backends, idle, Standing::Available)
    }

    /// The same, with backends that are all like this.
    pub fn start(name: &str, backends: usize, idle: Duration, standing: Standing) -> Self {
        let backends: Vec<_> = BACKENDS[..backends].iter().map(|b| (*b, 1)).collect();
        let service = service("web", VIP, Protocol::Tcp, Mode::Ipip, &backends);
        let mut service = Service::clone(&service);
        (service.idle, service.ring_size) = (idle, 64);
        let standing = |b: &(&str, u16)| (address(b.0), standing);
        let mut lab = Self {
            pins: Scratch::new(name),
            service: Arc::new(service),
            standing: backends.iter().map(standing).collect(),
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

    pub fn start_agent(&mut self) {
        self.plane = None;
        let (mut kernel, tables) =
            Kernel::load(Some(self.pins.path()), false).unwrap_or_else(|error| {
                panic!("{error}\nthe packet tier needs root and `cargo xtask setup`")
            });
        kernel.settle();
        let ticker = Ticker::start(Arc::clone(&tables.clock)).expect("a thread");
        self.plane = Some((kernel, Applier::new(tables, settings()), ticker));
        self.desired = Desired::default();
    }

    pub fn applier(&mut self) -> &mut Applier {
        &mut self.plane.as_mut().expect("an agent").1
    }

    /// Decides, and applies with as many passes as that takes.
    pub fn apply(&mut self) {
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

    /// One pass, which looks at what is unchanged too.
    pub fn pass(&mut self) {
        let (desired, reach) = (self.desired.clone(), reach(&self.ways));
        self.applied = self.applier().apply(&desired, &reach, true, Instant::now());
    }

    /// What the census and the agent do from time to time.
    pub fn tend(&mut self) {
        count(self.applier(), Instant::now());
        self.pass();
    }

    /// Tends until that holds, for at most some seconds.
    pub fn until(&mut self, sentence: &str, holds: impl Fn(&Self) -> bool) {
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

    pub fn set(&mut self, backend: usize, standing: Standing) {
        self.standing.insert(address(BACKENDS[backend]), standing);
        self.apply();
    }

    pub fn change(&mut self, change: impl FnOnce(&mut Service)) {
        let mut service = Service::clone(&self.service);
        change(&mut service);
        self.service = Arc::new(service);
        self.apply();
    }

    /// Sends a segment of the flow from this port; says where it went.
    pub fn send(&mut self, port: u16, flags: u8) -> IpAddr {
        let packet = tcp("203.0.113.7", VIP).with(|p| {
            p.flags = flags;
            p.payload = Payload::Tcp {
                ports: (port, 80),
                data: Vec::new(),
            }
        });
        let now = self.tick();
        self.sent.insert(port, now);
        let mut out = vec![0; 256];
        let (kernel, ..) = self.plane.as_mut().expect("an agent");
        let program = kernel.program().expect("the program is there");
        let options = TestRunOptions {
            data_in: Some(&packet.frame()),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).expect("the program runs");
        assert_eq!(result.return_value, XDP_TX, "port {port}");
        let outer: [u8; 4] = out[30..34].try_into().expect("four bytes");
        IpAddr::from(outer)
    }

    /// The present moment by the flows' clock.
    pub fn tick(&mut self) -> Tick {
        self.applier().tables().clock.tick()
    }

    pub fn open(&mut self, ports: std::ops::Range<u16>) -> Flows {
        ports.map(|port| (port, self.send(port, SYN))).collect()
    }

    /// Sends on all flows. One that was silent for longer than the idle time,
    /// since this machine was slow, has ended.
    #[track_caller]
    pub fn assert_stay(&mut self, flows: &mut Flows, sentence: &str) {
        let idle = Tick::covering(self.service.idle.as_nanos() as u64) as u32;
        flows.retain(|port, backend| {
            let sent = self.sent[port];
            let now = self.send(*port, ACK);
            let live = self.tick().0 - sent.0 <= idle;
            assert!(!live || now == *backend, "port {port} {sentence}");
            live
        });
    }

    pub fn phases(&self) -> PhaseCount {
        self.applied.phases["web"]
    }

    pub fn slots(&mut self) -> Vec<Slot> {
        let entries = self.applier().tables().published_entries();
        let entry = entries.values().find(|entry| entry.ring_mask != 0);
        let entry = entry.expect("the service is in the table");
        let places = entry.ring_offset..=entry.ring_offset + entry.ring_mask;
        let ring = &self.applier().tables().ring;
        places.map(|place| ring.load(place)).collect()
    }

    pub fn live_records(&mut self) -> usize {
        let records = Arc::clone(&self.applier().tables().records);
        let used = |i: &u32| records.load(*i) != BackendRecord::default();
        (0..records.len()).filter(used).count()
    }
}
