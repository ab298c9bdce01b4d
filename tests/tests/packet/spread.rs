//! How flows spread over backends, and what a change moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
};

use vipd::netlink::way::Ways;
use vipd_abi::Verdict;
use vipd_control::model::{Mode, Protocol};

use crate::{
    bench::{Bench, INGRESS, address, service, way},
    frames::{Payload, checksum, tcp},
};

const VIP: &str = "198.51.100.10";
const FLOWS: u16 = 2000;

fn backends(weights: &[u16]) -> Vec<(String, u16)> {
    (21..)
        .zip(weights)
        .map(|(n, w)| (format!("192.0.2.{n}"), *w))
        .collect()
}

fn web(weights: &[u16]) -> std::sync::Arc<vipd_control::model::Service> {
    let backends = backends(weights);
    let backends: Vec<_> = backends.iter().map(|(a, w)| (a.as_str(), *w)).collect();
    service("web", VIP, Protocol::Tcp, Mode::Ipip, &backends)
}

fn ways() -> Ways {
    let all = backends(&[1; 8]).into_iter();
    all.map(|(a, _)| (address(&a), way(INGRESS, "192.0.2.11")))
        .collect()
}

/// Which backend each of many flows goes to, read from the outer header.
fn flows(bench: &mut Bench) -> BTreeMap<u16, IpAddr> {
    (0..FLOWS)
        .map(|n| {
            let port = 10_000 + n;
            let packet = tcp("203.0.113.7", VIP).with(|p| {
                p.payload = Payload::Tcp {
                    ports: (port, 80),
                    data: Vec::new(),
                }
            });
            let outcome = bench.run(&packet.frame());
            assert_eq!(outcome.verdict, Verdict::Forwarded, "port {port}");
            let outer: [u8; 4] = outcome.frame[30..34].try_into().expect("four bytes");
            (port, IpAddr::from(outer))
        })
        .collect()
}

fn shares(flows: &BTreeMap<u16, IpAddr>) -> BTreeMap<IpAddr, usize> {
    let mut shares = BTreeMap::new();
    for backend in flows.values() {
        *shares.entry(*backend).or_default() += 1;
    }
    shares
}

#[test]
fn flows_spread_by_weight() {
    for weights in [&[1, 1, 1, 1][..], &[1, 3], &[5, 1, 2]] {
        let mut bench = Bench::new(vec![web(weights)], &ways(), |_| true);
        let shares = shares(&flows(&mut bench));
        let total: u16 = weights.iter().sum();
        for (backend, weight) in backends(weights) {
            let fair = f64::from(FLOWS) * f64::from(weight) / f64::from(total);
            let share = shares[&address(&backend)] as f64;
            // Five standard deviations of a fair coin with as many sides.
            let bound = 5.0 * fair.sqrt();
            assert!((share - fair).abs() < bound, "{weights:?}: {shares:?}");
        }
    }
}

#[test]
fn a_death_moves_only_the_flows_of_the_dead_and_a_return_brings_them_back() {
    let service = web(&[1, 1, 1, 1]);
    let dead = address("192.0.2.22");
    let mut bench = Bench::new(vec![service.clone()], &ways(), |_| true);
    let before = flows(&mut bench);
    bench.apply(vec![service.clone()], &ways(), |backend| backend != dead);
    let during = flows(&mut bench);
    for (port, backend) in &before {
        let now = during[port];
        if *backend == dead {
            assert_ne!(now, dead, "port {port} still goes to the dead");
        } else {
            assert_eq!(now, *backend, "port {port} was moved needlessly");
        }
    }
    let heirs = shares(&during);
    assert_eq!(heirs.len(), 3, "all others inherit: {heirs:?}");
    bench.apply(vec![service], &ways(), |_| true);
    assert_eq!(flows(&mut bench), before, "the return restores every flow");
}

#[test]
fn when_nobody_is_left_the_last_ring_stays() {
    let service = web(&[1, 1]);
    let mut bench = Bench::new(vec![service.clone()], &ways(), |_| true);
    let before = flows(&mut bench);
    bench.apply(vec![service], &ways(), |_| false);
    assert_eq!(flows(&mut bench), before);
    assert_eq!(bench.applied.vips.len(), 0, "and nothing is acknowledged");
}

#[test]
fn a_gateways_new_address_changes_frames_and_moves_no_flow() {
    let service = web(&[1, 1]);
    let mut bench = Bench::new(vec![service.clone()], &ways(), |_| true);
    let before = flows(&mut bench);
    let mut new_ways = ways();
    for way in new_ways.values_mut() {
        way.mac = [2, 0, 0, 0, 9, 9];
    }
    bench.apply(vec![service], &new_ways, |_| true);
    let outcome = bench.run(&tcp("203.0.113.7", VIP).frame());
    assert_eq!(outcome.frame[..6], [2, 0, 0, 0, 9, 9]);
    assert_eq!(flows(&mut bench), before);
}

#[test]
fn a_removed_service_is_forgotten_and_its_room_is_used_again() {
    let mut bench = Bench::new(vec![web(&[1, 1])], &ways(), |_| true);
    for round in 0..20 {
        bench.apply(Vec::new(), &ways(), |_| true);
        let gone = bench.run(&tcp("203.0.113.7", VIP).frame());
        assert_eq!(gone.verdict, Verdict::NotVip, "round {round}");
        bench.apply(vec![web(&[1, 1])], &ways(), |_| true);
        let back = bench.run(&tcp("203.0.113.7", VIP).frame());
        assert_eq!(back.verdict, Verdict::Forwarded, "round {round}");
    }
    for usage in &bench.applied.usage {
        assert!(usage.used <= 4096, "something leaks: {usage:?}");
    }
}

