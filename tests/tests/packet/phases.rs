//! Flows stay where they are while their slots change hands, through drains,
//! deaths, new records, larger rings, and agents that come and go.

mod lab;
mod random;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use vipd_abi::{Phase, Slot, Stamp};
use vipd_control::standing::Standing;

use self::lab::{ACK, BACKENDS, FIN, Lab};
use crate::bench::address;

/// Long against whatever a test does in between.
const LONG: Duration = Duration::from_secs(60);
/// As when the configuration says nothing.
const DEFAULT: Duration = Duration::from_secs(300);
/// Eight ticks.
const SHORT: Duration = Duration::from_millis(1070);

#[test]
fn a_fresh_start_is_over_before_the_first_packet() {
    let mut lab = Lab::start("fresh", 3, DEFAULT, Standing::Dead);
    for backend in 0..3 {
        lab.set(backend, Standing::Available);
    }
    assert_ne!(lab.phases().learn, 0, "{:?}", lab.phases());
    // For some seconds at most.
    lab.until("there is nobody to learn from", |lab| {
        lab.phases().is_settled()
    });
    let mut flows = lab.open(10_000..10_060);
    let owners: BTreeSet<_> = flows.values().collect();
    assert_eq!(owners.len(), 3, "all take part");
    // From now on there is.
    lab.set(0, Standing::Draining);
    let learning = lab.phases().learn;
    assert_ne!(learning, 0, "{:?}", lab.phases());
    for _ in 0..20 {
        sleep(Duration::from_millis(100));
        lab.tend();
    }
    assert_eq!(lab.phases().learn, learning, "{:?}", lab.phases());
    lab.assert_stay(&mut flows, "is moved by the drain");
}

#[test]
fn a_backend_that_is_back_leaves_the_others_what_is_recorded_for_them() {
    let mut lab = Lab::new("back", 3, DEFAULT);
    lab.open(10_000..10_040);
    lab.set(0, Standing::Draining);
    let mut flows = lab.open(20_000..20_060);
    lab.set(0, Standing::Available);
    assert_ne!(lab.phases().track, 0, "{:?}", lab.phases());
    for _ in 0..20 {
        sleep(Duration::from_millis(100));
        lab.tend();
    }
    assert_ne!(lab.phases().track, 0, "{:?}", lab.phases());
    lab.assert_stay(&mut flows, "is moved by the return");
}

#[test]
fn a_drained_backend_keeps_its_flows_and_gets_no_others() {
    let mut lab = Lab::new("drain", 2, SHORT);
    let mut old = lab.open(10_000..10_040);
    let drained = address(BACKENDS[0]);
    lab.set(0, Standing::Draining);
    lab.assert_stay(&mut old, "is moved by the drain");
    for (port, backend) in lab.open(20_000..20_040) {
        assert_ne!(backend, drained, "port {port} is new");
    }
    assert_ne!(lab.phases().learn, 0, "{:?}", lab.phases());
    let start = Instant::now();
    while lab.phases().learn != 0 {
        lab.assert_stay(&mut old, "goes on while its slot learns");
        lab.tend();
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            lab.phases()
        );
    }
    lab.assert_stay(&mut old, "goes on when its slot tracks");
    lab.tend();
    let flows = lab.applied.flows["web"][BACKENDS[0]];
    let expected = old.values().filter(|b| **b == drained).count() as u64;
    assert!(flows.live >= expected && flows.closing == 0, "{flows:?}");
    lab.until("nobody sends any more", |lab| {
        lab.phases().is_settled() && lab.applied.flows.is_empty()
    });
    assert_eq!(lab.applied.look_at, None, "all is at rest");
}

