//! Who is asked when, and who hears of it.

use std::{
    slice,
    sync::{Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use vipd_control::{
    health::{Initial, State},
    health_table::HealthTable,
    model::Model,
};

use super::*;
use crate::{
    config::Config,
    probe::Tunnels,
    questions::tests::PATIENCE,
    run::tests::{LOOKED_UP, counting, own_name},
};

const SECOND: Duration = Duration::from_secs(1);

/// Services, each with its name, the port that its check asks each second, and
/// the last bytes of its backends.
fn services(services: &[(&str, u16, &[u8])]) -> Vec<Arc<Service>> {
    let mut text = String::from("[dataplane]\ninterfaces = [\"eth0\"]\n");
    for (vip, (name, port, backends)) in services.iter().enumerate() {
        text += &format!(
            r#"
            [[service]]
            name = "{name}"
            vips = ["198.51.100.{vip}"]
            protocol = "tcp"
            port = 80
            mode = "ipip"
            ring_size = 4096
            check = {{ type = "tcp", port = {port}, rise = 1, fall = 2, fast_interval = "200ms" }}
            "#
        );
        for last in *backends {
            text +=
                &format!("[[service.backend]]\nname = \"b{last}\"\naddress = \"192.0.2.{last}\"\n");
        }
    }
    let (config, _) = Config::parse(&text, "vipd.toml").expect("a good configuration");
    config.model.services
}

fn rounds_at(now: Instant) -> Rounds {
    Rounds::new(now, Arc::default())
}

fn table(services: &[Arc<Service>]) -> SharedHealth {
    let mut table = HealthTable::default();
    let model = Model {
        services: services.to_vec(),
    };
    table.apply(&model, &|_, _| Initial::Unknown, Instant::now());
    Arc::new(Mutex::new(table))
}

/// For whom checks are due at `now`; each takes no time and finds nothing new.
fn ask_all(rounds: &mut Rounds, now: Instant) -> Vec<String> {
    let due: Vec<_> = std::iter::from_fn(|| rounds.due(now)).collect();
    let mut names: Vec<_> = due
        .iter()
        .map(|due| {
            let subjects = due.target.subjects();
            let names = subjects
                .iter()
                .map(|it| format!("{}/{}", it.service, it.address));
            names.collect::<Vec<_>>().join(" ")
        })
        .collect();
    names.sort();
    for due in due {
        rounds.asked(asked(due, now, Pace::Turn(SECOND)));
    }
    names
}

/// A check that started then and took no time.
fn asked(due: Due, started: Instant, pace: Pace) -> Asked {
    Asked {
        target: due.target,
        due: due.at,
        started,
        ended: started,
        pace: Some(pace),
        unable: None,
    }
}

#[test]
fn every_backend_is_asked_at_once_and_then_each_interval_at_its_turn() {
    let now = Instant::now();
    let mut rounds = rounds_at(now);
    rounds.configure(&services(&[("web", 80, &[1, 2])]), now);
    assert_eq!(ask_all(&mut rounds, now), ["web/192.0.2.1"]);
    let soon = now + Duration::from_millis(1);
    assert_eq!(ask_all(&mut rounds, soon), ["web/192.0.2.2"]);
    let turn = rounds.next().expect("a turn");
    assert!(
        now + SECOND / 2 < turn && turn < now + SECOND,
        "{:?}",
        turn - now
    );
    assert_eq!(ask_all(&mut rounds, turn), ["web/192.0.2.2"]);
    assert_eq!(rounds.next(), Some(now + SECOND));
    assert_eq!(ask_all(&mut rounds, now + SECOND), ["web/192.0.2.1"]);
    assert_eq!(rounds.next(), Some(turn + SECOND));
}

#[test]
fn in_doubt_the_next_check_comes_sooner() {
    let now = Instant::now();
    let mut rounds = rounds_at(now);
    rounds.configure(&services(&[("web", 80, &[1])]), now);
    let due = rounds.due(now).expect("it is due");
    rounds.asked(asked(due, now, Pace::Doubt(SECOND / 5)));
    assert_eq!(rounds.next(), Some(now + SECOND / 5));
}

#[test]
fn who_was_slow_is_asked_again_when_it_has_ended_and_that_is_not_late() {
    let now = Instant::now();
    let mut rounds = rounds_at(now);
    rounds.configure(&services(&[("web", 80, &[1])]), now);
    let due = rounds.due(now).expect("it is due");
    rounds.asked(Asked {
        ended: now + SECOND / 2,
        ..asked(due, now, Pace::Doubt(SECOND / 5))
    });
    assert_eq!(rounds.next(), Some(now + SECOND / 2));
}

#[test]
fn a_check_that_starts_later_than_it_should_have_is_counted_as_late() {
    let now = Instant::now();
    let mut rounds = rounds_at(now);
    rounds.configure(&services(&[("web", 80, &[1])]), now);
    // Each a second after the one before, and so much later than due.
    for (delay, late) in [(0, 0), (50, 0), (51, 1), (0, 1), (3_000, 2)] {
        let due = rounds.due(now + 60 * SECOND).expect("it is due");
        let started = due.at + Duration::from_millis(delay);
        rounds.asked(asked(due, started, Pace::Turn(SECOND)));
        assert_eq!(rounds.lateness.counted().late, late, "{delay} ms");
    }
    assert_eq!(rounds.lateness.counted().ended, 5);
}

#[test]
fn very_many_that_appear_together_are_not_asked_all_at_once() {
    let now = Instant::now();
    let mut rounds = rounds_at(now);
    let backends: Vec<u8> = (1..=200).collect();
    let names: Vec<_> = (0..100).map(|number| format!("web{number}")).collect();
    let farm: Vec<_> = (1000..)
        .zip(&names)
        .map(|(port, name)| (name.as_str(), port, &*backends))
        .collect();
    rounds.configure(&services(&farm), now);
    let first = ask_all(&mut rounds, now + SECOND - Duration::from_millis(1)).len();
    assert!((4_900..5_100).contains(&first), "{first} of 20,000");
    let mut seconds: Vec<_> = std::iter::from_fn(|| rounds.waiting.pop())
        .map(|Reverse(due)| (due.at - now).as_millis() / 100)
        .collect();
    seconds.retain(|tenth| (10..20).contains(tenth));
    let share = |tenth| seconds.iter().filter(|it| **it == tenth).count();
    let shares: Vec<_> = (10..20).map(share).collect();
    assert!(
        shares.iter().all(|share| (900..1_100).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn a_reload_keeps_the_rhythm_of_who_is_checked_as_before() {
    let now = Instant::now();
    let mut rounds = rounds_at(now);
    let before = services(&[("web", 80, &[1, 2]), ("dns", 53, &[1])]);
    rounds.configure(&before, now);
    let soon = now + Duration::from_millis(1);
    assert_eq!(ask_all(&mut rounds, soon).len(), 3);
    let turns = rounds.waiting.len();
    assert_eq!(turns, 3);
    let after = services(&[("web", 80, &[2, 3]), ("dns", 54, &[1])]);
    let later = now + Duration::from_millis(2);
    rounds.configure(&after, later);
    let new = ["dns/192.0.2.1", "web/192.0.2.3"];
    let found = ask_all(&mut rounds, later + Duration::from_millis(1));
    assert_eq!(found, new, "new or otherwise checked");
    assert_eq!(ask_all(&mut rounds, later + SECOND).len(), 3);
}

#[test]
fn what_several_services_ask_alike_is_asked_once_for_all_of_them() {
    let now = Instant::now();
    let mut rounds = rounds_at(now);
    let alike = services(&[("dns", 53, &[1]), ("mail", 80, &[1]), ("web", 80, &[1, 2])]);
    rounds.configure(&alike, now);
    let soon = now + Duration::from_millis(1);
    let both = "mail/192.0.2.1 web/192.0.2.1";
    let due = ask_all(&mut rounds, soon);
    assert_eq!(due, ["dns/192.0.2.1", both, "web/192.0.2.2"]);
    rounds.configure(&services(&[("web", 80, &[1, 2])]), soon);
    assert_eq!(rounds.waiting.len(), 2, "the others live on");
    rounds.configure(&alike, soon);
    let due = ask_all(&mut rounds, soon + Duration::from_millis(1));
    assert_eq!(
        due,
        ["dns/192.0.2.1", both],
        "who joins is not kept waiting"
    );
}

#[test]
fn whom_bfd_takes_down_is_checked_at_once_and_others_are_not() {
    let now = Instant::now();
    let web = services(&[("web", 80, &[1, 2])]);
    let mut rounds = rounds_at(now);
    rounds.configure(&web, now);
    ask_all(&mut rounds, now + SECOND / 2);
    let soon = now + SECOND / 2 + Duration::from_millis(1);
    let first = Tracked::of(&web[0], &web[0].backends[0]);
    rounds.hasten(&[first], soon);
    assert_eq!(ask_all(&mut rounds, soon), ["web/192.0.2.1"]);
    assert_eq!(rounds.waiting.len(), 2, "it is asked again in its turn");
}

#[tokio::test]
async fn a_result_reaches_all_that_it_is_for_and_the_most_urgent_sets_the_pace() {
    let both = services(&[("mail", 80, &[1]), ("web", 80, &[1])]);
    let mut rounds = rounds_at(Instant::now());
    rounds.configure(&both, Instant::now());
    let Due { target, .. } = rounds.due(Instant::now()).expect("it is due");
    let health = table(&both);
    let found = |code| CheckResult::new(code, Duration::ZERO);
    let web = Observation {
        service: "web".into(),
        backend: [192, 0, 2, 1].into(),
        result: found(CheckCode::L4Ok),
    };
    health.lock().unwrap().observe(web, Instant::now());
    let (pace, changed) = tell(&target, &found(CheckCode::SockErr), &health);
    assert_eq!(
        pace,
        Some(Pace::Doubt(SECOND / 5)),
        "mail knows nothing yet"
    );
    assert_eq!(changed, []);
    let (pace, changed) = tell(&target, &found(CheckCode::L4Ok), &health);
    assert_eq!(pace, Some(Pace::Turn(SECOND)));
    let changed: Vec<_> = changed.iter().map(|it| &*it.backend.service).collect();
    assert_eq!(changed, ["mail"], "web was up already");
    for service in ["mail", "web"] {
        assert_eq!(
            health.lock().unwrap().backends(service)[0].state(),
            State::Up
        );
    }
}

#[test]
fn who_is_checked_as_before_keeps_nothing_of_an_old_configuration() {
    let now = Instant::now();
    let mut rounds = rounds_at(now);
    let mut old = services(&[("web", 80, &[1])]);
    let kept = Arc::downgrade(&old[0]);
    rounds.configure(&old, now);
    old = services(&[("web", 80, &[1, 2])]);
    rounds.configure(&old, now);
    assert_eq!(kept.strong_count(), 0, "a reload each day would add up");
    assert_eq!(
        ask_all(&mut rounds, now + Duration::from_millis(1)).len(),
        2
    );
}

#[test]
fn who_leaves_during_a_check_is_not_asked_again() {
    let now = Instant::now();
    let web = services(&[("web", 80, &[1])]);
    let mut rounds = rounds_at(now);
    rounds.configure(&web, now);
    let due = rounds.due(now).expect("it is due");
    rounds.configure(&[], now);
    rounds.asked(asked(due, now, Pace::Turn(SECOND)));
    assert_eq!(rounds.next(), None);
    rounds.configure(&web, now);
    assert_eq!(ask_all(&mut rounds, now), ["web/192.0.2.1"], "it came back");
}

#[tokio::test]
async fn a_result_of_who_has_left_is_handed_to_nobody() {
    for has_left in [false, true] {
        let web = services(&[("web", 9, &[1])]);
        let mut targets = Targets::default();
        let target = targets.configure(&web).remove(0);
        let health = table(&web);
        if has_left {
            targets.configure(&[]);
        }
        let found = CheckResult::new(CheckCode::L4Con, Duration::ZERO);
        let (pace, changed) = tell(&target, &found, &health);
        assert_eq!((pace.is_none(), changed.is_empty()), (has_left, has_left));
    }
}

#[test]
fn why_checks_are_not_possible_is_told_once_for_each_cause_and_counted() {
    let web = services(&[("web", 80, &[1])]);
    let target = Targets::default()
        .configure(slice::from_ref(&web[0]))
        .remove(0);
    let now = Instant::now();
    let mut unable = Unable::default();
    let mut tell = |detail: &str, now| unable.line(&target, detail, now);
    let line = |detail: &str, others: &str| {
        Some(format!(
            "no check of 192.0.2.1 in web is possible: {detail}; it stays in the state it is \
             in{others}"
        ))
    };
    let (files, user) = ("too many open files", "there is no user pager");
    assert_eq!(tell(files, now), line(files, ""));
    for _ in 0..4 {
        assert_eq!(tell(files, now), None);
    }
    assert_eq!(tell(user, now), line(user, ""), "another cause");
    let later = now + 300 * SECOND;
    let others = " (4 more checks since the last such line)";
    assert_eq!(tell(files, later), line(files, others));
}

#[tokio::test]
async fn a_check_that_is_lost_is_made_again() {
    let now = Instant::now();
    let mut rounds = rounds_at(now);
    rounds.configure(&services(&[("web", 80, &[1])]), now);
    let due = rounds.due(now).expect("it is due");
    let mut checks = UnderWay::default();
    checks.start(due.target, async { panic!("a defect") });
    match checks.ended().await {
        Some(Ended::Lost(target, _)) => rounds.lost(target, now),
        _ => panic!("it is lost"),
    }
    assert_eq!(checks.targets.len(), 0);
    assert_eq!(rounds.next(), Some(now + SECOND));
    assert_eq!(ask_all(&mut rounds, now + SECOND), ["web/192.0.2.1"]);
}

/// He may have been given other groups, or another number.
#[tokio::test]
async fn after_a_reload_the_user_of_a_program_is_looked_up_anew() {
    let text = format!(
        r#"
        [dataplane]
        interfaces = ["eth0"]
        [[service]]
        name = "web"
        vips = ["198.51.100.1"]
        protocol = "tcp"
        port = 80
        mode = "ipip"
        [service.check]
        type = "program"
        command = ["/bin/true"]
        user = "{}"
        interval = "100ms"
        timeout = "90ms"
        [[service.backend]]
        name = "b1"
        address = "192.0.2.1"
        "#,
        own_name()
    );
    let (config, _) = Config::parse(&text, "vipd.toml").expect("a good configuration");
    let services = config.model.services;
    let (services_in, services_out) = watch::channel(Vec::new());
    let (_hastened_in, hastened) = mpsc::channel(1);
    let (changes, mut changes_out) = mpsc::channel(16);
    let lateness = Arc::<Lateness>::default();
    let shared = Arc::new(Shared::with(counting(), Tunnels::none()));
    let rounds = run(
        services_out,
        hastened,
        table(&services),
        changes,
        Arc::clone(&lateness),
        shared,
    );
    let reload = async {
        services_in.send_replace(services);
        while lateness.counted().ended < 3 {
            sleep(SECOND / 100).await;
        }
        assert_eq!(LOOKED_UP.load(Relaxed), 1, "once for many checks");
        services_in.send_modify(|_| {});
        while LOOKED_UP.load(Relaxed) < 2 {
            sleep(SECOND / 100).await;
        }
    };
    let hear = async { while changes_out.recv().await.is_some() {} };
    let reloaded = async {
        tokio::select! {
            () = reload => {}
            () = rounds => panic!("nobody checks any more"),
            () = hear => panic!("nobody tells any more"),
        }
    };
    let reloaded = timeout(PATIENCE, reloaded).await;
    assert!(reloaded.is_ok(), "{} looked up", LOOKED_UP.load(Relaxed));
}
