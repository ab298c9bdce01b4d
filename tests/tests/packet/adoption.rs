//! A new agent takes over what the old one left, and packets do not notice.

use vipd::{
    dataplane::{apply::Applier, kernel::Kernel, pins::Pins},
    netlink::way::Ways,
};
use vipd_abi::BackendRecord;
use vipd_control::{
    decide::{Decider, Desired, Doubted, HealthView},
    model::{Backend, Mode, Model, Protocol, Service},
    standing::Standing,
};

use vipd_tests::Scratch;

use crate::bench::{INGRESS, address, count, reach, service, settings, way};

const VIP: &str = "198.51.100.10";
const UP: &str = "192.0.2.21";
const DOWN: &str = "192.0.2.22";

fn load(scratch: &Scratch) -> (Kernel, Applier) {
    let (mut kernel, tables) = Kernel::load(Some(scratch.path()), false).unwrap_or_else(|error| {
        panic!("{error}\nthe packet tier needs root and `cargo xtask setup`")
    });
    kernel.settle();
    (kernel, Applier::new(tables, settings()))
}

fn desired(service: &std::sync::Arc<Service>) -> Desired {
    let model = Model {
        services: vec![service.clone()],
    };
    let health = |_: &Service, backend: &Backend| backend.address == address(UP);
    Decider::new([0; 16]).decide(&model, &health, &Desired::default())
}

fn ways() -> Ways {
    [UP, DOWN]
        .map(|a| (address(a), way(INGRESS, "192.0.2.11")))
        .into()
}

#[test]
fn a_new_agent_knows_who_was_available_and_changes_nothing() {
    let scratch = Scratch::new("adoption");
    let service = service("web", VIP, Protocol::Tcp, Mode::Ipip, &[(UP, 1), (DOWN, 1)]);
    let desired = desired(&service);
    let now = std::time::Instant::now();

    let (kernel, mut old) = load(&scratch);
    let before = old.apply(&desired, &reach(&ways()), true, now);
    let ring: Vec<_> = (0..4096).map(|slot| old.tables().ring.load(slot)).collect();
    let half = old.tables().half();
    drop((kernel, old));

    let (_kernel, mut new) = load(&scratch);
    let adopted = new.adopted();
    assert_eq!(
        adopted.standing(&service, address(UP)),
        Some(Standing::Available)
    );
    assert_eq!(
        adopted.standing(&service, address(DOWN)),
        Some(Standing::Dead)
    );
    let stranger =
        crate::bench::service("x", "198.51.100.9", Protocol::Tcp, Mode::Ipip, &[(UP, 1)]);
    assert_eq!(
        adopted.standing(&stranger, address(UP)),
        None,
        "not known at all"
    );

    let after = new.apply(&desired, &reach(&ways()), true, now);
    assert_eq!(after, before, "the same is acknowledged, counted and used");
    assert_eq!(
        new.tables().half(),
        half,
        "the table was not published anew"
    );
    let kept: Vec<_> = (0..4096).map(|slot| new.tables().ring.load(slot)).collect();
    assert_eq!(kept, ring, "no slot was touched");
}

#[test]
fn what_the_configuration_no_longer_names_is_taken_away() {
    let scratch = Scratch::new("leftover");
    let service = service("web", VIP, Protocol::Tcp, Mode::Ipip, &[(UP, 1), (DOWN, 1)]);
    let now = std::time::Instant::now();
    let (kernel, mut old) = load(&scratch);
    old.apply(&desired(&service), &reach(&ways()), true, now);
    drop((kernel, old));

    let (_kernel, mut new) = load(&scratch);
    new.apply(&Desired::default(), &reach(&ways()), true, now);
    // What one pass takes away is free with the next, and a record once no
    // flow names it.
    let applied = new.apply(&Desired::default(), &reach(&ways()), true, now);
    assert!(applied.look_at.is_some(), "there is something to wait for");
    let later = now + std::time::Duration::from_secs(1);
    count(&mut new, later);
    let applied = (0..2).map(|_| new.apply(&Desired::default(), &reach(&ways()), true, later));
    let applied = applied.last().expect("two passes");
    assert_eq!(applied.look_at, None, "all is at rest");
    assert!(new.tables().published_entries().is_empty());
    let used: Vec<_> = applied.usage.iter().filter(|u| u.used != 0).collect();
    assert!(used.is_empty(), "{used:?}");
    let records = &new.tables().records;
    let left = (0..records.len()).filter(|i| records.load(*i) != BackendRecord::default());
    assert_eq!(left.count(), 0, "records are blank again");
}

#[test]
fn a_map_of_another_shape_is_refused_before_it_is_used() {
    use aya::maps::MapData;
    let scratch = Scratch::new("mismatch");
    drop(load(&scratch));
    let pins = Pins::new(scratch.path());
    let plane = pins.map(vipd_abi::map::PLANE);
    // Somebody puts the counters where the tables should be.
    std::fs::remove_file(&plane).expect("the tables were pinned");
    let counts = MapData::from_pin(pins.map(vipd_abi::map::COUNTS)).expect("they are pinned");
    counts.pin(&plane).expect("can be pinned");
    let error = Kernel::load(Some(scratch.path()), false)
        .err()
        .expect("is refused")
        .to_string();
    assert!(
        error.contains("PLANE") && error.contains("value 4194304"),
        "{error}"
    );
}

#[test]
fn pins_go_only_onto_a_bpf_file_system() {
    let error = Kernel::load(Some("/tmp/vipd-no-bpffs".as_ref()), false)
        .err()
        .expect("is refused")
        .to_string();
    assert!(error.contains("mount -t bpf"), "{error}");
}

