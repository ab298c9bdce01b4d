//! What is measured.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
};

use anyhow::{Result, ensure};
use vipd_abi::Verdict;
use vipd_control::model::{Mode, Protocol};

use crate::{
    goals::Key,
    packets::{ACK, Kind, SYN},
    plan::service_port,
    plane::Wanted,
    runner::Ran,
};

/// Numbers of flows that a case is measured with.
pub const FLOWS: [u32; 4] = [1, 1_000, 100_000, 1_000_000];
/// Every packet is a flow of its own.
pub const EVERY_PACKET: u32 = 0;

/// XDP's verdicts (include/uapi/linux/bpf.h).
pub const XDP_DROP: u32 = 1;
/// Hand it to the kernel.
pub const XDP_PASS: u32 = 2;
/// Out of the same interface.
pub const XDP_TX: u32 = 3;

/// Names of the cases.
pub mod name {
    pub const F1: &str = "f1: swap addresses";
    pub const F2: &str = "f2: constant ipip";
    pub const F3: &str = "f3: plainest balancer";
    pub const ESTABLISHED: &str = "tcp established, ipip";
    pub const SYN: &str = "tcp syn, ipip";
    pub const UDP: &str = "udp, ipip";
    pub const IPV6: &str = "tcp, 6in6";
    pub const IPV4_IN_IPV6: &str = "tcp, 4in6";
    pub const GUE: &str = "tcp, gue";
    pub const L2: &str = "tcp, l2-dsr";
    pub const NOT_VIP: &str = "not for a vip";
    pub const TOO_BIG: &str = "too big, mostly limited";
    pub const LEARN_HIT: &str = "learn, flow hit";
    pub const LEARN_FULL: &str = "learn, miss, table full";
    pub const LEARN_NEW: &str = "learn, miss, recorded";
    pub const TRACK_HIT: &str = "track, flow hit";
    pub const TRACK_MISS: &str = "track, miss";
}

/// Which program sees the packets, and how its tables are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    F1,
    F2,
    F3,
    /// The plainest balancer with a thousand services.
    F3Many,
    /// The balancer with a service of each kind.
    Balancer,
    /// The balancer with a thousand services.
    Many,
    /// All slots learn, all flows are recorded.
    Learn,
    /// All slots track, all flows are recorded.
    Track,
    /// The flow table is full of other flows.
    Full,
    /// All slots learn, and the flow table is emptied before each run.
    New,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub target: Target,
    pub kind: Kind,
    pub flows: u32,
    pub services: u32,
    /// What has to become of every packet.
    pub action: u32,
    pub verdict: Verdict,
    /// By how much the frame grows.
    pub grows: u32,
    /// What becomes of a few packets now and then, which are cut.
    pub rarely: Option<Verdict>,
}

/// How many services the targets with many have.
pub const SERVICES: u32 = 1000;

/// The address of all cases, unless something is special about it.
pub const VIP: IpAddr = vip(1);
/// Another one.
pub const OTHER_VIP: IpAddr = vip(2);
const VIP_TO_IPV6: IpAddr = vip(3);
const VIP_GUE: IpAddr = vip(4);
const GUE_PORT: NonZeroU16 = NonZeroU16::new(6080).expect("not zero");
const VIP_L2: IpAddr = vip(5);
const NO_VIP: IpAddr = vip(250);
const VIP_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 1));

/// One of the virtual addresses, or of those of many services the one that
/// comes so late.
pub const fn vip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, last))
}

/// The services of [`Target::Balancer`].
pub fn services() -> Vec<Wanted> {
    vec![
        Wanted::new("tcp", VIP, Mode::Ipip),
        Wanted {
            protocol: Protocol::Udp,
            ..Wanted::new("udp", VIP, Mode::Ipip)
        },
        Wanted {
            to_ipv6: true,
            ..Wanted::new("4in6", VIP_TO_IPV6, Mode::Ipip)
        },
        Wanted::new("gue", VIP_GUE, Mode::Gue(GUE_PORT)),
        Wanted::new("l2", VIP_L2, Mode::L2Dsr),
        Wanted::new("ipv6", VIP_IPV6, Mode::Ipip),
    ]
}

/// Two services to change the slots of.
pub fn two_services() -> Vec<Wanted> {
    vec![
        Wanted::new("tcp", VIP, Mode::Ipip),
        Wanted::new("other", OTHER_VIP, Mode::Ipip),
    ]
}

/// The services of [`Target::Many`].
pub fn many_services() -> Vec<Wanted> {
    let service = |number: u32| Wanted {
        port: service_port(number),
        // The ring map has no room for larger ones.
        ring_size: 4096,
        ..Wanted::new(&format!("tcp-{number:03}"), vip(number as u8), Mode::Ipip)
    };
    (0..SERVICES).map(service).collect()
}

