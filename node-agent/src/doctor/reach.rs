//! Who answers at the end of the way that traffic takes: for each backend and
//! virtual address an inquiry past the data plane, with packets of our own.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use vipd_control::model::{Mode, Ports, Protocol, Service};

use crate::{
    config::Config,
    dataplane::record::TunnelSources,
    netlink::{address::Address, link::Link, way::Ways},
    tunnel::{
        ear::{Ear, PACKET},
        lane::Lane,
        packet::{Answer, Ask, Mark, NUMBERS},
        sender::Sender,
    },
};

/// How often is asked whoever has not answered.
const ROUNDS: u32 = 3;
/// How long a round waits for answers.
const ROUND: Duration = Duration::from_millis(300);
/// So many packets are sent at once, and then the next after a pause.
const BURST: usize = 256;
const PAUSE: Duration = Duration::from_millis(5);
/// Each packet of an inquiry has a number.
const MOST: usize = NUMBERS as usize / KINDS.len();

/// What is to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// The service.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// The way to it.
    pub lane: Lane,
    /// The interface it leaves by.
    pub interface: String,
    /// The address it should answer for.
    pub vip: IpAddr,
    /// A port it should serve, over TCP.
    pub port: Option<u16>,
    /// Our address of the virtual address's family.
    pub ours: IpAddr,
    /// Our address of the backend's family.
    pub near: IpAddr,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// What was asked.
    pub inquiry: Inquiry,
    /// The backend answers at its own address, as any host.
    pub plain: bool,
    /// It answers at its own address what comes as traffic does.
    pub carried: bool,
    /// It answers for the virtual address.
    pub vip: bool,
    /// Also when the packet is as large as a client's.
    pub whole: bool,
}

/// The packets of an inquiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Carried,
    Vip,
    Whole,
}

const KINDS: [Kind; 4] = [Kind::Plain, Kind::Carried, Kind::Vip, Kind::Whole];

/// What there is to ask, as far as ways and addresses are known.
#[must_use]
pub fn inquiries(
    config: &Config,
    ways: &Ways,
    links: &BTreeMap<u32, Link>,
    addresses: &[Address],
) -> Vec<Inquiry> {
    let Some(dataplane) = &config.dataplane else {
        return Vec::new();
    };
    let sources = TunnelSources::from(dataplane);
    let mut inquiries = Vec::new();
    let services = config.model.services.iter();
    for service in services.filter(|service| service.mode.forwards()) {
        for backend in &service.backends {
            let Some(way) = ways.get(&backend.address) else {
                continue;
            };
            let Some(link) = links.get(&way.uplink.ifindex) else {
                continue;
            };
            let lane = Lane::new(service.mode, backend.address, *way, &sources);
            let ours = |other| own_address(config, service, &lane, other, addresses);
            for vip in service.vips.iter().map(|vip| vip.first_host()) {
                let (Some(ours), Some(near)) = (ours(vip), ours(backend.address)) else {
                    continue;
                };
                inquiries.push(Inquiry {
                    service: service.name.to_string(),
                    backend: backend.name.to_string(),
                    lane,
                    interface: link.name.clone(),
                    vip,
                    port: tcp_port(service),
                    ours,
                    near,
                });
            }
        }
    }
    inquiries.truncate(MOST);
    inquiries
}

/// A port that a server is behind.
fn tcp_port(service: &Service) -> Option<u16> {
    match (service.protocol, service.ports) {
        (Protocol::Tcp, Ports::One(port) | Ports::Range(port, _)) => Some(port.get()),
        (Protocol::Tcp, Ports::Any) | (Protocol::Udp, _) => None,
    }
}

/// Our address of the family of `other`: that of checks, or what the kernel
/// would choose on this way, or any other on its interface, or on any.
fn own_address(
    config: &Config,
    service: &Service,
    lane: &Lane,
    other: IpAddr,
    addresses: &[Address],
) -> Option<IpAddr> {
    let same_family = |address: &IpAddr| address.is_ipv4() == other.is_ipv4();
    let chosen = [service.check.source, lane.way.source];
    let chosen = chosen.into_iter().flatten().find(same_family);
    let services = config.model.services.iter();
    let vips: Vec<_> = services.flat_map(|service| &service.vips).collect();
    let usable = |address: &IpAddr| {
        let local = match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
        };
        !local && same_family(address) && !vips.iter().any(|vip| vip.contains((*address).into()))
    };
    let on = |here: bool| {
        let mut found = addresses
            .iter()
            .filter(|found| (found.ifindex == lane.way.uplink.ifindex) == here)
            .map(|found| found.address);
        found.find(usable)
    };
    chosen.or_else(|| on(true)).or_else(|| on(false))
}

