//! Maps filled by hand, with every kind of service and backend in them.

use std::{collections::BTreeMap, net::IpAddr};

use aya::programs::{TestRun, TestRunOptions};
use vipd::dataplane::{
    kernel::Kernel,
    tables::{Tables, mapped},
    vip_table::Half,
};
use vipd_abi::{
    BackendKind, BackendRecord, Counter, EntryKind, Head, NextHop, PORT_RANGES, PortRange, Slot,
    Uplink, VIP_SLOTS, VipEntry, VipKey, mac_bits,
};

use crate::{
    bench::{self, INGRESS, Outcome, address, settings},
    frames::{BACKEND_MAC, LB_MAC, checksum},
};

pub const SOURCE: &str = "192.0.2.11";
pub const SOURCE6: &str = "2001:db8:1::11";
pub const BACKEND: &str = "192.0.2.21";
pub const BACKEND6: &str = "2001:db8:1::21";
pub const GUE_PORT: u16 = 6080;
/// Largest packet that the uplink takes.
pub const MTU: u32 = 1500;

/// Virtual addresses with port 80 in TCP and UDP, by how packets are carried.
pub const VIPS: [(BackendKind, &str, &str); 5] = [
    (BackendKind::L2, "198.51.100.11", "2001:db8:100::11"),
    (BackendKind::Ipip4, "198.51.100.12", ""),
    (BackendKind::Ipip6, "198.51.100.13", "2001:db8:100::13"),
    (BackendKind::Gue4, "198.51.100.14", "2001:db8:100::14"),
    (BackendKind::Gue6, "198.51.100.15", "2001:db8:100::15"),
];
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
/// TCP 80 with a ring of sixteen slots and as many backends by IPIP.
pub const MANY: &str = "198.51.100.16";
pub const MANY_BACKENDS: u32 = 16;
const MANY_FIRST: u32 = 100;

/// The program and its maps.
pub struct World {
    kernel: Kernel,
    pub tables: Tables,
}

