//! A frame's headers in words, for people who ask what became of a packet.
//! Knows what the balancer handles; of anything else it names the number.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Most headers of one frame that are described: tunnels in tunnels end here.
const MOST: usize = 8;

/// One line for each header, outermost first. `gue` is the UDP destination port
/// behind which another packet follows.
#[must_use]
pub fn lines(frame: &[u8], gue: Option<u16>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = ethernet(frame, &mut lines);
    while let Some((kind, bytes)) = rest
        && lines.len() < MOST
    {
        rest = match kind {
            Kind::Ipv4 => ipv4(bytes, &mut lines),
            Kind::Ipv6 => ipv6(bytes, &mut lines),
            Kind::Transport(protocol) => transport(protocol, bytes, gue, &mut lines),
        };
    }
    lines
}

/// All of it in one line, without the Ethernet header.
#[must_use]
pub fn line(frame: &[u8], gue: Option<u16>) -> String {
    let lines = lines(frame, gue);
    match lines.len() {
        0 => "no Ethernet frame".to_owned(),
        1 => lines.concat(),
        _ => lines[1..].join(", "),
    }
}

/// A MAC address as usual.
#[must_use]
pub fn mac(bytes: &[u8]) -> String {
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

enum Kind {
    Ipv4,
    Ipv6,
    Transport(u8),
}

type Rest<'a> = Option<(Kind, &'a [u8])>;

fn ethernet<'a>(frame: &'a [u8], lines: &mut Vec<String>) -> Rest<'a> {
    let (addresses, mut rest) = frame.split_at_checked(12)?;
    let (to, from) = addresses.split_at(6);
    let mut line = format!("Ethernet {} > {}", mac(from), mac(to));
    loop {
        let kind = word(rest, 0)?;
        if let 0x8100 | 0x88a8 = kind {
            let _ = write!(line, ", VLAN {}", word(rest, 2)? & 0xfff);
            rest = &rest[4..];
            continue;
        }
        let next = match kind {
            0x0800 => Some(Kind::Ipv4),
            0x86dd => Some(Kind::Ipv6),
            _ => {
                let _ = write!(line, ", type {kind:#06x}");
                None
            }
        };
        lines.push(line);
        return next.map(|kind| (kind, &rest[2..]));
    }
}

fn ipv4<'a>(bytes: &'a [u8], lines: &mut Vec<String>) -> Rest<'a> {
    let header = bytes.first_chunk::<20>()?;
    let address = |at: usize| {
        let mut octets = [0; 4];
        octets.copy_from_slice(&header[at..at + 4]);
        IpAddr::V4(Ipv4Addr::from(octets))
    };
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    let mut line = ip(address(12), address(16), header[1], header[8], "TTL");
    if fragment & 0x4000 != 0 {
        line.push_str(", DF");
    }
    if fragment & 0x3fff != 0 {
        let _ = write!(line, ", fragment at {}", (fragment & 0x1fff) * 8);
    }
    lines.push(line);
    let rest = bytes.get(usize::from(header[0] & 0x0f) * 4..)?;
    (fragment & 0x1fff == 0).then_some((Kind::Transport(header[9]), rest))
}

fn ipv6<'a>(bytes: &'a [u8], lines: &mut Vec<String>) -> Rest<'a> {
    let (header, rest) = bytes.split_first_chunk::<40>()?;
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let class = header[0] << 4 | header[1] >> 4;
    lines.push(ip(address(8), address(24), class, header[7], "hop limit"));
    Some((Kind::Transport(header[6]), rest))
}

fn ip(source: IpAddr, destination: IpAddr, tos: u8, hops: u8, name: &str) -> String {
    let version = if source.is_ipv4() { 4 } else { 6 };
    let mut line = format!("IPv{version} {source} > {destination}, {name} {hops}");
    if tos != 0 {
        let _ = write!(line, ", TOS {tos:#04x}");
    }
    line
}

