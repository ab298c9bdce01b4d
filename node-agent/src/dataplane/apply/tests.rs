//! What has drifted heals in parts, and a pass that looks at what has changed
//! comes out as one that looks at all.

use std::num::NonZeroU16;

use ipnet::IpNet;
use vipd_abi::{BackendRecord, NextHop, Slot, VIP_SLOTS, VipEntry};
use vipd_control::{
    decide::{Decider, HealthView},
    model::{Backend, Model, Ports, Protocol, Vip},
    standing::Standing,
};

use super::*;
use crate::{
    dataplane::{census::Census, tables::service_key},
    netlink::way::Way,
};

/// More than any index rests.
const STEP: Duration = Duration::from_millis(150);

/// Services on the same port of different addresses, each with three backends.
struct World {
    services: BTreeMap<u8, Service>,
    standing: BTreeMap<IpAddr, Standing>,
    reach: Reach,
    desired: Desired,
    applier: Applier,
    /// What was taken of the ring map, so that there is no room.
    filled: Vec<(u32, u32)>,
    now: Instant,
}

struct View<'a>(&'a BTreeMap<IpAddr, Standing>);

impl HealthView for View<'_> {
    fn standing(&self, service: &Service) -> Vec<Standing> {
        let backends = service.backends.iter();
        let standing = |backend: &Backend| self.0.get(&backend.address).copied();
        backends
            .map(|b| standing(b).unwrap_or(Standing::Available))
            .collect()
    }

    /// They all fell together.
    fn fallen(&self, service: &Service) -> Vec<bool> {
        let standing = self.standing(service);
        standing.iter().map(|s| *s == Standing::Dead).collect()
    }
}

fn vip(number: u8) -> IpAddr {
    [198, 51, 100, number].into()
}

/// The backends of a service, by its number.
fn backends(service: u8) -> impl Iterator<Item = IpAddr> {
    (0..3).map(move |n| [192, 0, 2, service * 8 + n].into())
}

fn service(number: u8, ring_size: u32) -> Service {
    let backend = |address: IpAddr| Backend::new(&address.to_string(), address, 1);
    Service {
        ports: Ports::One(NonZeroU16::MIN),
        ring_size,
        ..Service::new(
            &format!("service {number}"),
            vec![vip(number).into()],
            backends(number).map(backend).collect(),
        )
    }
}

fn way(source: u8, mac: u8) -> Way {
    Way {
        mac: [2, 0, 0, 0, 0, mac],
        uplink: Uplink {
            ifindex: 1,
            mtu: 1500,
            ..Uplink::default()
        },
        gateway: None,
        source: Some([192, 0, 2, source].into()),
    }
}

impl World {
    fn new(services: u8, ring_size: u32) -> Self {
        let ways = (0..services).flat_map(backends);
        let mut world = Self {
            services: (0..services).map(|n| (n, service(n, ring_size))).collect(),
            standing: BTreeMap::new(),
            reach: Reach {
                ways: Arc::new(ways.map(|address| (address, way(250, 1))).collect()),
                ..Reach::default()
            },
            desired: Desired::default(),
            applier: Applier::new(
                Tables::anonymous().expect("there is memory"),
                Settings::default(),
            ),
            filled: Vec::new(),
            now: Instant::now(),
        };
        world.pass();
        world
    }

    fn pass(&mut self) -> Applied {
        let services = self.services.values().cloned().map(Arc::new);
        let model = Model {
            services: services.collect(),
        };
        let view = View(&self.standing);
        self.desired = Decider::new([0; 16]).decide(&model, &view, &self.desired);
        self.now += STEP;
        self.applier
            .apply(&self.desired, &self.reach, false, self.now)
    }

    /// There is no room for any ring, or there is again.
    fn fill_or_empty_the_ring_map(&mut self) {
        if self.filled.is_empty() {
            for length in (0..=RING_SLOTS.ilog2()).rev().map(|log| 1 << log) {
                while let Some(start) = self.applier.ring.take(length, self.now) {
                    self.filled.push((start, length));
                }
            }
        } else {
            for (start, length) in self.filled.drain(..) {
                self.applier.ring.give_back(start, length, self.now);
            }
        }
    }

