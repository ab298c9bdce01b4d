//! Words, as an operator reads them.

use serde_json::{Value, json};

use super::*;
use crate::events::About;

fn backend(name: &str, over: &Value) -> Value {
    let mut backend = json!({
        "name": name, "address": "192.0.2.21", "weight": 1, "state": "up",
        "standing": "up", "drained": false, "available": true, "since_seconds": 65.0,
        "check": {"code": "L7OK", "status": 200, "duration_seconds": 0.0012, "detail": ""},
        "slots": 0, "flows": 0, "flows_closing": 0, "packets": 0, "bytes": 0,
    });
    for (key, value) in over.as_object().expect("an object") {
        backend[key] = value.clone();
    }
    backend
}

fn refused() -> Value {
    json!({
        "state": "down", "standing": "down", "available": false, "slots": 64,
        "check": {
            "code": "L4CON", "status": null, "duration_seconds": 0.0003,
            "detail": "connection refused",
        },
    })
}

/// One service with two backends on one address, one router.
fn status(backends: &[Value; 2], vip: &Value, established: bool) -> Status {
    let healthy = backends.iter().filter(|it| it["available"] == true).count();
    let mut address = json!({
        "address": "198.51.100.10", "announced": true, "state": "up",
        "reason": format!("web: {healthy} of 2 backends healthy"),
    });
    for (key, value) in vip.as_object().expect("an object") {
        address[key] = value.clone();
    }
    serde_json::from_value(json!({
        "node": "lb1", "version": "0", "uptime_seconds": 1.0, "config": "/vipd.toml",
        "dataplane": null, "vips": [address], "findings": [],
        "services": [{
            "name": "web", "vips": ["198.51.100.10"], "protocol": "tcp", "port": "80",
            "mode": "ipip", "alive": healthy > 0,
            "reason": format!("web: {healthy} of 2 backends healthy, 1 wanted"), "healthy": healthy, "configured": 2,
            "ring_size": 64, "ring_fingerprint": null, "in_force": true,
            "idle_seconds": 300, "phases": null, "flows": 0, "packets": 0, "bytes": 0,
            "backends": backends,
        }],
        "peers": [{
            "name": "tor1", "address": "192.0.2.1:179", "remote_as": 64500,
            "state": if established { "Established" } else { "Active" },
            "since_seconds": 30.0,
            "uptime_seconds": if established { Some(30.0) } else { None },
            "start_time_seconds": null, "established_count": 1,
            "advertised": {"IPv4 unicast": 1}, "wanted": 1, "pending": 0,
            "hold_time_seconds": 9,
            "last_error": if established { None } else { Some("no answer within 5 s") },
            "last_error_seconds_ago": null, "messages_sent": {}, "messages_received": {},
            "unsent": [],
        }],
    }))
    .expect("a status")
}

/// An event, so many microseconds after the first one.
fn event(id: u64, at: u64, step: Step, about: &str, text: &str, causes: &[u64]) -> EventView {
    let some = |name: &str| Some(name.to_owned());
    let about = match about.split_once(' ') {
        Some((peer, prefix)) => About {
            peer: some(peer),
            prefix: some(prefix),
            ..About::default()
        },
        None => match about.split_once('/') {
            Some((service, backend)) => About {
                service: some(service),
                backend: some(backend),
                ..About::default()
            },
            None if about.contains('.') => About {
                prefix: some(about),
                ..About::default()
            },
            None => About {
                service: some(about),
                ..About::default()
            },
        },
    };
    EventView {
        id,
        time: format!(
            "2026-11-22T00:55:{:02}.{:06}Z",
            at / 1_000_000,
            at % 1_000_000
        ),
        monotonic_us: 7_000_000 + at,
        step,
        about,
        text: text.to_owned(),
        causes: causes.to_vec(),
    }
}

/// First b2 dies, then b1, and with it the address goes. They were not recorded in
/// the order of time.
fn two_deaths() -> Vec<EventView> {
    use Step::{Announcement, Check, Decision, Maps, State, Update};
    let b2 = "b2 serves nothing, its flows end; web: 1 of 2 backends healthy";
    let b1 = "b1 serves nothing, its flows end; web: 0 of 2 backends healthy, 1 wanted";
    let refused = "L4CON in 0.3 ms: connection refused";
    let first = "going down, was up: failure 1 of 2: L4CON in 0.3 ms: connection refused";
    let second = "down, was going down: 2 failures in a row, the last L4CON in 0.3 ms: \
                  connection refused";
    let withdrawn = "withdrawn: web: 0 of 2 backends healthy, 1 wanted";
    vec![
        event(1, 0, Check, "web/b2", refused, &[]),
        event(2, 0, State, "web/b2", first, &[1]),
        event(3, 30_050, Check, "web/b2", refused, &[]),
        event(4, 30_050, State, "web/b2", second, &[2, 3]),
        event(5, 30_092, Decision, "web", b2, &[4]),
        event(
            6,
            30_310,
            Maps,
            "web",
            "packets meet what was decided",
            &[5],
        ),
        event(7, 2_000_000, State, "web/b1", second, &[]),
        event(10, 2_000_040, Decision, "web", b1, &[7]),
        event(
            8,
            2_000_111,
            Announcement,
            "198.51.100.10",
            withdrawn,
            &[10],
        ),
        event(
            9,
            2_000_204,
            Update,
            "tor1 198.51.100.10",
            "the kernel has the UPDATE that withdraws it",
            &[8],
        ),
        event(
            11,
            2_000_350,
            Maps,
            "web",
            "packets meet what was decided",
            &[10],
        ),
    ]
}

