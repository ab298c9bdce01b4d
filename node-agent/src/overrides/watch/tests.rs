//! Waits as tables.

use serde_json::{Value, json};

use super::*;

/// A drained backend, with what is different about its service and itself.
fn status(service: &Value, backend: &Value) -> Status {
    let merge = |mut base: Value, over: &Value| {
        for (key, value) in over.as_object().expect("an object") {
            base[key] = value.clone();
        }
        base
    };
    let backend = merge(
        json!({
            "name": "b1", "address": "192.0.2.21", "weight": 1, "state": "up",
            "standing": "draining", "drained": true, "available": false,
            "since_seconds": 1.0, "check": null, "slots": 0, "flows": 0,
            "flows_closing": 0, "packets": 0, "bytes": 0,
        }),
        backend,
    );
    let service = merge(
        json!({
            "name": "web", "vips": [], "protocol": "tcp", "port": "80", "mode": "ipip",
            "alive": true, "healthy": 1, "configured": 2, "ring_size": 64,
            "ring_fingerprint": null, "in_force": true, "idle_seconds": 300,
            "phases": {"stable": 32, "learn": 0, "track": 32}, "flows": 0,
            "packets": 0, "bytes": 0, "backends": [backend],
        }),
        service,
    );
    serde_json::from_value(json!({
        "node": "lb1", "version": "0", "uptime_seconds": 1.0, "config": "/vipd.toml",
        "dataplane": null, "vips": [], "services": [service], "peers": [], "findings": [],
    }))
    .expect("a status")
}

fn target() -> Target {
    "web/b1".parse().expect("a target")
}

const fn flows(open: u64, closing: u64) -> Remains {
    Remains::Flows {
        open,
        closing,
        idle: 300,
    }
}

#[test]
fn a_drain_is_over_when_no_flow_can_be_left() {
    let check = |sentence, service: Value, backend: Value, expected: Remains| {
        let found = remains(&status(&service, &backend), &target());
        assert_eq!(found, expected, "{sentence}: {service} {backend}");
    };
    let learning = || json!({"phases": {"stable": 32, "learn": 32, "track": 0}});
    let nothing = Remains::Nothing;
    check(
        "flows are there",
        json!({}),
        json!({"flows": 3}),
        flows(3, 0),
    );
    check(
        "and while they are learnt",
        learning(),
        json!({"flows": 3}),
        flows(3, 0),
    );
    check(
        "clients that have closed their side may still receive",
        json!({}),
        json!({"flows_closing": 22}),
        flows(0, 22),
    );
    check(
        "some have and some have not",
        learning(),
        json!({"flows": 3, "flows_closing": 22}),
        flows(3, 22),
    );
    check(
        "silent ones may be",
        learning(),
        json!({}),
        Remains::Silent(300),
    );
    check(
        "all is known",
        json!({}),
        json!({}),
        nothing("no flow left"),
    );
    check(
        "a moment after the order nothing is known",
        json!({"in_force": false}),
        json!({}),
        Remains::NotApplied,
    );
    check(
        "nobody else is there",
        json!({}),
        json!({"slots": 9}),
        Remains::NewFlows,
    );
    check(
        "it has died meanwhile",
        learning(),
        json!({"standing": "down"}),
        nothing("it is down, and its flows have ended"),
    );
    check(
        "and its flows have not been counted since",
        learning(),
        json!({"standing": "down", "flows": 3}),
        flows(3, 0),
    );
    check(
        "the service is down, and the others of it have died",
        json!({"alive": false, "in_force": false}),
        json!({"flows": 3}),
        flows(3, 0),
    );
    check(
        "with nobody healthy the dead keep their flows",
        json!({"alive": false, "in_force": false, "healthy": 0}),
        json!({"standing": "down", "flows": 3}),
        flows(3, 0),
    );
    check(
        "also silent ones",
        json!({
            "alive": false, "in_force": false, "healthy": 0,
            "phases": {"stable": 32, "learn": 32, "track": 0},
        }),
        json!({"standing": "down"}),
        Remains::Silent(300),
    );
    check(
        "nothing is forwarded here",
        json!({"phases": null}),
        json!({}),
        nothing("there is no data plane here that could have flows"),
    );
    check(
        "undrained meanwhile",
        json!({}),
        json!({"drained": false}),
        Remains::NotDrained,
    );
    check(
        "removed meanwhile",
        json!({"name": "other"}),
        json!({}),
        Remains::NotDrained,
    );
}

