//! A flood: TCP packets over IPv6 from as many sources as there are packets,
//! to see what an attack does to others.

use std::{
    io::IoSlice,
    net::{Ipv6Addr, SocketAddrV6},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use rustix::net::{
    AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, connect,
    ipproto, sendmmsg, socket_with,
};

use crate::host::Host;

/// Sources of a flood are 2001:db8:f::/48, at random.
const SOURCES: [u8; 6] = [0x20, 0x01, 0x0d, 0xb8, 0x00, 0x0f];
/// Packets handed over in one go.
const BATCH: usize = 64;
/// A pause comes after so many packets, and lasts as long as the pace wants.
const BURST: u64 = 1024;

const IP_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
type Packet = [u8; IP_HEADER + TCP_HEADER];

const ACK: u8 = 0x10;
const SYN: u8 = 0x02;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Where to.
    pub target: (Ipv6Addr, u16),
    /// SYNs, and as many stray ACKs, in turn.
    pub of_each: u64,
    /// At most so many packets a second.
    pub pace: u64,
    /// Where the random sources begin.
    pub seed: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Packets, of both kinds.
    pub sent: u64,
    /// How long it took.
    pub took: Duration,
}

/// The route that covers the sources of a flood.
pub fn flood_sources() -> String {
    let [a, b, c, d, e, f] = SOURCES;
    let prefix = [(a, b), (c, d), (e, f)].map(|(high, low)| u16::from_be_bytes([high, low]));
    let [a, b, c] = prefix;
    format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
}

/// Sends it all from `host`, by the host's routes.
pub fn flood(host: &Host, flood: Flood) -> Result<Flooded> {
    host.enter(|| send(flood))
        .with_context(|| format!("flood {:?} from {}", flood.target, host.name()))
}

fn send(flood: Flood) -> Result<Flooded> {
    // With this protocol the header comes from here (ipv6(7), raw(7)).
    let socket = socket_with(
        AddressFamily::INET6,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::RAW),
    )
    .context("open a raw socket")?;
    // So that the kernel looks for a route once.
    connect(&socket, &SocketAddrV6::new(flood.target.0, 0, 0, 0)).context("connect")?;
    let mut random = Rng::with_seed(flood.seed);
    let mut packets = [template(flood.target); BATCH];
    let total = 2 * flood.of_each;
    let start = Instant::now();
    let mut sent = 0;
    while sent < total {
        for (index, packet) in packets.iter_mut().enumerate() {
            fill(packet, if index % 2 == 0 { SYN } else { ACK }, &mut random);
        }
        let slices = packets.each_ref().map(|packet| [IoSlice::new(packet)]);
        let mut controls = [(); BATCH].map(|()| SendAncillaryBuffer::default());
        let mut messages: Vec<_> = slices
            .iter()
            .zip(&mut controls)
            .map(|(slice, control)| MMsgHdr::new(slice, control))
            .collect();
        let mut left = &mut messages[..];
        while !left.is_empty() {
            let done = sendmmsg(&socket, left, SendFlags::empty()).context("send")?;
            left = &mut left[done..];
        }
        sent += BATCH as u64;
        if sent.is_multiple_of(BURST) {
            let due = Duration::from_secs_f64(sent as f64 / flood.pace as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    Ok(Flooded {
        sent,
        took: start.elapsed(),
    })
}

/// A TCP header in an IPv6 header (RFC 8200, RFC 9293), but for what differs.
fn template((address, port): (Ipv6Addr, u16)) -> Packet {
    let mut packet = [0; IP_HEADER + TCP_HEADER];
    packet[0] = 0x60;
    packet[5] = TCP_HEADER as u8;
    packet[6] = 6;
    packet[7] = 64;
    packet[24..40].copy_from_slice(&address.octets());
    packet[42..44].copy_from_slice(&port.to_be_bytes());
    packet[52] = ((TCP_HEADER / 4) << 4) as u8;
    packet[54..56].copy_from_slice(&u16::MAX.to_be_bytes());
    packet
}

/// A random source, port and numbers, these flags, and the checksum.
fn fill(packet: &mut Packet, flags: u8, random: &mut Rng) {
    packet[8..14].copy_from_slice(&SOURCES);
    random.fill(&mut packet[14..24]);
    packet[40..42].copy_from_slice(&random.u16(1024..).to_be_bytes());
    random.fill(&mut packet[44..48]);
    let acknowledged = if flags & ACK == 0 { 0 } else { random.u32(..) };
    packet[48..52].copy_from_slice(&acknowledged.to_be_bytes());
    packet[53] = flags;
    packet[56..58].fill(0);
    let checksum = checksum(packet);
    packet[56..58].copy_from_slice(&checksum.to_be_bytes());
}

/// Of the TCP header and its pseudo-header (RFC 8200, section 8.1).
fn checksum(packet: &Packet) -> u16 {
    let words = packet[8..].chunks_exact(2);
    let sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let mut sum = sum + TCP_HEADER as u32 + 6;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_differ_and_are_whole() {
        let mut random = Rng::with_seed(1);
        let mut packets = [template(([0x20, 1, 0xd, 0xb8, 0, 0, 0, 1].into(), 80)); 2];
        for packet in &mut packets {
            fill(packet, SYN, &mut random);
            // With the checksum in it the sum of all is its own zero.
            assert_eq!(checksum(packet), 0, "{packet:x?}");
        }
        assert_ne!(packets[0][8..24], packets[1][8..24], "the sources differ");
        assert_eq!(flood_sources(), "2001:db8:f::/48");
    }
}
