//! Frames, built by `etherparse` with all lengths and checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header,
    TcpHeader, UdpHeader,
};

/// The router that sends to the balancer.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The balancer.
pub const LB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
/// The backends' next hop.
pub const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x21];

/// A packet that can still be changed.
#[derive(Clone, Debug)]
pub struct Packet {
    pub from: [u8; 6],
    pub to: [u8; 6],
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub tos: u8,
    /// Flow label, of IPv6.
    pub label: u32,
    /// TCP flags, the low byte.
    pub flags: u8,
    pub options: Vec<u8>,
    pub fragment: bool,
    /// Of IPv4: identification, and where a fragment belongs, in eight bytes.
    pub id: u16,
    pub offset: u16,
    pub may_fragment: bool,
    pub payload: Payload,
    pub padding: usize,
}

#[derive(Clone, Debug)]
pub enum Payload {
    Tcp {
        ports: (u16, u16),
        data: Vec<u8>,
    },
    Udp {
        ports: (u16, u16),
        data: Vec<u8>,
    },
    /// Anything else, by its protocol number.
    Raw(u8, Vec<u8>),
}

/// TCP flags.
pub const FIN: u8 = 0x11;
pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

/// A TCP packet from the router to port 80 of a VIP.
pub fn tcp(source: &str, vip: &str) -> Packet {
    Packet {
        from: ROUTER_MAC,
        to: LB_MAC,
        source: source.parse().expect("an address"),
        destination: vip.parse().expect("an address"),
        ttl: 64,
        tos: 0,
        label: 0,
        flags: ACK,
        options: Vec::new(),
        fragment: false,
        id: 0,
        offset: 0,
        may_fragment: false,
        payload: Payload::Tcp {
            ports: (40000, 80),
            data: b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        },
        padding: 0,
    }
}

/// A UDP packet from the router to port 80 of a VIP.
pub fn udp(source: &str, vip: &str) -> Packet {
    Packet {
        payload: Payload::Udp {
            ports: (40000, 80),
            data: b"hello".to_vec(),
        },
        ..tcp(source, vip)
    }
}

impl Packet {
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The packet as it is forwarded: one hop further.
    pub fn forwarded(self) -> Self {
        self.with(|p| p.ttl -= 1)
    }

    /// This packet inside an outer header, as the balancer should make it.
    pub fn inside(&self, source: &str, destination: &str) -> Self {
        let inner = self.clone().with(|p| p.padding = 0).ip();
        let protocol = if self.source.is_ipv4() { 4 } else { 41 };
        Self {
            from: LB_MAC,
            to: BACKEND_MAC,
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            ttl: 64,
            tos: self.tos,
            label: self.label,
            flags: ACK,
            options: Vec::new(),
            fragment: false,
            id: 0,
            offset: 0,
            may_fragment: false,
            payload: Payload::Raw(protocol, inner),
            padding: self.padding,
        }
    }

    /// The same in UDP from a port that the flow has chosen: GUE variant 1.
    pub fn inside_udp(&self, source: &str, destination: &str, from: u16, to: u16) -> Self {
        self.inside(source, destination).with(|p| {
            let Payload::Raw(_, inner) = &p.payload else {
                panic!("a packet inside");
            };
            let length = u16::try_from(8 + inner.len()).expect("short enough");
            let header = [from, to, length, 0].map(u16::to_be_bytes).concat();
            p.payload = Payload::Raw(17, [&header[..], inner].concat());
        })
    }

    /// The packet behind extension headers, the first of which is `first`.
    pub fn behind(self, first: u8, extensions: &[u8]) -> Self {
        let layer_4 = self.ip()[40..].to_vec();
        self.with(|p| p.payload = Payload::Raw(first, [extensions, &layer_4[..]].concat()))
    }

    /// The frame with VLAN tags, each an EtherType and what follows it.
    pub fn tagged(&self, tags: &[(u16, u16)]) -> Vec<u8> {
        let mut frame = self.frame();
        let tags: Vec<u8> = tags
            .iter()
            .flat_map(|(kind, tag)| [kind.to_be_bytes(), tag.to_be_bytes()].concat())
            .collect();
        frame.splice(12..12, tags);
        frame
    }