impl World {
    pub fn new() -> Self {
        let (kernel, tables) = Kernel::load(None, false).unwrap_or_else(|error| {
            panic!("{error}\nthe packet tier needs root and `cargo xtask build`")
        });
        let uplink = Uplink {
            mac_bits: mac_bits(LB_MAC),
            ifindex: INGRESS,
            mtu: MTU,
        };
        tables.uplinks.store(1, uplink);
        tables.hops.store(1, NextHop::new(BACKEND_MAC, 1));
        let mut builder = Builder::default();
        for (kind, v4, v6) in VIPS {
            let index = kind as u32;
            tables.records.store(index, record(kind, BACKEND, index));
            tables.ring.store(index, Slot::stable(index));
            for vip in [v4, v6].into_iter().filter(|vip| !vip.is_empty()) {
                builder.port(vip, 6, 80, index);
                builder.port(vip, 17, 80, index);
            }
        }
        for i in 0..MANY_BACKENDS {
            let backend = format!("192.0.2.{}", 100 + i);
            let record = record(BackendKind::Ipip4, &backend, MANY_FIRST + i);
            tables.records.store(MANY_FIRST + i, record);
            tables
                .ring
                .store(MANY_FIRST + i, Slot::stable(MANY_FIRST + i));
        }
        builder.port(MANY, 6, 80, MANY_FIRST);
        builder.port(MANY, 17, 80, MANY_FIRST);
        for vip in [RANGES, RANGES6] {
            builder.port(vip, 6, 80, BackendKind::L2 as u32);
        }
        let any = |protocol, kind| (protocol, 0, u16::MAX, kind);
        let over_6 = any(6, BackendKind::Ipip6);
        let wide = (17, 1000, 1999, BackendKind::Ipip4);
        let narrow = (17, 1500, 1509, BackendKind::Gue4);
        builder.ranges(VipKey::v6(words(RANGES), 0, 0), &[narrow, wide, over_6]);
        builder.ranges(VipKey::v6(words(RANGES6), 0, 0), &[over_6]);
        let network = |text| VipKey::prefix(words(text), 25);
        builder.ranges(network("198.51.100.128"), &[any(6, BackendKind::Ipip4)]);
        let network = VipKey::prefix(words("198.51.100.192"), 26);
        builder.ranges(network, &[(17, 53, 53, BackendKind::Gue4)]);
        let network = VipKey::prefix(words("2001:db8:200::"), 48);
        builder.ranges(network, &[over_6]);
        builder.publish(&tables);
        Self { kernel, tables }
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

/// A record of a service that has the same number.
fn record(kind: BackendKind, v4: &str, index: u32) -> BackendRecord {
    let (source, destination) = match kind {
        BackendKind::Ipip6 | BackendKind::Gue6 => (SOURCE6, BACKEND6),
        _ => (SOURCE, v4),
    };
    let protocol = if kind == BackendKind::Gue4 { 17 } else { 4 };
    let (source, destination) = (mapped(address(source)), mapped(address(destination)));
    let header = [
        &[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0],
        &source[12..],
        &destination[12..],
    ];
    BackendRecord {
        source,
        destination,
        kind: kind as u32,
        next_hop: 1,
        counter: Counter::FIRST_BACKEND + index,
        service: if index < MANY_FIRST {
            index
        } else {
            MANY_FIRST
        },
        checksum: u32::from(!checksum(&header.concat())),
        port: u32::from(GUE_PORT.to_be()),
        ..BackendRecord::default()
    }
}

fn words(text: &str) -> [u32; 4] {
    let bytes = mapped(text.parse::<IpAddr>().expect("an address"));
    let word = |i: usize| u32::from_ne_bytes(bytes[i..i + 4].try_into().expect("four"));
    [word(0), word(4), word(8), word(12)]
}

/// Protocol, first and last port, and how they are carried.
type Range = (u32, u16, u16, BackendKind);

#[derive(Default)]
struct Builder {
    entries: BTreeMap<VipKey, VipEntry>,
    /// Ranges, and the key of the entry that each leads to.
    ranges: Vec<(PortRange, VipKey)>,
}

impl Builder {
    fn port(&mut self, vip: &str, protocol: u8, port: u16, service: u32) {
        let key = VipKey::v6(words(vip), protocol, port.to_be());
        self.entries.insert(key, entry(key, service));
        let key = key.address_only();
        let address = VipEntry {
            key,
            kind: EntryKind::Address as u32,
            ..VipEntry::default()
        };
        self.entries.entry(key).or_insert(address);
    }

    /// Ports of an address or a prefix, narrowest first.
    fn ranges(&mut self, key: VipKey, ranges: &[Range]) {
        let covering = VipEntry {
            key,
            kind: EntryKind::Address as u32,
            ranges_start: u32::try_from(self.ranges.len()).expect("few"),
            ranges: u32::try_from(ranges.len()).expect("few"),
            ..VipEntry::default()
        };
        self.entries.insert(key, covering);
        for (protocol, first, last, kind) in ranges {
            let target = VipKey::ranged(key.address, *kind as u32);
            self.entries.insert(target, entry(target, *kind as u32));
            let range = PortRange {
                first: *first,
                last: *last,
                protocol: *protocol,
                ..PortRange::default()
            };
            self.ranges.push((range, target));
        }
    }

    fn publish(self, tables: &Tables) {
        let head = Head {
            flow_key: settings().flow_key,
            macs: settings().macs,
            lengths_4: [26, 25, 0, 0, 0, 0, 0, 0],
            lengths_6: [48, 0, 0, 0, 0, 0, 0, 0],
            ..Head::default()
        };
        let half = Half::build(&self.entries, head).expect("few entries");
        half.publish(tables);
        // No packet comes yet: the places are known only now.
        let half = tables.half();
        tables.heads.store(
            half,
            Head {
                seed: tables.heads.load(half).seed,
                ..head
            },
        );
        for (i, (range, target)) in (0..).zip(self.ranges) {
            let place = (0..VIP_SLOTS)
                .find(|i| tables.entries.load(half * VIP_SLOTS + i).key == target)
                .expect("it was put there");
            let range = PortRange { place, ..range };
            tables.ranges.store(half * PORT_RANGES + i, range);
        }
    }
}

fn entry(key: VipKey, service: u32) -> VipEntry {
    VipEntry {
        key,
        kind: EntryKind::Service as u32,
        service,
        ring_offset: service,
        ring_mask: if service == MANY_FIRST {
            MANY_BACKENDS - 1
        } else {
            0
        },
        idle: 2000,
        ..VipEntry::default()
    }
}
