//! The decision as tables and properties.

mod stand_in;

use std::{net::IpAddr, num::NonZeroU16};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::model::{Needs, Ports, Protocol, Role, tests::service};

fn decider() -> Decider {
    Decider::new(*b"a cluster secret")
}

fn model(services: impl IntoIterator<Item = Service>) -> Model {
    let services = services.into_iter().map(Arc::new).collect();
    Model { services }
}

/// Three backends of one service; `up` names those that are healthy.
fn web() -> Service {
    service("web", &[("a", 1, 10), ("b", 2, 10), ("c", 3, 10)])
}

fn up(names: &str) -> impl Fn(&Service, &Backend) -> bool + '_ {
    |_, backend| names.contains(&*backend.name)
}

fn decide(model: &Model, names: &str, previous: &Desired) -> Desired {
    decider().decide(model, &up(names), previous)
}

fn only_vip(desired: &Desired) -> &VipPlan {
    desired.vips.values().next().expect("a VIP")
}

#[test]
fn a_vip_is_alive_while_enough_backends_are_healthy() {
    let check = |sentence, min_healthy, weights: [u16; 3], names, alive, reason| {
        let mut web = web();
        web.needs = Needs::count(min_healthy);
        for (backend, weight) in web.backends.iter_mut().zip(weights) {
            backend.weight = weight;
        }
        let desired = decide(&model([web]), names, &Desired::default());
        let vip = only_vip(&desired);
        let found = (vip.is_alive(), vip.reason());
        assert_eq!(found, (alive, String::from(reason)), "{sentence}: {vip:#?}");
    };
    let even = [10; 3];
    check(
        "all healthy",
        1,
        even,
        "abc",
        true,
        "web: 3 of 3 backends healthy",
    );
    check(
        "one is enough",
        1,
        even,
        "b",
        true,
        "web: 1 of 3 backends healthy",
    );
    check(
        "nobody",
        1,
        even,
        "",
        false,
        "web: 0 of 3 backends healthy, 1 wanted",
    );
    check(
        "exactly enough",
        2,
        even,
        "ab",
        true,
        "web: 2 of 3 backends healthy",
    );
    check(
        "one too few",
        3,
        even,
        "ab",
        false,
        "web: 2 of 3 backends healthy, 3 wanted",
    );
    check(
        "a healthy backend without weight takes no traffic and does not count",
        1,
        [0, 10, 10],
        "a",
        false,
        "web: 0 of 2 backends healthy, 1 wanted",
    );
}

#[test]
fn a_vip_is_alive_while_one_of_its_services_is() {
    let check = |sentence, names, alive, reason| {
        let dns = service("dns", &[("x", 8, 1)]);
        let desired = decide(&model([dns, web()]), names, &Desired::default());
        let vip = only_vip(&desired);
        let found = (desired.vips.len(), vip.is_alive(), vip.reason());
        assert_eq!(
            found,
            (1, alive, String::from(reason)),
            "{sentence}: {desired:#?}"
        );
    };
    check(
        "both",
        "ax",
        true,
        "dns: 1 of 1 backends healthy; web: 1 of 3 backends healthy",
    );
    check(
        "one of two",
        "a",
        true,
        "dns: 0 of 1 backends healthy, 1 wanted; web: 1 of 3 backends healthy",
    );
    check(
        "none",
        "",
        false,
        "dns: 0 of 1 backends healthy, 1 wanted; web: 0 of 3 backends healthy, 1 wanted",
    );
}

#[test]
fn every_address_of_a_service_gets_its_plan() {
    let mut web = web();
    web.vips = vec![
        IpAddr::from([192, 0, 2, 7]).into(),
        "2001:db8::/64".parse::<IpNet>().expect("v6").into(),
    ];
    let desired = decide(&model([web.clone()]), "a", &Desired::default());
    assert_eq!(desired.vips.keys().copied().collect::<Vec<_>>(), web.vips);
    let plans: Vec<_> = desired.vips.values().collect();
    assert_eq!(plans[0], plans[1]);
}

