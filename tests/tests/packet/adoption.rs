//! A new agent takes over what the old one left, and packets do not notice.

use vipd::{
    dataplane::{apply::Applier, kernel::Kernel, pins::Pins},
    netlink::way::Ways,
};
use vipd_control::{
    decide::{Decider, Desired},
    model::{Backend, Mode, Model, Protocol, Service},
};

use crate::bench::{INGRESS, address, service, settings, way};

const VIP: &str = "198.51.100.10";
const UP: &str = "192.0.2.21";
const DOWN: &str = "192.0.2.22";

/// Pins of this test, removed whatever happens.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Pins::new(&self.0).remove();
    }
}

fn scratch(name: &str) -> Scratch {
    let path = format!("/sys/fs/bpf/vipd-test-{}-{name}", std::process::id());
    Scratch(path.into())
}

fn load(scratch: &Scratch) -> (Kernel, Applier) {
    let (kernel, tables) = Kernel::load(Some(&scratch.0), false).unwrap_or_else(|error| {
        panic!("{error}\nthe packet tier needs root and `cargo xtask setup`")
    });
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
    let scratch = scratch("adoption");
    let service = service("web", VIP, Protocol::Tcp, Mode::Ipip, &[(UP, 1), (DOWN, 1)]);
    let desired = desired(&service);
    let now = std::time::Instant::now();

    let (kernel, mut old) = load(&scratch);
    let before = old.apply(&desired, &ways(), true, now);
    let ring: Vec<_> = (0..4096).map(|slot| old.tables().ring.load(slot)).collect();
    let half = old.tables().half();
    drop((kernel, old));

    let (_kernel, mut new) = load(&scratch);
    let adopted = new.adopted();
    assert_eq!(adopted.available(&service, address(UP)), Some(true));
    assert_eq!(adopted.available(&service, address(DOWN)), Some(false));
    assert_eq!(adopted.available(&service, address("192.0.2.99")), None);

    let after = new.apply(&desired, &ways(), true, now);
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
    let scratch = scratch("leftover");
    let service = service("web", VIP, Protocol::Tcp, Mode::Ipip, &[(UP, 1), (DOWN, 1)]);
    let now = std::time::Instant::now();
    let (kernel, mut old) = load(&scratch);
    old.apply(&desired(&service), &ways(), true, now);
    drop((kernel, old));

    let (_kernel, mut new) = load(&scratch);
    let applied = new.apply(&Desired::default(), &ways(), true, now);
    assert!(new.tables().published_entries().is_empty());
    let used: Vec<_> = applied.usage.iter().filter(|u| u.used != 0).collect();
    // Interfaces are remembered; everything else is free again.
    assert!(
        used.iter().all(|u| u.map == vipd_abi::map::UPLINK_RECORDS),
        "{used:?}"
    );
}

#[test]
fn a_map_of_another_shape_is_refused_before_it_is_used() {
    use aya::maps::{Array, Map, MapData};
    let scratch = scratch("mismatch");
    drop(load(&scratch));
    let pins = Pins::new(&scratch.0);
    let ring = pins.map(vipd_abi::map::RING);
    // Somebody puts the table of heads where the ring should be.
    std::fs::remove_file(&ring).expect("the ring was pinned");
    let heads = MapData::from_pin(pins.map(vipd_abi::map::HEADS)).expect("the heads are pinned");
    let map = Map::from_map_data(heads).expect("an array");
    let heads: Array<_, [u8; 96]> = map.try_into().expect("an array");
    heads.pin(&ring).expect("can be pinned");
    let error = Kernel::load(Some(&scratch.0), false)
        .err()
        .expect("is refused")
        .to_string();
    assert!(
        error.contains("RING") && error.contains("value 96"),
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
