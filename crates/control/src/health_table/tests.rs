//! Who hears of what, and what comes of it.

use std::time::Duration;

use super::*;
use crate::{
    check::{CheckCode, CheckResult},
    health::State,
    model::{CheckKind, Exchange, File, OnDown, tests::service},
    schedule::Pace,
    slow_start::Share,
    standing::Standing::{Available, Dead, Failing},
};

fn table(service: &Service) -> HealthTable {
    let mut table = HealthTable::default();
    apply(&mut table, service);
    table
}

fn apply(table: &mut HealthTable, service: &Service) {
    let services = vec![Arc::new(service.clone())];
    table.apply(
        &Model { services },
        &|_, _| Initial::Unknown,
        Instant::now(),
    );
}

/// The standing that has changed, if it has.
fn observe(table: &mut HealthTable, last_byte: u8, code: CheckCode) -> Option<Standing> {
    let observation = Observation {
        service: "web".into(),
        backend: IpAddr::from([198, 51, 100, last_byte]),
        result: CheckResult::new(code, Duration::from_millis(1)),
    };
    let observed = table.observe(observation, Instant::now());
    let changed = observed
        .changes
        .iter()
        .find(|change| change.standing.is_some());
    changed.and_then(|change| change.standing)
}

#[test]
fn observations_reach_their_backend_and_no_other() {
    let web = service("web", &[("a", 1, 1), ("b", 2, 1)]);
    let mut table = table(&web);
    assert_eq!(table.standing(&web), [Dead, Dead], "{table:#?}");
    assert_eq!(observe(&mut table, 2, CheckCode::L4Ok), Some(Available));
    assert_eq!(table.standing(&web), [Dead, Available], "{table:#?}");
    assert_eq!(observe(&mut table, 9, CheckCode::L4Ok), None, "{table:#?}");
    assert_eq!(table.standing(&service("other", &[])), []);
}

#[test]
fn all_is_known_when_every_backend_has_been_checked() {
    let mut table = table(&service("web", &[("a", 1, 1), ("b", 2, 1)]));
    assert!(!table.is_known(), "{table:#?}");
    observe(&mut table, 1, CheckCode::L4Ok);
    assert!(!table.is_known(), "{table:#?}");
    observe(&mut table, 2, CheckCode::L4Con);
    assert!(table.is_known(), "{table:#?}");
}

#[test]
fn a_reload_keeps_the_health_of_whoever_has_the_same_address() {
    let mut table = table(&service("web", &[("a", 1, 1), ("b", 2, 1)]));
    observe(&mut table, 2, CheckCode::L4Ok);
    let mut web = service("web", &[("new", 3, 1), ("renamed", 2, 9)]);
    web.check.timing.fall = 7;
    apply(&mut table, &web);
    assert_eq!(table.standing(&web), [Dead, Available], "{table:#?}");
}

#[test]
fn a_renamed_service_keeps_the_health_of_its_backends() {
    let mut table = table(&service("web", &[("a", 1, 1), ("b", 2, 1)]));
    observe(&mut table, 2, CheckCode::L4Ok);
    let shop = service("shop", &[("a", 1, 1), ("b", 2, 1)]);
    apply(&mut table, &shop);
    assert_eq!(table.standing(&shop), [Dead, Available], "{table:#?}");
}

#[test]
fn a_backend_that_is_not_checked_is_up_whatever_a_late_result_says() {
    let mut web = service("web", &[("a", 1, 1)]);
    web.check.kind = CheckKind::None;
    let mut table = table(&web);
    assert_eq!(observe(&mut table, 1, CheckCode::L4Con), None);
    assert_eq!(table.backends("web")[0].state(), State::Up, "{table:#?}");
    assert_eq!(table.standing(&web), [Available], "{table:#?}");
}

#[test]
fn a_backend_that_falls_silent_is_decided_about_though_it_was_down() {
    let web = service("web", &[("a", 1, 1)]);
    let mut table = table(&web);
    let mut check = |code, standing| {
        let found = observe(&mut table, 1, code);
        assert_eq!(found, standing, "{code}: {table:#?}");
    };
    check(CheckCode::L7Status, Some(Failing));
    check(CheckCode::L7Status, None);
    check(CheckCode::L4Timeout, None);
    check(CheckCode::L4Timeout, Some(Dead));
    check(CheckCode::L4Timeout, None);
    check(CheckCode::L7Timeout, Some(Failing));
}

