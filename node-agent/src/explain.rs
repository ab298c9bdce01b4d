//! `vipd explain`: what the living data plane does with the packets of a flow,
//! and why.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use vipd_abi::{Action, BackendKind, BackendRecord, Basis, Phase, Trace, Verdict};

use crate::{
    dataplane::{apply::Applied, explainer::Answer, tables::unmapped},
    headers,
};

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its number (IANA, protocol numbers).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A flow, and a packet of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The client.
    pub source: SocketAddr,
    /// The virtual address and the port.
    pub destination: SocketAddr,
    /// The transport protocol.
    pub protocol: Transport,
    /// For TCP: whether the packet opens the flow (SYN), or is of one that goes
    /// on (ACK).
    pub opens: bool,
    /// The interface it comes by; the first configured one if not given.
    pub interface: Option<String>,
}

/// Why a question makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source and destination are of two address families")]
pub struct TwoFamilies;

impl Question {
    /// The packet as a frame to an interface with that address, without
    /// payload.
    ///
    /// # Errors
    ///
    /// When the addresses are of two families.
    pub fn frame(&self, mac: [u8; 6]) -> Result<Vec<u8>, TwoFamilies> {
        let ports = [self.source.port(), self.destination.port()].map(u16::to_be_bytes);
        let mut payload = ports.concat();
        match self.protocol {
            Transport::Tcp => {
                let flags = if self.opens { 0x02 } else { 0x10 };
                // Sequence and acknowledgement, length of five words, flags.
                payload.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            Transport::Udp => payload.extend([0, 8, 0, 0]),
        }
        // From a locally administered address that nobody has.
        let link = [&mac[..], &[2, 0, 0, 0, 0, 0]].concat();
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        let network = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0];
                header.extend((20 + length).to_be_bytes());
                header.extend([0, 0, 0x40, 0, 64, self.protocol.number(), 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                [&[0x08, 0x00], &header[..]].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([self.protocol.number(), 64]);
                header.extend(source.octets());
                header.extend(destination.octets());
                [&[0x86, 0xdd], &header[..]].concat()
            }
            _ => return Err(TwoFamilies),
        };
        Ok([link, network, payload].concat())
    }
}

/// The checksum of an IPv4 header (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2);
    let sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// What the data plane's numbers stand for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    services: BTreeMap<u32, Arc<str>>,
    backends: BTreeMap<u32, Arc<str>>,
}

impl Names {
    /// Of what has been applied.
    #[must_use]
    pub fn of(applied: &Applied) -> Self {
        let backends = applied.counters.values().flat_map(|of| of.iter());
        Self {
            services: applied
                .numbers
                .iter()
                .map(|(n, i)| (*i, n.clone()))
                .collect(),
            backends: backends
                .map(|(name, index)| (*index, name.clone()))
                .collect(),
        }
    }

    /// The service of that number.
    #[must_use]
    pub fn service(&self, number: u32) -> Option<&str> {
        self.services.get(&number).map(|name| &**name)
    }

    /// The number of the service of that name.
    #[must_use]
    pub fn number(&self, service: &str) -> Option<u32> {
        let mut services = self.services.iter();
        services
            .find(|(_, name)| &***name == service)
            .map(|(number, _)| *number)
    }

    /// Names of all services.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.values().map(|name| &**name)
    }

    /// The backend of a record.
    #[must_use]
    pub fn backend(&self, record: &BackendRecord) -> Backend {
        Backend {
            name: self.backends.get(&record.counter).map(ToString::to_string),
            address: unmapped(record.destination),
        }
    }
}

/// The port behind which a backend's tunnel packets have another packet.
#[must_use]
pub fn gue_port(record: &BackendRecord) -> Option<u16> {
    let kind = BackendKind::of(record.kind);
    let gue = matches!(kind, BackendKind::Gue4 | BackendKind::Gue6);
    gue.then(|| u16::from_be(record.port as u16))
}

/// A backend of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name; absent when the configuration no longer has it.
    pub name: Option<String>,
    /// Its address.
    pub address: IpAddr,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) if *name != self.address.to_string() => {
                write!(f, "{name} ({})", self.address)
            }
            Some(_) => write!(f, "{}", self.address),
            None => write!(f, "{} (no longer configured)", self.address),
        }
    }
}

/// What packets get, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Why they do not get it at present: they do not come to the program.
    pub but: Option<String>,
    /// The interface the packet comes by.
    pub interface: String,
    /// The verdict's name.
    pub verdict: String,
    /// What the verdict means.
    pub meaning: String,
    /// What is done with the frame: pass, drop, transmit, redirect.
    pub action: String,
    /// The service, unless the packet is for none.
    pub service: Option<String>,
    /// The flow's hash.
    pub hash: Option<String>,
    /// The slot of the service's ring.
    pub slot: Option<SlotView>,
    /// Why that backend.
    pub because: Option<String>,
    /// Whether the flow is recorded.
    pub recorded: Option<bool>,
    /// The backend.
    pub backend: Option<Backend>,
    /// The packet as it leaves, if it is sent.
    pub leaves: Option<Leaves>,
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its number in the service's ring.
    pub number: u32,
    /// Slots of the ring.
    pub of: u32,
    /// What it is going through: stable, learn, track.
    pub phase: String,
}

