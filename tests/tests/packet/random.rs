//! A million random and mutated packets: whatever comes in, what goes out is
//! whole, and every packet is counted once.

use std::{net::IpAddr, time::Instant};

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use vipd_abi::Verdict;

use crate::{
    bench::{XDP_DROP, XDP_PASS, XDP_TX, address},
    carry::TAGS,
    frames::{BACKEND_MAC, LB_MAC, Packet, Payload, checksum, icmp, tcp, udp},
    world::{
        BACKEND, BACKEND6, CLIENT, CLIENT6, CURRENT, GUE_PORT, LEARNING, LEARNING6, MANY, NARROW,
        PREFIX, PREFIX6, PREVIOUS, RANGES, RANGES6, SOURCE, SOURCE6, VIPS, World,
    },
};

const PACKETS: u32 = 1_000_000;

#[test]
fn a_million_packets_are_each_counted_once_and_nothing_malformed_leaves() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("again with SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new();
    let seeds = seeds();
    let mut out = vec![0; 4096];
    let mut actions = [0_u64; 5];
    let start = Instant::now();
    let mut bytes = 0;
    for n in 0..PACKETS {
        let frame = mutated(&mut random, &seeds);
        bytes += frame.len() as u64;
        let (action, length) = world.run_uncounted(&frame, &mut out);
        actions[action as usize] += 1;
        let out = &out[..length];
        let describe = || format!("SEED={seed}, packet {n}: {frame:02x?} became {out:02x?}");
        match action {
            XDP_PASS => assert!(out == frame, "{}", describe()),
            XDP_DROP => {}
            XDP_TX => {
                if let Err(fault) = whole(&frame, out) {
                    panic!("{fault}: {}", describe());
                }
            }
            _ => panic!("action {action}: {}", describe()),
        }
    }
    let counters = counted(&world);
    let packets: u64 = counters.iter().map(|(_, packets, _)| packets).sum();
    let sum: u64 = counters.iter().map(|(_, _, bytes)| bytes).sum();
    println!("{:?}\n{actions:?}\n{counters:?}", start.elapsed());
    assert_eq!((packets, sum), (PACKETS.into(), bytes), "each counted once");
    let of = |verdict: Verdict| counters[verdict as usize].1;
    assert_eq!(of(Verdict::Inconsistent), 0, "SEED={seed}");
    assert_eq!(of(Verdict::NoHeadroom), 0, "SEED={seed}");
    let met = [
        Verdict::Forwarded,
        Verdict::NotVip,
        Verdict::OtherHost,
        Verdict::NotIp,
        Verdict::UnservedPort,
        Verdict::UnservedProtocol,
        Verdict::EchoAnswered,
        Verdict::TooBigAnswered,
        Verdict::FragmentWithoutFirst,
        Verdict::IcmpUnrelated,
        Verdict::ExtensionHeaders,
        Verdict::SourceRouted,
        Verdict::Malformed,
        Verdict::TtlExpired,
    ];
    for verdict in met {
        assert!(
            of(verdict) > 0,
            "SEED={seed} never met {verdict:?}: {counters:?}"
        );
    }
}

/// Every verdict's label, packets and bytes.
fn counted(world: &World) -> Vec<(&'static str, u64, u64)> {
    let counter = |v: &Verdict| world.tables.counters.sum(*v as u32);
    let all = Verdict::ALL.iter().map(|v| (v, counter(v)));
    all.map(|(v, c)| (v.label(), c.packets, c.bytes)).collect()
}