#[test]
fn a_service_that_finds_no_room_keeps_what_it_had_and_gets_it_later() {
    let large = |name: &str, vip: &str, size: u32| {
        let service = service(name, vip, Protocol::Tcp, Mode::Ipip, &[("192.0.2.21", 1)]);
        let mut service = vipd_control::model::Service::clone(&service);
        service.ring_size = size;
        std::sync::Arc::new(service)
    };
    // All but a part of the room, in as large rings as there are.
    let most = vipd_abi::RING_SLOTS >> 20;
    let fillers =
        || (1..most).map(|n| large(&format!("s{n}"), &format!("198.51.100.{n}"), 1 << 20));
    let with_web = |size| {
        let mut services: Vec<_> = fillers().collect();
        services.push(large("web", VIP, size));
        services
    };
    let mut bench = Bench::new(with_web(4096), &ways(), |_| true);
    let frame = tcp("203.0.113.7", VIP).frame();
    assert_eq!(bench.run(&frame).verdict, Verdict::Forwarded);

    bench.try_apply(with_web(1 << 20), &ways(), |_| true);
    assert!(
        bench.applied.faults.contains_key("service web"),
        "{:#?}",
        bench.applied
    );
    assert!(
        !bench.applied.vips.contains_key(&address(VIP).into()),
        "not acknowledged"
    );
    assert!(bench.applied.retry_at.is_some(), "tried again by itself");
    assert_eq!(
        bench.run(&frame).verdict,
        Verdict::Forwarded,
        "still served"
    );

    let fewer: Vec<_> = with_web(1 << 20).split_off(1);
    bench.try_apply(fewer.clone(), &ways(), |_| true);
    std::thread::sleep(std::time::Duration::from_millis(200));
    bench.try_apply(fewer.clone(), &ways(), |_| true);
    std::thread::sleep(std::time::Duration::from_millis(200));
    bench.apply(fewer, &ways(), |_| true);
    assert!(
        bench.applied.faults.is_empty(),
        "{:#?}",
        bench.applied.faults
    );
    assert!(
        bench.applied.vips.contains_key(&address(VIP).into()),
        "acknowledged"
    );
    assert_eq!(bench.run(&frame).verdict, Verdict::Forwarded);
}

#[test]
fn tunnels_spread_by_source_port_by_flow_label_and_by_the_prefix_of_their_source() {
    let gue = Mode::Gue(NonZeroU16::new(6080).expect("not zero"));
    let (v4, v6) = ("192.0.2.21", "2001:db8:1::21");
    let ways = Ways::from([v4, v6].map(|a| (address(a), way(INGRESS, "192.0.2.11"))));
    // The first of what varies and the number of its bits.
    for (mode, backend, at, free) in [
        (Mode::Ipip, v4, 26, 4),
        (gue, v4, 26, 4),
        (Mode::Ipip, v6, 34, 32),
        (gue, v6, 34, 32),
    ] {
        let service = service("web", VIP, Protocol::Tcp, mode, &[(backend, 1)]);
        let mut bench = Bench::new(vec![service.clone()], &ways, |_| true);
        let mut settings = crate::bench::settings();
        settings.sources.ipv4 = Some("203.0.113.48/28".parse().expect("a prefix"));
        settings.sources.ipv6 = Some("2001:db8:f::/64".parse().expect("a prefix"));
        bench.applier.configure(settings);
        bench.apply(vec![service], &ways, |_| true);
        let (mut sources, mut ports) = (BTreeSet::new(), BTreeSet::new());
        let mut labels = BTreeSet::new();
        for port in 10_000..10_100 {
            let packet = tcp("203.0.113.7", VIP).with(|p| {
                p.payload = Payload::Tcp {
                    ports: (port, 80),
                    data: Vec::new(),
                }
            });
            let outcome = bench.run(&packet.frame());
            assert_eq!(outcome.verdict, Verdict::Forwarded, "{mode:?} {backend}");
            let frame = &outcome.frame;
            if backend == v4 {
                assert_eq!(checksum(&frame[14..34]), 0, "{mode:?} {frame:02x?}");
            }
            let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four"));
            let fixed = u64::from(word(at)) >> free << free;
            let expected = if backend == v4 { 0xcb00_7130 } else { 0 };
            assert_eq!(fixed, expected, "{mode:?} {frame:02x?}");
            sources.insert(word(at));
            labels.insert(word(14));
            let udp = if backend == v4 { 34 } else { 54 };
            ports.insert(word(udp) >> 16);
            if mode == gue {
                assert_eq!(word(udp) & 0xffff, 6080, "{frame:02x?}");
            }
        }
        let enough = if free == 4 { 12 } else { 90 };
        assert!(sources.len() >= enough, "{mode:?} {backend}: {sources:x?}");
        // Of IPv4, which has no flow label.
        let spread = backend == v4 || labels.len() >= 90;
        assert!(spread, "{mode:?} {backend}: {labels:x?}");
        if mode == gue {
            assert!(ports.len() >= 90, "{backend}: {ports:x?}");
        }
    }
}
