//! Properties of the ring, and the measurements its documentation quotes.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::model::tests::service;

/// Backends numbered from 0 with these weights, at addresses made from a seed.
fn base(seed: u8, weights: &[u16], size: u32) -> Arc<RingBase> {
    let addressed = (0..)
        .zip(weights)
        .map(|(i, &weight)| (address(seed, i), weight));
    base_of(addressed.collect(), size)
}

fn base_of(backends: Vec<(IpAddr, u16)>, size: u32) -> Arc<RingBase> {
    let mut service = service("web", &[]);
    service.ring_size = size;
    service.backends = (0..)
        .zip(backends)
        .map(|(i, (address, weight))| Backend::new(&format!("b{i}"), address, weight))
        .collect();
    Arc::new(RingBase::new(&service, Line::Active))
}

fn address(seed: u8, i: u16) -> IpAddr {
    let [high, low] = i.to_be_bytes();
    Ipv4Addr::new(198, seed, high, low).into()
}

/// What a packet sees: the address behind each slot.
fn owners(ring: &Ring) -> Vec<IpAddr> {
    let address = |&ordinal: &u16| ring.base.addresses[usize::from(ordinal)];
    ring.slots().iter().map(address).collect()
}

const SECRET: [u8; 16] = *b"a cluster secret";

/// Weights and, per backend, whether it is available at three moments.
fn farm() -> impl Strategy<Value = Vec<(u16, [bool; 3])>> {
    let weight = prop_oneof![1 => Just(0u16), 4 => 1..4u16, 4 => Just(100u16), 1 => any::<u16>()];
    prop::collection::vec((weight, any::<[bool; 3]>()), 1..24)
}

proptest! {
    #[test]
    fn the_order_in_the_file_does_not_matter(
        (farm, order) in farm().prop_flat_map(|farm| {
            let indices: Vec<usize> = (0..farm.len()).collect();
            (Just(farm), Just(indices).prop_shuffle())
        }),
    ) {
        let backends: Vec<_> = (0..).zip(&farm).map(|(i, f)| (address(1, i), f.0)).collect();
        let flags: Vec<bool> = farm.iter().map(|f| f.1[0]).collect();
        let here = base_of(backends.clone(), 1024).ring(&flags);
        let shuffled = base_of(order.iter().map(|&i| backends[i]).collect(), 1024);
        let there = shuffled.ring(&order.iter().map(|&i| flags[i]).collect::<Vec<_>>());
        prop_assert_eq!(here.as_ref().map(owners), there.as_ref().map(owners));
        prop_assert_eq!(
            here.map(|r| r.fingerprint(&SECRET)),
            there.map(|r| r.fingerprint(&SECRET))
        );
    }

    #[test]
    fn history_does_not_matter(farm in farm()) {
        let weights: Vec<_> = farm.iter().map(|f| f.0).collect();
        let base = base(2, &weights, 1024);
        let mut ring: Option<Ring> = None;
        for moment in 0..3 {
            let flags: Vec<bool> = farm.iter().map(|f| f.1[moment]).collect();
            let afresh = base.ring(&flags);
            let updated = ring.as_ref().map_or_else(|| afresh.clone(), |r| r.update(&flags));
            prop_assert_eq!(&updated, &afresh, "moment {}", moment);
            let somebody = farm.iter().any(|f| f.0 > 0 && f.1[moment]);
            prop_assert_eq!(afresh.is_some(), somebody);
            ring = updated.or(ring);
        }
    }

    #[test]
    fn a_death_moves_only_the_slots_of_the_dead_and_a_return_takes_them_back(
        farm in farm(),
        victim: prop::sample::Index,
    ) {
        let weights: Vec<_> = farm.iter().map(|f| f.0).collect();
        let mut flags: Vec<bool> = farm.iter().map(|f| f.1[0]).collect();
        let victim = victim.index(flags.len());
        flags[victim] = true;
        let base = base(3, &weights, 1024);
        let Some(before) = base.ring(&flags) else { return Ok(()) };
        flags[victim] = false;
        let Some(after) = before.update(&flags) else { return Ok(()) };
        for (slot, (&was, &is)) in before.slots().iter().zip(after.slots()).enumerate() {
            if usize::from(was) == victim {
                prop_assert!(flags[usize::from(is)], "slot {} went to the dead {}", slot, is);
            } else {
                prop_assert_eq!(was, is, "slot {} moved without cause", slot);
            }
        }
        flags[victim] = true;
        prop_assert_eq!(after.update(&flags), Some(before));
    }

    #[test]
    fn while_all_are_up_shares_are_fair_but_for_rounding(
        weights in prop::collection::vec(0u16..50, 1..24),
    ) {
        let base = base(4, &weights, 4096);
        let Some(ring) = base.ring(&vec![true; weights.len()]) else {
            prop_assert!(weights.iter().all(|&w| w == 0));
            return Ok(());
        };
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        for (share, &weight) in ring.shares().into_iter().zip(&weights) {
            let fair = 4096.0 * f64::from(weight) / total;
            let error = f64::from(share) - fair;
            let rounding = fair * weights.len() as f64 / 4096.0;
            prop_assert!((-2.0 - rounding..=2.0).contains(&error), "{} {}", share, fair);
        }
    }
}