/// Everything that is measured, in the order of the table.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut over = |flows: &[u32], case: Case| {
        cases.extend(flows.iter().map(|flows| Case {
            flows: *flows,
            ..case.clone()
        }));
    };
    let ack = |destination| Kind::tcp(destination, ACK);
    let on = |target, case: Case| Case { target, ..case };
    let many = |target, case: Case| Case {
        target,
        services: SERVICES,
        kind: ack(vip(0)),
        ..case
    };

    over(&[1], on(Target::F1, forwarded(name::F1, ack(VIP), 0)));
    over(&[1], on(Target::F2, forwarded(name::F2, ack(VIP), 20)));
    let f3 = on(Target::F3, forwarded(name::F3, ack(VIP), 20));
    over(&FLOWS, f3.clone());
    over(&FLOWS[1..], many(Target::F3Many, f3));

    let established = forwarded(name::ESTABLISHED, ack(VIP), 20);
    over(&FLOWS, established.clone());
    over(&FLOWS[1..], many(Target::Many, established));
    let syn = forwarded(name::SYN, Kind::tcp(VIP, SYN), 20);
    over(&FLOWS, syn.clone());
    over(&[EVERY_PACKET], syn);
    over(&FLOWS, forwarded(name::UDP, Kind::udp(VIP), 20));
    over(&FLOWS, forwarded(name::IPV6, ack(VIP_IPV6), 40));
    over(&FLOWS, forwarded(name::IPV4_IN_IPV6, ack(VIP_TO_IPV6), 40));
    over(&FLOWS, forwarded(name::GUE, ack(VIP_GUE), 28));
    over(&FLOWS, forwarded(name::L2, ack(VIP_L2), 0));
    let not_vip = Case {
        action: XDP_PASS,
        verdict: Verdict::NotVip,
        ..forwarded(name::NOT_VIP, ack(NO_VIP), 0)
    };
    over(&FLOWS, not_vip);
    let too_big = Case {
        action: XDP_DROP,
        verdict: Verdict::TooBigLimited,
        rarely: Some(Verdict::TooBigAnswered),
        kind: Kind {
            // As large as the uplink takes, without the outer header.
            payload: 1460,
            ..ack(VIP)
        },
        ..forwarded(name::TOO_BIG, ack(VIP), 0)
    };
    over(&FLOWS, too_big);

    let slot = |name, target, kind| on(target, forwarded(name, kind, 20));
    over(&FLOWS, slot(name::LEARN_HIT, Target::Learn, ack(VIP)));
    over(&FLOWS, slot(name::LEARN_FULL, Target::Full, ack(VIP)));
    let syn = Kind::tcp(VIP, SYN);
    over(&[EVERY_PACKET], slot(name::LEARN_NEW, Target::New, syn));
    over(&FLOWS, slot(name::TRACK_HIT, Target::Track, ack(VIP)));
    over(&FLOWS, slot(name::TRACK_MISS, Target::Full, ack(OTHER_VIP)));
    cases
}

fn forwarded(name: &'static str, kind: Kind, grows: u32) -> Case {
    Case {
        name,
        target: Target::Balancer,
        kind,
        flows: 1,
        services: 1,
        action: XDP_TX,
        verdict: Verdict::Forwarded,
        grows,
        rarely: None,
    }
}

impl Case {
    /// What goals call it; there is none with many services.
    pub fn key(&self) -> Option<Key> {
        (self.services == 1).then_some((self.name, self.flows))
    }

    /// Whether the last of some packets fared as expected; `length` is that of
    /// a fresh frame.
    pub fn check(&self, ran: &Ran, length: u32) -> Result<()> {
        let expected = length + self.grows;
        ensure!(
            self.rarely.is_some() || ran.action == self.action && ran.length == expected,
            "{}: XDP's verdict {} and {} bytes, expected {} and {expected}",
            self.name,
            ran.action,
            ran.length,
            self.action,
        );
        Ok(())
    }

    /// Whether all of so many packets were counted as expected.
    pub fn check_count(&self, counted: u64, packets: u64) -> Result<()> {
        ensure!(
            counted == packets,
            "{}: {counted} of {packets} packets were {}",
            self.name,
            self.verdict.label()
        );
        Ok(())
    }

    /// Flows in words.
    pub fn flows_label(&self) -> String {
        match self.flows {
            EVERY_PACKET => "each packet".to_owned(),
            flows => flows.to_string(),
        }
    }
}
