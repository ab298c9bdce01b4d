//! Orders as tables.

use std::{net::IpAddr, num::NonZeroU16, time::Duration};

use vipd_control::{
    decide::{Decider, Desired, HealthView},
    model::{Needs, Ports},
    standing::Standing,
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
struct Told<'a>(&'a str, &'a Overrides);

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
        self.1.drained(service)
    }
}

/// An order in words: `drain web/a`, `undrain web/b`, `force web/c`, `until web/a`,
/// which has a deadline in 60 seconds, `disable web`, `enable web/a`, `clear web/a`,
/// `clear all`.
fn order(text: &str) -> Order {
    let (verb, target) = text.split_once(' ').expect("a verb and a target");
    let target = || target.parse::<Target>().expect("a target");
    let drain = |deadline_seconds| Act::Drain {
        target: target(),
        deadline_seconds,
    };
    let act = match (verb, text) {
        (_, "clear all") => Act::Clear(None),
        ("clear", _) => Act::Clear(Some(target())),
        ("drain" | "force", _) => drain(None),
        ("until", _) => drain(Some(60)),
        ("disable", _) => Act::Disable(target()),
        ("enable", _) => Act::Enable(target()),
        _ => Act::Undrain(target()),
    };
    Order {
        act,
        force: verb == "force",
        by: "anna".to_owned(),
        reason: None,
    }
}

