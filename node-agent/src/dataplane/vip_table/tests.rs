//! The table on the memory that the program reads, looked up as it does.

use std::{net::IpAddr, num::NonZeroU16};

use ipnet::IpNet;
use vipd_control::model::{Ports, Protocol, Vip};

use super::*;
use crate::dataplane::tables::{service_key, vip_key};

/// What a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    /// The service of this number.
    Service(u32),
    /// An address that is virtual, and no service.
    Unserved,
    /// The kernel.
    NotVip,
}
use Met::{NotVip, Service, Unserved};

/// The entry of a key.
fn find(tables: &Tables, key: &VipKey) -> Option<VipEntry> {
    let half = tables.half();
    let hash = key.hash(tables.heads.load(half).seed);
    let seed = tables.seeds.load(half * VIP_BUCKETS + VipKey::bucket(hash));
    let entry = tables
        .entries
        .load(half * VIP_SLOTS + VipKey::place(hash, seed));
    (entry.key == *key && entry.kind != 0).then_some(entry)
}

/// The whole way of the program: the very port, then the ranges of the entry of
/// the address or of the longest prefix around it.
fn meet(tables: &Tables, address: IpAddr, protocol: Protocol, port: u16) -> Met {
    let half = tables.half();
    if let Some(entry) = find(tables, &service_key(address, protocol, port)) {
        return Service(entry.service);
    }
    let head = tables.heads.load(half);
    let (bits, lengths) = match address {
        IpAddr::V4(_) => (32, head.lengths_4),
        IpAddr::V6(_) => (128, head.lengths_6),
    };
    for length in [bits].into_iter().chain(lengths).take_while(|l| *l > 0) {
        let prefix = IpNet::new(address, length).unwrap();
        let Some(entry) = find(tables, &vip_key(prefix.into())) else {
            continue;
        };
        assert_eq!(entry.kind, EntryKind::Address as u32);
        for place in entry.ranges_start..entry.ranges_start + entry.ranges {
            let range = tables.ranges.load(half * PORT_RANGES + place);
            if range.protocol == u32::from(protocol.number())
                && (range.first..=range.last).contains(&port)
            {
                let entry = tables.entries.load(half * VIP_SLOTS + range.place);
                assert_eq!(entry.kind, EntryKind::Service as u32, "{range:?}");
                return Service(entry.service);
            }
        }
        return Unserved;
    }
    NotVip
}

fn vip(text: &str) -> Vip {
    let prefix = text.parse::<IpNet>();
    prefix.map_or_else(|_| text.parse::<IpAddr>().unwrap().into(), Vip::from)
}

fn ports(first: u16, last: u16) -> Ports {
    let (first, last) = (NonZeroU16::new(first), NonZeroU16::new(last).unwrap());
    match first {
        None => Ports::Any,
        Some(first) if first == last => Ports::One(first),
        Some(first) => Ports::Range(first, last),
    }
}

fn entry(service: u32) -> VipEntry {
    VipEntry {
        kind: EntryKind::Service as u32,
        service,
        ring_offset: service * 64,
        ring_mask: 63,
        idle: service,
        ..VipEntry::default()
    }
}

/// TCP services by number, each with its addresses and the bounds of its
/// ports; from 0 is any.
type Services<'a> = &'a [(u32, &'a [&'a str], (u16, u16))];

fn listing(services: Services<'_>) -> Listing {
    let mut listing = Listing::default();
    for (number, vips, (first, last)) in services {
        for vip in vips.iter().map(|text| vip(text)) {
            listing.cover(vip);
            listing.serve(vip, Protocol::Tcp, ports(*first, *last), entry(*number));
        }
    }
    listing
}

fn published(listing: &Listing) -> Tables {
    let tables = Tables::anonymous().unwrap();
    let half = Half::build(listing, Head::default()).unwrap();
    half.publish(&tables);
    assert!(half.is_published(&tables), "{listing:#?}");
    assert_eq!(Listing::published(&tables), *listing);
    tables
}

const ANY: (u16, u16) = (0, 65535);