/// What a check of this backend has found.
fn found(service: &str, last_byte: u8, code: CheckCode) -> Observation {
    Observation {
        service: service.into(),
        backend: IpAddr::from([198, 51, 100, last_byte]),
        result: CheckResult::new(code, Duration::from_millis(1)),
    }
}

#[test]
fn who_asks_is_told_when_to_ask_again() {
    let second = Duration::from_secs(1);
    let mut web = service("web", &[("a", 1, 1)]);
    web.check.timing.fast_interval = second / 5;
    web.check.timing.down_interval = second * 5;
    let mut table = table(&web);
    for (code, pace) in [
        (CheckCode::SockErr, Pace::Doubt(second / 5)),
        (CheckCode::L4Ok, Pace::Turn(second)),
        (CheckCode::L4Con, Pace::Doubt(second / 5)),
        (CheckCode::L4Con, Pace::Turn(second * 5)),
        (CheckCode::L4Ok, Pace::Doubt(second / 5)),
    ] {
        let observed = table.observe(found("web", 1, code), Instant::now());
        assert_eq!(observed.pace, Some(pace), "{code}: {table:#?}");
    }
    let gone = table.observe(found("web", 9, CheckCode::L4Ok), Instant::now());
    assert_eq!(gone, Observed::default());
}

fn tracks(service: &mut Service, backend: usize, of: &str, last_byte: u8) {
    service.backends[backend].track = Some(Tracked {
        service: of.into(),
        address: [198, 51, 100, last_byte].into(),
    });
}

#[test]
fn who_follows_another_has_its_health_whatever_its_own_service_asks() {
    let web = service("web", &[("a", 1, 1), ("b", 2, 1)]);
    let mut dns = service("dns", &[("a", 1, 1), ("c", 3, 1)]);
    let mut ftp = service("ftp", &[("d", 4, 1)]);
    tracks(&mut dns, 0, "web", 1);
    tracks(&mut ftp, 0, "dns", 1);
    let model = Model {
        services: [&dns, &ftp, &web].map(|s| Arc::new(s.clone())).into(),
    };
    let mut table = HealthTable::default();
    let now = Instant::now();
    table.apply(&model, &|_, _| Initial::Unknown, now);
    let observed = table.observe(found("web", 1, CheckCode::L4Ok), now);
    let changes: BTreeSet<_> = observed
        .changes
        .iter()
        .map(|change| (&*change.backend.service, change.standing))
        .collect();
    let up = Some(Available);
    assert_eq!(changes, [("dns", up), ("ftp", up), ("web", up)].into());
    let reasons = observed
        .changes
        .iter()
        .filter_map(|c| c.transition.as_ref());
    let reasons: Vec<_> = reasons.map(|t| t.reason.as_str()).collect();
    assert_eq!(
        reasons[1],
        "it follows another, the first check gave L4OK in 1.0 ms"
    );
    let standing = [
        table.standing(&dns),
        table.standing(&ftp),
        table.standing(&web),
    ];
    assert_eq!(
        standing,
        [vec![up, None], vec![up], vec![up, None]].map(|all| {
            let known = |standing: Option<Standing>| standing.unwrap_or(Dead);
            all.into_iter().map(known).collect::<Vec<_>>()
        })
    );
    let own = table.observe(found("dns", 1, CheckCode::L4Con), now);
    assert_eq!(own, Observed::default(), "its own check says nothing");
    table.apply(&model, &|_, _| Initial::Unknown, now);
    assert_eq!(table.standing(&ftp), [Available], "also after a reload");
}

