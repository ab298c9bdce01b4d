//! Packets that find out who answers: an ICMP echo, or the SYN of a connection
//! that is never made, which any TCP answers. Each carries a number, and its
//! answer shows it again.

use std::net::IpAddr;

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket,
    TransportSlice,
};

use super::ports::FIRST;

/// Octets of the headers before the payload of an echo or a SYN, without IP.
const ECHO: usize = 8;
const SYN: usize = 20;
const TTL: u8 = 64;

/// What all packets of one inquiry have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Identifier of echoes (RFC 792), source port of SYNs.
    pub id: u16,
}

/// What is asked of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// An echo.
    Echo,
    /// To be connected to this port.
    Syn(u16),
}

/// An answer to one of our packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answers.
    pub from: IpAddr,
    /// The address that was answered.
    pub to: IpAddr,
    /// The number of the packet that is answered.
    pub number: u32,
    /// The connection that waits at the other side: its port, and the sequence
    /// number that a reset of it wants.
    pub half_open: Option<(u16, u32)>,
}

impl Mark {
    /// Any one, unlike those of others as far as chance has it.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each one is another")]
    pub fn new() -> Self {
        Self {
            id: fastrand::u16(FIRST..),
        }
    }

    /// A packet with this number, of this length as far as it can be so short.
    /// `None` when the addresses are of two families.
    #[must_use]
    pub fn packet(
        self,
        ask: Ask,
        source: IpAddr,
        destination: IpAddr,
        number: u32,
        length: u32,
    ) -> Option<Vec<u8>> {
        let ip = ip(source, destination)?;
        let ip_length = if source.is_ipv4() { 20 } else { 40 };
        let room = (length as usize).saturating_sub(ip_length);
        let mut packet = Vec::with_capacity(length as usize);
        let built = match ask {
            Ask::Echo => {
                let mut payload = vec![0; room.saturating_sub(ECHO).max(4)];
                payload[..4].copy_from_slice(&number.to_be_bytes());
                if source.is_ipv4() {
                    ip.icmpv4_echo_request(self.id, 0)
                        .write(&mut packet, &payload)
                } else {
                    ip.icmpv6_echo_request(self.id, 0)
                        .write(&mut packet, &payload)
                }
            }
            Ask::Syn(port) => {
                let payload = vec![0; room.saturating_sub(SYN)];
                // An answer counts on from here by at most what was sent.
                ip.tcp(self.id, port, number << SHIFT, u16::MAX)
                    .syn()
                    .write(&mut packet, &payload)
            }
        };
        built.ok()?;
        Some(packet)
    }

    /// The end of a connection that we have half opened.
    #[must_use]
    pub fn reset(self, answer: &Answer) -> Option<Vec<u8>> {
        let (port, sequence) = answer.half_open?;
        let mut packet = Vec::new();
        ip(answer.to, answer.from)?
            .tcp(self.id, port, sequence, 0)
            .rst()
            .write(&mut packet, &[])
            .ok()?;
        Some(packet)
    }

    /// Reads what has come. `None` if it is no answer to one of ours.
    #[must_use]
    pub fn read(self, packet: &[u8]) -> Option<Answer> {
        let sliced = SlicedPacket::from_ip(packet).ok()?;
        let (from, to) = match sliced.net.as_ref()? {
            NetSlice::Ipv4(ip) => (
                IpAddr::V4(ip.header().source_addr()),
                IpAddr::V4(ip.header().destination_addr()),
            ),
            NetSlice::Ipv6(ip) => (
                IpAddr::V6(ip.header().source_addr()),
                IpAddr::V6(ip.header().destination_addr()),
            ),
            NetSlice::Arp(_) => return None,
        };
        let echoed = |id: u16, payload: &[u8]| {
            let number = u32::from_be_bytes(*payload.first_chunk()?);
            (id == self.id).then_some((number, None))
        };
        let (number, half_open) = match sliced.transport.as_ref()? {
            TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
                Icmpv4Type::EchoReply(echo) => echoed(echo.id, icmp.payload())?,
                _ => return None,
            },
            TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
                Icmpv6Type::EchoReply(echo) => echoed(echo.id, icmp.payload())?,
                _ => return None,
            },
            TransportSlice::Tcp(tcp) if tcp.destination_port() == self.id && tcp.ack() => {
                let acknowledged = tcp.acknowledgment_number();
                let waits = tcp.syn().then(|| (tcp.source_port(), acknowledged));
                (acknowledged >> SHIFT, waits)
            }
            _ => return None,
        };
        Some(Answer {
            from,
            to,
            number,
            half_open,
        })
    }
}

