//! The packets: as small as they come on a wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vipd_control::model::Protocol;

use crate::plan::{Plan, service_port};

/// The router that sends to the balancer.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The balancer.
pub const LB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
/// The backends' next hop.
pub const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x21];

/// Flags of a TCP segment of an established connection.
pub const ACK: u8 = 0x10;
/// Flags of the first TCP segment of a connection.
pub const SYN: u8 = 0x02;

/// A kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Where it goes; with several services, the lowest of their addresses.
    pub destination: IpAddr,
    pub protocol: Protocol,
    /// For TCP.
    pub flags: u8,
    /// Bytes behind the TCP or UDP header.
    pub payload: u16,
}

impl Kind {
    /// A TCP segment.
    pub fn tcp(destination: IpAddr, flags: u8) -> Self {
        Self {
            destination,
            protocol: Protocol::Tcp,
            flags,
            payload: 0,
        }
    }

    /// A UDP datagram.
    pub fn udp(destination: IpAddr) -> Self {
        Self {
            destination,
            protocol: Protocol::Udp,
            flags: 0,
            payload: 12,
        }
    }

    /// The protocol's number.
    pub fn number(&self) -> u8 {
        match self.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    /// Where the packets of all flows come from, but for the last byte.
    pub fn source(&self) -> IpAddr {
        match self.destination {
            IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 0).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0).into(),
        }
    }

    /// The frame, padded to Ethernet's least length. The checksum of TCP or
    /// UDP is zero: nobody on the way looks at it.
    pub fn frame(&self) -> Vec<u8> {
        let number = self.number();
        let header = match self.protocol {
            Protocol::Tcp => 20,
            Protocol::Udp => 8,
        };
        let length = header + self.payload;
        let mut frame = [LB_MAC, ROUTER_MAC].concat();
        match (self.source(), self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00, 0x45, 0x00]);
                frame.extend((20 + length).to_be_bytes());
                // Not to be fragmented, as everybody sends TCP.
                frame.extend([0, 0, 0x40, 0, 64, number, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                let sum = checksum(&frame[14..34]).to_be_bytes();
                frame[24..26].copy_from_slice(&sum);
            }
            (source, destination) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([number, 64]);
                for address in [source, destination] {
                    let IpAddr::V6(address) = address else {
                        unreachable!("both are of one family")
                    };
                    frame.extend(address.octets());
                }
            }
        }
        frame.extend(1024_u16.to_be_bytes());
        frame.extend(service_port(0).to_be_bytes());
        match self.protocol {
            Protocol::Tcp => {
                frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, self.flags, 2, 0, 0, 0, 0, 0]);
            }
            Protocol::Udp => {
                frame.extend(length.to_be_bytes());
                frame.extend([0, 0]);
            }
        }
        frame.extend(vec![0; usize::from(self.payload)]);
        frame.resize(frame.len().max(60), 0);
        frame
    }

    /// How the wrapper makes such packets.
    pub fn plan(&self, frame: &[u8], flows: u32, services: u32) -> Plan {
        let mut template = [0; 64];
        let length = frame.len().min(template.len());
        template[..length].copy_from_slice(&frame[..length]);
        Plan {
            template,
            made: 0,
            length: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            flows,
            services,
            is_ipv6: u32::from(self.destination.is_ipv6()),
            is_cut: 0,
            reserved: 0,
            start: 0,
            place: 0,
        }
    }
}

/// Internet checksum (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header
        .chunks_exact(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