    /// The whole frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = Ethernet2Header {
            source: self.from,
            destination: self.to,
            ether_type: if self.source.is_ipv4() {
                EtherType::IPV4
            } else {
                EtherType::IPV6
            },
        }
        .to_bytes()
        .to_vec();
        frame.extend(self.ip());
        frame.extend(vec![0; self.padding]);
        frame
    }

    /// From the IP header on.
    pub fn ip(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination),
            _ => panic!("addresses of two families"),
        }
    }

    fn tcp(&self, (source, destination): (u16, u16)) -> TcpHeader {
        let mut tcp = TcpHeader::new(source, destination, 1000, 512);
        let is_set = |flag| self.flags & flag != 0;
        (tcp.fin, tcp.syn, tcp.rst) = (is_set(1), is_set(2), is_set(4));
        tcp.ack = is_set(ACK);
        tcp
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let mut header = Ipv4Header::new(
            0,
            self.ttl,
            IpNumber::TCP,
            source.octets(),
            destination.octets(),
        )
        .expect("short enough");
        header.dscp = (self.tos >> 2).try_into().expect("six bits");
        header.ecn = (self.tos & 3).try_into().expect("two bits");
        header.options = Ipv4Options::try_from(&self.options[..]).expect("legal options");
        header.more_fragments = self.fragment;
        header.identification = self.id;
        header.dont_fragment = !self.may_fragment;
        let (protocol, payload) = match &self.payload {
            Payload::Tcp { ports, data } => {
                let mut tcp = self.tcp(*ports);
                tcp.checksum = tcp.calc_checksum_ipv4(&header, data).expect("short enough");
                (6, [&tcp.to_bytes()[..], data].concat())
            }
            Payload::Udp { ports, data } => {
                let udp = UdpHeader::with_ipv4_checksum(ports.0, ports.1, &header, data);
                (
                    17,
                    [&udp.expect("short enough").to_bytes()[..], data].concat(),
                )
            }
            Payload::Raw(protocol, data) => (*protocol, data.clone()),
        };
        header.protocol = IpNumber(protocol);
        header.set_payload_len(payload.len()).expect("short enough");
        header.fragment_offset = IpFragOffset::try_new(self.offset).expect("thirteen bits");
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], &payload].concat()
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut header = Ipv6Header {
            traffic_class: self.tos,
            flow_label: self.label.try_into().expect("twenty bits"),
            payload_length: 0,
            next_header: IpNumber::TCP,
            hop_limit: self.ttl,
            source: source.octets(),
            destination: destination.octets(),
        };
        let (protocol, payload) = match &self.payload {
            Payload::Tcp { ports, data } => {
                let mut tcp = self.tcp(*ports);
                tcp.checksum = tcp.calc_checksum_ipv6(&header, data).expect("short enough");
                (6, [&tcp.to_bytes()[..], data].concat())
            }
            Payload::Udp { ports, data } => {
                let udp = UdpHeader::with_ipv6_checksum(ports.0, ports.1, &header, data);
                (
                    17,
                    [&udp.expect("short enough").to_bytes()[..], data].concat(),
                )
            }
            Payload::Raw(protocol, data) => (*protocol, data.clone()),
        };
        header.next_header = IpNumber(protocol);
        header.payload_length = payload.len().try_into().expect("short enough");
        [&header.to_bytes()[..], &payload].concat()
    }
}

/// An ICMP or ICMPv6 message, with its checksum.
pub fn icmp(source: &str, destination: &str, message: &[u8]) -> Packet {
    let packet = tcp(source, destination);
    let mut message = message.to_vec();
    let (protocol, pseudo) = match (packet.source, packet.destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u32::try_from(message.len()).expect("short enough");
            let parts = [
                &source.octets()[..],
                &destination.octets(),
                &length.to_be_bytes(),
            ];
            (58, [&parts.concat()[..], &[0, 0, 0, 58]].concat())
        }
        _ => (1, Vec::new()),
    };
    let sum = checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet.with(|p| p.payload = Payload::Raw(protocol, message))
}

/// The Internet checksum of some bytes (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| {
        let low = word.get(1).copied().unwrap_or(0);
        u64::from(u16::from_be_bytes([word[0], low]))
    });
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