#[test]
fn the_narrowest_service_that_wants_the_port_gets_the_packet() {
    let services: Services<'_> = &[
        (1, &["198.51.100.17"], (80, 80)),
        (2, &["198.51.100.17"], (80, 89)),
        (3, &["198.51.100.17", "198.51.100.16/28"], (70, 99)),
        (4, &["198.51.100.16/28", "2001:db8:1::/48"], (443, 443)),
        (5, &["198.51.100.0/24", "2001:db8:1:2::/64"], ANY),
        (6, &["198.51.0.0/16", "2001:db8:1::9"], (443, 443)),
        (7, &["203.0.113.7"], ANY),
    ];
    let mut listing = listing(services);
    let nobody = vip("203.0.113.128/25");
    listing.cover(nobody);
    listing.serve(vip("203.0.113.7"), Protocol::Udp, ports(53, 53), entry(8));
    let tables = published(&listing);
    let head = tables.heads.load(tables.half());
    assert_eq!(head.lengths_4[..5], [28, 25, 24, 16, 0]);
    assert_eq!(head.lengths_6[..3], [64, 48, 0]);
    assert_eq!(head.longest_idle, 8);
    for (sentence, address, protocol, port, expected) in [
        (
            "its very port",
            "198.51.100.17",
            Protocol::Tcp,
            80,
            Service(1),
        ),
        (
            "first of a range",
            "198.51.100.17",
            Protocol::Tcp,
            81,
            Service(2),
        ),
        (
            "last of a range",
            "198.51.100.17",
            Protocol::Tcp,
            89,
            Service(2),
        ),
        (
            "a wider range",
            "198.51.100.17",
            Protocol::Tcp,
            90,
            Service(3),
        ),
        (
            "the prefix's port",
            "198.51.100.17",
            Protocol::Tcp,
            443,
            Service(4),
        ),
        (
            "the wider prefix",
            "198.51.100.17",
            Protocol::Tcp,
            22,
            Service(5),
        ),
        (
            "a range of a prefix",
            "198.51.100.18",
            Protocol::Tcp,
            70,
            Service(3),
        ),
        (
            "first of the prefix",
            "198.51.100.16",
            Protocol::Tcp,
            443,
            Service(4),
        ),
        (
            "last of the prefix",
            "198.51.100.31",
            Protocol::Tcp,
            443,
            Service(4),
        ),
        (
            "past the prefix",
            "198.51.100.32",
            Protocol::Tcp,
            443,
            Service(5),
        ),
        ("the widest", "198.51.7.7", Protocol::Tcp, 443, Service(6)),
        ("no port of it", "198.51.7.7", Protocol::Tcp, 80, Unserved),
        (
            "another protocol",
            "198.51.100.17",
            Protocol::Udp,
            80,
            Unserved,
        ),
        ("past them all", "198.52.0.0", Protocol::Tcp, 443, NotVip),
        ("port 0 of any", "203.0.113.7", Protocol::Tcp, 0, Service(7)),
        (
            "the last port of any",
            "203.0.113.7",
            Protocol::Tcp,
            65535,
            Service(7),
        ),
        (
            "the same on UDP",
            "203.0.113.7",
            Protocol::Udp,
            53,
            Service(8),
        ),
        ("not any on UDP", "203.0.113.7", Protocol::Udp, 54, Unserved),
        (
            "nobody's prefix",
            "203.0.113.200",
            Protocol::Tcp,
            80,
            Unserved,
        ),
        (
            "an IPv6 address",
            "2001:db8:1::9",
            Protocol::Tcp,
            443,
            Service(6),
        ),
        (
            "its prefix has no more",
            "2001:db8:1::9",
            Protocol::Tcp,
            80,
            Unserved,
        ),
        (
            "an IPv6 prefix",
            "2001:db8:1:3::1",
            Protocol::Tcp,
            443,
            Service(4),
        ),
        (
            "the longer one",
            "2001:db8:1:2::1",
            Protocol::Tcp,
            443,
            Service(5),
        ),
        (
            "another IPv6 prefix",
            "2001:db8:2::1",
            Protocol::Tcp,
            443,
            NotVip,
        ),
    ] {
        let found = meet(&tables, address.parse().unwrap(), protocol, port);
        assert_eq!(found, expected, "{sentence}");
    }
}

