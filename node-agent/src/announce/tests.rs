//! What is announced for what is decided, applied and ordered; the kernel's
//! part is left out.

use vipd_control::{
    decide::Decider,
    gate::GateChange,
    model::{Backend, Service},
};

use super::*;
use crate::config::Config;

const FILE: &str = r#"
[dataplane]
interfaces = ["eth0"]

[bgp]
local_as = 64500
router_id = "192.0.2.11"

[[bgp.peer]]
name = "router"
address = "192.0.2.1"
as = 64501

[[bgp.aggregate]]
prefix = "198.51.100.0/24"

[[service]]
name = "web"
vips = ["198.51.100.10", "203.0.113.10"]
protocol = "tcp"
port = 80
mode = "ipip"

[[service.backend]]
name = "b1"
address = "192.0.2.21"
"#;

/// Announced worse when it is down, but for the aggregate.
const FAILS_OPEN: &str = r#"
[[bgp.rule]]
states = ["down"]
aggregate = false
announce = true

[[service]]
name = "web""#;

/// The aggregate alone is announced worse when what is inside it is down.
const AGGREGATE_FAILS_OPEN: &str = r#"
[[bgp.rule]]
states = ["down"]
aggregate = true
announce = true

[[service]]
name = "web""#;

/// With rules in front of the service.
fn with(rules: &str) -> String {
    FILE.replace("\n[[service]]\nname = \"web\"", rules)
}

fn ordered(on: bool) -> Ordered {
    Ordered {
        on,
        ..Ordered::default()
    }
}

/// The task's inputs, and what turns them.
struct World {
    judge: Judge,
    /// What was told at the last look.
    told: Vec<GateChange>,
    now: std::time::Instant,
    inputs: Inputs,
    decision: watch::Sender<Decision>,
    applied: watch::Sender<Arc<Applied>>,
    fault: watch::Sender<Option<String>>,
    lacks: watch::Sender<Arc<Lacks>>,
    closing: watch::Sender<Ordered>,
    maintenance: watch::Sender<Ordered>,
    _linger: watch::Sender<Duration>,
    _local: watch::Sender<Arc<Local>>,
}

impl World {
    fn new() -> Self {
        let (decision, decision_out) = watch::channel(Decision::default());
        let (applied, applied_out) = watch::channel(Arc::default());
        let (fault, fault_out) = watch::channel(None);
        let (lacks, lacks_out) = watch::channel(Arc::default());
        let (local, local_out) = watch::channel(Arc::default());
        let (closing, closing_out) = watch::channel(Ordered::default());
        let (maintenance, maintenance_out) = watch::channel(Ordered::default());
        let (linger, linger_out) = watch::channel(Duration::ZERO);
        Self {
            judge: Judge::default(),
            told: Vec::new(),
            now: std::time::Instant::now(),
            inputs: Inputs {
                decision: decision_out,
                applied: applied_out,
                fault: fault_out,
                lacks: lacks_out,
                local: local_out,
                closing: closing_out,
                maintenance: maintenance_out,
                known_by: Instant::now(),
                linger: linger_out,
                announced: watch::Sender::default(),
                standings: watch::Sender::default(),
                recorder: Recorder::default(),
            },
            decision,
            applied,
            fault,
            lacks,
            closing,
            maintenance,
            _linger: linger,
            _local: local,
        }
    }

    /// Decides with all backends up or down.
    fn decide(&self, file: &str, up: bool) {
        let (config, _) = Config::parse(file, "vipd.toml").expect("a good file");
        let previous = Arc::clone(&self.decision.borrow().desired);
        let view = |_: &Service, _: &Backend| up;
        let desired = Decider::new([0; 16]).decide(&config.model, &view, &previous);
        self.decision.send_replace(Decision {
            desired: Arc::new(desired),
            leaving: Arc::default(),
            bgp: config.bgp.map(Arc::new),
            known: true,
            ..Decision::default()
        });
    }

    /// The data plane does what is decided.
    fn apply(&self) {
        let desired = Arc::clone(&self.decision.borrow().desired);
        let vips = desired.vips.iter();
        let alive = vips.clone().filter(|(_, plan)| plan.is_alive());
        let acknowledged = alive.map(|(vip, plan)| (*vip, plan.fingerprint)).collect();
        self.applied.send_replace(Arc::new(Applied {
            vips: Arc::new(acknowledged),
            forwarded: Arc::new(vips.map(|(vip, _)| *vip).collect()),
            ..Applied::default()
        }));
    }

