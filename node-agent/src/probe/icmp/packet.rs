//! Echo requests and replies as octets (RFC 792, RFC 4443 section 4).

/// Octets before the data.
const HEADER: usize = 8;

/// Which of the two protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// ICMP.
    V4,
    /// ICMPv6.
    V6,
}

/// An echo, there or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Whose it is on a host.
    pub identifier: u16,
    /// Which one of its.
    pub sequence: u16,
}

impl Family {
    /// The types of a request and of its reply.
    const fn types(self) -> (u8, u8) {
        match self {
            Self::V4 => (8, 0),
            Self::V6 => (128, 129),
        }
    }
}

impl Echo {
    /// The request with so many octets of data, which nobody else can know.
    #[must_use]
    pub fn request(self, family: Family, size: u16, token: u64) -> Vec<u8> {
        let mut packet = vec![0; HEADER + usize::from(size)];
        packet[0] = family.types().0;
        packet[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        packet[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        let data = token.to_be_bytes().into_iter().cycle();
        packet[HEADER..]
            .iter_mut()
            .zip(data)
            .for_each(|(at, octet)| *at = octet);
        if family == Family::V4 {
            // The kernel does that for ICMPv6, whose sum is over addresses too.
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    }

    /// The echo that a reply is of, and its data.
    #[must_use]
    pub fn of_reply(family: Family, packet: &[u8]) -> Option<(Self, &[u8])> {
        // Raw sockets of IPv4 get the IP header, too.
        let packet = match (family, packet.first()?) {
            (Family::V4, first @ 0x45..=0x4f) => packet.get(usize::from(first & 0xf) * 4..)?,
            _ => packet,
        };
        if family == Family::V4 && checksum(packet) != 0 {
            return None;
        }
        Self::read(packet, family.types().1)
    }

    /// The echo that a request of ours is of, which comes back in an ICMP error and
    /// may be cut.
    #[must_use]
    pub fn of_request(family: Family, packet: &[u8]) -> Option<Self> {
        Self::read(packet, family.types().0).map(|(echo, _)| echo)
    }

    fn read(packet: &[u8], wanted: u8) -> Option<(Self, &[u8])> {
        let (header, data) = packet.split_first_chunk::<HEADER>()?;
        let [kind, 0, _, _, i, j, s, t] = *header else {
            return None;
        };
        let echo = Self {
            identifier: u16::from_be_bytes([i, j]),
            sequence: u16::from_be_bytes([s, t]),
        };
        (kind == wanted).then_some((echo, data))
    }
}

/// Whether data is what a request of that size and token had.
#[must_use]
pub fn is_data(data: &[u8], size: u16, token: u64) -> bool {
    let expected = token.to_be_bytes().into_iter().cycle().take(size.into());
    data.iter().copied().eq(expected)
}

/// RFC 1071. That of a packet with its right sum in it is 0.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|word| match *word {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(high) << 8,
        _ => 0,
    });
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: Echo = Echo {
        identifier: 0x1234,
        sequence: 0xfffe,
    };

    /// What a host makes of a request.
    fn reply(family: Family, request: &[u8]) -> Vec<u8> {
        let mut reply = request.to_vec();
        reply[0] = family.types().1;
        reply[2..4].fill(0);
        if family == Family::V4 {
            let sum = checksum(&reply);
            reply[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        reply
    }

    #[test]
    fn a_reply_is_known_by_its_echo_and_its_data() {
        for (family, size) in [(Family::V4, 56), (Family::V4, 0), (Family::V6, 13)] {
            let request = ECHO.request(family, size, 7);
            assert_eq!(Echo::of_request(family, &request), Some(ECHO));
            assert_eq!(Echo::of_reply(family, &request), None, "it is our own");
            let reply = reply(family, &request);
            let (echo, data) = Echo::of_reply(family, &reply).expect("a good reply");
            assert_eq!(echo, ECHO, "{family:?}, {size} octets");
            assert!(is_data(data, size, 7));
            assert!(size == 0 || !is_data(data, size, 8), "another token");
            assert!(!is_data(data, size + 1, 7), "a shorter reply");
        }
    }

    #[test]
    fn with_an_ip_header_before_it_or_without_it_is_the_same_reply() {
        let reply = reply(Family::V4, &ECHO.request(Family::V4, 4, 7));
        for length in [5_u8, 6, 15] {
            let mut packet = vec![0; usize::from(length) * 4];
            packet[0] = 0x40 | length;
            packet.extend(&reply);
            let echo = Echo::of_reply(Family::V4, &packet).map(|(echo, _)| echo);
            assert_eq!(echo, Some(ECHO), "{length} words");
        }
    }

    #[test]
    fn what_is_cut_or_spoilt_is_no_reply() {
        for family in [Family::V4, Family::V6] {
            let good = reply(family, &ECHO.request(family, 2, 7));
            for length in 0..HEADER {
                assert_eq!(Echo::of_reply(family, &good[..length]), None);
            }
            let mut spoilt = good.clone();
            spoilt[1] = 1;
            assert_eq!(Echo::of_reply(family, &spoilt), None, "another code");
        }
        let mut spoilt = reply(Family::V4, &ECHO.request(Family::V4, 3, 7));
        spoilt[9] ^= 1;
        assert_eq!(
            Echo::of_reply(Family::V4, &spoilt),
            None,
            "its sum is wrong"
        );
        assert_eq!(
            Echo::of_reply(Family::V4, &[0x4f, 0, 0]),
            None,
            "half an IP header"
        );
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        assert_eq!(checksum(&[0xff]), 0x00ff);
    }
}