/// Whole packets of every kind, to be mutated.
fn seeds() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let v4: Vec<_> = VIPS.iter().map(|vip| vip.1).collect();
    let v6: Vec<_> = VIPS
        .iter()
        .map(|vip| vip.2)
        .filter(|v| !v.is_empty())
        .collect();
    for vip in v4.iter().chain(&[MANY, LEARNING, RANGES, PREFIX, NARROW]) {
        let back = tcp(vip, CLIENT).with(|p| {
            p.payload = Payload::Tcp {
                ports: (80, 40000),
                data: Vec::new(),
            };
        });
        let error = [&[3, 1, 0, 0, 0, 0, 0, 0], &back.ip()[..28]].concat();
        let long = |p: &mut Packet| {
            p.payload = Payload::Tcp {
                ports: (40000, 80),
                data: vec![7; 1450],
            };
        };
        packets.extend([
            tcp(CLIENT, vip),
            udp(CLIENT, vip),
            tcp(CLIENT, vip).with(|p| p.options = vec![1; 12]),
            tcp(CLIENT, vip).with(|p| p.options = vec![1, 131, 11, 4, 1, 1, 1, 1, 2, 2, 2, 2]),
            udp(CLIENT, vip).with(|p| (p.fragment, p.may_fragment) = (true, true)),
            udp(CLIENT, vip).with(|p| (p.offset, p.may_fragment) = (2, true)),
            tcp(CLIENT, vip).with(long),
            icmp(CLIENT, vip, &error),
            icmp(CLIENT, vip, &[8, 0, 0, 0, 1, 2, 3, 4]),
        ]);
    }
    for vip in v6.iter().chain(&[LEARNING6, RANGES6, PREFIX6]) {
        let back = tcp(vip, CLIENT6).with(|p| {
            p.payload = Payload::Tcp {
                ports: (80, 40000),
                data: Vec::new(),
            };
        });
        let error = [&[1, 1, 0, 0, 0, 0, 0, 0], &back.ip()[..48]].concat();
        let long = |p: &mut Packet| {
            p.payload = Payload::Udp {
                ports: (40000, 80),
                data: vec![7; 1500],
            };
        };
        packets.extend([
            tcp(CLIENT6, vip),
            udp(CLIENT6, vip),
            tcp(CLIENT6, vip).behind(0, &[60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0]),
            tcp(CLIENT6, vip).behind(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(5)),
            udp(CLIENT6, vip).behind(44, &[17, 0, 0, 1, 0, 0, 0, 0]),
            udp(CLIENT6, vip).behind(44, &[17, 0, 0, 9, 0, 0, 0, 0]),
            udp(CLIENT6, vip).with(long),
            icmp(CLIENT6, vip, &error),
            icmp(CLIENT6, vip, &[128, 0, 0, 0, 1, 2, 3, 4]),
        ]);
    }
    packets.extend([tcp(CLIENT, SOURCE), tcp(CLIENT6, SOURCE6)]);
    let tagged = |packet: &Packet| TAGS.map(|tags| packet.tagged(tags));
    packets.iter().flat_map(tagged).collect()
}

/// One of them as it is, with some bytes changed, cut, lengthened, or only the
/// start of one with noise behind.
fn mutated(random: &mut fastrand::Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = seeds[random.usize(..seeds.len())].clone();
    if random.u8(..8) == 0 {
        // Another flow, with the IPv4 checksum left wrong: nobody looks at it.
        let at = random.usize(26..frame.len().min(40));
        frame[at] = random.u8(..);
    }
    match random.u8(..8) {
        0 => {}
        1..=3 => {
            for _ in 0..=random.u8(..4) {
                let reach = if random.bool() { 80 } else { 200 };
                let at = random.usize(..frame.len().min(reach));
                frame[at] = match random.u8(..3) {
                    0 => frame[at] ^ 1 << random.u8(..8),
                    1 => [0, 1, 4, 6, 17, 43, 44, 50, 58, 59, 60, 64, 127, 128, 255]
                        [random.usize(..15)],
                    _ => random.u8(..),
                };
            }
        }
        4 => {
            let length = random.usize(14..=frame.len());
            frame.truncate(length);
        }
        5 => frame.extend(std::iter::repeat_with(|| random.u8(..)).take(64)),
        6 => {
            let from = random.usize(14..frame.len().min(120));
            frame[from..]
                .iter_mut()
                .for_each(|byte| *byte = random.u8(..));
        }
        _ => {
            let start = random.usize(12..=22).min(frame.len());
            let length = random.usize(start.max(14)..400);
            frame.truncate(start);
            frame.extend(std::iter::repeat_with(|| random.u8(..)).take(length - start));
        }
    }
    frame
}

