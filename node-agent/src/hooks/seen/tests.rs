//! What is told of what was and what is, in tables.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use vipd_control::{
    aggregate,
    announcement::State,
    check::{CheckCode, CheckResult, Observation},
    damping::{Damping, Heard, Terms},
    decide::{Decider, Desired, HealthView},
    gate::{Admission, Obstacle},
    health::Initial,
    health_table::HealthTable,
    model::{Backend, Model, Service, Vip},
};

use super::*;
use crate::{
    announce::Standings,
    config::Config,
    engine::{Decision, SharedHealth},
};

fn found() -> Found<'static> {
    Found {
        kinds: &Kind::ALL,
        at: SystemTime::UNIX_EPOCH,
        changes: Vec::new(),
    }
}

fn told(found: Found<'_>) -> Vec<String> {
    let changes = found.changes.into_iter();
    let lines = changes.map(|it| format!("{} {}: {}", it.subject, it.state, it.reason));
    lines.collect()
}

/// Services by their names and the last octets of their backends: `web=1,2 dns=3`.
fn model(text: &str) -> Model {
    let mut file = "[dataplane]\ninterfaces = [\"eth0\"]\n".to_owned();
    for (number, service) in text.split_whitespace().enumerate() {
        let (name, backends) = service.split_once('=').expect("a service");
        file += &format!(
            r#"
            [[service]]
            name = "{name}"
            vips = ["198.51.100.{number}"]
            protocol = "tcp"
            port = 80
            mode = "ipip"
            check = {{ type = "tcp", rise = 1, fall = 1 }}
            "#
        );
        for last in backends.split(',') {
            file +=
                &format!("[[service.backend]]\nname = \"b{last}\"\naddress = \"192.0.2.{last}\"\n");
        }
    }
    let (config, _) = Config::parse(&file, "vipd.toml").expect("a good configuration");
    config.model
}

/// Plays steps, and compares what is told with what is expected. `web=1,2` is a new
/// configuration, `web/b1 L4OK` a result, `decide` a decision, and `look` a look.
#[track_caller]
fn check_services(sentence: &str, steps: &[&str], expected: &[&str]) {
    let health: SharedHealth = Arc::new(Mutex::new(HealthTable::default()));
    let mut now = Instant::now();
    let (mut current, mut desired) = (Model::default(), Arc::new(Desired::default()));
    let (mut seen, mut found) = (SeenServices::default(), found());
    for step in steps {
        now += Duration::from_secs(1);
        let mut table = health.lock().unwrap();
        match (*step, step.split_once(' ')) {
            ("decide", _) => {
                let decider = Decider::new([0; 16]);
                desired = Arc::new(decider.decide(&current, &*table, &desired));
            }
            ("look", _) => {
                drop(table);
                seen.look(&desired, &health, &mut found);
            }
            (_, Some((name, code))) if name.contains('/') => {
                let (service, backend) = name.split_once('/').expect("a backend");
                let code = CheckCode::ALL.into_iter().find(|it| it.as_str() == code);
                let last = backend[1..].parse().expect("a number");
                table.observe(
                    Observation {
                        service: service.into(),
                        backend: [192, 0, 2, last].into(),
                        result: CheckResult::new(code.expect("a word"), Duration::ZERO),
                    },
                    now,
                );
            }
            (text, _) => {
                current = model(text);
                table.apply(&current, &|_, _| Initial::Unknown, now);
            }
        }
    }
    assert_eq!(told(found), expected, "{sentence}");
}

