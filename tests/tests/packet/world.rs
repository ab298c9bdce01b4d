//! Maps filled by hand, with every kind of service and backend in them.

use std::num::NonZeroU16;

use ipnet::IpNet;
use vipd::dataplane::{
    kernel::Kernel,
    listing::Listing,
    tables::{Tables, mapped},
    vip_table::Half,
};
use vipd_abi::{
    BackendKind, BackendRecord, Counter, EntryKind, Head, NextHop, Slot, Uplink, Verdict, VipEntry,
    mac_bits,
};
use vipd_control::model::{Ports, Protocol, Vip};

use crate::{
    bench::{self, ELSEWHERE, INGRESS, Outcome, XDP_REDIRECT, XDP_TX, address, settings},
    frames::{BACKEND_MAC, LB_MAC, checksum},
};

/// Who sends to virtual addresses.
pub const CLIENT: &str = "203.0.113.7";
pub const CLIENT6: &str = "2001:db8:c::7";
/// The balancer's and a backend's own addresses.
pub const SOURCE: &str = "192.0.2.11";
pub const SOURCE6: &str = "2001:db8:1::11";
pub const BACKEND: &str = "192.0.2.21";
pub const BACKEND6: &str = "2001:db8:1::21";
pub const GUE_PORT: u16 = 6080;

/// A next hop, with what becomes of packets that leave by it.
#[derive(Debug)]
pub struct Exit {
    pub hop: u32,
    uplink: u16,
    ifindex: u32,
    /// Addresses on the link.
    pub from: [u8; 6],
    pub to: [u8; 6],
    /// Largest packet that fits.
    pub mtu: u32,
    pub verdict: Verdict,
    pub action: u32,
}

/// Out of the interface that packets come by, where all leave at first, and out
/// of a narrower one.
pub const EXITS: [Exit; 2] = [
    Exit {
        hop: 1,
        uplink: 1,
        ifindex: INGRESS,
        from: LB_MAC,
        to: BACKEND_MAC,
        mtu: 1500,
        verdict: Verdict::Forwarded,
        action: XDP_TX,
    },
    Exit {
        hop: 7,
        uplink: 2,
        ifindex: ELSEWHERE,
        from: [2, 0, 0, 0, 0, 0x12],
        to: [2, 0, 0, 0, 0, 0x22],
        mtu: 1400,
        verdict: Verdict::Redirected,
        action: XDP_REDIRECT,
    },
];

/// Virtual addresses with port 80 in TCP and UDP, by how packets are carried.
pub const VIPS: [(BackendKind, &str, &str); 5] = [
    (BackendKind::L2, "198.51.100.11", "2001:db8:100::11"),
    (BackendKind::Ipip4, "198.51.100.12", ""),
    (BackendKind::Ipip6, "198.51.100.13", "2001:db8:100::13"),
    (BackendKind::Gue4, "198.51.100.14", "2001:db8:100::14"),
    (BackendKind::Gue6, "198.51.100.15", "2001:db8:100::15"),
];
pub const L2: &str = VIPS[0].1;
pub const L2_6: &str = VIPS[0].2;
pub const IPIP: &str = VIPS[1].1;
pub const IPIP6: &str = VIPS[2].2;
/// TCP 80 of its own on the link; UDP 1000 to 1999 by IPIP, 1500 to 1509 of
/// them by GUE; TCP else by IPIP over IPv6.
pub const RANGES: &str = "198.51.100.30";
pub const RANGES6: &str = "2001:db8:100::30";
/// 198.51.100.128/25: any TCP port by IPIP. In it 198.51.100.192/26: UDP 53 by
/// GUE.
pub const PREFIX: &str = "198.51.100.130";
pub const NARROW: &str = "198.51.100.200";
/// 2001:db8:200::/48: any TCP port by IPIP over IPv6.
pub const PREFIX6: &str = "2001:db8:200:7::99";
/// Some of what they serve, by a range, by any port and by prefixes.
pub const RANGED: [(BackendKind, Protocol, &str, u16); 6] = [
    (BackendKind::Ipip4, Protocol::Udp, RANGES, 1700),
    (BackendKind::Gue4, Protocol::Udp, RANGES, 1505),
    (BackendKind::Ipip6, Protocol::Tcp, RANGES6, 443),
    (BackendKind::Ipip4, Protocol::Tcp, PREFIX, 443),
    (BackendKind::Gue4, Protocol::Udp, NARROW, 53),
    (BackendKind::Ipip6, Protocol::Tcp, PREFIX6, 443),
];
/// TCP 80 with a ring of sixteen slots and as many backends by IPIP.
pub const MANY: &str = "198.51.100.16";
pub const MANY_BACKENDS: u32 = 16;
const MANY_FIRST: u32 = 100;
/// TCP and UDP 80 with one slot that learns, from one backend by IPIP over IPv6
/// to another.
pub const LEARNING: &str = "198.51.100.17";
pub const LEARNING6: &str = "2001:db8:100::17";
/// The backends of its new flows and of its old ones.
pub const CURRENT: &str = "2001:db8:1::22";
pub const PREVIOUS: &str = "2001:db8:1::23";
const LEARNING_FIRST: u32 = 200;
/// For which flows are remembered, in ticks: more than four minutes.
const IDLE: u32 = 2000;