#[test]
fn who_comes_back_starts_slowly_unless_nobody_else_is_there() {
    let mut web = service("web", &[("a", 1, 1), ("b", 2, 1)]);
    web.slow_start = Duration::from_secs(10);
    web.check.timing.rise = 1;
    web.check.timing.fall = 1;
    let mut table = table(&web);
    let start = Instant::now();
    let (up, down) = (CheckCode::L4Ok, CheckCode::L4Con);
    for (second, seen, shares, next) in [
        (0, &[(1, up), (2, up)][..], [100, 100], None),
        (1, &[(1, down)], [100, 100], None),
        (2, &[(1, up)], [10, 100], Some(4)),
        (3, &[], [10, 100], Some(4)),
        (4, &[], [20, 100], Some(5)),
        (9, &[], [70, 100], Some(10)),
        // Nobody else is there: it has the whole for good.
        (10, &[(2, down)], [100, 100], None),
        (11, &[(2, up)], [100, 10], Some(13)),
        (21, &[], [100, 100], None),
        (22, &[(1, down), (2, down)], [100, 100], None),
        (23, &[(1, up), (2, up)], [100, 100], None),
    ] {
        let now = start + Duration::from_secs(second);
        for &(backend, code) in seen {
            table.observe(found("web", backend, code), now);
        }
        table.advance(now);
        let found: Vec<_> = table.shares(&web).into_iter().map(Share::percent).collect();
        assert_eq!(found, shares, "second {second}: {table:#?}");
        let found = table.next_step().map(|at| (at - start).as_secs());
        assert_eq!(found, next, "second {second}: {table:#?}");
    }
}

#[test]
fn bfd_counts_where_it_is_configured_and_is_forgotten_where_it_is_not_any_more() {
    let mut web = service("web", &[("a", 1, 1)]);
    let backend = Tracked::of(&web, &web.backends[0]);
    let gone = || Path::Down("control detection time expired".into());
    let now = Instant::now();
    let mut table = table(&web);
    table.observe(found("web", 1, CheckCode::L4Ok), now);
    assert_eq!(
        table.hear(&backend, gone(), now),
        [],
        "there is no BFD here"
    );
    web.bfd = true;
    apply(&mut table, &web);
    let changes = table.hear(&backend, gone(), now);
    assert_eq!(changes[0].standing, Some(Dead), "{changes:?}");
    assert_eq!(table.hear(&backend, gone(), now), [], "it is known");
    apply(&mut table, &web);
    table.observe(found("web", 1, CheckCode::L4Ok), now);
    assert_eq!(table.standing(&web), [Dead], "a reload forgets nothing");
    web.bfd = false;
    apply(&mut table, &web);
    for _ in 0..2 {
        table.observe(found("web", 1, CheckCode::L4Ok), now);
    }
    assert_eq!(table.standing(&web), [Available], "{table:#?}");
}

#[test]
fn only_checks_that_can_tell_silence_are_evidence_of_the_network() {
    let backends = [
        ("a", 1, 1),
        ("b", 2, 1),
        ("c", 3, 1),
        ("d", 4, 1),
        ("e", 5, 1),
    ];
    let mut web = service("web", &backends);
    (web.check.timing.rise, web.check.timing.fall) = (2, 1);
    let mut table = table(&web);
    let evidence = |table: &HealthTable| -> Vec<Evidence> {
        table.evidence().map(|(_, found)| found).collect()
    };
    for last_byte in [2, 3, 5] {
        observe(&mut table, last_byte, CheckCode::L4Ok);
    }
    let (b, c) = (CheckCode::L4Timeout, CheckCode::L7Status);
    assert_eq!(observe(&mut table, 2, b), Some(Dead));
    assert_eq!(observe(&mut table, 3, c), Some(Failing));
    // It was never available: no death.
    observe(&mut table, 4, CheckCode::L4Timeout);
    observe(&mut table, 5, CheckCode::SockErr);
    let fell = |table: &HealthTable, place: usize| table.backends("web")[place].since();
    let (second, third) = (fell(&table, 1), fell(&table, 2));
    use Evidence::{Audible, Available, Reviving, Silent, Unknown};
    let expected = [Unknown, Silent(second), Audible(third), Unknown, Available];
    assert_eq!(evidence(&table), expected, "{table:#?}");
    observe(&mut table, 2, CheckCode::L4Ok);
    assert_eq!(evidence(&table)[1], Reviving(second), "{table:#?}");

    let mut check = |sentence, edit: &dyn Fn(&mut Service), expected: &[Evidence]| {
        let mut service = web.clone();
        edit(&mut service);
        apply(&mut table, &service);
        assert_eq!(evidence(&table), expected, "{sentence}: {table:#?}");
    };
    check("served here", &|web| web.mode = Mode::Local, &[]);
    let file = File {
        path: "/up".into(),
        up_while_present: true,
    };
    let file = CheckKind::File(file);
    check("a file", &|web| web.check.kind = file.clone(), &[]);
    let udp = CheckKind::Udp(Exchange::default());
    check("silence is good", &|web| web.check.kind = udp.clone(), &[]);
    let leader = Tracked {
        service: "other".into(),
        address: [192, 0, 2, 1].into(),
    };
    let follow = |web: &mut Service| {
        for backend in &mut web.backends[1..] {
            backend.track = Some(leader.clone());
        }
    };
    check("who follows others", &follow, &[Unknown]);
}