    /// What is announced now, each in its state.
    #[track_caller]
    fn check(&mut self, sentence: &str, expected: &[(&str, State)]) {
        let (announced, standings, changes) = self.judge.look(&mut self.inputs, self.now);
        self.told = changes;
        let states = announced.states.iter();
        let found: Vec<_> = states
            .map(|(vip, state)| (vip.to_string(), *state))
            .collect();
        let expected = expected
            .iter()
            .map(|(vip, state)| ((*vip).to_owned(), *state));
        assert_eq!(
            found,
            expected.collect::<Vec<_>>(),
            "{sentence}: {standings:#?}"
        );
    }
}

const INSIDE: &str = "198.51.100.10";
const ELSEWHERE: &str = "203.0.113.10";
const AGGREGATE: &str = "198.51.100.0/24";

fn all(state: State) -> [(&'static str, State); 3] {
    [(AGGREGATE, state), (INSIDE, state), (ELSEWHERE, state)]
}

#[test]
fn what_is_announced_follows_what_is_decided_applied_and_ordered() {
    let mut world = World::new();
    world.check("nothing is decided", &[]);
    world.decide(FILE, true);
    world.check("nothing is applied", &[]);
    world.apply();
    world.check("both", &all(State::Up));
    world.maintenance.send_replace(ordered(true));
    world.check("maintenance", &all(State::Maintenance));
    world.maintenance.send_replace(ordered(false));
    world.fault.send_replace(Some("detached".to_owned()));
    world.check("a fault", &[]);
    world.fault.send_replace(None);
    world.check("none any more", &all(State::Up));
    let lack = ("web".into(), "it depends on eth1, which is down".to_owned());
    world.lacks.send_replace(Arc::new([lack].into()));
    world.check("this host lacks something", &[]);
    world.lacks.send_replace(Arc::default());
    world.check("it is there again", &all(State::Up));
    world.decision.send_modify(|decision| {
        let leaving = decision.desired.vips.keys().take(1);
        decision.leaving = Arc::new(leaving.copied().collect());
    });
    world.check(
        "one is leaving, and the aggregate with it",
        &[(ELSEWHERE, State::Up)],
    );
    world.closing.send_replace(ordered(true));
    world.check("the agent stops", &[]);
}

#[test]
fn a_rule_lets_fail_open_what_it_is_about() {
    let mut world = World::new();
    world.decide(FILE, true);
    world.apply();
    world.check("up", &all(State::Up));
    world.decide(FILE, false);
    world.check("down", &[]);
    let open = with(FAILS_OPEN);
    world.decide(&open, false);
    world.check(
        "rules say otherwise",
        &[(INSIDE, State::Down), (ELSEWHERE, State::Down)],
    );
    world.decide(&open, true);
    world.apply();
    world.check("up again", &all(State::Up));
}

#[test]
fn an_aggregate_fails_open_by_a_rule_of_its_own() {
    let mut world = World::new();
    let open = with(AGGREGATE_FAILS_OPEN);
    world.decide(&open, true);
    world.apply();
    world.check("up", &all(State::Up));
    world.decide(&open, false);
    world.check("down", &[(AGGREGATE, State::Down), (INSIDE, State::Down)]);
    let (announced, _, _) = world.judge.look(&mut world.inputs, world.now);
    let bgp = announced.bgp.expect("a speaker");
    let inside: Vip = INSIDE.parse::<std::net::IpAddr>().unwrap().into();
    assert!(
        !bgp.peers[0].hears_of(inside, State::Down),
        "the rule is not about the address"
    );
    let suppressing = open.replace(
        "\"198.51.100.0/24\"",
        "\"198.51.100.0/24\"\nsuppress = true",
    );
    world.decide(&suppressing, false);
    world.check("those inside are suppressed", &[(AGGREGATE, State::Down)]);
    world.decide(&with(FAILS_OPEN), false);
    world.check(
        "the aggregate does not fail open",
        &[(INSIDE, State::Down), (ELSEWHERE, State::Down)],
    );
}

#[test]
fn it_is_all_when_every_backend_is_known_and_everything_is_applied() {
    let mut world = World::new();
    let check = |sentence, world: &mut World, expected| {
        let (announced, standings, _) = world.judge.look(&mut world.inputs, world.now);
        assert_eq!(announced.complete, expected, "{sentence}: {standings:#?}");
    };
    check("nothing is decided", &mut world, false);
    world.decide(FILE, true);
    check("nothing is applied", &mut world, false);
    world.apply();
    check("both", &mut world, true);
    world
        .decision
        .send_modify(|decision| decision.known = false);
    check("a backend has not been asked", &mut world, false);
    world.decide(FILE, false);
    check("all are down, which is known", &mut world, true);
}

/// Improvements wait ten seconds.
const DAMPED: &str = r#"
[[bgp.rule]]
states = ["down"]
announce = true
aggregate = false

[bgp.damping]
hold_down = "10s"

[[service]]
name = "web""#;

#[test]
fn an_improvement_waits_and_is_told_when_it_happens() {
    let mut world = World::new();
    let told = |world: &World| -> Vec<String> {
        let about = |change: &&GateChange| change.vip.to_string() == INSIDE;
        let told = world.told.iter().filter(about);
        told.map(|change| format!("{:?}: {}", change.kind, change.reason))
            .collect()
    };
    let damped = with(DAMPED);
    world.decide(&damped, true);
    world.apply();
    world.check("what enters does not wait", &all(State::Up));
    world.decide(&damped, false);
    let down = [(INSIDE, State::Down), (ELSEWHERE, State::Down)];
    world.check("worse at once", &down);
    world.now += Duration::from_secs(4);
    world.decide(&damped, true);
    world.apply();
    world.check("better later", &down);
    assert_eq!(
        told(&world),
        [
            "Held(Down): web: 1 of 1 backends healthy; better only in 6 s: it has not been well \
             for as long as hold_down says"
        ]
    );
    let next = world.judge.next().expect("something waits");
    assert_eq!(next, world.now + Duration::from_secs(6));
    world.now = next;
    world.check("now", &all(State::Up));
    assert_eq!(told(&world), ["Improved: web: 1 of 1 backends healthy"]);
    let (_, standings, _) = world.judge.look(&mut world.inputs, world.now);
    let penalties = standings.damping.values();
    let penalties: Vec<_> = penalties
        .map(|standing| standing.penalty.value(world.now).round())
        .collect();
    // The aggregate was withdrawn; of the addresses nothing but the state has
    // changed, and no attribute with it.
    assert_eq!(penalties, [992.0, 0.0, 0.0], "{standings:#?}");
}

#[test]
fn no_router_hears_of_an_address_that_an_aggregate_stands_for() {
    let suppressing = FILE.replace(
        "\"198.51.100.0/24\"",
        "\"198.51.100.0/24\"\nsuppress = true",
    );
    let mut world = World::new();
    let mut check = |sentence, up, expected: &str| {
        world.decide(&suppressing, up);
        world.apply();
        world
            .judge
            .look(&mut world.inputs, world.now)
            .2
            .into_iter()
            .filter(|change| change.vip.to_string() == INSIDE)
            .for_each(|change| {
                let told = format!("{:?}: {}", change.kind, change.reason);
                assert_eq!(told, expected, "{sentence}");
            });
    };
    let for_it = "an aggregate stands for it; web: 1 of 1 backends healthy";
    check("it enters", true, &format!("Waiting: {for_it}"));
    check(
        "it leaves",
        false,
        "Waiting: web: 0 of 1 backends healthy, 1 wanted",
    );
    check("it returns", true, &format!("Waiting: {for_it}"));
}

#[test]
fn a_reload_that_lets_an_aggregate_stand_for_an_address_says_so_of_the_withdrawal() {
    let suppressing = FILE.replace(
        "\"198.51.100.0/24\"",
        "\"198.51.100.0/24\"\nsuppress = true",
    );
    let mut world = World::new();
    for (file, expected) in [
        (FILE, "Entered: web: 1 of 1 backends healthy"),
        (
            &suppressing,
            "Withdrawn: an aggregate stands for it; web: 1 of 1 backends healthy",
        ),
    ] {
        world.decide(file, true);
        world.apply();
        let (_, _, changes) = world.judge.look(&mut world.inputs, world.now);
        let inside = changes.iter().find(|it| it.vip.to_string() == INSIDE);
        let inside = inside.expect("it changes");
        let told = format!("{:?}: {}", inside.kind, inside.reason);
        assert_eq!(told, expected);
    }
}
