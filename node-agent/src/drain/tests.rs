//! Orders as tables.

use std::{num::NonZeroU16, time::Duration};

use vipd_control::{
    decide::{Decider, HealthView},
    model::{Needs, Ports},
};

use super::*;

/// Backends by name and last byte of the address; `weights` in their order.
fn service(name: &str, min_healthy: u32, backends: &[(&str, u8)], weight: u16) -> Service {
    Service {
        ports: Ports::One(NonZeroU16::MIN),
        needs: Needs::count(min_healthy),
        ring_size: 64,
        idle: Duration::ZERO,
        ..Service::new(
            name,
            vec![IpAddr::from([198, 51, 100, 1]).into()],
            backends
                .iter()
                .map(|&(name, last)| Backend::new(name, [192, 0, 2, last].into(), weight))
                .collect(),
        )
    }
}

fn model(service: Service) -> Model {
    Model {
        services: vec![Arc::new(service)],
    }
}

/// Health as one letter per backend: `A`vailable, `F`ailing, `D`ead.
struct Told<'a>(&'a str, &'a Drains);

impl HealthView for Told<'_> {
    fn standing(&self, _: &Service) -> Vec<Standing> {
        let standing = |letter| match letter {
            'A' => Standing::Available,
            'F' => Standing::Failing,
            _ => Standing::Dead,
        };
        self.0.chars().map(standing).collect()
    }

    fn drained(&self, service: &Service) -> Vec<bool> {
        self.1.of(service)
    }
}

/// Carries out orders such as `drain web/a`, `undrain web/b`, `force web/c`
/// and returns the last answer, with the drained in letters.
fn obey(min_healthy: u32, weight: u16, health: &str, orders: &[&str]) -> (Answer, String) {
    let backends = [("a", 1), ("b", 2), ("c", 3)];
    let model = model(service("web", min_healthy, &backends, weight));
    let mut drains = Drains::default();
    let mut last = None;
    for text in orders {
        let (verb, target) = text.split_once(' ').expect("a verb and a target");
        let order = Order {
            target: target.parse().expect("a target"),
            drained: verb != "undrain",
            force: verb == "force",
        };
        let told = Told(health, &drains);
        let desired = Decider::new([0; 16]).decide(&model, &told, &Desired::default());
        let outcome = drains.carry_out(&order, &model, &desired);
        last = Some(Answer {
            done: outcome.is_ok(),
            message: outcome.unwrap_or_else(|message| message),
        });
    }
    let flags = drains.of(&model.services[0]);
    let named = backends.iter().zip(flags).filter(|(_, drained)| *drained);
    let drained = named.map(|((name, _), _)| *name).collect();
    (last.expect("an order"), drained)
}

#[test]
fn an_order_is_carried_out_or_refused_with_a_reason() {
    let check = |sentence, health, orders: &[&str], done, words: &str, drained: &str| {
        let (answer, found) = obey(1, 1, health, orders);
        assert_eq!(
            (answer.done, &*found),
            (done, drained),
            "{sentence}: {answer:?}"
        );
        assert!(answer.message.contains(words), "{sentence}: {answer:?}");
    };
    check(
        "a healthy one",
        "AAA",
        &["drain web/a"],
        true,
        "web/a is drained: it gets no new flows and keeps those it has",
        "a",
    );
    check(
        "twice",
        "AAA",
        &["drain web/a"; 2],
        true,
        "web/a is drained already",
        "a",
    );
    check(
        "and back",
        "AAA",
        &["drain web/a", "undrain web/a"],
        true,
        "takes new flows again",
        "",
    );
    check(
        "never drained",
        "AAA",
        &["undrain web/a"],
        true,
        "web/a is not drained already",
        "",
    );
    check(
        "a dead one",
        "DAA",
        &["drain web/a"],
        true,
        "but is down",
        "a",
    );
    check(
        "a failing one",
        "FAA",
        &["drain web/a"],
        true,
        "but fails its checks",
        "a",
    );
    check(
        "no such service",
        "AAA",
        &["drain wob/a"],
        false,
        "there is no service wob; there is web",
        "",
    );
    check(
        "no such backend",
        "AAA",
        &["undrain web/x"],
        false,
        "service web has no backend x; it has a, b, c",
        "",
    );
    check(
        "the last that is up",
        "ADF",
        &["drain web/a"],
        false,
        "it is the last one that takes flows",
        "",
    );
    check(
        "the last that is not drained",
        "AAA",
        &["drain web/a", "drain web/b", "drain web/c"],
        false,
        "undrain one first, or drain it all the same with --force",
        "ab",
    );
    check(
        "by force",
        "ADD",
        &["force web/a"],
        true,
        "web/a is drained",
        "a",
    );
    check(
        "a dead one while nobody is up",
        "DDD",
        &["drain web/a"],
        true,
        "is down",
        "a",
    );
}

