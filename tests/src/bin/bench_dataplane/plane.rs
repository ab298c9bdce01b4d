//! The balancer, loaded and filled as the agent does it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use vipd::{
    dataplane::{
        apply::{Applier, Reach, Settings},
        kernel::Kernel,
        object,
        tables::Tables,
    },
    netlink::way::{Way, Ways},
};
use vipd_abi::{FlowKey, MACS, Uplink, Verdict, mac_bits};
use vipd_control::{
    decide::{Decider, Desired},
    model::{Backend, Mode, Model, Protocol, Service},
    ring::default_ring_size,
};
use vipd_tests::bench::service;

use crate::{
    packets::{BACKEND_MAC, LB_MAC},
    plan::service_port,
    runner::Program,
    steps::{self, Steps},
};

/// The interface that test runs come from: the loopback device.
const INGRESS: u32 = 1;

/// Keys the flow hash, of the floor as well.
pub const FLOW_KEY: FlowKey = FlowKey([0x0123_4567_89ab_cdef, 0x0f1e_2d3c_4b5a_6978]);
/// The balancer's own address: outer source of tunnels.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const SOURCE_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11);

/// Backends of a service.
pub const BACKENDS: u8 = 100;

/// A loaded balancer.
pub struct Plane {
    kernel: Kernel,
    applier: Applier,
}

/// What a service needs to be told apart by.
pub struct Wanted {
    pub name: String,
    pub vip: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
    pub mode: Mode,
    /// Whether the backends have IPv6 addresses.
    pub to_ipv6: bool,
    pub ring_size: u32,
}

impl Wanted {
    /// A service on the first port, with a ring of the default size.
    pub fn new(name: &str, vip: IpAddr, mode: Mode) -> Self {
        Self {
            name: name.to_owned(),
            vip,
            port: service_port(0),
            protocol: Protocol::Tcp,
            mode,
            to_ipv6: vip.is_ipv6(),
            ring_size: default_ring_size(usize::from(BACKENDS)),
        }
    }

    fn service(&self) -> Result<Arc<Service>> {
        let backends = (1..=BACKENDS).map(|n| backend(n, self.to_ipv6));
        let address = (self.vip, self.port);
        let way = (self.protocol, self.mode);
        Ok(Arc::new(service(
            &self.name,
            address,
            way,
            backends,
            self.ring_size,
        )?))
    }
}

/// Address of a backend, counted from 1.
pub fn backend(number: u8, is_ipv6: bool) -> IpAddr {
    if is_ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 1, number.into()).into()
    } else {
        Ipv4Addr::new(192, 0, 2, 20 + number).into()
    }
}

impl Plane {
    /// Loads the program and applies the services, every backend up.
    pub fn new(wanted: &[Wanted]) -> Result<Self> {
        let mut services = wanted
            .iter()
            .map(Wanted::service)
            .collect::<Result<Vec<_>>>()?;
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let (kernel, tables) = Kernel::load(None, false)?;
        let mut macs = [0; MACS];
        macs[0] = mac_bits(LB_MAC);
        let settings = Settings {
            flow_key: FLOW_KEY,
            macs,
            ..Settings::default()
        };
        let up = |_: &Service, _: &Backend| true;
        let desired = Decider::new([0; 16]).decide(&Model { services }, &up, &Desired::default());
        let mut applier = Applier::new(tables, settings);
        let reach = Reach {
            ways: ways().into(),
            ..Reach::default()
        };
        let applied = applier.apply(&desired, &reach, true, Instant::now());
        ensure!(applied.faults.is_empty(), "{:#?}", applied.faults);
        Ok(Self { kernel, applier })
    }

    /// The program in the kernel.
    pub fn program(&mut self) -> Result<ProgramFd> {
        Ok(self.kernel.program()?.fd()?.try_clone()?)
    }

    /// What the kernel says about it.
    pub fn info(&mut self) -> Result<Program> {
        Program::of(self.kernel.program()?)
    }

    /// Follows a packet through it.
    pub fn follow(&mut self, frame: &[u8]) -> Result<Steps> {
        steps::count(object::BALANCER, self.kernel.ebpf(), "balancer", frame)
    }

    /// The maps.
    pub fn tables(&self) -> &Tables {
        self.applier.tables()
    }

    /// Packets that met this fate since the beginning.
    pub fn counted(&self, verdict: Verdict) -> u64 {
        self.tables().counters.sum(verdict as u32).packets
    }
}

fn ways() -> Ways {
    let way = |source: IpAddr| Way {
        mac: BACKEND_MAC,
        uplink: Uplink {
            mac_bits: mac_bits(LB_MAC),
            ifindex: INGRESS,
            mtu: 1500,
        },
        gateway: None,
        source: Some(source),
    };
    (1..=BACKENDS)
        .flat_map(|n| {
            [
                (backend(n, false), way(SOURCE.into())),
                (backend(n, true), way(SOURCE_IPV6.into())),
            ]
        })
        .collect()
}