#[test]
fn only_single_addresses_stand_in_the_filter() {
    let listing = listing(&[(1, &["198.51.100.17", "203.0.113.0/24"], ANY)]);
    let tables = published(&listing);
    let words = (0..FILTER_WORDS).map(|i| tables.filter.load(tables.half() * FILTER_WORDS + i));
    assert_eq!(words.map(u64::count_ones).sum::<u32>(), 1);
}

#[test]
fn every_entry_is_found_and_nothing_else_up_to_the_full_load() {
    for count in [0, 1, 2, 1000, u32::try_from(MOST_ENTRIES).unwrap()] {
        let wanted = many(count);
        let tables = published(&wanted);
        for (key, entry) in &wanted.entries {
            assert_eq!(find(&tables, key), Some(*entry), "{count} entries");
        }
        let stranger = VipKey::v4(1, 6, 1);
        assert_eq!(find(&tables, &stranger), None, "{count} entries");
    }
}

#[test]
fn whatever_the_addresses_have_in_common_a_full_table_is_found_at_the_first_seed() {
    type Key = fn(u32) -> VipKey;
    let families: [(&str, Key); 10] = [
        ("IPv4 in a row", |n| {
            VipKey::v4((0xc633_0000 + n).to_be(), 6, 80_u16.to_be())
        }),
        ("the first of each IPv4 /24", |n| {
            VipKey::v4((0x0a00_0001 + (n << 8)).to_be(), 17, 53_u16.to_be())
        }),
        ("all ports of one IPv4 address", |n| {
            VipKey::v4(0xc633_6401_u32.to_be(), 6, (n as u16).to_be())
        }),
        ("IPv6 in a row", |n| {
            VipKey::v6([0x0db8_0120, 0, 0, n.to_be()], 6, 80_u16.to_be())
        }),
        ("the first of each IPv6 /64", |n| {
            VipKey::v6(
                [0x0db8_0120, n.to_be(), 0, 1_u32.to_be()],
                6,
                80_u16.to_be(),
            )
        }),
        ("addresses alone", |n| {
            VipKey::v4((0xcb00_7100 + n).to_be(), 0, 0).address_only()
        }),
        ("a few ports of IPv4 addresses in a row", |n| {
            VipKey::v4((0xc633_6400 + n / 4).to_be(), 6, ((n % 4) as u16).to_be())
        }),
        ("a few ports of IPv6 addresses in a row", |n| {
            let address = [0x0db8_0120, 0, 0, (n / 4).to_be()];
            VipKey::v6(address, 17, ((n % 4) as u16).to_be())
        }),
        ("IPv4 prefixes in a row", |n| {
            let address = VipKey::v4((0x0a00_0000 + (n << 8)).to_be(), 0, 0).address;
            VipKey::prefix(address, 24)
        }),
        ("services on ranges of one address", |n| {
            let address = VipKey::v4(0xc633_6401_u32.to_be(), 0, 0).address;
            VipKey::ranged(address, n)
        }),
    ];
    for (family, key) in families {
        let mut listing = Listing::default();
        for key in (0..MOST_ENTRIES as u32).map(key) {
            listing.entries.insert(key, VipEntry { key, ..entry(1) });
        }
        let half = Half::build(&listing, Head::default());
        let seed = half.map(|half| half.head.seed);
        assert_eq!(seed, Ok(1), "{family}");
    }
}

/// So many entries, four on each address.
fn many(count: u32) -> Listing {
    let mut listing = Listing::default();
    for n in 0..count {
        let address = Vip::from(IpAddr::from((0xc633_6400 + n / 4).to_be_bytes()));
        match u16::try_from(n % 4).unwrap() {
            0 => listing.cover(address),
            port => listing.serve(address, Protocol::Tcp, ports(port, port), entry(n)),
        }
    }
    listing
}

