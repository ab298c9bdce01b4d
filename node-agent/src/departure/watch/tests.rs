//! What ends the wait, and how, at each second.

use serde_json::json;

use super::*;

#[test]
fn the_rate_is_that_of_the_last_looks() {
    let start = Instant::now();
    let mut rate = Rate::default();
    let mut look = |second: u64, count| rate.look(count, start + Duration::from_secs(second));
    assert_eq!(look(0, 1000), None);
    assert_eq!(look(1, 2000), None);
    assert_eq!(look(2, 3000), None, "too few looks to be sure");
    assert_eq!(look(3, 4000), Some(1000.0));
    assert_eq!(look(4, 4000), Some(2000.0 / 3.0));
    assert_eq!(look(5, 4000), Some(1000.0 / 3.0));
    assert_eq!(look(6, 4000), Some(0.0), "nothing comes any more");
    assert_eq!(
        look(7, 10),
        None,
        "it counts from the start: that is not quiet"
    );
    assert_eq!(look(8, 1010), None);
    assert_eq!(look(9, 2010), None);
    assert_eq!(look(10, 3010), Some(1000.0));
}

#[test]
fn what_is_forwarded_is_counted_whatever_becomes_of_services() {
    let status = json!({
        "node": "lb1", "version": "0", "uptime_seconds": 1.0, "config": "vipd.toml",
        "maintenance": true,
        "dataplane": {
            "pin_path": "/pins", "interfaces": [], "fault": null, "faults": {}, "maps": [],
            "verdicts": { "forwarded": 40, "redirected": 2, "not_vip": 1000, "loop": 7 },
        },
        "vips": [], "services": [], "peers": [], "findings": [],
    });
    for (sentence, arrivals, expected) in [
        (
            "nothing is served here itself",
            json!({ "packets": 0, "fault": null }),
            Ok(42),
        ),
        (
            "what came to this host itself comes on top",
            json!({ "packets": 500, "fault": null }),
            Ok(542),
        ),
        (
            "what came to this host itself is not known",
            json!({ "packets": 500, "fault": "not permitted" }),
            Err("not permitted"),
        ),
        (
            "nobody counts it yet",
            json!(null),
            Err("the agent has not begun to count them"),
        ),
    ] {
        let mut status = status.clone();
        status["arrivals"] = arrivals;
        let status = serde_json::from_value(status).expect("a status");
        let seen = Seen::of(&status);
        let packets = seen.packets.as_ref().copied().map_err(String::as_str);
        assert_eq!((packets, seen.maintenance), (expected, true), "{sentence}");
    }
}

/// What the agent says at one second.
#[derive(Clone, Copy)]
enum Says {
    Packets(u64),
    Uncounted,
    Ended,
    Nothing,
}
use Says::{Ended, Nothing, Packets, Uncounted};

/// Shows a watch with a limit of 10 s what the agent says at each second, up to
/// the end of its wait.
#[track_caller]
fn check(
    sentence: &str,
    force: bool,
    moments: impl IntoIterator<Item = (u64, Says)>,
    expected: &[&str],
) {
    let start = Instant::now();
    let mut watch = Watch::new(Duration::from_secs(10), force, start);
    let mut found = Vec::new();
    for (second, says) in moments {
        let seen = |maintenance, packets| Seen {
            maintenance,
            packets,
        };
        let seen = match says {
            Packets(packets) => Ok(seen(true, Ok(packets))),
            Uncounted => Ok(seen(true, Err("not permitted".to_owned()))),
            Ended => Ok(seen(false, Ok(0))),
            Nothing => Err("no answer".to_owned()),
        };
        let (words, end) = watch.look(seen, start + Duration::from_secs(second));
        found.extend(words.map(|words| format!("{second}: {words}")));
        if let Some(end) = end {
            let end = end.map_err(|stayed| stayed.exit_code());
            found.push(format!("{second}: {end:?}"));
            break;
        }
    }
    assert_eq!(found, expected, "{sentence}");
}

#[test]
fn it_leaves_when_it_is_quiet_and_not_before() {
    let steady = |second| (second, Packets(1000 * second));
    check(
        "routers follow",
        false,
        (0..5)
            .map(steady)
            .chain((5..20).map(|s| (s, Packets(4000)))),
        &[
            "3: 1000 packets/s",
            "5: 667 packets/s",
            "6: 333 packets/s",
            "7: 0 packets/s",
            "7: Ok(())",
        ],
    );
    check(
        "nobody follows",
        false,
        (0..20).map(steady),
        &["3: 1000 packets/s", "10: Err(3)"],
    );
    check(
        "nobody follows, and it is forced",
        true,
        (0..20).map(steady),
        &[
            "3: 1000 packets/s",
            "10: 1000 packets/s still arrive; going on",
            "10: Ok(())",
        ],
    );
    check(
        "somebody has ended it",
        true,
        [(0, Packets(0)), (1, Ended)],
        &["1: Err(1)"],
    );
}

#[test]
fn an_agent_that_is_silent_for_a_while_is_asked_again() {
    let busy = (1..50).map(|second| (second, Nothing));
    let again = (50..60).map(|second| (second, Packets(100)));
    check(
        "it was busy",
        false,
        busy.chain(again),
        &[
            "1: no answer; asking again",
            "53: 0 packets/s",
            "53: Ok(())",
        ],
    );
    check(
        "it does not come back",
        true,
        (0..100).map(|second| (second, Nothing)),
        &["0: no answer; asking again", "60: Err(4)"],
    );
}

#[test]
fn what_is_not_counted_is_never_taken_for_nothing() {
    let uncounted = |seconds: std::ops::Range<u64>| seconds.map(|second| (second, Uncounted));
    let steady = |seconds: std::ops::Range<u64>| seconds.map(|second| (second, Packets(0)));
    let told = "3: whether packets still arrive cannot be told: not permitted";
    check(
        "nobody can count",
        false,
        uncounted(0..20),
        &[told, "10: Err(3)"],
    );
    check(
        "nobody can count, and it is forced",
        true,
        uncounted(0..20),
        &[
            told,
            "10: whether packets still arrive cannot be told: not permitted; going on",
            "10: Ok(())",
        ],
    );
    check(
        "counters are being opened",
        false,
        uncounted(0..2).chain(steady(2..20)),
        &["5: 0 packets/s", "5: Ok(())"],
    );
    check(
        "they are lost on the way",
        false,
        steady(0..3).chain(uncounted(3..4)).chain(steady(4..20)),
        &["7: 0 packets/s", "7: Ok(())"],
    );
}