#[test]
fn until_the_ways_are_known_packets_take_the_ones_they_took() {
    let scratch = Scratch::new("unknown-ways");
    let service = service("web", VIP, Protocol::Tcp, Mode::Ipip, &[(UP, 1), (DOWN, 1)]);
    let desired = desired(&service);
    let now = std::time::Instant::now();
    let (kernel, mut old) = load(&scratch);
    let before = old.apply(&desired, &reach(&ways()), true, now);
    let snapshot = |applier: &Applier| {
        let tables = applier.tables();
        let slots: Vec<_> = (0..4096).map(|slot| tables.ring.load(slot)).collect();
        let hops: Vec<_> = (0..8).map(|hop| tables.hops.load(hop)).collect();
        (slots, hops)
    };
    let kept = snapshot(&old);
    drop((kernel, old));

    let (_kernel, mut new) = load(&scratch);
    let after = new.apply(&desired, &reach(&Ways::default()), true, now);
    assert_eq!(snapshot(&new).0, kept.0, "no slot was touched");
    let (old_hops, new_hops) = (&kept.1, &snapshot(&new).1);
    // The hop of the backend that owns slots is the first; the other's is new.
    assert_eq!(new_hops[1], old_hops[1], "the next hop is as it was");
    assert_eq!(after.vips, before.vips, "and that is acknowledged");
}

#[test]
fn an_agent_killed_while_it_moved_slots_leaves_no_index_to_be_used_twice() {
    let scratch = Scratch::new("half-moved");
    let service = service("web", VIP, Protocol::Tcp, Mode::Ipip, &[(UP, 1)]);
    let desired = desired(&service);
    let now = std::time::Instant::now();
    let (kernel, mut old) = load(&scratch);
    old.apply(&desired, &reach(&ways()), true, now);
    // Another source address: a new record; then some slots go back, as if the
    // agent had been killed before it moved them.
    let first = old.tables().ring.load(0);
    let mut moved = ways();
    for way in moved.values_mut() {
        way.source = Some(address("192.0.2.12"));
    }
    old.apply(&desired, &reach(&moved), true, now);
    assert_ne!(old.tables().ring.load(0), first, "the record has changed");
    for slot in 0..100 {
        old.tables().ring.publish(slot, first);
    }
    drop((kernel, old));

    let (_kernel, mut new) = load(&scratch);
    let model = Model {
        services: vec![
            crate::bench::service(
                "aaa",
                "198.51.100.11",
                Protocol::Tcp,
                Mode::Ipip,
                &[(DOWN, 1)],
            ),
            service,
        ],
    };
    let everybody = |_: &Service, _: &Backend| true;
    let desired = Decider::new([0; 16]).decide(&model, &everybody, &Desired::default());
    let place = new.tables().published_entries();
    let start = place
        .values()
        .find(|e| e.ring_mask != 0)
        .expect("the service")
        .ring_offset;
    // The first service is placed before the slots of the second are mended.
    new.apply(&desired, &reach(&moved), true, now);
    let records: std::collections::BTreeSet<_> = (start..start + 4096)
        .map(|slot| new.tables().ring.load(slot).current())
        .collect();
    assert_eq!(records.len(), 1, "all slots name one record again");
    let other = new.tables().published_entries();
    let other = other
        .values()
        .find(|e| e.ring_offset != start && e.ring_mask != 0);
    let other = other.expect("the other service").ring_offset;
    let index = new.tables().ring.load(other).current();
    assert_ne!(index, first.current(), "an index in use was handed out");
    assert!(!records.contains(&index));
}

/// Nobody answers, be it that our own network may be the reason.
struct Silence {
    in_doubt: bool,
}

impl HealthView for Silence {
    fn standing(&self, _: &Service) -> Vec<Standing> {
        vec![Standing::Dead; 2]
    }

    fn doubted(&self, _: &Service) -> Option<Doubted> {
        self.in_doubt.then(|| Doubted {
            why: "2 of 2 addresses fell silent".into(),
            backends: vec![true, false],
        })
    }

    fn fallen(&self, _: &Service) -> Vec<bool> {
        vec![true, false]
    }
}

#[test]
fn a_farm_that_was_wholly_down_is_not_taken_for_healthy_but_for_one_in_doubt() {
    for (in_doubt, expected) in [(false, Standing::Failing), (true, Standing::Available)] {
        let scratch = Scratch::new(if in_doubt { "doubted" } else { "forsaken" });
        let service = service("web", VIP, Protocol::Tcp, Mode::Ipip, &[(UP, 1), (DOWN, 1)]);
        let now = std::time::Instant::now();
        let (kernel, mut old) = load(&scratch);
        let before = desired(&service);
        old.apply(&before, &reach(&ways()), true, now);
        let model = Model {
            services: vec![service.clone()],
        };
        let down = Decider::new([0; 16]).decide(&model, &Silence { in_doubt }, &before);
        let later = now + std::time::Duration::from_secs(1);
        old.apply(&down, &reach(&ways()), true, later);
        let applied = old.apply(
            &down,
            &reach(&ways()),
            true,
            later + std::time::Duration::from_secs(1),
        );
        assert_eq!(applied.retry_at, None);
        drop((kernel, old));
        let (_kernel, new) = load(&scratch);
        assert_eq!(
            new.adopted().standing(&service, address(UP)),
            Some(expected),
            "in doubt: {in_doubt}; its flows stay until checks know better"
        );
    }
}

#[test]
fn two_agents_cannot_have_the_same_pins() {
    let scratch = Scratch::new("lock");
    let (_kernel, _applier) = load(&scratch);
    let error = Kernel::load(Some(scratch.path()), false)
        .err()
        .expect("is refused")
        .to_string();
    assert!(error.contains("another vipd"), "{error}");
}