#[test]
fn nothing_new_is_the_same_state_in_the_same_memory() {
    let dns = service("dns", &[("x", 8, 1)]);
    let first = decide(&model([dns.clone(), web()]), "abx", &Desired::default());
    // The model is read anew, so it is equal but not the same.
    let second = decide(&model([dns.clone(), web()]), "abx", &first);
    assert_eq!(second, first);
    for (new, old) in second.services.iter().zip(&first.services) {
        assert!(Arc::ptr_eq(new, old), "{new:#?}");
    }

    let third = decide(&model([dns, web()]), "ax", &second);
    assert_ne!(third, second);
    assert!(Arc::ptr_eq(&third.services[0], &second.services[0]));
    assert!(!Arc::ptr_eq(&third.services[1], &second.services[1]));
    let vips = |desired: &Desired| desired.vips.values().map(Arc::as_ptr).collect::<Vec<_>>();
    assert_eq!(vips(&second), vips(&first));
    assert_ne!(vips(&third), vips(&second));
}

#[test]
fn a_service_that_comes_or_goes_leaves_the_others_as_they_are() {
    let dns = || service("dns", &[("x", 8, 1)]);
    let alone = decide(&model([web()]), "ab", &Desired::default());
    let joined = decide(&model([dns(), web()]), "ab", &alone);
    let again = decide(&model([web()]), "ab", &joined);
    let web = [&alone.services[0], &joined.services[1], &again.services[0]];
    assert!(web.iter().all(|plan| Arc::ptr_eq(plan, web[0])), "{web:#?}");
}

#[test]
fn while_nobody_is_left_the_ring_stays_as_it_was() {
    let model = model([web()]);
    let some = decide(&model, "ab", &Desired::default());
    let nobody = decide(&model, "", &some);
    let (some, after) = (&some.services[0], &nobody.services[0]);
    assert!(!after.is_alive());
    assert_eq!(after.ring, some.ring);
    assert_eq!(after.fingerprint, some.fingerprint, "nothing to apply");

    let back = decide(&model, "c", &nobody);
    let afresh = decide(&model, "c", &Desired::default());
    assert_eq!(back.services[0].ring, afresh.services[0].ring);
    assert_eq!(
        back.vips.values().next().map(|vip| vip.state),
        Some(State::Up)
    );
}

#[test]
fn who_was_never_up_has_no_ring() {
    let desired = decide(&model([web()]), "", &Desired::default());
    assert_eq!(desired.services[0].ring, None);
    assert_eq!(desired.services[0].ring_fingerprint, None);
}

#[test]
fn a_ring_of_other_backends_is_not_kept() {
    let some = decide(&model([web()]), "abc", &Desired::default());
    let mut other = web();
    other.backends.remove(0);
    let nobody = decide(&model([other]), "", &some);
    assert_eq!(nobody.services[0].ring, None, "{nobody:#?}");
}

#[test]
fn the_base_of_the_ring_is_computed_only_for_other_backends() {
    let check = |sentence, edit: fn(&mut Service), same| {
        let before = decide(&model([web()]), "abc", &Desired::default());
        let mut edited = web();
        edit(&mut edited);
        let after = decide(&model([edited]), "abc", &before);
        let bases = (&before.services[0].base, &after.services[0].base);
        assert_eq!(Arc::ptr_eq(bases.0, bases.1), same, "{sentence}");
    };
    check("a check", |s| s.check.timing.rise += 1, true);
    check("a name", |s| s.backends[0].name = "aa".into(), true);
    check("a weight", |s| s.backends[0].weight += 1, false);
    check("a size", |s| s.ring_size *= 2, false);
    check("a removal", |s| drop(s.backends.pop()), false);
}