    /// What packets to each service meet: the entry that leads to its ring, and
    /// of each slot the backend's record and the way to it.
    fn meets(&self) -> Vec<Met> {
        let tables = &self.applier.tables;
        let entries = tables.published_entries();
        let met = self.services.values().filter_map(|service| {
            let (port, _) = service.ports.bounds();
            let key = service_key(service.vips[0].address(), Protocol::Tcp, port);
            let entry = *entries.get(&key)?;
            let places = entry.ring_offset..=entry.ring_offset + entry.ring_mask;
            let slots = places.map(|place| {
                let record = tables.records.load(tables.ring.load(place).current());
                (record, tables.hops.load(record.next_hop))
            });
            Some((entry, slots.collect()))
        });
        met.collect()
    }
}

type Met = (VipEntry, Vec<(BackendRecord, NextHop)>);

#[test]
fn what_has_drifted_heals_part_by_part() {
    type Break = fn(&Tables, VipEntry);
    let slot: Break = |tables, entry| tables.ring.store(entry.ring_offset + 7, Slot::stable(77));
    let hop: Break = |tables, entry| {
        let index = tables.ring.load(entry.ring_offset).current();
        let hop = tables.records.load(index).next_hop;
        tables.hops.store(hop, NextHop::UNRESOLVED);
    };
    let record: Break = |tables, entry| {
        let index = tables.ring.load(entry.ring_offset).current();
        let source = [1; 16];
        let record = tables.records.load(index);
        let record = BackendRecord { source, ..record };
        tables.records.store(index, record);
    };
    let listed: Break = |tables, entry| {
        let start = tables.half() * VIP_SLOTS;
        let mut places = start..start + VIP_SLOTS;
        let place = places.find(|place| tables.entries.load(*place).key == entry.key);
        let entry = VipEntry { idle: 1, ..entry };
        tables.entries.store(place.expect("it is published"), entry);
    };
    // Each ring is a part of its own, and the table comes last.
    let cases = [
        ("a slot", slot, [1, 2, 3]),
        ("a next hop", hop, [1, 2, 3]),
        ("a record", record, [1, 2, 3]),
        ("an entry", listed, [4, 4, 4]),
    ];
    let mut world = World::new(3, 1 << 13);
    let whole = world.meets();
    for (sentence, break_it, heals) in cases {
        for (entry, _) in &whole {
            break_it(&world.applier.tables, *entry);
        }
        world.pass();
        for part in 0..=4 {
            if part > 0 {
                assert_eq!(world.applier.review(), part == 4, "{sentence}");
                assert_eq!(world.pass().faults, BTreeMap::new(), "{sentence}");
            }
            let is_whole = world.meets().into_iter().zip(&whole);
            let is_whole: Vec<bool> = is_whole.map(|(met, whole)| met == *whole).collect();
            assert_eq!(
                is_whole,
                heals.map(|n| part >= n),
                "{sentence}, part {part}"
            );
        }
    }
}

#[test]
fn the_dead_leave_the_ring_in_force_while_a_larger_one_waits_for_the_table() {
    for (sentence, size) in [("a larger ring", 256), ("a smaller one", 16)] {
        let mut world = World::new(2, 64);
        let vips = vip(1);
        let lengths = 12..=28;
        let too_many = lengths.map(|n| Vip::from(IpNet::new(vips, n).expect("a prefix")));
        let served = world.services.get_mut(&1).expect("it is there");
        served.vips.extend(too_many);
        served.ring_size = size;
        let refused = |applied: &Applied| applied.faults.contains_key("VIP table");
        assert!(
            refused(&world.pass()),
            "{sentence}: 17 lengths are too many"
        );
        let dead = backends(1).next().expect("there are three");
        world.standing.insert(dead, Standing::Dead);
        assert!(refused(&world.pass()), "{sentence}");
        let (entry, slots) = world.meets().remove(1);
        assert_eq!(entry.ring_mask, 63, "{sentence}: what is in force");
        let is_dead =
            |(record, _): &&(BackendRecord, NextHop)| unmapped(record.destination) == dead;
        assert_eq!(slots.iter().filter(is_dead).count(), 0, "{sentence}");
        world
            .services
            .get_mut(&1)
            .expect("it is there")
            .vips
            .truncate(1);
        world.pass();
        let (entry, slots) = world.meets().remove(1);
        assert_eq!(entry.ring_mask, size - 1, "{sentence}: now in force");
        assert_eq!(slots.iter().filter(is_dead).count(), 0, "{sentence}");
    }
}