#[test]
fn services_and_backends_are_told_of_when_they_are_known_and_decided() {
    check_services("nothing is known", &["web=1", "decide", "look"], &[]);
    check_services(
        "the first state",
        &["web=1", "web/b1 L4OK", "decide", "look", "look"],
        &[
            "web/b1 up: L4OK in 0.0 ms",
            "web up: web: 1 of 1 backends healthy",
        ],
    );
    check_services(
        "it is found, and nothing is decided by it yet",
        &["web=1", "decide", "web/b1 L4OK", "look"],
        &[],
    );
    check_services(
        "it is decided a moment later",
        &["web=1", "decide", "web/b1 L4OK", "look", "decide", "look"],
        &[
            "web/b1 up: L4OK in 0.0 ms",
            "web up: web: 1 of 1 backends healthy",
        ],
    );
    check_services(
        "as long as another may be up, the service is not told to be down",
        &["web=1,2", "web/b1 L4CON", "decide", "look"],
        &["web/b1 down: L4CON in 0.0 ms"],
    );
    check_services(
        "all are down",
        &[
            "web=1,2",
            "web/b1 L4CON",
            "decide",
            "look",
            "web/b2 L4CON",
            "decide",
            "look",
        ],
        &[
            "web/b1 down: L4CON in 0.0 ms",
            "web/b2 down: L4CON in 0.0 ms",
            "web down: web: 0 of 2 backends healthy, 1 wanted",
        ],
    );
    check_services(
        "who was up is down, though a check of another can never be made",
        &[
            "web=1,2",
            "web/b1 L4OK",
            "web/b2 SOCKERR",
            "decide",
            "look",
            "web/b1 L4CON",
            "decide",
            "look",
        ],
        &[
            "web/b1 up: L4OK in 0.0 ms",
            "web up: web: 1 of 2 backends healthy",
            "web/b1 down: L4CON in 0.0 ms",
            "web down: web: 0 of 2 backends healthy, 1 wanted",
        ],
    );
    check_services(
        "who still answers is not dead",
        &[
            "web=1",
            "web/b1 L4OK",
            "decide",
            "look",
            "web/b1 L7RSP",
            "decide",
            "look",
        ],
        &[
            "web/b1 up: L4OK in 0.0 ms",
            "web up: web: 1 of 1 backends healthy",
            "web/b1 failing: L7RSP in 0.0 ms",
            "web down: web: 0 of 1 backends healthy, 1 wanted",
        ],
    );
}

#[test]
fn what_a_reload_takes_out_is_removed_once_that_is_decided() {
    let up = [
        "web=1,2 dns=3",
        "web/b1 L4OK",
        "web/b2 L4OK",
        "dns/b3 L4OK",
        "decide",
        "look",
    ];
    let known = [
        "dns/b3 up: L4OK in 0.0 ms",
        "dns up: dns: 1 of 1 backends healthy",
        "web/b1 up: L4OK in 0.0 ms",
        "web/b2 up: L4OK in 0.0 ms",
        "web up: web: 2 of 2 backends healthy",
    ];
    let check = |sentence: &str, steps: &[&str], expected: &[&str]| {
        let steps = [&up, steps].concat();
        check_services(sentence, &steps, &[&known, expected].concat());
    };
    check("not decided yet", &["web=2 dns=3", "look"], &[]);
    check(
        "a backend, and its neighbour stays what it is",
        &["web=2 dns=3", "decide", "look"],
        &["web/b1 removed: it is not configured any more"],
    );
    check(
        "a service with its backends",
        &["web=1,2", "look", "decide", "look"],
        &[
            "dns/b3 removed: it is not configured any more",
            "dns removed: it is not configured any more",
        ],
    );
    check_services(
        "a service of which not all was known, as soon as nobody checks it",
        &[
            "dns=3 web=1,2",
            "dns/b3 L4OK",
            "web/b1 L4OK",
            "decide",
            "look",
            "dns=3",
            "look",
            "decide",
            "look",
        ],
        &[
            "dns/b3 up: L4OK in 0.0 ms",
            "dns up: dns: 1 of 1 backends healthy",
            "web/b1 up: L4OK in 0.0 ms",
            "web up: web: 1 of 2 backends healthy",
            "web/b1 removed: it is not configured any more",
            "web/b2 removed: it is not configured any more",
            "web removed: it is not configured any more",
        ],
    );
    check(
        "a new backend is unknown first, and its neighbours are not told again",
        &[
            "web=0,1,2 dns=3",
            "decide",
            "look",
            "web/b0 L4CON",
            "decide",
            "look",
        ],
        &["web/b0 down: L4CON in 0.0 ms"],
    );
}