/// The program and its maps.
pub struct World {
    kernel: Kernel,
    pub tables: Tables,
}

impl World {
    pub fn new() -> Self {
        use BackendKind::{Gue4, Ipip4, Ipip6, L2};
        use Protocol::{Tcp, Udp};
        let (kernel, tables) = Kernel::load(None, false).unwrap_or_else(|error| {
            panic!("{error}\nthe packet tier needs root and `cargo xtask build`")
        });
        for exit in &EXITS {
            let uplink = Uplink {
                mac_bits: mac_bits(exit.from),
                ifindex: exit.ifindex,
                mtu: exit.mtu,
            };
            tables.uplinks.store(exit.uplink.into(), uplink);
            let hop = NextHop::new(exit.to, exit.uplink);
            tables.hops.store(exit.hop, hop);
        }
        let mut listing = Listing::default();
        let mut on_80 = |vip: &str, service| {
            for protocol in [Tcp, Udp] {
                serve(&mut listing, vip, protocol, (80, 80), service);
            }
        };
        for (kind, v4, v6) in VIPS {
            let index = kind as u32;
            let (_, backend) = ends(kind);
            tables
                .records
                .store(index, record(kind, backend, index, index));
            tables.ring.store(index, Slot::stable(index));
            for vip in [v4, v6].into_iter().filter(|vip| !vip.is_empty()) {
                on_80(vip, index);
            }
        }
        for i in 0..MANY_BACKENDS {
            let backend = format!("192.0.2.{}", 100 + i);
            let index = MANY_FIRST + i;
            let record = record(Ipip4, &backend, index, MANY_FIRST);
            tables.records.store(index, record);
            tables.ring.store(index, Slot::stable(index));
        }
        on_80(MANY, MANY_FIRST);
        let (current, previous) = (LEARNING_FIRST, LEARNING_FIRST + 1);
        for (index, backend) in [(current, CURRENT), (previous, PREVIOUS)] {
            let record = record(Ipip6, backend, index, LEARNING_FIRST);
            tables.records.store(index, record);
        }
        tables.ring.store(current, Slot::learn(previous, current));
        on_80(LEARNING, LEARNING_FIRST);
        on_80(LEARNING6, LEARNING_FIRST);
        let any = (0, u16::MAX);
        for (vip, protocol, ports, kind) in [
            (RANGES, Tcp, (80, 80), L2),
            (RANGES6, Tcp, (80, 80), L2),
            (RANGES, Udp, (1500, 1509), Gue4),
            (RANGES, Udp, (1000, 1999), Ipip4),
            (RANGES, Tcp, any, Ipip6),
            (RANGES6, Tcp, any, Ipip6),
            ("198.51.100.128/25", Tcp, any, Ipip4),
            ("198.51.100.192/26", Udp, (53, 53), Gue4),
            ("2001:db8:200::/48", Tcp, any, Ipip6),
        ] {
            serve(&mut listing, vip, protocol, ports, kind as u32);
        }
        let head = Head {
            flow_key: settings().flow_key,
            macs: settings().macs,
            longest_idle: IDLE,
            ..Head::default()
        };
        let half = Half::build(&listing, head).expect("few entries");
        half.publish(&tables);
        Self { kernel, tables }
    }

