//! What is measured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vipd_abi::Verdict;
use vipd_control::model::Mode;

use crate::{
    packets::{ACK, Kind, SYN},
    plane::Wanted,
};

/// Numbers of flows that a case is measured with.
pub const FLOWS: [u32; 4] = [1, 1_000, 100_000, 1_000_000];
/// Every packet is a flow of its own.
pub const EVERY_PACKET: u32 = 0;

/// XDP's verdicts (include/uapi/linux/bpf.h).
pub const XDP_PASS: u32 = 2;
/// Out of the same interface.
pub const XDP_TX: u32 = 3;

/// Which program sees the packets.
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
    BalancerMany,
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
}

/// First address of the floor's services and of the thousand services.
pub const MANY: [u8; 4] = [198, 51, 100, 0];
/// How many those are.
pub const SERVICES: u32 = 1000;

const VIP: IpAddr = v4(1);
const VIP_TO_IPV6: IpAddr = v4(2);
const VIP_GUE: IpAddr = v4(3);
const VIP_L2: IpAddr = v4(4);
const NO_VIP: IpAddr = v4(250);
const VIP_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 1));

const fn v4(last: u8) -> IpAddr {
    let [a, b, c, _] = MANY;
    IpAddr::V4(Ipv4Addr::new(a, b, c, last))
}

/// The services of [`Target::Balancer`].
pub fn services() -> Vec<Wanted> {
    vec![
        Wanted::new("tcp", VIP, Mode::Ipip),
        Wanted {
            protocol: vipd_control::model::Protocol::Udp,
            ..Wanted::new("udp", VIP, Mode::Ipip)
        },
        Wanted {
            to_ipv6: true,
            ..Wanted::new("4in6", VIP_TO_IPV6, Mode::Ipip)
        },
        Wanted::new("gue", VIP_GUE, Mode::Ipip),
        Wanted::new("l2", VIP_L2, Mode::L2Dsr),
        Wanted::new("ipv6", VIP_IPV6, Mode::Ipip),
    ]
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
    let floor = |name, target, grows| Case {
        name,
        target,
        grows,
        ..forwarded(name, Kind::tcp(VIP, ACK), grows)
    };
    over(&[1], floor("f1", Target::F1, 0));
    over(&[1], floor("f2", Target::F2, 20));
    over(&FLOWS, floor("f3", Target::F3, 20));
    let tcp = forwarded("tcp established, ipip", Kind::tcp(VIP, ACK), 20);
    over(&FLOWS, tcp);
    let syn = forwarded("tcp syn, ipip", Kind::tcp(VIP, SYN), 20);
    over(&FLOWS, syn.clone());
    over(&[EVERY_PACKET], syn);
    over(&FLOWS, forwarded("udp, ipip", Kind::udp(VIP), 20));
    let kind = Kind::tcp(VIP_IPV6, ACK);
    over(&FLOWS, forwarded("ipv6 tcp, 6in6", kind, 40));
    let kind = Kind::tcp(VIP_TO_IPV6, ACK);
    over(&FLOWS, forwarded("tcp, 4in6", kind, 40));
    over(&FLOWS, forwarded("tcp, l2", Kind::tcp(VIP_L2, ACK), 0));
    let not_vip = Case {
        action: XDP_PASS,
        verdict: Verdict::NotVip,
        ..forwarded("not for a vip", Kind::tcp(NO_VIP, ACK), 0)
    };
    over(&FLOWS, not_vip);
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
    }
}

impl Case {
    /// Flows in words.
    pub fn flows_label(&self) -> String {
        match self.flows {
            EVERY_PACKET => "each packet".to_owned(),
            flows => flows.to_string(),
        }
    }
}