/// Asks, and waits for the answers. Takes about a second if one does not answer.
///
/// # Errors
/// Without CAP_NET_RAW.
pub fn ask(inquiries: Vec<Inquiry>) -> io::Result<Vec<Reached>> {
    if inquiries.is_empty() {
        return Ok(Vec::new());
    }
    let mark = Mark::new();
    let sender = Sender::open()?;
    let ears = Ear::both()?;
    let mut buffer = vec![0; PACKET];
    let mut open: BTreeSet<u32> = inquiries
        .iter()
        .enumerate()
        .flat_map(|(index, inquiry)| {
            let kinds = KINDS.into_iter().filter(|kind| inquiry.asks(*kind));
            kinds.map(move |kind| number(index, kind))
        })
        .collect();
    for _ in 0..ROUNDS {
        for (sent, number) in open.iter().enumerate() {
            if sent % BURST == BURST - 1 {
                sleep(PAUSE);
            }
            if let Some((inquiry, kind)) = find(&inquiries, *number) {
                inquiry.send(&sender, mark, kind, *number);
            }
        }
        let until = Instant::now() + ROUND;
        while !open.is_empty() && Instant::now() < until {
            let mut idle = true;
            for ear in &ears {
                let Ok(length) = ear.next(&mut buffer) else {
                    continue;
                };
                idle = false;
                let packet = buffer.get(..length).unwrap_or_default();
                let Some(answer) = mark.read(packet) else {
                    continue;
                };
                if let Some((inquiry, kind)) = find(&inquiries, answer.number)
                    && inquiry.target(kind) == answer.from
                {
                    open.remove(&answer.number);
                    inquiry.close(&sender, mark, &answer);
                }
            }
            if idle {
                sleep(Duration::from_millis(1));
            }
        }
    }
    let answered = |index, kind| !open.contains(&number(index, kind));
    let reached = inquiries
        .into_iter()
        .enumerate()
        .map(|(index, inquiry)| Reached {
            plain: answered(index, Kind::Plain),
            carried: inquiry.asks(Kind::Carried) && answered(index, Kind::Carried),
            vip: answered(index, Kind::Vip),
            whole: answered(index, Kind::Whole),
            inquiry,
        });
    Ok(reached.collect())
}

fn number(index: usize, kind: Kind) -> u32 {
    (index * KINDS.len() + kind as usize) as u32
}

fn find(inquiries: &[Inquiry], number: u32) -> Option<(&Inquiry, Kind)> {
    let (index, kind) = (number as usize / KINDS.len(), number as usize % KINDS.len());
    Some((inquiries.get(index)?, KINDS[kind]))
}

impl Inquiry {
    /// On the link nothing tells a carried packet from a plain one.
    fn asks(&self, kind: Kind) -> bool {
        kind != Kind::Carried || self.lane.mode != Mode::L2Dsr
    }

    fn target(&self, kind: Kind) -> IpAddr {
        match kind {
            Kind::Plain | Kind::Carried => self.lane.backend,
            Kind::Vip | Kind::Whole => self.vip,
        }
    }

    /// What cannot be sent will not be answered.
    fn send(&self, sender: &Sender, mark: Mark, kind: Kind, number: u32) {
        let length = if kind == Kind::Whole {
            self.lane.inner_mtu()
        } else {
            0
        };
        let target = self.target(kind);
        let ours = if target == self.vip {
            self.ours
        } else {
            self.near
        };
        let serves = self.port.filter(|_| target == self.vip).map(Ask::Syn);
        for ask in [Some(Ask::Echo), serves].into_iter().flatten() {
            if let Some(packet) = mark.packet(ask, ours, target, number, length) {
                let _ = match kind {
                    Kind::Plain => sender.send_plain(&packet, target),
                    Kind::Carried | Kind::Vip | Kind::Whole => sender.send(&self.lane, &packet),
                };
            }
        }
    }

    /// Leaves no half-open connection behind.
    fn close(&self, sender: &Sender, mark: Mark, answer: &Answer) {
        if let Some(reset) = mark.reset(answer) {
            let _ = sender.send(&self.lane, &reset);
        }
    }
}