#[test]
fn the_fingerprint_of_a_vip_covers_what_packets_meet() {
    let check = |sentence, edit: fn(&mut Service), names, same| {
        let before = decide(&model([web()]), "abc", &Desired::default());
        let mut edited = web();
        edit(&mut edited);
        let after = decide(&model([edited]), names, &Desired::default());
        let fingerprints = (only_vip(&before).fingerprint, only_vip(&after).fingerprint);
        assert_eq!(fingerprints.0 == fingerprints.1, same, "{sentence}");
    };
    check("nothing", |_| (), "abc", true);
    check("a check", |s| s.check.timing.rise += 1, "abc", true);
    check(
        "a name of a backend",
        |s| s.backends[2].name = "ab".into(),
        "abc",
        true,
    );
    check(
        "the port",
        |s| s.ports = Ports::One(NonZeroU16::MIN),
        "abc",
        false,
    );
    check("more ports", |s| s.ports = Ports::Any, "abc", false);
    check(
        "the port of the tunnel",
        |s| s.mode = Mode::Gue(NonZeroU16::MIN),
        "abc",
        false,
    );
    check("the protocol", |s| s.protocol = Protocol::Udp, "abc", false);
    check("the mode", |s| s.mode = Mode::L2Dsr, "abc", false);
    check(
        "the name of the service",
        |s| s.name = "www".into(),
        "abc",
        false,
    );
    check("the ring size", |s| s.ring_size *= 2, "abc", false);
    check(
        "an address",
        |s| s.backends[0].address = [203, 0, 113, 1].into(),
        "abc",
        false,
    );
    check("a death", |_| (), "ab", false);
}

proptest! {
    /// But for rings kept because nobody is left, history does not matter.
    #[test]
    fn a_decision_does_not_depend_on_the_ones_before(
        moments in prop::collection::vec("[abcx]{0,4}", 1..8),
    ) {
        let model = model([service("dns", &[("x", 8, 1)]), web()]);
        let mut previous = Desired::default();
        for names in moments {
            let desired = decide(&model, &names, &previous);
            let afresh = decide(&model, &names, &Desired::default());
            for (found, expected) in desired.services.iter().zip(&afresh.services) {
                if expected.healthy() > 0 {
                    prop_assert_eq!(&found.ring, &expected.ring);
                    prop_assert_eq!(found.fingerprint, expected.fingerprint);
                    prop_assert_eq!(found.state(), expected.state());
                } else {
                    let kept = previous.service(&found.service.name).map(|p| &p.ring);
                    prop_assert_eq!(&found.ring, kept.unwrap_or(&None));
                }
            }
            for (found, expected) in desired.vips.values().zip(afresh.vips.values()) {
                prop_assert_eq!(found.state, expected.state);
                prop_assert_eq!(found.reason(), expected.reason());
            }
            previous = desired;
        }
    }
}

#[test]
fn another_secret_gives_other_fingerprints_and_the_same_ring() {
    let model = model([service("web", &[("a", 1, 1), ("b", 2, 1)])]);
    let health = |_: &Service, _: &Backend| true;
    let before = decider().decide(&model, &health, &Desired::default());
    let after = Decider::new(*b"another secret!!").decide(&model, &health, &before);
    let (before, after) = (&before.services[0], &after.services[0]);
    assert_ne!(before.ring_fingerprint, after.ring_fingerprint);
    assert_ne!(before.fingerprint, after.fingerprint);
    assert_eq!(
        before.ring, after.ring,
        "who owns which slot is no secret's affair"
    );
}

#[test]
fn a_renamed_service_whose_farm_is_down_keeps_its_last_ring() {
    let model = |name| model([service(name, &[("a", 1, 1), ("b", 2, 1)])]);
    let up = |_: &Service, _: &Backend| true;
    let down = |_: &Service, _: &Backend| false;
    let before = decider().decide(&model("web"), &up, &Desired::default());
    let after = decider().decide(&model("shop"), &down, &before);
    assert_eq!(after.services[0].ring, before.services[0].ring);
}

/// Health and drains as letters, one of each per backend: `A`vailable,
/// `F`ailing, `D`ead; `d` for drained.
struct Told(&'static str, &'static str);

impl HealthView for Told {
    fn standing(&self, _: &Service) -> Vec<Standing> {
        let standing = |letter| match letter {
            'A' => Standing::Available,
            'F' => Standing::Failing,
            _ => Standing::Dead,
        };
        self.0.chars().map(standing).collect()
    }

