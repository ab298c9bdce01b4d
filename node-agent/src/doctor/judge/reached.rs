//! What the answers of backends tell, and those that do not come.

use std::net::IpAddr;

use vipd_control::model::Mode;

use super::{Facts, Finding, Name, Severity, finding, folded};
use crate::doctor::reach::{Inquiry, Reached};

/// How much smaller a packet is tried next where the MTU is not known.
const STEP: u32 = 100;

/// All that is worth saying of them.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let not_asked = facts.not_asked.as_ref().map(|error| {
        finding(
            Name::NotAsked,
            Severity::Warning,
            "backends",
            format!(
                "nobody could be asked on the way that traffic takes: {error} (root may, or who \
                 has CAP_NET_RAW)"
            ),
            None,
        )
    });
    let reached = facts.reached.iter();
    let findings = reached.filter_map(|reached| one(facts, reached));
    not_asked.into_iter().chain(folded(findings)).collect()
}

fn one(facts: &Facts, reached: &Reached) -> Option<Finding> {
    let inquiry = &reached.inquiry;
    if reached.vip {
        return (!reached.whole).then(|| narrow(inquiry));
    }
    let tunnelled = inquiry.lane.mode != Mode::L2Dsr;
    Some(match (reached.plain, reached.carried) {
        (_, true) => vip_missing(inquiry),
        (true, false) if tunnelled => decapsulation_missing(inquiry),
        (true, false) => vip_missing(inquiry),
        (false, false) => silent(facts, inquiry),
    })
}

fn subject(inquiry: &Inquiry) -> String {
    let Inquiry {
        service, backend, ..
    } = inquiry;
    format!("{service}/{backend} ({})", inquiry.lane.backend)
}

fn mode(inquiry: &Inquiry) -> &'static str {
    match inquiry.lane.mode {
        Mode::L2Dsr => "l2-dsr",
        Mode::Ipip => "ipip",
        Mode::Gue(_) => "gue",
        Mode::Local => "local",
    }
}

/// Of the prefix that is this address alone.
fn length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn vip_missing(inquiry: &Inquiry) -> Finding {
    let vip = inquiry.vip;
    let length = length(vip);
    Finding {
        at: Some(inquiry.lane.backend),
        ..finding(
            Name::VipMissing,
            Severity::Error,
            subject(inquiry),
            format!(
                "it is reached by {}, and does not answer for {vip}: the address is not bound \
                 there, and what clients send is dropped",
                mode(inquiry)
            ),
            Some(format!("ip address add {vip}/{length} dev lo")),
        )
    }
}

fn decapsulation_missing(inquiry: &Inquiry) -> Finding {
    let (from, port) = (inquiry.lane.source, inquiry.lane.mode);
    let interface =
        |from: IpAddr| format!("\"$(ip -o route get {from} | sed 's/.* dev \\([^ ]*\\).*/\\1/')\"");
    let port = match port {
        Mode::Gue(port) => format!(" --gue-port {port}"),
        Mode::Ipip | Mode::L2Dsr | Mode::Local => String::new(),
    };
    let fix = from.map(|from| {
        format!(
            "vipd decap attach --iface {} --from {from}/{}{port}",
            interface(from),
            length(from)
        )
    });
    Finding {
        at: Some(inquiry.lane.backend),
        ..finding(
            Name::DecapsulationMissing,
            Severity::Error,
            subject(inquiry),
            format!(
                "it answers, but not to what comes by {}: it does not decapsulate, or does not \
                 take it from this host, and what clients send is dropped",
                mode(inquiry)
            ),
            fix,
        )
    }
}

fn narrow(inquiry: &Inquiry) -> Finding {
    let lane = &inquiry.lane;
    let whole = lane.inner_mtu() + lane.overhead();
    let backend = lane.backend;
    let via = lane.way.gateway;
    let via = via.map_or_else(String::new, |gateway| format!(" via {gateway}"));
    let interface = &inquiry.interface;
    let smaller = whole.saturating_sub(STEP);
    finding(
        Name::MtuHole,
        Severity::Error,
        subject(inquiry),
        format!(
            "small packets arrive, and one of {whole} bytes does not, though it fits the \
             interface: a link on the way has a smaller MTU, and large requests hang; raise it \
             there, or tell this host, so that it tells clients"
        ),
        Some(format!(
            "ip route replace {backend}{via} dev {interface} mtu {smaller}"
        )),
    )
}

fn silent(facts: &Facts, inquiry: &Inquiry) -> Finding {
    let next = inquiry.lane.way.gateway.unwrap_or(inquiry.lane.backend);
    let mut fixed = facts.fixed.iter();
    if let Some((interface, _)) = fixed.find(|(_, address)| *address == next) {
        return finding(
            Name::NeighbourFixed,
            Severity::Error,
            subject(inquiry),
            format!(
                "nothing that is sent to it is answered, and the Ethernet address of {next} was \
                 set by hand, which nobody asks for again: it may be that of another host"
            ),
            Some(format!("ip neighbour del {next} dev {interface}")),
        );
    }
    finding(
        Name::Silent,
        Severity::Warning,
        subject(inquiry),
        format!(
            "nothing that is sent to it is answered, though {next} is a neighbour: the host is \
             dead or cut off, or takes no ICMP echo and serves nothing"
        ),
        Some(format!("ping -c 3 {}", inquiry.lane.backend)),
    )
}