#[test]
fn what_is_too_much_is_refused() {
    let prefixes = |lengths: std::ops::Range<u8>| {
        let mut listing = Listing::default();
        for length in lengths {
            listing.cover(vip(&format!("198.51.0.0/{length}")));
            listing.cover(vip(&format!("2001:db8::/{length}")));
        }
        listing
    };
    let on_one = |count: u16| {
        let mut listing = Listing::default();
        listing.cover(vip("198.51.100.0/24"));
        for n in 1..=count {
            let service = entry(n.into());
            listing.serve(vip("198.51.100.0/24"), Protocol::Udp, ports(n, n), service);
        }
        listing
    };
    let nested = |count: u16| {
        let mut listing = on_one(count);
        let inner = vip("198.51.100.7");
        listing.cover(inner);
        listing.serve(inner, Protocol::Udp, Ports::Any, entry(99));
        listing
    };
    let on_many = |count: u32| {
        let mut listing = Listing::default();
        for n in 0..count {
            let address = Vip::from(IpAddr::from((0xc633_0000 + n / 2).to_be_bytes()));
            listing.cover(address);
            let first = u16::try_from(n % 2).unwrap() * 10 + 1;
            listing.serve(address, Protocol::Udp, ports(first, first + 1), entry(n));
        }
        listing
    };
    let full = u32::try_from(MOST_ENTRIES).unwrap();
    for (listing, fault) in [
        (many(full + 1), Some(BuildError::TooMany(MOST_ENTRIES + 1))),
        (prefixes(12..28), None),
        (prefixes(12..29), Some(BuildError::TooManyLengths(17))),
        (on_one(64), None),
        (on_one(65), Some(BuildError::TooManyInOne(65))),
        (nested(63), None),
        (nested(64), Some(BuildError::TooManyInOne(65))),
        (on_many(PORT_RANGES), None),
        (
            on_many(PORT_RANGES + 1),
            Some(BuildError::TooManyRanges(PORT_RANGES as usize + 1)),
        ),
    ] {
        let built = Half::build(&listing, Head::default());
        assert_eq!(built.err(), fault, "{} entries", listing.entries.len());
    }
}

#[test]
fn a_change_is_written_beside_what_packets_read() {
    let tables = published(&many(3));
    let before = tables.half();
    let next = Half::build(&many(5), Head::default()).unwrap();
    assert!(!next.is_published(&tables));
    next.publish(&tables);
    assert_eq!(tables.half(), 1 - before);
    assert_eq!(Listing::published(&tables), many(5));
}

#[test]
fn a_service_that_cannot_be_placed_keeps_what_it_had() {
    let before = listing(&[
        (1, &["198.51.100.17"], (80, 80)),
        (2, &["198.51.100.17"], ANY),
        (3, &["198.51.100.0/24"], ANY),
        (3, &["203.0.113.0/24"], ANY),
    ]);
    let mut after = listing(&[(4, &["198.51.100.17", "198.51.100.0/24"], (443, 443))]);
    for number in [1, 2, 3] {
        after.keep(&before, number);
    }
    let tables = published(&after);
    for (sentence, address, port, expected) in [
        ("who is placed", "198.51.100.17", 443, Service(4)),
        ("on its port", "198.51.100.17", 80, Service(1)),
        ("on any port", "198.51.100.17", 81, Service(2)),
        ("on a prefix", "198.51.100.18", 80, Service(3)),
        ("on one that is gone", "203.0.113.1", 80, NotVip),
    ] {
        let found = meet(&tables, address.parse().unwrap(), Protocol::Tcp, port);
        assert_eq!(found, expected, "{sentence}");
    }
}

#[test]
fn a_service_is_known_again_by_its_addresses_and_ports() {
    let listing = listing(&[
        (1, &["198.51.100.17"], (80, 80)),
        (2, &["198.51.100.17"], (80, 89)),
        (3, &["198.51.100.0/24"], (80, 80)),
        (4, &["198.51.100.0/24"], ANY),
    ]);
    for (text, (first, last), number) in [
        ("198.51.100.17", (80, 80), Some(1)),
        ("198.51.100.17", (80, 89), Some(2)),
        ("198.51.100.17", (80, 90), None),
        ("198.51.100.17", ANY, None),
        ("198.51.100.18", (80, 80), None),
        ("198.51.100.0/24", (80, 80), Some(3)),
        ("198.51.100.0/24", ANY, Some(4)),
        ("198.51.100.0/25", ANY, None),
    ] {
        let found = listing.service(vip(text), Protocol::Tcp, ports(first, last));
        let found = found.map(|entry| entry.service);
        assert_eq!(found, number, "{text} {first}-{last}");
        let other = listing.service(vip(text), Protocol::Udp, ports(first, last));
        assert_eq!(other, None, "{text} {first}-{last}");
    }
}