    /// From now on all backends are reached by this next hop.
    pub fn leave_by(&self, exit: &Exit) {
        let records = &self.tables.records;
        for index in 0..=LEARNING_FIRST + 1 {
            let record = records.load(index);
            if record.next_hop != 0 {
                let next_hop = exit.hop;
                records.store(index, BackendRecord { next_hop, ..record });
            }
        }
    }

    pub fn run(&mut self, frame: &[u8]) -> Outcome {
        bench::run(&mut self.kernel, &self.tables, frame)
    }

    /// Instructions that the kernel has looked at to verify the program.
    pub fn verified(&mut self) -> u32 {
        let program = self.kernel.program().expect("the program is there");
        let info = program.info().expect("the kernel knows it");
        info.verified_instruction_count().expect("since Linux 5.16")
    }

    /// Runs one frame without looking at the counters.
    pub fn run_uncounted(&mut self, frame: &[u8], out: &mut [u8]) -> (u32, usize) {
        use aya::programs::{TestRun, TestRunOptions};
        let program = self.kernel.program().expect("the program is there");
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(out),
                ..TestRunOptions::default()
            })
            .expect("the kernel runs the program");
        (result.return_value, result.data_size_out as usize)
    }
}

/// The ends of a tunnel of that kind.
pub fn ends(kind: BackendKind) -> (&'static str, &'static str) {
    match kind {
        BackendKind::Ipip6 | BackendKind::Gue6 => (SOURCE6, BACKEND6),
        _ => (SOURCE, BACKEND),
    }
}

/// The record of a backend, at that index.
fn record(kind: BackendKind, backend: &str, index: u32, service: u32) -> BackendRecord {
    let (source, _) = ends(kind);
    let protocol = if kind == BackendKind::Gue4 { 17 } else { 4 };
    let (source, destination) = (mapped(address(source)), mapped(address(backend)));
    let header = [
        &[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0],
        &source[12..],
        &destination[12..],
    ];
    BackendRecord {
        source,
        destination,
        kind: kind as u32,
        next_hop: EXITS[0].hop,
        counter: Counter::FIRST_BACKEND + index,
        service,
        checksum: u32::from(!checksum(&header.concat())),
        port: u32::from(GUE_PORT.to_be()),
        ..BackendRecord::default()
    }
}

/// A service of that number, on slots from the same number on.
fn entry(service: u32) -> VipEntry {
    VipEntry {
        kind: EntryKind::Service as u32,
        service,
        ring_offset: service,
        ring_mask: if service == MANY_FIRST {
            MANY_BACKENDS - 1
        } else {
            0
        },
        idle: IDLE,
        ..VipEntry::default()
    }
}

fn ports(first: u16, last: u16) -> Ports {
    match (NonZeroU16::new(first), NonZeroU16::new(last)) {
        (Some(first), Some(last)) if first == last => Ports::One(first),
        (Some(first), Some(last)) => Ports::Range(first, last),
        _ => Ports::Any,
    }
}

/// Leads such ports of an address or prefix to a service.
fn serve(
    listing: &mut Listing,
    vip: &str,
    protocol: Protocol,
    (first, last): (u16, u16),
    service: u32,
) {
    let prefix = vip.parse::<IpNet>();
    let vip = prefix.map_or_else(|_| address(vip).into(), Vip::from);
    listing.cover(vip);
    listing.serve(vip, protocol, ports(first, last), entry(service));
}