#[test]
fn whom_bfd_takes_down_is_silent_whatever_its_check_last_said() {
    let mut web = service("web", &[("a", 1, 1)]);
    web.bfd = true;
    web.check.timing.on_down = OnDown::Keep;
    let backend = Tracked::of(&web, &web.backends[0]);
    for kind in [
        CheckKind::Tcp(Exchange::default()),
        CheckKind::Udp(Exchange::default()),
    ] {
        web.check.kind = kind;
        let mut table = table(&web);
        let now = Instant::now();
        table.observe(found("web", 1, CheckCode::L4Ok), now);
        let changes = table.hear(&backend, Path::Down("it is gone".into()), now);
        assert!(changes[0].evidence, "{changes:?}");
        let evidence: Vec<_> = table.evidence().collect();
        assert_eq!(
            evidence,
            [(backend.address, Evidence::Silent(now))],
            "{table:#?}"
        );
    }
}

#[test]
fn other_evidence_is_decided_about_though_nothing_else_has_changed() {
    let web = service("web", &[("a", 1, 1)]);
    let mut table = table(&web);
    let now = Instant::now();
    let mut matters = |code, refused| {
        let mut observation = found("web", 1, code);
        observation.result.refused = refused;
        let observed = table.observe(observation, now);
        observed.changes.iter().any(Change::matters)
    };
    let (up, silent, refused) = (CheckCode::L4Ok, CheckCode::L4Timeout, CheckCode::L4Con);
    for (code, is_refused, expected) in [
        (up, false, true),
        (silent, false, false),
        (silent, false, true),
        (silent, false, false),
        (refused, true, true),
        (refused, true, false),
        (refused, false, true),
    ] {
        assert_eq!(matters(code, is_refused), expected, "{code} {is_refused}");
    }
}

#[test]
fn a_chain_of_followers_ends_with_whom_nobody_leads() {
    let backends = [("a", 1, 1), ("b", 2, 1), ("c", 3, 1), ("d", 4, 1)];
    let mut web = service("web", &backends);
    for place in 0..3 {
        tracks(
            &mut web,
            place,
            "web",
            u8::try_from(place).expect("few") + 2,
        );
    }
    let mut table = table(&web);
    table.observe(found("web", 4, CheckCode::L4Ok), Instant::now());
    assert_eq!(table.standing(&web), [Available; 4], "{table:#?}");
    assert!(table.is_known(), "{table:#?}");
}

#[test]
fn who_fell_together_with_the_last_one_has_fallen() {
    let mut web = service("web", &[("a", 1, 1), ("b", 2, 1), ("c", 3, 1), ("d", 4, 1)]);
    (web.check.timing.rise, web.check.timing.fall) = (1, 1);
    let mut table = table(&web);
    let start = Instant::now();
    let mut fallen = |second, last_byte, code| {
        let now = start + Duration::from_secs(second);
        table.observe(found("web", last_byte, code), now);
        let fallen = table.fallen(&web, Duration::from_secs(10));
        let names = web.backends.iter().zip(fallen);
        names
            .filter(|(_, fell)| *fell)
            .map(|(b, _)| &*b.name)
            .collect::<String>()
    };
    for last_byte in 1..4 {
        fallen(0, last_byte, CheckCode::L4Ok);
    }
    let silent = CheckCode::L4Timeout;
    for (second, last_byte, code, expected) in [
        (1, 1, silent, "a"),
        // It was never there.
        (11, 4, silent, "a"),
        (11, 2, silent, "ab"),
        (12, 3, silent, "bc"),
        (500, 3, silent, "bc"),
        (501, 3, CheckCode::L4Ok, "ab"),
    ] {
        assert_eq!(fallen(second, last_byte, code), expected, "second {second}");
    }
}