/// Whether what goes out is a whole packet of those that may go out.
fn whole(frame: &[u8], out: &[u8]) -> Result<(), String> {
    let network = network(out).ok_or("no IP behind the tags")?;
    if out[12..network] != frame[12..network] && out[12..network - 2] != frame[12..network - 2] {
        return Err("other tags".to_owned());
    }
    let (to, from) = (&out[..6], &out[6..12]);
    if from != LB_MAC {
        return Err("not from the balancer".to_owned());
    }
    if to == BACKEND_MAC {
        let carried = outer(&out[network..])
            .and_then(|(ip, is_inside)| forwarded(&frame[network..], ip, is_inside));
        if carried.is_ok() || to != &frame[6..12] {
            return carried;
        }
    }
    if to == &frame[6..12] {
        answer(frame, out, network)
    } else {
        Err("to somebody else".to_owned())
    }
}

fn network(frame: &[u8]) -> Option<usize> {
    (14..=22).step_by(4).find(|at| {
        let kind = frame.get(at - 2..*at);
        kind == Some(&[8, 0]) || kind == Some(&[0x86, 0xdd])
    })
}

/// Takes off the outer header, if it is one of ours; says whether there was.
fn outer(ip: &[u8]) -> Result<(&[u8], bool), String> {
    let packet = SlicedPacket::from_ip(ip);
    let addresses = |source: IpAddr, destination: IpAddr, v4: bool| {
        let many = |a: IpAddr| {
            matches!(a, IpAddr::V4(a) if a.octets()[..3] == [192, 0, 2]
            && (100..116).contains(&a.octets()[3]))
        };
        let (from, to) = if v4 {
            (SOURCE, &[BACKEND][..])
        } else {
            (SOURCE6, &[BACKEND6, CURRENT, PREVIOUS][..])
        };
        let is_one = to.iter().any(|to| address(to) == destination);
        source == address(from) && (is_one || many(destination))
    };
    match ip[0] >> 4 {
        4 if ip[12..16] == [192, 0, 2, 11] => {
            let packet = packet.map_err(|e| e.to_string())?;
            let Some(NetSlice::Ipv4(slice)) = packet.net else {
                return Err("no IPv4".to_owned());
            };
            let header = slice.header();
            if header.ihl() != 5 || checksum(header.slice()) != 0 || !header.dont_fragment() {
                return Err("a wrong outer header".to_owned());
            }
            let (source, destination) = (header.source_addr(), header.destination_addr());
            if !addresses(source.into(), destination.into(), true) {
                return Err("outer addresses".to_owned());
            }
            let length = usize::from(header.total_len());
            inner(header.protocol().0, &ip[20..length])
        }
        6 if ip[8..24] == SOURCE6.parse::<std::net::Ipv6Addr>().expect("one").octets() => {
            let header = etherparse::Ipv6HeaderSlice::from_slice(ip).map_err(|e| e.to_string())?;
            let (source, destination) = (header.source_addr(), header.destination_addr());
            if !addresses(source.into(), destination.into(), false) {
                return Err("outer addresses".to_owned());
            }
            let end = 40 + usize::from(header.payload_length());
            let payload = ip.get(40..end).ok_or("an outer length")?;
            inner(header.next_header().0, payload)
        }
        _ => Ok((ip, false)),
    }
}

fn inner(protocol: u8, payload: &[u8]) -> Result<(&[u8], bool), String> {
    let version = payload.first().map_or(0, |byte| byte >> 4);
    match protocol {
        4 if version == 4 => Ok((payload, true)),
        41 if version == 6 => Ok((payload, true)),
        17 => {
            let udp = etherparse::UdpSlice::from_slice(payload).map_err(|e| e.to_string())?;
            let good = udp.destination_port() == GUE_PORT
                && udp.source_port() >= 0xc000
                && usize::from(udp.length()) == payload.len()
                && udp.checksum() == 0;
            let good = good.then_some((udp.payload(), true));
            good.ok_or("a wrong UDP header".to_owned())
        }
        _ => Err("an outer protocol".to_owned()),
    }
}