#[test]
fn what_is_left_is_told_in_words() {
    for (remains, expected) in [
        (flows(1, 0), "1 flow left"),
        (flows(3, 0), "3 flows left"),
        (
            flows(3, 22),
            "3 flows left; 22 closed or half closed, waited for until 300 s after their last \
             packet",
        ),
        (
            flows(0, 1),
            "no open flow left; 1 closed or half closed, waited for until 300 s after their last \
             packet",
        ),
    ] {
        assert_eq!(remains.words(), expected);
    }
}

/// When, in seconds, and how a wait ends, if it does.
type End = Option<(u64, Result<(), Unfinished>)>;

/// What is seen, as one letter per second: `F`lows, `N`othing, `S`ilence of the
/// agent, `U`ndrained. Gives back the end, and what was told.
fn watch(seen: &str, limit: Option<u64>) -> (End, Vec<String>) {
    let target = target();
    let start = Instant::now();
    let mut watch = Watch::new(&target, limit.map(Duration::from_secs), start);
    let mut told = Vec::new();
    for (second, letter) in (1..).zip(seen.chars()) {
        let seen = match letter {
            'F' => Ok(flows(1, 0)),
            'N' => Ok(Remains::Nothing("no flow left")),
            'U' => Ok(Remains::NotDrained),
            _ => Err("no agent answers".to_owned()),
        };
        let (words, end) = watch.look(seen, start + Duration::from_secs(second));
        told.extend(words);
        if let Some(end) = end {
            return (Some((second, end)), told);
        }
    }
    (None, told)
}

#[test]
fn a_wait_ends_when_nothing_is_left_or_the_time_is_up_or_the_agent_is_lost() {
    let check = |sentence, seen: &str, limit, expected: End| {
        let (end, told) = watch(seen, limit);
        assert_eq!(end, expected, "{sentence}: {told:?}");
    };
    let nothing = "N".repeat(12);
    let silence = |seconds| "S".repeat(seconds);
    let time_out = |seconds| {
        Err(Unfinished::TimeOut {
            target: target(),
            seconds,
        })
    };
    let lost = |seconds| {
        Err(Unfinished::Lost {
            target: target(),
            seconds,
            last: "no agent answers".to_owned(),
        })
    };
    check("nothing for long", &nothing, None, Some((12, Ok(()))));
    check("nothing for a moment", "NNNFNNN", None, None);
    check(
        "the agent starts again meanwhile",
        &format!("FSS{nothing}"),
        None,
        Some((15, Ok(()))),
    );
    check(
        "what a silent agent would have said is unknown",
        &format!("{}S{}", &nothing[1..], &nothing[1..]),
        None,
        None,
    );
    check("time is up", "FFFFF", Some(5), Some((5, time_out(5))));
    check("a limit beyond all time", "FS", Some(u64::MAX), None);
    check(
        "time is up while nothing is certain yet",
        &nothing,
        Some(11),
        Some((11, time_out(11))),
    );
    check(
        "it is certain with the last look",
        &nothing,
        Some(12),
        Some((12, Ok(()))),
    );
    check(
        "lost for a minute",
        &format!("F{}", silence(60)),
        None,
        Some((61, lost(60))),
    );
    check(
        "with a limit it is waited for until then",
        &format!("F{}", silence(200)),
        Some(150),
        Some((150, lost(149))),
    );
    check(
        "undrained",
        "FSU",
        None,
        Some((3, Err(Unfinished::NotDrained(target())))),
    );
}

#[test]
fn a_wait_tells_what_has_changed_and_that_alone() {
    let (_, told) = watch(&format!("FFSSF{}", "N".repeat(12)), None);
    let silent = "no agent answers; asking again";
    assert_eq!(told, ["1 flow left", silent, "1 flow left", "no flow left"]);
}