/// Weights, shares, and by how many steps the share of one of them grows then.
fn ramp() -> impl Strategy<Value = (Vec<(u16, Share)>, prop::sample::Index, Vec<u8>)> {
    let share = prop_oneof![
        2 => Just(Share::NONE),
        3 => Just(Share::WHOLE),
        2 => (1..Share::STEPS).prop_map(Share::steps),
    ];
    let farm = prop::collection::vec((1u16..4, share), 2..16);
    let steps = prop::collection::vec(1..4u8, 1..8);
    (farm, any::<prop::sample::Index>(), steps)
}

proptest! {
    #[test]
    fn slots_move_to_whom_starts_slowly_once_each_and_as_on_every_other_node(
        (farm, starter, steps) in ramp(),
    ) {
        let weights: Vec<_> = farm.iter().map(|f| f.0).collect();
        let mut shares: Vec<_> = farm.iter().map(|f| f.1).collect();
        let starter = starter.index(farm.len());
        let other = (starter + 1) % farm.len();
        shares[other] = Share::WHOLE;
        shares[starter] = Share::NONE;
        let base = base(10, &weights, 1024);
        let away = base.ring(&shares).expect("the other one serves");
        let mut ring = away.clone();
        let mut share = 0;
        for step in steps.into_iter().chain([Share::STEPS]) {
            share += step;
            shares[starter] = Share::steps(share);
            let next = ring.update(&shares).expect("the other one serves");
            for (slot, (&was, &is)) in ring.slots().iter().zip(next.slots()).enumerate() {
                prop_assert!(was == is || usize::from(is) == starter, "slot {}", slot);
            }
            prop_assert_eq!(&next, &base.ring(&shares).expect("the other one serves"));
            ring = next;
        }
        shares[starter] = Share::NONE;
        prop_assert_eq!(ring.update(&shares), Some(away), "and all go back");
    }
}

#[test]
fn a_share_is_a_part_of_the_slots_of_its_own() {
    let base = base(11, &[1; 10], 65_536);
    let mut shares = [Share::WHOLE; 10];
    let whole = f64::from(base.ring(&shares).expect("a ring").shares()[3]);
    for step in 1..=Share::STEPS {
        shares[3] = Share::steps(step);
        let ring = base.ring(&shares).expect("a ring");
        let part = f64::from(ring.shares()[3]) / whole * 100.0;
        let expected = f64::from(Share::steps(step).percent());
        assert!((part - expected).abs() < 3.0, "{part} is not {expected}");
    }
}

#[test]
fn when_all_that_are_left_start_slowly_every_slot_has_an_owner() {
    let base = base(12, &[1; 4], 4096);
    let shares = [
        Share::steps(1),
        Share::NONE,
        Share::steps(2),
        Share::steps(1),
    ];
    let ring = base.ring(&shares).expect("a ring");
    let owned = ring.shares();
    assert_eq!(
        (owned.iter().sum::<u32>(), owned[1]),
        (4096, 0),
        "{owned:?}"
    );
    let again = base
        .ring(&[true, false, true, true])
        .and_then(|ring| ring.update(&shares));
    assert_eq!(again, Some(ring), "whatever was before");
}

#[test]
fn rings_of_special_farms() {
    let check = |sentence, weights: &[u16], flags: &[bool], shares: Option<&[u32]>| {
        let ring = base(5, weights, 4096).ring(flags);
        let found = ring.map(|r| r.shares());
        assert_eq!(found.as_deref(), shares, "{sentence}");
    };
    check("no backend, no ring", &[], &[], None);
    check("nobody available, no ring", &[1, 1], &[false, false], None);
    check("weights of 0 own nothing", &[0, 0], &[true, true], None);
    check("only weights of 0 available", &[1, 0], &[false, true], None);
    check("one owns all", &[7], &[true], Some(&[4096]));
    check(
        "the only one up owns all",
        &[1, 9],
        &[true, false],
        Some(&[4096, 0]),
    );
    check("equal halves", &[3, 3], &[true, true], Some(&[2048, 2048]));
    check("three to one", &[3, 1], &[true, true], Some(&[3072, 1024]));
    check(
        "the lightest still owns one",
        &[65535, 1],
        &[true, true],
        Some(&[4095, 1]),
    );
    check(
        "missing flags mean unavailable",
        &[1, 1],
        &[true],
        Some(&[4096, 0]),
    );
}

#[test]
fn a_ring_smaller_than_its_farm_is_still_a_ring() {
    let ring = base(6, &[1; 100], 16).ring(&[true; 100]).expect("a ring");
    assert_eq!(ring.slots().len(), 16);
    assert_eq!(ring.shares().iter().sum::<u32>(), 16);
}