/// One hop further and else the same, from the IP header to its end.
fn forwarded(before: &[u8], after: &[u8], is_inside: bool) -> Result<(), String> {
    let mut expected = before.to_vec();
    if before[0] >> 4 == 4 {
        let length = usize::from(u16::from_be_bytes([before[2], before[3]]));
        let header = usize::from(before[0] & 15) * 4;
        expected.truncate(if is_inside { length } else { before.len() });
        expected[8] = hop(expected[8])?;
        // The checksum stays as right or wrong as it was.
        if checksum(&before[..header]) == 0 && checksum(&after[..header]) != 0 {
            return Err("the checksum of the IPv4 header".to_owned());
        }
        expected[10..12].copy_from_slice(&after[10..12]);
    } else {
        let length = 40 + usize::from(u16::from_be_bytes([before[4], before[5]]));
        expected.truncate(if is_inside { length } else { before.len() });
        expected[7] = hop(expected[7])?;
    }
    if after == expected {
        Ok(())
    } else {
        Err("not the packet that came".to_owned())
    }
}

/// What is left of a time to live. A packet with none left is not forwarded.
fn hop(ttl: u8) -> Result<u8, String> {
    ttl.checked_sub(1).ok_or("no hop left".to_owned())
}

/// An echo reply or too big, to whom the frame came from.
fn answer(frame: &[u8], out: &[u8], network: usize) -> Result<(), String> {
    let (before, after) = (&frame[network..], &out[network..]);
    let packet = SlicedPacket::from_ip(after).map_err(|e| e.to_string())?;
    let (swapped, pseudo) = match &packet.net {
        Some(NetSlice::Ipv4(slice)) => {
            let header = slice.header();
            let swapped =
                before[12..16] == header.destination() && before[16..20] == header.source();
            let was_right = checksum(&before[..20]) == 0;
            if checksum(header.slice()) != 0 && (was_right || header.total_len() == 156) {
                return Err("the checksum of the IPv4 header".to_owned());
            }
            (swapped, Vec::new())
        }
        Some(NetSlice::Ipv6(slice)) => {
            let header = slice.header();
            let swapped =
                before[8..24] == header.destination() && before[24..40] == header.source();
            let length = u32::from(header.payload_length()).to_be_bytes();
            let next = [0, 0, 0, 58];
            (swapped, [&after[8..40], &length, &next].concat())
        }
        _ => return Err("no answer".to_owned()),
    };
    if !swapped {
        return Err("the addresses of an answer".to_owned());
    }
    let (message, is_echo) = match &packet.transport {
        Some(TransportSlice::Icmpv4(icmp)) => match icmp.icmp_type() {
            Icmpv4Type::EchoReply(_) => (icmp.slice(), true),
            Icmpv4Type::DestinationUnreachable(_) => (icmp.slice(), false),
            _ => return Err("no answer".to_owned()),
        },
        Some(TransportSlice::Icmpv6(icmp)) => match icmp.icmp_type() {
            Icmpv6Type::EchoReply(_) => (icmp.slice(), true),
            Icmpv6Type::PacketTooBig { .. } => (icmp.slice(), false),
            _ => return Err("no answer".to_owned()),
        },
        _ => return Err("no answer".to_owned()),
    };
    if is_echo {
        // A wrong request has a wrong answer.
        let header = after.len() - before.len();
        return if header == 0 {
            Ok(())
        } else {
            Err("the length of a reply".to_owned())
        };
    }
    if checksum(&[&pseudo[..], message].concat()) != 0 {
        return Err("the checksum of an answer".to_owned());
    }
    if message[8..] != before[..message.len() - 8] {
        return Err("not what came".to_owned());
    }
    Ok(())
}
