//! A test bench: the loaded program with a fixed set of services behind it.

use std::{
    net::IpAddr,
    num::NonZeroU16,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::programs::{TestRun, TestRunOptions};
use vipd::{
    dataplane::{
        apply::{Applied, Applier, Reach, Settings},
        census::Census,
        kernel::Kernel,
        tables::Tables,
    },
    netlink::way::{Way, Ways},
};
use vipd_abi::{Counter, FlowKey, MACS, Uplink, Verdict, mac_bits};
use vipd_control::{
    decide::{Decider, Desired},
    model::{Backend, Mode, Model, Ports, Protocol, Service},
};

use crate::frames::{BACKEND_MAC, LB_MAC};

/// The interface test runs come from: the loopback device.
pub const INGRESS: u32 = 1;
/// Some other interface.
pub const ELSEWHERE: u32 = 77;

/// XDP's verdicts (include/uapi/linux/bpf.h).
pub const XDP_DROP: u32 = 1;
/// Hand it to the kernel.
pub const XDP_PASS: u32 = 2;
/// Out of the same interface.
pub const XDP_TX: u32 = 3;
/// Out of another interface.
pub const XDP_REDIRECT: u32 = 4;

/// The program, its tables, and who writes them.
pub struct Bench {
    kernel: Kernel,
    pub applier: Applier,
    pub applied: Applied,
    pub desired: Desired,
}

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub action: u32,
    pub verdict: Verdict,
    pub frame: Vec<u8>,
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A service with backends `(address, weight)`, named by their addresses.
pub fn service(
    name: &str,
    vip: &str,
    protocol: Protocol,
    mode: Mode,
    backends: &[(&str, u16)],
) -> Arc<Service> {
    let port = NonZeroU16::new(80).expect("not zero");
    Arc::new(Service {
        protocol,
        ports: Ports::One(port),
        mode,
        ring_size: 4096,
        idle: Duration::ZERO,
        ..Service::new(
            name,
            vec![address(vip).into()],
            backends
                .iter()
                .map(|(text, weight)| Backend::new(text, address(text), *weight))
                .collect(),
        )
    })
}

/// A way over `ifindex` to a neighbour on the link.
pub fn way(ifindex: u32, source: &str) -> Way {
    Way {
        mac: BACKEND_MAC,
        uplink: Uplink {
            mac_bits: mac_bits(LB_MAC),
            ifindex,
            mtu: 1600,
        },
        gateway: None,
        source: Some(address(source)),
    }
}

/// Ways that the kernel has given, and no word on others.
pub fn reach(ways: &Ways) -> Reach {
    Reach {
        ways: ways.clone().into(),
        ..Reach::default()
    }
}

/// A census of the flows, as if it had begun at that moment.
pub fn count(applier: &mut Applier, started: Instant) {
    let census = Census::new(applier.tables());
    let count = census.walk(&applier.orders(), started);
    applier.counted(Arc::new(count));
}

pub fn settings() -> Settings {
    let mut macs = [0; MACS];
    macs[1] = mac_bits(LB_MAC);
    Settings {
        flow_key: FlowKey([0x0123_4567_89ab_cdef, 0x0f1e_2d3c_4b5a_6978]),
        macs,
        ..Settings::default()
    }
}

impl Bench {
    /// Loads the program and applies the services; `healthy` says which
    /// backends are up.
    pub fn new(services: Vec<Arc<Service>>, ways: &Ways, healthy: impl Fn(IpAddr) -> bool) -> Self {
        Self::load(None, services, ways, healthy)
    }

    /// The same, with maps and program pinned there.
    pub fn load(
        pins: Option<&Path>,
        mut services: Vec<Arc<Service>>,
        ways: &Ways,
        healthy: impl Fn(IpAddr) -> bool,
    ) -> Self {
        let (mut kernel, tables) = Kernel::load(pins, false).unwrap_or_else(|error| {
            panic!("{error}\nthe packet tier needs root and `cargo xtask build`")
        });
        kernel.settle();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let mut bench = Self {
            kernel,
            applier: Applier::new(tables, settings()),
            applied: Applied::default(),
            desired: Desired::default(),
        };
        bench.apply(services, ways, healthy);
        bench
    }

    /// Applies another state, with as many passes as that takes.
    pub fn apply(
        &mut self,
        services: Vec<Arc<Service>>,
        ways: &Ways,
        healthy: impl Fn(IpAddr) -> bool,
    ) {
        self.try_apply(services, ways, healthy);
        if let Some(at) = self.applied.retry_at {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            self.pass(ways);
        }
        assert_eq!(self.applied.retry_at, None, "{:#?}", self.applied);
    }

    /// One pass towards another state.
    pub fn try_apply(
        &mut self,
        services: Vec<Arc<Service>>,
        ways: &Ways,
        healthy: impl Fn(IpAddr) -> bool,
    ) {
        let view = |_: &Service, backend: &Backend| healthy(backend.address);
        self.desired = Decider::new([0; 16]).decide(&Model { services }, &view, &self.desired);
        self.pass(ways);
    }

    fn pass(&mut self, ways: &Ways) {
        let now = Instant::now();
        self.applied = self.applier.apply(&self.desired, &reach(ways), true, now);
    }

    /// Runs the program on one frame.
    pub fn run(&mut self, frame: &[u8]) -> Outcome {
        run(&mut self.kernel, self.applier.tables(), frame)
    }

    /// Packets and bytes counted for a backend.
    pub fn counter(&self, service: &str, backend: &str) -> Counter {
        let index = self.applied.counters[service][backend];
        self.applier.tables().counters.sum(index)
    }
}

/// Runs the program on one frame, and sees that it was counted once.
pub fn run(kernel: &mut Kernel, tables: &Tables, frame: &[u8]) -> Outcome {
    let verdicts = || -> Vec<Counter> {
        let all = Verdict::ALL.iter();
        all.map(|v| tables.counters.sum(*v as u32)).collect()
    };
    let before = verdicts();
    let mut out = vec![0; 4096];
    let program = kernel.program().expect("the program is there");
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        })
        .expect("the kernel runs the program");
    out.truncate(result.data_size_out as usize);
    let after = verdicts();
    let counted: Vec<Verdict> = Verdict::ALL
        .iter()
        .copied()
        .filter(|v| after[*v as usize] != before[*v as usize])
        .collect();
    assert_eq!(counted.len(), 1, "exactly one verdict: {counted:?}");
    let verdict = counted[0];
    let (old, new) = (before[verdict as usize], after[verdict as usize]);
    assert_eq!(new.packets - old.packets, 1, "{verdict:?} counted once");
    assert_eq!(
        new.bytes - old.bytes,
        frame.len() as u64,
        "{verdict:?} in bytes"
    );
    Outcome {
        action: result.return_value,
        verdict,
        frame: out,
    }
}
