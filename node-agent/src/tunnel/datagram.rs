//! Datagrams and echoes of our own, each with the IP header it is sent with.

use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice};

use super::{endpoint::Flow, packet::ip};

/// A UDP datagram of an exchange. `None` if there is none so long.
#[must_use]
pub fn udp(flow: &Flow, payload: &[u8]) -> Option<Vec<u8>> {
    let (ours, theirs) = (flow.ours(), flow.theirs());
    let mut packet = Vec::new();
    let built = ip(ours.ip(), theirs.ip())?
        .udp(ours.port(), theirs.port())
        .write(&mut packet, payload);
    built.ok().map(|()| packet)
}

/// What an echo request of an exchange is, with this data.
#[must_use]
pub fn echo(flow: &Flow, data: &[u8]) -> Option<Vec<u8>> {
    let (ours, theirs) = (flow.ours(), flow.theirs());
    let ip = ip(ours.ip(), theirs.ip())?;
    let mut packet = Vec::new();
    let built = if ours.is_ipv4() {
        ip.icmpv4_echo_request(ours.port(), 0)
            .write(&mut packet, data)
    } else {
        ip.icmpv6_echo_request(ours.port(), 0)
            .write(&mut packet, data)
    };
    built.ok().map(|()| packet)
}

/// What a packet has for us: the payload of a datagram, the data of an echo reply.
#[must_use]
pub fn payload(packet: &[u8]) -> Option<&[u8]> {
    match SlicedPacket::from_ip(packet).ok()?.transport? {
        TransportSlice::Udp(udp) => Some(udp.payload()),
        TransportSlice::Icmpv4(icmp) => {
            matches!(icmp.icmp_type(), Icmpv4Type::EchoReply(_)).then(|| icmp.payload())
        }
        TransportSlice::Icmpv6(icmp) => {
            matches!(icmp.icmp_type(), Icmpv6Type::EchoReply(_)).then(|| icmp.payload())
        }
        TransportSlice::Tcp(_) | TransportSlice::Igmp(_) => None,
    }
}