fn transport<'a>(
    protocol: u8,
    bytes: &'a [u8],
    gue: Option<u16>,
    lines: &mut Vec<String>,
) -> Rest<'a> {
    let name = match protocol {
        // RFC 2003, RFC 2473: the packet inside follows at once.
        4 => return Some((Kind::Ipv4, bytes)),
        41 => return Some((Kind::Ipv6, bytes)),
        6 => "TCP",
        17 => "UDP",
        1 | 58 => {
            if let [kind, code, ..] = bytes {
                lines.push(format!("ICMP type {kind}, code {code}"));
            }
            return None;
        }
        _ => {
            lines.push(format!("protocol {protocol}"));
            return None;
        }
    };
    let (source, destination) = (word(bytes, 0)?, word(bytes, 2)?);
    let mut line = format!("{name} {source} > {destination}");
    if protocol == 6
        && let Some(flags) = bytes.get(13)
    {
        let _ = write!(line, " [{}]", tcp_flags(*flags));
    }
    lines.push(line);
    let inside = bytes
        .get(8..)
        .filter(|_| protocol == 17 && gue == Some(destination))?;
    // GUE variant 1: the first half byte is that of an IP header.
    match inside.first()? >> 4 {
        4 => Some((Kind::Ipv4, inside)),
        6 => Some((Kind::Ipv6, inside)),
        _ => None,
    }
}

fn tcp_flags(flags: u8) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
    let set = names
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags >> bit & 1 == 1);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    }

    const LINK: &str = "020000000011 020000000001";
    const TCP4: &str =
        "45b80028000000003f06ffff cb007107 c633640a 9c400050 0000000000000000 5010 0000 00000000";

    #[test]
    fn headers_are_named_from_the_outside_in() {
        #[track_caller]
        fn check(hex: &str, expected: &[&str]) {
            assert_eq!(lines(&bytes(hex), Some(6080)), expected, "{hex}");
        }
        let link = "Ethernet 02:00:00:00:00:01 > 02:00:00:00:00:11";
        let inner = [
            "IPv4 203.0.113.7 > 198.51.100.10, TTL 63, TOS 0xb8",
            "TCP 40000 > 80 [ACK]",
        ];
        check(&format!("{LINK} 0800 {TCP4}"), &[link, inner[0], inner[1]]);
        check(
            &format!("{LINK} 8100 0064 0800 {TCP4}"),
            &[
                "Ethernet 02:00:00:00:00:01 > 02:00:00:00:00:11, VLAN 100",
                inner[0],
                inner[1],
            ],
        );
        check(
            &format!("{LINK} 0800 4500003c000040004004ffff c000020b c0000215 {TCP4}"),
            &[
                link,
                "IPv4 192.0.2.11 > 192.0.2.21, TTL 64, DF",
                inner[0],
                inner[1],
            ],
        );
        check(
            &format!(
                "{LINK} 0800 45000044000040004011ffff c000020b c0000215 c123 17c0 0030 0000 {TCP4}"
            ),
            &[
                link,
                "IPv4 192.0.2.11 > 192.0.2.21, TTL 64, DF",
                "UDP 49443 > 6080",
                inner[0],
                inner[1],
            ],
        );
        check(
            &format!(
                "{LINK} 86dd 60000000 0028 04 40 20010db8000100000000000000000011 20010db8000100000000000000000021 {TCP4}"
            ),
            &[
                link,
                "IPv6 2001:db8:1::11 > 2001:db8:1::21, hop limit 64",
                inner[0],
                inner[1],
            ],
        );
        check(
            &format!("{LINK} 0806 0001"),
            &["Ethernet 02:00:00:00:00:01 > 02:00:00:00:00:11, type 0x0806"],
        );
        check("0102", &[]);
    }

    #[test]
    fn a_frame_cut_anywhere_is_described_as_far_as_it_goes() {
        let whole = bytes(&format!(
            "{LINK} 8100 0064 86dd 60000000 0028 04 40 20010db8000100000000000000000011 20010db8000100000000000000000021 {TCP4}"
        ));
        for length in 0..whole.len() {
            let found = lines(&whole[..length], None);
            assert!(found.len() <= 4, "{length} bytes: {found:?}");
        }
    }
}