#[test]
fn the_flows_of_the_dead_end_and_no_others() {
    let mut lab = Lab::new("death", 3, LONG);
    let before = lab.open(10_000..10_040);
    let dead = address(BACKENDS[0]);
    lab.set(0, Standing::Dead);
    let mut during = BTreeMap::new();
    for (port, backend) in &before {
        let now = lab.send(*port, ACK);
        assert_ne!(now, dead, "port {port} goes to the dead");
        if *backend != dead {
            assert_eq!(now, *backend, "port {port} was moved needlessly");
        }
        during.insert(*port, now);
    }
    lab.set(0, Standing::Available);
    lab.assert_stay(&mut during, "is moved by the return");
    assert!(
        lab.open(20_000..20_040).values().any(|b| *b == dead),
        "new flows go to who is back"
    );
    lab.set(1, Standing::Failing);
    lab.assert_stay(&mut during, "is moved by a failing check");
    lab.set(1, Standing::Dead);
    during.retain(|_, backend| *backend != address(BACKENDS[1]));
    lab.assert_stay(&mut during, "is moved by another's death");
    lab.tend();
    sleep(Duration::from_millis(700));
    lab.tend();
    assert_eq!(
        lab.live_records(),
        3,
        "the first of those that died is free"
    );
}

#[test]
fn a_new_agent_goes_on_where_the_old_one_was() {
    let mut lab = Lab::new("adopt-phases", 3, SHORT);
    let mut old = lab.open(10_000..10_030);
    lab.set(0, Standing::Draining);
    lab.assert_stay(&mut old, "is moved by the drain");
    let words = lab.slots();
    lab.start_agent();
    let service = Arc::clone(&lab.service);
    let found = BACKENDS[..3]
        .iter()
        .map(|b| lab.applier().adopted().standing(&service, address(b)));
    let found: Vec<_> = found.collect();
    assert_eq!(found[0], Some(Standing::Draining));
    assert_eq!(found[1..], [Some(Standing::Available); 2]);
    let drained = lab
        .applier()
        .adopted()
        .drained(&service, address(BACKENDS[0]));
    assert!(drained);
    lab.apply();
    assert_eq!(lab.slots(), words, "no slot was touched");
    assert_ne!(lab.phases().learn, 0, "and they learn on");
    let start = Instant::now();
    while lab.phases().learn != 0 {
        lab.assert_stay(&mut old, "goes on under a new agent");
        lab.tend();
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            lab.phases()
        );
    }
    lab.start_agent();
    lab.apply();
    assert_ne!(lab.phases().track, 0, "now they track");
    lab.assert_stay(&mut old, "goes on under a third agent");
    lab.until("nobody sends any more", |lab| lab.phases().is_settled());
}

#[test]
fn an_agent_killed_at_any_moment_leaves_every_flow_in_place() {
    // How many of the slots were changed when it was killed.
    for done in [0, 1, 40] {
        for standing in [Standing::Draining, Standing::Failing, Standing::Dead] {
            let case = format!("{standing:?} {done}");
            let mut lab = Lab::new(&format!("killed-{standing:?}-{done}"), 3, LONG);
            let mut flows = lab.open(10_000..10_020);
            // Half of the slots are not stable to begin with.
            lab.set(1, Standing::Draining);
            lab.set(1, Standing::Available);
            lab.assert_stay(&mut flows, "is moved to begin with");
            let before = lab.slots();
            lab.set(0, standing);
            let after = lab.slots();
            for place in (0..64).filter(|place| *place >= done) {
                lab.applier()
                    .tables()
                    .ring
                    .publish(place, before[place as usize]);
            }
            if standing == Standing::Dead {
                flows.retain(|_, backend| *backend != address(BACKENDS[0]));
            }
            lab.start_agent();
            // The maps tell it, as far as they can.
            let service = Arc::clone(&lab.service);
            let found = lab
                .applier()
                .adopted()
                .standing(&service, address(BACKENDS[0]));
            if standing == Standing::Failing {
                assert!(
                    matches!(found, Some(Standing::Failing | Standing::Available)),
                    "{case}: {found:?}"
                );
            } else {
                assert_eq!(found, Some(standing), "{case}");
            }
            lab.assert_stay(&mut flows, &format!("before the new agent: {case}"));
            lab.set(0, found.expect("the service is known"));
            lab.assert_stay(&mut flows, &format!("under the new agent: {case}"));
            lab.set(0, standing);
            lab.assert_stay(&mut flows, &format!("once it knows all: {case}"));
            let current = |slots: &[Slot]| slots.iter().map(|s| s.current()).collect::<Vec<_>>();
            assert_eq!(current(&lab.slots()), current(&after), "{case}");
        }
    }
}