/// A packet that leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaves {
    /// The interface.
    pub interface: String,
    /// The next hop's MAC address.
    pub next_hop: String,
    /// Its headers, outermost first.
    pub headers: Vec<String>,
    /// Length of the frame.
    pub bytes: usize,
}

impl Explanation {
    /// The program's answer in terms of the configuration, for packets that come
    /// to it. `interface_name` finds an interface by its index.
    #[must_use]
    pub fn new(
        answer: &Answer,
        interface: &str,
        names: &Names,
        interface_name: impl Fn(u32) -> String,
    ) -> Self {
        let trace = &answer.trace;
        let verdict = trace.verdict();
        let chosen = trace.service != 0;
        let record = answer.record.as_ref();
        let sent = matches!(
            verdict.map(Verdict::action),
            Some(Action::Transmit | Action::Redirect)
        );
        let basis = trace.basis().filter(|_| chosen && trace.backend != 0);
        Self {
            but: None,
            interface: interface.to_owned(),
            verdict: verdict.map_or("unknown", |v| v.label()).to_owned(),
            meaning: verdict.map_or("", |v| v.meaning()).trim().to_owned(),
            action: verdict.map_or("", |v| action(v.action())).to_owned(),
            service: chosen.then(|| service_name(names, trace)),
            hash: chosen.then(|| format!("{:016x}", trace.hash)),
            slot: chosen.then(|| SlotView {
                number: trace.slot_number(),
                of: trace.ring_mask + 1,
                phase: trace.slot.phase().label().to_owned(),
            }),
            because: basis.map(|basis| basis.label().to_owned()),
            recorded: basis
                .filter(|_| trace.slot.phase() != Phase::Stable)
                .map(|basis| matches!(basis, Basis::Recorded | Basis::NewlyRecorded)),
            backend: record
                .filter(|_| chosen)
                .map(|record| names.backend(record)),
            leaves: sent.then(|| Leaves {
                interface: if trace.leaves_by == 0 {
                    interface.to_owned()
                } else {
                    interface_name(trace.leaves_by)
                },
                next_hop: answer.frame.get(..6).map(headers::mac).unwrap_or_default(),
                headers: headers::lines(&answer.frame, record.and_then(gue_port)),
                bytes: answer.frame.len(),
            }),
        }
    }

    /// For people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: &dyn fmt::Display| {
            let _ = writeln!(text, "{name:<11}{value}");
        };
        if let Some(but) = &self.but {
            row("but", but);
        }
        row(
            "verdict",
            &format_args!("{}: {}", self.verdict, self.meaning),
        );
        row("comes by", &self.interface);
        if let Some(service) = &self.service {
            row("service", service);
        }
        if let Some(hash) = &self.hash {
            row("flow hash", hash);
        }
        if let Some(SlotView { number, of, phase }) = &self.slot {
            row("slot", &format_args!("{number} of {of}, {phase}"));
        }
        if let Some(backend) = &self.backend {
            row("backend", backend);
        }
        if let Some(because) = &self.because {
            row("because", because);
        }
        if let Some(leaves) = &self.leaves {
            let Leaves {
                interface,
                next_hop,
                headers,
                bytes,
            } = leaves;
            row(
                "leaves by",
                &format_args!("{interface} to {next_hop}, {bytes} bytes"),
            );
            for (number, header) in headers.iter().enumerate() {
                row(if number == 0 { "headers" } else { "" }, header);
            }
        }
        text
    }
}

/// The service's name, or its number if it has just gone.
#[must_use]
pub fn service_name(names: &Names, trace: &Trace) -> String {
    let name = names.service(trace.service).map(str::to_owned);
    name.unwrap_or_else(|| format!("number {}, no longer configured", trace.service))
}

/// What is done with a frame.
#[must_use]
pub const fn action(action: Action) -> &'static str {
    match action {
        Action::Pass => "pass",
        Action::Drop => "drop",
        Action::Transmit => "transmit",
        Action::Redirect => "redirect",
    }
}

/// Name of the interface of that index, or the index if it has gone.
#[must_use]
pub fn interface_name(index: u32) -> String {
    let name = std::net::UdpSocket::bind("127.0.0.1:0")
        .or_else(|_| std::net::UdpSocket::bind("[::1]:0"))
        .ok()
        .and_then(|socket| rustix::net::netdevice::index_to_name(&socket, index).ok());
    name.unwrap_or_else(|| format!("interface {index}"))
}

/// An address and port as the command line takes them.
///
/// # Errors
///
/// When it is none, in words.
pub fn socket_address(text: &str) -> Result<SocketAddr, String> {
    SocketAddr::from_str(text).map_err(|_| {
        format!("`{text}` is no ADDRESS:PORT, such as 203.0.113.7:40000 or [2001:db8::7]:40000")
    })
}

#[cfg(test)]
mod tests;