#[test]
fn when_the_last_one_falls_all_that_fell_with_it_live_again() {
    let mut world = World::new(1, 64);
    world.pass();
    let owners = |world: &World| -> BTreeMap<IpAddr, usize> {
        let (_, slots) = world.meets().remove(0);
        let mut owners = BTreeMap::new();
        for (record, _) in slots {
            assert_eq!(record.state & BackendRecord::DEAD, 0, "{record:?}");
            *owners.entry(unmapped(record.destination)).or_default() += 1;
        }
        owners
    };
    let before = owners(&world);
    assert_eq!(before.len(), 3);
    for (dead, left) in backends(0).zip([2, 1, 3]) {
        world.standing.insert(dead, Standing::Dead);
        world.pass();
        assert_eq!(owners(&world).len(), left, "{dead} is dead");
    }
    assert_eq!(owners(&world), before, "packets go where they went");
}

#[test]
fn a_pass_that_looks_at_little_comes_out_as_one_that_looks_at_all() {
    let mut random = Random(3);
    let mut world = World::new(4, 64);
    let mut in_place = 0;
    for step in 0..400 {
        let number = random.below(4) as u8;
        let backend = backends(number).nth(random.below(3) as usize);
        let backend = backend.expect("there are three");
        match (random.below(16), world.services.get_mut(&number)) {
            (12, _) => world.fill_or_empty_the_ring_map(),
            (0, Some(_)) => drop(world.services.remove(&number)),
            (_, None) => drop(world.services.insert(number, service(number, 64))),
            (1, Some(service)) => service.ring_size = 64 << random.below(2),
            (2, Some(service)) => {
                // Some are on addresses of others too.
                let vips = [number, random.below(8) as u8];
                let vips: BTreeSet<Vip> = vips.map(|n| vip(n).into()).into();
                service.vips = vips.into_iter().collect();
                let port = 1 + u16::from(number);
                service.ports = Ports::One(NonZeroU16::new(port).expect("not 0"));
            }
            (3 | 13.., Some(_)) => {
                let mut ways = (*world.reach.ways).clone();
                match random.below(3) as u8 {
                    0 => drop(ways.remove(&backend)),
                    n => drop(ways.insert(backend, way(n, random.below(9) as u8))),
                }
                let lost = backends(number).filter(|address| !ways.contains_key(address));
                let problems = lost.map(|address| (address, String::new()));
                world.reach = Reach {
                    problems: Arc::new(problems.collect()),
                    ways: Arc::new(ways),
                };
            }
            (4, Some(_)) => {
                let census = Census::new(&world.applier.tables);
                let count = census.walk(&world.applier.orders(), world.now);
                world.applier.counted(Arc::new(count));
            }
            (what, Some(_)) => {
                let standing = match what {
                    5..8 => Standing::Dead,
                    8 => Standing::Failing,
                    _ => Standing::Available,
                };
                world.standing.insert(backend, standing);
            }
        }
        let mut applied = world.pass();
        for _ in 0..4 {
            // What is to be written has rested by then.
            if applied.retry_at.is_some() {
                applied = world.pass();
            }
        }
        let applier = &mut world.applier;
        let told = applier.told.clone();
        let wanted = applier.wanted.take().expect("it was listed");
        let anew = applier.list(&world.desired);
        assert_eq!(anew, wanted.listing, "step {step}");
        applier.touched = Touched::All;
        applier.tell(&world.desired);
        assert_eq!(applier.told, told, "step {step}");

        let met = world.meets();
        while !world.applier.review() {}
        let full = world.pass();
        assert_eq!(full.vips, applied.vips, "step {step}");
        in_place += full.vips.len();
        assert!(world.meets() == met, "step {step}");
    }
    assert!(in_place > 400, "{in_place} addresses were, all in all");
}

/// Numbers without a pattern, the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }
}