#[test]
fn a_service_keeps_as_many_backends_as_it_wants() {
    let check = |sentence, health, weight, order, done: bool| {
        let (answer, _) = obey(2, weight, health, &[order]);
        assert_eq!(answer.done, done, "{sentence}: {answer:?}");
        let tells = answer
            .message
            .contains("1 healthy backends would be left and 2 are wanted");
        assert_eq!(tells, !done, "{sentence}: {answer:?}");
    };
    check("enough are left", "AAA", 1, "drain web/a", true);
    check("one too few", "AAD", 1, "drain web/a", false);
    check("one too few, by force", "AAD", 1, "force web/a", true);
    check(
        "one without weight is not missed",
        "AAD",
        0,
        "drain web/a",
        true,
    );
}

#[test]
fn a_reload_keeps_whom_it_still_knows_drained() {
    let before = model(service("web", 1, &[("a", 1), ("b", 2)], 1));
    let check = |sentence, after: Service, expected: &[bool]| {
        let mut drains = Drains::new(&before, |_, backend| &*backend.name == "b");
        let after = model(after);
        drains.configure(&before, &after);
        assert_eq!(
            drains.of(&after.services[0]),
            expected,
            "{sentence}: {drains:?}"
        );
    };
    check(
        "nothing new",
        service("web", 1, &[("a", 1), ("b", 2)], 1),
        &[false, true],
    );
    check(
        "another name",
        service("web", 1, &[("a", 1), ("z", 2)], 7),
        &[false, true],
    );
    check(
        "another address",
        service("web", 1, &[("a", 1), ("b", 3)], 1),
        &[false, false],
    );
    check(
        "a renamed service",
        service("shop", 1, &[("b", 2), ("c", 3)], 1),
        &[true, false],
    );

    let gone = model(service("web", 1, &[("a", 1)], 1));
    let mut drains = Drains::new(&before, |_, _| true);
    drains.configure(&before, &gone);
    drains.configure(&gone, &before);
    assert_eq!(
        drains.of(&before.services[0]),
        [true, false],
        "who leaves is forgotten"
    );
}

#[test]
fn an_answer_says_when_a_stop_forgets_the_drain() {
    let check = |sentence, drained, done, on_stop, expected: bool| {
        let order = Order {
            target: "web/a".parse().expect("a target"),
            drained,
            force: false,
        };
        let message = "so it is".to_owned();
        let answer = Answer { done, message }.warn_of_stop(&order, on_stop);
        let warns = answer.message.contains("a stop of the agent forgets this");
        assert_eq!(warns, expected, "{sentence}: {answer:?}");
    };
    use OnStop::{Keep, Remove};
    check("the data plane goes with a stop", true, true, Remove, true);
    check("the data plane stays", true, true, Keep, false);
    check("the drain was refused", true, false, Remove, false);
    check("it was undrained", false, true, Remove, false);
}

#[test]
fn the_drained_are_told_by_their_names() {
    let check = |drained: &[&str], expected: Option<&str>| {
        let model = model(service("web", 1, &[("a", 1), ("b", 2), ("c", 3)], 1));
        let drains = Drains::new(&model, |_, backend| drained.contains(&&*backend.name));
        let told = Told("AAD", &drains);
        let desired = Decider::new([0; 16]).decide(&model, &told, &Desired::default());
        assert_eq!(super::drained(&desired).as_deref(), expected);
    };
    check(&[], None);
    check(&["b"], Some("web/b"));
    check(&["a", "c"], Some("web/a, web/c"));
}

#[test]
fn a_target_is_a_service_and_a_backend() {
    let target = "web/b1".parse::<Target>().expect("a target");
    assert_eq!(target.to_string(), "web/b1");
    for wrong in ["web", "/b1", "web/", ""] {
        let error = wrong.parse::<Target>().expect_err(wrong);
        assert!(error.contains("SERVICE/BACKEND"), "{error}");
    }
}