#[test]
fn a_new_record_of_the_same_backend_takes_its_flows_along() {
    let mut lab = Lab::new("moved", 2, LONG);
    let mut old = lab.open(10_000..10_030);
    lab.set(0, Standing::Draining);
    lab.assert_stay(&mut old, "is moved by the drain");
    let phases: Vec<Phase> = lab.slots().iter().map(|s| s.phase()).collect();
    let records: Vec<u32> = lab.slots().iter().map(|s| s.current()).collect();
    for way in lab.ways.values_mut() {
        way.source = Some(address("192.0.2.12"));
    }
    lab.apply();
    let slots = lab.slots();
    assert!(slots.iter().zip(&records).all(|(s, r)| s.current() != *r));
    assert_eq!(slots.iter().map(|s| s.phase()).collect::<Vec<_>>(), phases);
    lab.assert_stay(&mut old, "is moved by a new record");
    assert_eq!(
        lab.live_records(),
        4,
        "the old ones are there while flows name them"
    );
    lab.until("the old records are given up", |lab| {
        // Their flows are moved by one walk and found gone by a later one.
        lab.applied
            .usage
            .iter()
            .any(|u| u.map == "backends" && u.used == 2)
    });
    assert_eq!(lab.live_records(), 2);
    lab.assert_stay(&mut old, "is lost with the old record");
    lab.start_agent();
    lab.apply();
    lab.assert_stay(&mut old, "is lost by a new agent");
}

#[test]
fn a_growing_ring_takes_its_flows_along() {
    let mut lab = Lab::new("grow", 3, LONG);
    let mut first = lab.open(10_000..10_030);
    lab.set(0, Standing::Draining);
    let mut flows = lab.open(20_000..20_030);
    lab.assert_stay(&mut first, "is moved by the drain");
    flows.extend(first);
    lab.change(|service| service.ring_size = 256);
    assert_eq!(lab.slots().len(), 256);
    lab.assert_stay(&mut flows, "is moved by a larger ring");
}

#[test]
fn a_backend_that_is_taken_out_ends_its_flows_in_peace() {
    let mut lab = Lab::new("removed", 3, SHORT);
    let mut flows = lab.open(10_000..10_030);
    let gone = address(BACKENDS[0]);
    let backends = lab.service.backends.clone();
    lab.change(|service| drop(service.backends.remove(0)));
    lab.assert_stay(&mut flows, "is moved when its backend is taken out");
    lab.change(|service| service.backends.clone_from(&backends));
    lab.assert_stay(&mut flows, "is moved when its backend is back");
    assert_eq!(lab.live_records(), 3, "under the record it had");
    lab.change(|service| drop(service.backends.remove(0)));
    lab.assert_stay(&mut flows, "is moved when its backend is taken out again");
    flows.retain(|_, backend| *backend == gone);
    for port in flows.keys() {
        assert_eq!(lab.send(*port, FIN), gone, "port {port} ends");
    }
    lab.until("its record is given up", |lab| {
        lab.applied
            .usage
            .iter()
            .any(|u| u.map == "backends" && u.used == 2)
    });
    for (port, backend) in lab.open(10_000..10_030) {
        assert_ne!(backend, gone, "port {port} begins anew");
    }
}

#[test]
fn a_renamed_service_keeps_its_flows() {
    let mut lab = Lab::new("renamed", 2, LONG);
    let mut flows = lab.open(10_000..10_030);
    lab.set(0, Standing::Draining);
    lab.assert_stay(&mut flows, "is moved by the drain");
    lab.change(|service| service.name = "shop".into());
    lab.assert_stay(&mut flows, "is moved by another name");
}

#[test]
fn stamps_of_an_earlier_service_hold_nothing_up() {
    let mut lab = Lab::new("stamps", 2, SHORT);
    lab.open(10_000..10_040);
    let now = lab.tick().0;
    for place in 0..64 {
        let (foreign, refused) = (now, now);
        let stamps = &lab.applier().tables().stamps;
        stamps.store(place, Stamp { foreign, refused });
    }
    lab.set(0, Standing::Draining);
    lab.until("all slots settle", |lab| lab.phases().is_settled());
}