#[test]
fn slots_of_the_dead_are_dealt_out_by_weight() {
    let weights = [100, 10, 20, 30, 40];
    let base = base(7, &weights, 65_536);
    let all = base.ring(&[true; 5]).expect("a ring").shares();
    let ring = base.ring(&[false, true, true, true, true]).expect("a ring");
    let gains: Vec<_> = ring
        .shares()
        .into_iter()
        .zip(&all)
        .skip(1)
        .map(|(n, o)| n - o)
        .collect();
    for (gain, weight) in gains.iter().zip(&weights[1..]) {
        let fair = f64::from(all[0]) * f64::from(*weight) / 100.0;
        let deviation = (f64::from(*gain) - fair) / fair.sqrt();
        assert!(deviation.abs() < 4.0, "{gains:?} of {}", all[0]);
    }
}

#[test]
fn the_identity_of_a_backend_is_its_address() {
    let v4: IpAddr = "192.0.2.1".parse().expect("address");
    let mapped: IpAddr = "::ffff:192.0.2.1".parse().expect("address");
    let v6: IpAddr = "2001:db8::1".parse().expect("address");
    assert_eq!(identity(v4), identity(mapped));
    assert_ne!(identity(v4), identity(v6));
}

/// Nodes of other builds and architectures must arrive at the same numbers. If
/// this fails, a cluster cannot be upgraded node by node.
#[test]
fn the_algorithm_is_fixed_for_ever() {
    let weights = [10, 20, 0, 10, 10];
    let base = base(8, &weights, 4096);
    let check = |sentence, flags: [bool; 5], head: [u16; 16], fingerprint: u64| {
        let ring = base.ring(&flags).expect("a ring");
        let found = (&ring.slots()[..16], ring.fingerprint(&SECRET));
        assert_eq!(found, (&head[..], fingerprint), "{sentence}");
    };
    check("all up", [true; 5], GOLDEN_ALL_UP.0, GOLDEN_ALL_UP.1);
    let flags = [true, false, true, true, true];
    check("one down", flags, GOLDEN_ONE_DOWN.0, GOLDEN_ONE_DOWN.1);
}

const GOLDEN_ALL_UP: ([u16; 16], u64) = (
    [0, 3, 0, 3, 0, 4, 4, 3, 1, 3, 1, 4, 1, 3, 1, 3],
    16643288627656916993,
);
const GOLDEN_ONE_DOWN: ([u16; 16], u64) = (
    [0, 3, 0, 3, 0, 4, 4, 3, 0, 3, 3, 4, 3, 3, 3, 3],
    13045700244740888830,
);

#[test]
fn the_fingerprint_depends_on_slots_and_secret() {
    let base = base(9, &[1, 1, 1], 4096);
    let all = base.ring(&[true; 3]).expect("a ring");
    let some = base.ring(&[true, true, false]).expect("a ring");
    assert_ne!(all.fingerprint(&SECRET), some.fingerprint(&SECRET));
    assert_ne!(all.fingerprint(&SECRET), all.fingerprint(&[0; 16]));
}

/// The table in the documentation of [`default_ring_size`]; run with
/// `--nocapture` to see it.
#[test]
fn balance_of_the_default_sizes() {
    println!("/// | backends | slots | all up | 10 % down (at least one) |");
    println!("/// |---:|---:|---:|---:|");
    for backends in [3, 10, 32, 33, 100, 128, 129, 500, 1000] {
        let size = default_ring_size(backends);
        let down = backends.div_ceil(10);
        let (mut up_sum, mut down_sum) = (0.0, 0.0);
        for seed in 0..20 {
            let base = base(seed, &vec![1; backends], size);
            let ring = base.ring(&vec![true; backends]).expect("a ring");
            up_sum += ring.balance().max;
            let flags: Vec<_> = (0..backends).map(|i| i >= down).collect();
            down_sum += ring.update(&flags).expect("a ring").balance().max;
        }
        let (all_up, ten_down) = (up_sum / 20.0, down_sum / 20.0);
        println!("/// | {backends} | {size} | {all_up:.3} | {ten_down:.3} |");
        assert!(all_up < 1.02, "{backends} backends, all up: {all_up}");
        assert!(ten_down < 1.2, "{backends} backends, some down: {ten_down}");
    }
}

#[test]
fn a_change_of_configuration_moves_little_more_than_it_must() {
    let seeds = 0..10;
    let moved = |from: &Ring, to: &Ring| {
        let pairs = owners(from).into_iter().zip(owners(to));
        pairs.filter(|(a, b)| a != b).count() as f64 / from.slots().len() as f64
    };
    let mean = seeds
        .map(|seed| {
            let with = base(seed, &[1; 100], 16_384)
                .ring(&[true; 100])
                .expect("a ring");
            let without = base(seed, &[1; 99], 16_384)
                .ring(&[true; 99])
                .expect("a ring");
            moved(&with, &without)
        })
        .sum::<f64>()
        / 10.0;
    println!(
        "removing one of 100 moves {:.2} % of the slots",
        mean * 100.0
    );
    assert!(mean < 0.05, "{mean}");
}