/// A drain is no result of a check.
#[test]
fn who_is_drained_is_told_as_drained() {
    struct Drained(HealthTable);
    impl HealthView for Drained {
        fn standing(&self, service: &Service) -> Vec<vipd_control::standing::Standing> {
            self.0.standing(service)
        }
        fn drained(&self, _: &Service) -> Vec<bool> {
            vec![true]
        }
    }
    let model = model("web=1");
    let mut table = HealthTable::default();
    table.apply(&model, &|_, _| Initial::Up, Instant::now());
    let decider = Decider::new([0; 16]);
    let desired = decider.decide(&model, &Drained(table.clone()), &Desired::default());
    let (mut seen, mut found) = (SeenServices::default(), found());
    seen.look(&Arc::new(desired), &Arc::new(Mutex::new(table)), &mut found);
    let told = told(found);
    let line = "web/b1 draining: drained by the operator; not checked";
    assert_eq!(told.first().map(String::as_str), Some(line), "{told:?}");
}

/// Plays how prefixes stand, `SECOND KNOWN NUMBER=WORD ..`, and compares what is told
/// with what is expected. Improvements are held down for 30 s. Below 100 the number is
/// the last octet of an address that is announced itself; above, an aggregate stands for
/// the address. The address 99 is not configured.
#[track_caller]
fn check_prefixes(sentence: &str, steps: &[&str], expected: &[&str]) {
    let text = r#"
        [dataplane]
        interfaces = ["eth0"]
        [bgp]
        local_as = 64500
        router_id = "192.0.2.11"
        [[bgp.peer]]
        address = "192.0.2.1"
        as = 64501
        [[bgp.aggregate]]
        prefix = "203.0.113.0/24"
        suppress = true
        [[service]]
        name = "web"
        vips = ["198.51.100.10", "203.0.113.100"]
        protocol = "tcp"
        port = 80
        mode = "ipip"
        [[service.backend]]
        name = "b1"
        address = "192.0.2.21"
    "#;
    let (config, _) = Config::parse(text, "vipd.toml").expect("a good configuration");
    let up = |_: &Service, _: &Backend| true;
    let desired = Decider::new([0; 16]).decide(&config.model, &up, &Desired::default());
    let bgp = config.bgp.map(Arc::new);
    let aggregates = bgp.as_ref().map(|bgp| bgp.aggregates.clone());
    let aggregates = aggregates.expect("a speaker");
    let decision = Decision {
        desired: Arc::new(desired),
        bgp,
        ..Decision::default()
    };
    let terms = Terms {
        hold_down: Duration::from_secs(30),
        ..Terms::OFF
    };
    let (inside, _) = admission("100=up");
    let start = Instant::now();
    let (mut damping, mut seen, mut found) = (Damping::default(), SeenPrefixes::default(), found());
    for step in steps {
        let mut words = step.split(' ');
        let second = words.next().and_then(|word| word.parse().ok());
        let now = start + Duration::from_secs(second.expect("a second"));
        let known = words.next() == Some("known");
        let vips: BTreeMap<_, _> = words.map(admission).collect();
        let states = vips
            .iter()
            .filter_map(|(vip, it)| Some((*vip, it.state()?)));
        let mut states: BTreeMap<Vip, State> = states.collect();
        let aggregates = match vips.contains_key(&inside) {
            true => aggregate::aggregate(&mut states, &aggregates, |_, _| false),
            false => Vec::new(),
        };
        damping.update(&states, &terms, |_, _, _| Heard::Withdrawal, now);
        let standings = Standings {
            vips,
            aggregates,
            damping: damping.standings().clone(),
            known,
        };
        seen.look(&decision, &Arc::new(standings), now, &mut found);
    }
    assert_eq!(told(found), expected, "{sentence}");
}

/// `10=up`: the address of that number, and how it stands.
fn admission(word: &str) -> (Vip, Admission) {
    let (number, word) = word.split_once('=').expect("an address");
    let number = number.parse().expect("a number");
    let network = if number < 100 {
        [198, 51, 100]
    } else {
        [203, 0, 113]
    };
    let address = [network[0], network[1], network[2], number];
    let admission = match word {
        "up" => Admission::Announced(State::Up),
        "degraded" => Admission::Announced(State::Degraded),
        "dead" => Admission::Withheld(Obstacle::NotAlive("nobody is healthy".to_owned())),
        "unapplied" => Admission::Withheld(Obstacle::NotAcknowledged),
        "unbound" => Admission::Withheld(Obstacle::NotBoundYet),
        other => panic!("{other}"),
    };
    (std::net::IpAddr::from(address).into(), admission)
}