/// Carries out orders and returns the last answer, with who is drained in letters,
/// and those that serve nothing as capitals.
fn obey(min_healthy: u32, weight: u16, health: &str, orders: &[&str]) -> (Answer, String) {
    let backends = [("a", 1), ("b", 2), ("c", 3)];
    let model = model(service("web", min_healthy, &backends, weight));
    let mut overrides = Overrides::default();
    let mut last = None;
    for text in orders {
        let told = Told(health, &overrides);
        let desired = Decider::new([0; 16]).decide(&model, &told, &Desired::default());
        let outcome = overrides.carry_out(&order(text), &model, &desired, 1000);
        last = Some(Answer {
            done: outcome.is_ok(),
            message: outcome.unwrap_or_else(|message| message),
        });
    }
    let web = &model.services[0];
    let flags = overrides.drained(web).into_iter().zip(overrides.ended(web));
    let named = backends.iter().zip(flags);
    let letters = named.filter_map(|((name, _), flags)| match flags {
        (_, true) => Some(name.to_uppercase()),
        (true, false) => Some((*name).to_owned()),
        (false, false) => None,
    });
    (last.expect("an order"), letters.collect())
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
        "with a deadline",
        "AAA",
        &["until web/a"],
        true,
        "keeps those it has; after 60 s it leaves, whatever flows remain",
        "a",
    );
    check(
        "with a deadline after all",
        "AAA",
        &["drain web/a", "until web/a"],
        true,
        "after 60 s it leaves",
        "a",
    );
    check(
        "disabled",
        "AAA",
        &["disable web/a"],
        true,
        "web/a is disabled: it takes no traffic and its flows end; checks go on",
        "A",
    );
    check(
        "drained before it is disabled",
        "AAA",
        &["drain web/a", "disable web/a"],
        true,
        "web/a is disabled",
        "A",
    );
    check(
        "disabled is more than drained",
        "AAA",
        &["disable web/a", "drain web/a"],
        false,
        "`vipd enable web/a` first",
        "A",
    );
    check(
        "what is disabled is not undrained",
        "AAA",
        &["disable web/a", "undrain web/a"],
        false,
        "web/a is not drained but disabled: `vipd enable web/a` ends that",
        "A",
    );
    check(
        "enabled again",
        "AAA",
        &["disable web/a", "enable web/a"],
        true,
        "web/a takes new flows again",
        "",
    );
    check(
        "the last one is not disabled",
        "ADD",
        &["disable web/a"],
        false,
        "web/a is not disabled: it is the last one",
        "",
    );
    check(
        "a service is disabled",
        "AAA",
        &["disable web"],
        true,
        "web is disabled: its addresses are announced as such",
        "",
    );
    check(
        "and enabled",
        "AAA",
        &["disable web", "enable web"],
        true,
        "web is enabled again",
        "",
    );
    check(
        "a service is not drained",
        "AAA",
        &["drain web"],
        false,
        "backends are drained, as SERVICE/BACKEND",
        "",
    );
    check(
        "one order is cleared",
        "AAA",
        &["drain web/a", "disable web/b", "clear web/b"],
        true,
        "web/b is not disabled any more",
        "a",
    );
    check(
        "all are cleared",
        "AAA",
        &["drain web/a", "disable web", "clear all"],
        true,
        "as configured again: web, web/a",
        "",
    );
    check(
        "there was none to clear",
        "AAA",
        &["clear web/a"],
        false,
        "nothing was ordered about web/a",
        "",
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
        "undrain one first, or do it all the same with --force",
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

/// Drains of those of whom `is_drained` says so.
fn drains(model: &Model, is_drained: impl Fn(&Service, &Backend) -> bool) -> Overrides {
    Overrides::of_drained(model, is_drained, 1000)
}

#[test]
fn a_reload_keeps_what_was_ordered_by_name_or_address() {
    let before = model(service("web", 1, &[("a", 1), ("b", 2)], 1));
    let check = |sentence, after: Service, expected: &[bool]| {
        let mut overrides = drains(&before, |_, backend| &*backend.name == "b");
        let after = model(after);
        overrides.configure(&after);
        assert_eq!(
            overrides.drained(&after.services[0]),
            expected,
            "{sentence}: {overrides:?}"
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
        "another address under the name that was ordered",
        service("web", 1, &[("a", 1), ("b", 3)], 1),
        &[false, true],
    );
    check(
        "a renamed service",
        service("shop", 1, &[("b", 2), ("c", 3)], 1),
        &[true, false],
    );
    check(
        "somebody else's service",
        Service {
            ports: Ports::Any,
            ..service("shop", 1, &[("b", 2)], 1)
        },
        &[false],
    );
}

#[test]
fn what_is_not_configured_is_kept_and_comes_back_with_its_name() {
    let before = model(service("web", 1, &[("a", 1), ("b", 2)], 1));
    let gone = model(service("web", 1, &[("a", 1)], 1));
    let mut overrides = drains(&before, |_, backend| &*backend.name == "b");
    overrides.configure(&gone);
    assert_eq!(overrides.drained(&gone.services[0]), [false]);
    let kept: Vec<_> = overrides
        .iter()
        .map(|(target, _)| target.to_string())
        .collect();
    assert_eq!(kept, ["web/b"], "{overrides:?}");
    let undone =
        overrides
            .clone()
            .carry_out(&order("undrain web/b"), &gone, &Desired::default(), 1000);
    assert_eq!(
        undone.as_deref(),
        Ok("web/b is not drained any more, and not configured")
    );
    let reused = model(service("web", 1, &[("a", 1), ("z", 2)], 1));
    overrides.configure(&reused);
    assert_eq!(
        overrides.drained(&reused.services[0]),
        [false, false],
        "its address is somebody else's by now"
    );
    overrides.configure(&before);
    assert_eq!(overrides.drained(&before.services[0]), [false, true]);
}

#[test]
fn a_file_is_followed_by_name_or_address_into_another_configuration() {
    let before = model(service("web", 1, &[("a", 1), ("b", 2)], 1));
    let mut overrides = Overrides::default();
    for text in ["force web/b", "disable web"] {
        let outcome = overrides.carry_out(&order(text), &before, &Desired::default(), 1000);
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    let text = serde_json::to_string(&overrides).expect("it can be written");
    let mut plain: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for over in plain.as_object_mut().expect("an object").values_mut() {
        let over = over.as_object_mut().expect("an object");
        assert!(over.remove("known_by").is_some(), "{text}");
    }
    let by_name_alone = plain.to_string();
    for (sentence, file, after, expected) in [
        (
            "as it was",
            &text,
            service("web", 1, &[("a", 1), ("b", 2)], 1),
            (true, [false, true]),
        ),
        (
            "all have other names",
            &text,
            service("shop", 1, &[("x", 1), ("y", 2)], 1),
            (true, [false, true]),
        ),
        (
            "all have other names, and an older vipd has kept names only",
            &by_name_alone,
            service("shop", 1, &[("x", 1), ("y", 2)], 1),
            (false, [false, false]),
        ),
        (
            "names are the same, and an older vipd has kept names only",
            &by_name_alone,
            service("web", 1, &[("a", 3), ("b", 4)], 1),
            (true, [false, true]),
        ),
    ] {
        let mut read: Overrides = serde_json::from_str(file).expect("it can be read");
        read.configure(&model(after.clone()));
        let found = (read.disabled(&after).is_some(), read.drained(&after));
        assert_eq!(
            found,
            (expected.0, expected.1.to_vec()),
            "{sentence}: {read:?}"
        );
    }
}

#[test]
fn a_deadline_ends_a_drain_once() {
    let model = model(service("web", 1, &[("a", 1), ("b", 2), ("c", 3)], 1));
    let told = Overrides::default();
    let told = Told("AAA", &told);
    let desired = Decider::new([0; 16]).decide(&model, &told, &Desired::default());
    let mut overrides = Overrides::default();
    for text in ["until web/a", "drain web/b"] {
        let outcome = overrides.carry_out(&order(text), &model, &desired, 1000);
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    assert_eq!(overrides.next_deadline(), Some(1060));
    let web = &model.services[0];
    for (now, expired, ended) in [(1059, 0, false), (1060, 1, true), (2000, 0, true)] {
        assert_eq!(overrides.expire(now).len(), expired, "at {now}");
        assert_eq!(overrides.ended(web), [ended, false, false], "at {now}");
        assert_eq!(overrides.drained(web), [true, true, false], "at {now}");
    }
    assert_eq!(overrides.next_deadline(), None, "{overrides:?}");

    // A later agent finds out by itself that the time has come.
    let text = serde_json::to_string(&overrides).expect("it can be written");
    let mut read: Overrides = serde_json::from_str(&text).expect("it can be read");
    assert_eq!(read.next_deadline(), Some(1060), "{text}");
    read.expire(2000);
    assert_eq!(read, overrides, "{text}");
}

#[test]
fn a_disabled_service_says_why() {
    let model = model(service("web", 1, &[("a", 1)], 1));
    let mut overrides = Overrides::default();
    let order = Order {
        reason: Some("new release".to_owned()),
        ..order("disable web")
    };
    let outcome = overrides.carry_out(&order, &model, &Desired::default(), 1000);
    assert!(outcome.is_ok(), "{outcome:?}");
    let why = overrides.disabled(&model.services[0]);
    assert_eq!(why.as_deref(), Some("by the operator: new release"));
    assert_eq!(
        overrides.ended(&model.services[0]),
        [false],
        "it still forwards"
    );
}

#[test]
fn a_target_is_a_service_or_a_backend_of_it() {
    for name in ["web/b1", "web"] {
        let target = name.parse::<Target>().expect("a target");
        assert_eq!(target.to_string(), name);
    }
    for wrong in ["/b1", "web/", ""] {
        let error = wrong.parse::<Target>().expect_err(wrong);
        assert!(error.contains("SERVICE/BACKEND"), "{error}");
    }
    assert!(Target::parse_backend("web").is_err());
}