    fn drained(&self, _: &Service) -> Vec<bool> {
        self.1.chars().map(|letter| letter == 'd').collect()
    }
}

#[test]
fn the_operator_and_the_checks_together_say_what_a_backend_is_for_flows() {
    use Standing::{Available, Dead, Draining, Failing};
    let check = |sentence, told: Told, standing: [Standing; 3], healthy| {
        let desired = decider().decide(&model([web()]), &told, &Desired::default());
        let plan = &desired.services[0];
        let available = standing.map(|standing| standing == Available);
        assert_eq!(plan.standing, standing, "{sentence}: {plan:#?}");
        assert_eq!(plan.available, available, "{sentence}: {plan:#?}");
        assert_eq!(plan.healthy(), healthy, "{sentence}: {plan:#?}");
    };
    check("all well", Told("AAA", "---"), [Available; 3], 3);
    check(
        "each his own",
        Told("AFD", "---"),
        [Available, Failing, Dead],
        1,
    );
    check(
        "drained while healthy",
        Told("AAA", "d--"),
        [Draining, Available, Available],
        2,
    );
    check(
        "drained and failing",
        Told("FAA", "d--"),
        [Failing, Available, Available],
        2,
    );
    check(
        "drained and dead is dead",
        Told("DAA", "d--"),
        [Dead, Available, Available],
        2,
    );
    check("nobody said anything", Told("", ""), [Dead; 3], 0);
}

#[test]
fn a_standing_alone_makes_another_plan_and_the_same_ring() {
    let check = |sentence, before: Told, after: Told| {
        let model = model([web()]);
        let first = decider().decide(&model, &before, &Desired::default());
        let second = decider().decide(&model, &after, &first);
        let (first, second) = (&first.services[0], &second.services[0]);
        assert_ne!(first, second, "{sentence}");
        assert_eq!(first.ring, second.ring, "{sentence}");
        assert_eq!(first.fingerprint, second.fingerprint, "{sentence}");
    };
    check("a failing one dies", Told("AAF", ""), Told("AAD", ""));
    check("a dead one is drained", Told("AAD", ""), Told("AAD", "--d"));
    check(
        "a drained one fails",
        Told("AAA", "--d"),
        Told("AAF", "--d"),
    );
}

#[test]
fn when_the_last_one_is_drained_the_ring_stays_with_it() {
    let model = model([web()]);
    let some = decider().decide(&model, &Told("ADD", ""), &Desired::default());
    let nobody = decider().decide(&model, &Told("ADD", "d--"), &some);
    let (some, nobody) = (&some.services[0], &nobody.services[0]);
    assert!(!nobody.is_alive(), "{nobody:#?}");
    assert_eq!(nobody.ring, some.ring);
}

/// `a` and `b` are active, `c` is a backup, `d` says sorry.
fn lines() -> Service {
    let mut web = service(
        "web",
        &[("a", 1, 10), ("b", 2, 10), ("c", 3, 10), ("d", 4, 10)],
    );
    web.backends[2].role = Role::Backup;
    web.backends[3].role = Role::Sorry;
    web
}

#[test]
fn who_is_off_duty_owns_no_slot_and_leaves_the_others_in_balance() {
    let check = |names, available: [bool; 4], state| {
        let desired = decide(&model([lines()]), names, &Desired::default());
        let plan = &desired.services[0];
        assert_eq!(plan.available, available, "{names}: {plan:#?}");
        assert_eq!(plan.state(), state, "{names}: {plan:#?}");
        let ring = plan.ring.as_ref().expect("somebody is there");
        let owns = ring.shares().into_iter().map(|share| share > 0);
        assert_eq!(owns.collect::<Vec<_>>(), available, "{names}: {plan:#?}");
        let balance = ring.balance();
        assert!(balance.max < 1.01, "{names}: {balance:?}");
    };
    let (yes, no) = (true, false);
    check("abcd", [yes, yes, no, no], State::Up);
    check("bcd", [no, yes, no, no], State::Up);
    check("cd", [no, no, yes, no], State::Up);
    check("d", [no, no, no, yes], State::Degraded);
}