/// A SYN and its data count by less than two to this power.
const SHIFT: u32 = 12;

/// So many packets can be told from each other.
pub const NUMBERS: u32 = 1 << (u32::BITS - SHIFT);

/// The header of a packet. `None` when the addresses are of two families.
pub(super) fn ip(source: IpAddr, destination: IpAddr) -> Option<PacketBuilderStep<IpHeaders>> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Some(PacketBuilder::ipv4(
            source.octets(),
            destination.octets(),
            TTL,
        )),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Some(PacketBuilder::ipv6(
            source.octets(),
            destination.octets(),
            TTL,
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { id: 54_321 };

    fn addresses(ipv4: bool) -> (IpAddr, IpAddr) {
        let texts = if ipv4 {
            ["192.0.2.11", "198.51.100.10"]
        } else {
            ["2001:db8:1::11", "2001:db8:100::10"]
        };
        let [ours, theirs] = texts.map(|text| text.parse().unwrap());
        (ours, theirs)
    }

    #[test]
    fn packets_are_as_long_as_they_are_wanted() {
        for ipv4 in [true, false] {
            let (ours, theirs) = addresses(ipv4);
            for (ask, least) in [(Ask::Echo, 12), (Ask::Syn(80), 20)] {
                let least = least + if ipv4 { 20 } else { 40 };
                for (length, expected) in [(0, least), (1500, 1500)] {
                    let packet = MARK.packet(ask, ours, theirs, 7, length).unwrap();
                    assert_eq!(packet.len(), expected, "{ask:?} of {length}");
                    assert_eq!(MARK.read(&packet), None, "it is no answer to itself");
                }
            }
            assert_eq!(
                MARK.packet(Ask::Echo, ours, addresses(!ipv4).1, 7, 0),
                None,
                "two families"
            );
        }
    }

    #[test]
    fn an_answer_shows_the_number_of_what_it_answers() {
        let number = 70_003;
        for ipv4 in [true, false] {
            let (ours, theirs) = addresses(ipv4);
            let answer = Answer {
                from: theirs,
                to: ours,
                number,
                half_open: None,
            };
            let payload = [&number.to_be_bytes()[..], &[0; 1400]].concat();
            let back = || ip(theirs, ours).unwrap();
            let mut echo = Vec::new();
            if ipv4 {
                let reply = back().icmpv4_echo_reply(MARK.id, 0);
                reply.write(&mut echo, &payload).unwrap();
            } else {
                let reply = back().icmpv6_echo_reply(MARK.id, 0);
                reply.write(&mut echo, &payload).unwrap();
            }
            assert_eq!(MARK.read(&echo), Some(answer));
            assert_eq!(Mark { id: 1 }.read(&echo), None, "somebody else's");

            let sequence = number << SHIFT;
            for (sentence, acknowledged, syn) in [
                ("accepted", sequence + 1, true),
                ("refused", sequence + 1, false),
                ("refused with its data", sequence + 1461, false),
            ] {
                let tcp = back().tcp(80, MARK.id, 9, 100).ack(acknowledged);
                let tcp = if syn { tcp.syn() } else { tcp.rst() };
                let mut packet = Vec::new();
                tcp.write(&mut packet, &[]).unwrap();
                let found = MARK.read(&packet).unwrap();
                let half_open = syn.then_some((80, acknowledged));
                assert_eq!(
                    found,
                    Answer {
                        half_open,
                        ..answer
                    },
                    "{sentence}"
                );
                assert_eq!(MARK.reset(&found).is_some(), syn, "{sentence}");
            }
        }
        assert_eq!(MARK.read(&[]), None);
        assert_eq!(MARK.read(&[0x45; 19]), None);
    }
}