fn told(status: &Status, subject: &str, last: usize) -> String {
    tell(status, &two_deaths(), subject, last).expect("there is one")
}

fn dead() -> Status {
    let withdrawn = json!({
        "announced": false, "state": "withdrawn",
        "reason": "web: 0 of 2 backends healthy, 1 wanted",
    });
    let drained = json!({"standing": "draining", "drained": true, "available": false});
    let backends = [backend("b1", &refused()), backend("b2", &drained)];
    status(&backends, &withdrawn, true)
}

#[test]
fn an_address_that_is_not_announced_is_told_with_what_would_bring_it_back() {
    insta::assert_snapshot!(told(&dead(), "198.51.100.10", 5), @r"
    198.51.100.10 is not announced: web: 0 of 2 backends healthy, 1 wanted
    what would have to happen for all to be well:
      web must be alive: 0 of 2 backends healthy, 1 wanted
        web/b1 is down: L4CON in 0.3 ms: connection refused
        web/b2 is up and drained: L7OK 200 in 1.2 ms; `vipd undrain web/b2`

    2026-11-22 (UTC)
    00:55:00.000000               check    web/b2                   L4CON in 0.3 ms: connection refused
    00:55:00.000000    +0.000 ms  state    web/b2                   going down, was up: failure 1 of 2: L4CON in 0.3 ms: connection refused
    00:55:00.030050   +30.050 ms  check    web/b2                   L4CON in 0.3 ms: connection refused
    00:55:00.030050    +0.000 ms  state    web/b2                   down, was going down: 2 failures in a row, the last L4CON in 0.3 ms: connection refused
    00:55:00.030092    +0.042 ms  decision web                      b2 serves nothing, its flows end; web: 1 of 2 backends healthy
    00:55:00.030310    +0.218 ms  maps     web                      packets meet what was decided

    00:55:02.000000               state    web/b1                   down, was going down: 2 failures in a row, the last L4CON in 0.3 ms: connection refused
    00:55:02.000040    +0.040 ms  decision web                      b1 serves nothing, its flows end; web: 0 of 2 backends healthy, 1 wanted
    00:55:02.000111    +0.071 ms  announce 198.51.100.10            withdrawn: web: 0 of 2 backends healthy, 1 wanted
    00:55:02.000204    +0.093 ms  update   tor1 198.51.100.10       the kernel has the UPDATE that withdraws it
    00:55:02.000350    +0.146 ms  maps     web                      packets meet what was decided
    ");
}

/// Changes a node that all is well with, and expects these needs of its address.
#[track_caller]
fn check(sentence: &str, change: impl FnOnce(&mut Status), expected: &[&str]) {
    let backends = ["b1", "b2"].map(|name| backend(name, &json!({})));
    let mut status = status(&backends, &json!({}), true);
    change(&mut status);
    let told = tell(&status, &[], "198.51.100.10", 5).expect("there is one");
    let lines = told.lines().filter_map(|line| line.strip_prefix("  "));
    let found: Vec<_> = lines.collect();
    assert_eq!(found, expected, "{sentence}: {told}");
}

fn disabled(status: &mut Status, why: &str) {
    let service = &mut status.services[0];
    (service.alive, service.state) = (false, "disabled".to_owned());
    service.reason = format!("web: disabled, {why}; 2 of 2 backends healthy");
    withhold(status, &status.services[0].reason.clone());
}

fn withhold(status: &mut Status, why: &str) {
    let vip = &mut status.vips[0];
    (vip.announced, vip.state) = (false, status::WITHDRAWN.to_owned());
    why.clone_into(&mut vip.reason);
}

#[test]
fn what_would_have_to_happen_is_what_really_keeps_an_address() {
    check("all is well", |_| {}, &[]);
    check(
        "the operator has disabled the service",
        |status| {
            disabled(status, "by the operator: new release");
            let over = json!({
                "target": "web", "will": "disabled", "by": "anna", "at_seconds": 1,
                "configured": true,
            });
            status.overrides = vec![serde_json::from_value(over).expect("an override")];
        },
        &[
            "web must be alive: disabled, by the operator: new release; 2 of 2 backends healthy; \
           `vipd enable web`",
        ],
    );
    check(
        "a file has",
        |status| disabled(status, "the file /run/off is there"),
        &[
            "web must be alive: disabled, the file /run/off is there; 2 of 2 backends healthy; \
           remove that file",
        ],
    );
    check(
        "it follows another",
        |status| {
            status.services[0].alive = false;
            let why = "web: 2 of 2 backends healthy, and it follows dns, which is not alive";
            why.clone_into(&mut status.services[0].reason);
            withhold(status, why);
        },
        &["web must be alive: 2 of 2 backends healthy, and it follows dns, which is not alive"],
    );
    check(
        "the host lacks something",
        |status| withhold(status, "it depends on eth1, which has no carrier"),
        &["this must end: it depends on eth1, which has no carrier"],
    );
    check(
        "it was up and down too often",
        |status| {
            withhold(
                status,
                "web: 2 of 2 backends healthy; better only in 25 s: ...",
            );
            status.vips[0].damping.wait_seconds = 24.2;
        },
        &["25 s must pass: then it is announced better by itself"],
    );
    check(
        "the host is about to leave",
        |status| status.maintenance = true,
        &["`vipd maint --end` ends the maintenance"],
    );
}

#[test]
fn what_has_flapped_is_told_so_with_the_limit() {
    let mut status = dead();
    let aggregate = json!({
        "prefix": "198.51.100.0/24", "state": "up", "alive": 1, "wanted": 1,
        "reason": "1 alive inside, 1 wanted",
    });
    status.aggregates = vec![serde_json::from_value(aggregate).expect("an aggregate")];
    let told = |status: &Status, subject| {
        let told = tell(status, &[], subject, 5).expect("there is one");
        let second = told.lines().nth(1).unwrap_or_default();
        second.to_owned()
    };
    let subjects = ["198.51.100.10", "198.51.100.0/24"];
    for subject in subjects {
        let quiet = told(&status, subject);
        assert!(!quiet.contains("penalty"), "{subject}: {quiet}");
    }
    status.vips[0].damping.penalty = 1640.4;
    status.aggregates[0].damping.penalty = 2400.0;
    status.aggregates[0].damping.suppressed = true;
    assert_eq!(
        subjects.map(|subject| told(&status, subject)),
        [
            "flap penalty 1640: routers that damp ignore it from 2000 on",
            "flap penalty 2400: routers that damp ignore it until that is below 750",
        ]
    );
}

#[test]
fn an_address_is_found_however_it_is_written() {
    let mut status = dead();
    status.services[0].vips = ["198.51.100.10", "2001:db8::1"].map(str::to_owned).into();
    let mut ipv6 = status.vips[0].clone();
    "2001:db8::1".clone_into(&mut ipv6.address);
    status.vips.push(ipv6);
    for (written, shown) in [
        ("198.51.100.10/32", "198.51.100.10"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("2001:db8::1/128", "2001:db8::1"),
    ] {
        let told = tell(&status, &[], written, 5).expect(written);
        assert!(
            told.starts_with(&format!("{shown} is not announced")),
            "{told}"
        );
        assert!(told.contains("web must be alive"), "its service: {told}");
    }
}

#[test]
fn maintenance_is_told_as_what_an_address_is_announced_worse_for() {
    use Step::{Announcement, Order};
    let mut order = event(1, 0, Order, "web", "by anna: in maintenance", &[]);
    order.about = About::default();
    let worse = "announced worse: the host is in maintenance";
    let events = [
        order,
        event(2, 120, Announcement, "198.51.100.10", worse, &[1]),
    ];
    let told = tell(&dead(), &events, "198.51.100.10", 5).expect("there is one");
    let order = told.find("order").expect(&told);
    let worse = told.find("announce 198.51.100.10").expect(&told);
    assert!(order < worse, "{told}");
    assert!(told.contains("by anna: in maintenance"), "{told}");
}

#[test]
fn a_backend_is_told_with_what_it_has_brought_about() {
    insta::assert_snapshot!(told(&dead(), "web/b1", 5), @r"
    web/b1 is down for 1m05s: L4CON in 0.3 ms: connection refused; it gets no new flows, and its old ones have ended
    nobody else is there, so packets that come are still sent to it

    2026-11-22 (UTC)
    00:55:02.000000               state    web/b1                   down, was going down: 2 failures in a row, the last L4CON in 0.3 ms: connection refused
    00:55:02.000040    +0.040 ms  decision web                      b1 serves nothing, its flows end; web: 0 of 2 backends healthy, 1 wanted
    00:55:02.000111    +0.071 ms  announce 198.51.100.10            withdrawn: web: 0 of 2 backends healthy, 1 wanted
    00:55:02.000204    +0.093 ms  update   tor1 198.51.100.10       the kernel has the UPDATE that withdraws it
    00:55:02.000350    +0.146 ms  maps     web                      packets meet what was decided
    ");
    insta::assert_snapshot!(told(&dead(), "web/b2", 5), @r"
    web/b2 is up and drained for 1m05s: L7OK 200 in 1.2 ms; it gets no new flows and keeps those it has
    `vipd undrain web/b2` ends that

    2026-11-22 (UTC)
    00:55:00.000000               check    web/b2                   L4CON in 0.3 ms: connection refused
    00:55:00.000000    +0.000 ms  state    web/b2                   going down, was up: failure 1 of 2: L4CON in 0.3 ms: connection refused
    00:55:00.030050   +30.050 ms  check    web/b2                   L4CON in 0.3 ms: connection refused
    00:55:00.030050    +0.000 ms  state    web/b2                   down, was going down: 2 failures in a row, the last L4CON in 0.3 ms: connection refused
    00:55:00.030092    +0.042 ms  decision web                      b2 serves nothing, its flows end; web: 1 of 2 backends healthy
    00:55:00.030310    +0.218 ms  maps     web                      packets meet what was decided
    ");
}

#[test]
fn a_service_is_told_with_its_last_change_alone_if_that_is_wanted() {
    insta::assert_snapshot!(told(&dead(), "web", 1), @r"
    web is dead: 0 of 2 backends healthy, 1 wanted
      web/b1 is down: L4CON in 0.3 ms: connection refused
      web/b2 is up and drained: L7OK 200 in 1.2 ms; `vipd undrain web/b2`

    2026-11-22 (UTC)
    00:55:02.000000               state    web/b1                   down, was going down: 2 failures in a row, the last L4CON in 0.3 ms: connection refused
    00:55:02.000040    +0.040 ms  decision web                      b1 serves nothing, its flows end; web: 0 of 2 backends healthy, 1 wanted
    00:55:02.000111    +0.071 ms  announce 198.51.100.10            withdrawn: web: 0 of 2 backends healthy, 1 wanted
    00:55:02.000204    +0.093 ms  update   tor1 198.51.100.10       the kernel has the UPDATE that withdraws it
    00:55:02.000350    +0.146 ms  maps     web                      packets meet what was decided

    1 older change: see --last
    ");
}

#[test]
fn a_peer_is_told_with_what_it_was_sent_or_why_it_hears_nothing() {
    insta::assert_snapshot!(told(&dead(), "tor1", 5), @r"
    the session with tor1 (192.0.2.1:179) is Established for 30s; it has been told 1 of 1 prefixes

    2026-11-22 (UTC)
    00:55:02.000000               state    web/b1                   down, was going down: 2 failures in a row, the last L4CON in 0.3 ms: connection refused
    00:55:02.000040    +0.040 ms  decision web                      b1 serves nothing, its flows end; web: 0 of 2 backends healthy, 1 wanted
    00:55:02.000111    +0.071 ms  announce 198.51.100.10            withdrawn: web: 0 of 2 backends healthy, 1 wanted
    00:55:02.000204    +0.093 ms  update   tor1 198.51.100.10       the kernel has the UPDATE that withdraws it
    ");
    let backends = ["b1", "b2"].map(|name| backend(name, &json!({})));
    let deaf = status(&backends, &json!({}), false);
    let told = |subject| tell(&deaf, &[], subject, 5).expect("there is one");
    insta::assert_snapshot!(told("192.0.2.1"), @r"
    the session with tor1 (192.0.2.1:179) is Active for 30s; it has been told 1 of 1 prefixes
      no answer within 5 s

    no change of it is remembered
    ");
    insta::assert_snapshot!(told("198.51.100.10"), @r"
    198.51.100.10 is announced: web: 2 of 2 backends healthy
    0 of 1 peers can hear of it
    what would have to happen for all to be well:
      the session with tor1 must come up: it is Active, no answer within 5 s

    no change of it is remembered
    ");
}

#[test]
fn what_there_is_not_is_refused() {
    for subject in ["web/b9", "b1", "198.51.100.11", ""] {
        let error = tell(&dead(), &[], subject, 5).expect_err(subject);
        assert!(error.to_string().contains("`vipd status` lists"), "{error}");
    }
}

#[test]
fn an_event_is_a_line() {
    insta::assert_snapshot!(line(&two_deaths()[0]), @"2026-11-22 00:55:00.000000  check    web/b2                   L4CON in 0.3 ms: connection refused");
}