#[test]
fn addresses_are_told_of_as_routers_hear_of_them() {
    let up = "198.51.100.10 up: web: 1 of 1 backends healthy";
    let withdrawn = "198.51.100.10 withdrawn: nobody is healthy";
    check_prefixes(
        "the first state",
        &["0 known 10=up", "1 known 10=up"],
        &[up],
    );
    check_prefixes(
        "before all is known nobody is told to be withdrawn at first",
        &["0 unknown 10=dead", "1 known 10=dead"],
        &[withdrawn],
    );
    check_prefixes(
        "who was announced and is not any more, though something else is never known",
        &["0 unknown 10=up", "1 unknown 10=dead"],
        &[up, withdrawn],
    );
    check_prefixes(
        "what is about to be applied is announced a moment later",
        &["0 known 10=unapplied", "1 known 10=up"],
        &[up],
    );
    check_prefixes(
        "an address that somebody has taken away is withdrawn, and still configured",
        &["0 known 10=up", "1 known 10=unbound"],
        &[
            up,
            "198.51.100.10 withdrawn: the address is about to be bound",
        ],
    );
    check_prefixes(
        "an improvement that is held down has not happened",
        &[
            "0 known 10=up",
            "1 known 10=dead",
            "2 known 10=up",
            "31 known 10=up",
        ],
        &[up, withdrawn, up],
    );
    check_prefixes(
        "the other state is told with its reason",
        &["0 known 10=up", "1 known 10=degraded"],
        &[up, "198.51.100.10 degraded: web: 1 of 1 backends healthy"],
    );
    check_prefixes(
        "when the agent stops",
        &["0 known 10=up", "1 known"],
        &[up, "198.51.100.10 withdrawn: the agent stops"],
    );
    check_prefixes(
        "who was withdrawn already is not told again",
        &["0 known 10=up", "1 known 10=dead", "2 known"],
        &[up, withdrawn],
    );
    check_prefixes(
        "what is not configured any more",
        &["0 known 99=up", "1 known"],
        &[
            "198.51.100.99 up: not judged yet",
            "198.51.100.99 withdrawn: it is not configured any more",
        ],
    );
}

#[test]
fn what_an_aggregate_stands_for_is_heard_of_as_the_aggregate_is() {
    let up = [
        "203.0.113.100 up: web: 1 of 1 backends healthy",
        "203.0.113.0/24 up: 1 alive inside, 1 wanted",
    ];
    let withdrawn = [
        "203.0.113.100 withdrawn: nobody is healthy",
        "203.0.113.0/24 withdrawn: 0 alive inside, 1 wanted",
    ];
    check_prefixes("both are", &["0 known 100=up"], &up);
    check_prefixes(
        "and both wait for the end of the hold-down",
        &["0 known 100=up", "1 known 100=dead", "2 known 100=up"],
        &[up, withdrawn].concat(),
    );
    check_prefixes(
        "and come back together",
        &[
            "0 known 100=up",
            "1 known 100=dead",
            "2 known 100=up",
            "31 known 100=up",
        ],
        &[up, withdrawn, up].concat(),
    );
}

#[test]
fn a_session_is_down_once_it_was_up_or_something_has_gone_wrong() {
    let check = |sentence: &str, steps: &[Option<(bool, Option<&str>)>], expected: &[&str]| {
        let (mut seen, mut found) = (Seen::default(), found());
        for step in steps {
            let session = step.map(|(is_established, error)| {
                let error = error.map(str::to_owned);
                (
                    "router".into(),
                    Session {
                        is_established,
                        error,
                    },
                )
            });
            seen.look_at_peers(session.into_iter().collect(), &mut found);
        }
        assert_eq!(told(found), expected, "{sentence}");
    };
    let refused = Some("Connection refused");
    let up = "router up: the BGP session is established";
    check("nothing yet", &[Some((false, None))], &[]);
    check(
        "it is up",
        &[Some((false, None)), Some((true, None))],
        &[up],
    );
    check(
        "it cannot be reached",
        &[Some((false, None)), Some((false, refused))],
        &["router down: Connection refused"],
    );
    check(
        "it was up",
        &[Some((true, None)), Some((false, None))],
        &[up, "router down: there is no BGP session"],
    );
    check(
        "it is up though something went wrong before",
        &[Some((false, refused)), Some((true, refused))],
        &["router down: Connection refused", up],
    );
    check(
        "it is taken out",
        &[Some((true, None)), None],
        &[up, "router removed: it is not configured any more"],
    );
}