#[test]
fn rings_of_lines_come_back_as_they_were_whatever_was_between() {
    let model = model([lines()]);
    let mut desired = Desired::default();
    for names in ["abcd", "cd", "", "c", "d", "", "bcd", "abcd", "ab"] {
        let before = desired.services.first().and_then(|plan| plan.ring.clone());
        desired = decide(&model, names, &desired);
        let afresh = decide(&model, names, &Desired::default());
        let expected = match names {
            "" => &before,
            _ => &afresh.services[0].ring,
        };
        assert_eq!(&desired.services[0].ring, expected, "{names}");
    }
}

/// All backends are available, and the service of this name is disabled.
struct Disabled(&'static str);

impl HealthView for Disabled {
    fn standing(&self, service: &Service) -> Vec<Standing> {
        vec![Standing::Available; service.backends.len()]
    }

    fn disabled(&self, service: &Service) -> Option<Arc<str>> {
        (&*service.name == self.0).then(|| "by order".into())
    }
}

#[test]
fn a_disabled_service_forwards_as_before() {
    let model = model([web()]);
    let before = decide(&model, "abc", &Desired::default());
    let after = decider().decide(&model, &Disabled("web"), &before);
    assert_eq!(only_vip(&after).fingerprint, only_vip(&before).fingerprint);
    assert_eq!(only_vip(&after).state, State::Disabled);
    assert_eq!(
        only_vip(&after).reason(),
        "web: disabled, by order; 3 of 3 backends healthy"
    );
}

#[test]
fn who_tracks_a_service_is_down_while_that_is_down_or_disabled() {
    let mut dns = service("dns", &[("x", 8, 1)]);
    dns.vips = vec![IpAddr::from([192, 0, 2, 2]).into()];
    let mut web = web();
    web.track = vec!["dns".into()];
    let model = model([dns, web]);
    let check = |sentence, desired: Desired, expected: [(State, &str); 2]| {
        let services = desired.services.iter();
        let found: Vec<_> = services.map(|plan| (plan.state(), plan.reason())).collect();
        let expected = expected.map(|(state, reason)| (state, reason.to_owned()));
        assert_eq!(found, expected, "{sentence}: {desired:#?}");
    };
    let disabled = |name| decider().decide(&model, &Disabled(name), &Desired::default());
    let follows = "web: 3 of 3 backends healthy, and it follows dns, which is not alive";
    check(
        "all is well",
        disabled("nobody"),
        [
            (State::Up, "dns: 1 of 1 backends healthy"),
            (State::Up, "web: 3 of 3 backends healthy"),
        ],
    );
    check(
        "it is down",
        decide(&model, "abc", &Desired::default()),
        [
            (State::Down, "dns: 0 of 1 backends healthy, 1 wanted"),
            (State::Down, follows),
        ],
    );
    check(
        "it is disabled",
        disabled("dns"),
        [
            (
                State::Disabled,
                "dns: disabled, by order; 1 of 1 backends healthy",
            ),
            (State::Down, follows),
        ],
    );
    check(
        "who follows is disabled",
        disabled("web"),
        [
            (State::Up, "dns: 1 of 1 backends healthy"),
            (
                State::Disabled,
                "web: disabled, by order; 3 of 3 backends healthy",
            ),
        ],
    );
}

#[test]
fn without_a_backend_the_service_would_be_so() {
    let desired = decide(&model([lines()]), "abd", &Desired::default());
    let plan = &desired.services[0];
    assert_eq!(plan.without(0).state, State::Up, "{plan:#?}");
    let desired = decide(&model([lines()]), "ad", &desired);
    let plan = &desired.services[0];
    assert_eq!(plan.without(0).state, State::Degraded, "{plan:#?}");
    assert_eq!(plan.without(3).state, State::Up, "{plan:#?}");
}
