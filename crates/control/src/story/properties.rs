//! What holds whatever happens, of the health of backends and of the states in
//! which addresses are announced:
//!
//! - nothing changes without a cause;
//! - hold-down, of backends and of announcements, and the hysteresis of services are
//!   never violated;
//! - what gets worse is announced at once;
//! - what is announced is a function of the state of backends, services and host,
//!   written down here once more and in other words;
//! - every state is reached and left.

use std::collections::BTreeSet;

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use super::*;
use crate::{
    damping::Cause,
    health,
    model::{Needs, Role},
};

/// Of a backend, in seconds.
const HOLD_DOWN: u64 = 3;
/// Of an announcement.
const DAMPED: u64 = 7;
/// Of service `web`, the second here: fewer are too few, so many are enough again,
/// and fewer are not good.
const MINIMUM: u32 = 2;
const RECOVERY: u32 = 3;
const GOOD: u32 = 4;

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Something is found of one backend.
    One(usize, usize, Found),
    /// The same is found of all backends, so often.
    All(Found, u32),
    Drain(usize, usize),
    Disable(usize),
    Maintain,
    Anchor,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let found = || {
        prop_oneof![
            8 => Just(Found::Good),
            3 => Just(Found::Silent),
            2 => Just(Found::Refused),
            2 => Just(Found::SaysNo),
            1 => Just(Found::OurFault),
            1 => Just(Found::BfdDown),
            2 => Just(Found::BfdUp),
        ]
    };
    let backend = || prop_oneof![(Just(0usize), 0..2usize), (Just(1usize), 0..5usize)];
    prop_oneof![
        24 => (backend(), found()).prop_map(|((service, place), found)| {
            Event::One(service, place, found)
        }),
        6 => (prop_oneof![Just(Found::Good), Just(Found::Silent)], 1..4u32)
            .prop_map(|(found, times)| Event::All(found, times)),
        2 => backend().prop_map(|(service, place)| Event::Drain(service, place)),
        1 => (0..2usize).prop_map(Event::Disable),
        1 => Just(Event::Maintain),
        1 => Just(Event::Anchor),
        10 => prop_oneof![4 => 0..4u64, 1 => 4..30u64, 1 => Just(65u64)].prop_map(Event::Wait),
    ]
}

fn story() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 1..120)
}

/// Service `dns` of two backends, announced also while it is down or disabled, and
/// `web` of four and one that says sorry, which needs more.
fn world() -> World {
    let mut dns = service("dns", &[("x", 8, 10), ("y", 9, 10)]);
    dns.vips = vec![vip(2)];
    let backends = [
        ("a", 1, 10),
        ("b", 2, 10),
        ("c", 3, 10),
        ("d", 4, 10),
        ("s", 5, 1),
    ];
    let mut web = service("web", &backends);
    web.backends[4].role = Role::Sorry;
    web.needs = Needs::count(MINIMUM);
    web.needs.recovery.backends = crate::model::Share::Count(RECOVERY);
    web.needs.good = crate::model::Share::Count(GOOD);
    for service in [&mut dns, &mut web] {
        service.bfd = true;
        service.check.timing.hold_down = Duration::from_secs(HOLD_DOWN);
        service.ring_size = 64;
    }
    let mut world = World::new([dns, web]);
    world.fails_open.insert(vip(2));
    world.damping_terms.hold_down = Duration::from_secs(DAMPED);
    world
}

/// What is watched besides, and known of the past by that alone.
struct Watch {
    world: World,
    /// When each backend ceased to be available.
    fell: BTreeMap<IpAddr, Instant>,
    /// Whether `web` had enough once, and lost it.
    lost: bool,
    had: bool,
    /// What each address would be announced as if nothing waited, and when that
    /// became worse.
    wanted: BTreeMap<Vip, (Option<State>, Option<Instant>)>,
    told: BTreeMap<Vip, Option<State>>,
    seen: Seen,
}

/// Which states were entered, and which were left.
#[derive(Default)]
struct Seen {
    now: BTreeMap<String, String>,
    entered: BTreeSet<String>,
    left: BTreeSet<String>,
}

impl Seen {
    fn note(&mut self, whom: String, kind: &str, state: &str) {
        let state = format!("{kind} {state}");
        let before = self.now.insert(whom, state.clone());
        if before.as_ref() != Some(&state) {
            self.left.extend(before);
            self.entered.insert(state);
        }
    }
}

impl Watch {
    fn new() -> Self {
        Self {
            world: world(),
            fell: BTreeMap::new(),
            lost: false,
            had: false,
            wanted: BTreeMap::new(),
            told: BTreeMap::new(),
            seen: Seen::default(),
        }
    }

    fn play(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::One(service, place, found) => self.find(service, place, found)?,
            Event::All(found, times) => {
                for _ in 0..times {
                    for (service, count) in [(0, 2), (1, 5)] {
                        for place in 0..count {
                            self.find(service, place, found)?;
                        }
                    }
                }
            }
            Event::Drain(service, place) => {
                let backend = self.world.model.services[service].backends[place].address;
                toggle(&mut self.world.drained, backend);
                self.world.decide();
            }
            Event::Disable(service) => {
                let name = Arc::clone(&self.world.model.services[service].name);
                toggle(&mut self.world.disabled, name);
                self.world.decide();
            }
            Event::Maintain => {
                self.world.maintenance = !self.world.maintenance;
                self.world.decide();
            }
            Event::Anchor => {
                // It answers, after it was silent, or is silent again.
                let address = [192, 0, 2, 254].into();
                self.world.anchor = match self.world.anchor {
                    None => Some(Anchor {
                        address,
                        returned: true,
                    }),
                    Some(Anchor { returned: true, .. }) => Some(Anchor {
                        address,
                        returned: false,
                    }),
                    Some(_) => None,
                };
                self.world.decide();
            }
            Event::Wait(seconds) => {
                for _ in 0..seconds {
                    let next = self.world.now + Duration::from_secs(1);
                    self.world.wait_until(next);
                    self.look()?;
                }
            }
        }
        self.look()
    }

    /// A check that changes nothing of its backend changes nothing else.
    fn find(&mut self, service: usize, place: usize, found: Found) -> Result<(), TestCaseError> {
        let before = self.world.desired.clone();
        let told = self.world.damping.announced();
        let changes = self.world.find(service, place, found);
        if changes.is_empty() {
            prop_assert!(before == self.world.desired, "nothing has happened");
            prop_assert_eq!(told, self.world.damping.announced());
        }
        for change in &changes {
            if let Some(transition) = &change.transition {
                prop_assert_ne!(transition.from, transition.to);
                prop_assert!(!transition.reason.is_empty());
            }
        }
        self.look()
    }

    /// All that must hold now.
    fn look(&mut self) -> Result<(), TestCaseError> {
        self.look_at_backends()?;
        let now = self.world.now;
        for place in 0..2 {
            let service = Arc::clone(&self.world.model.services[place]);
            let vip = service.vips[0];
            let expected = self.expected(place);
            let gate = self.world.gate.announced().get(&vip).copied();
            prop_assert_eq!(gate, expected, "{}: {:#?}", service.name, self.world.doubt);

            let (before, worsened) = self.wanted.get(&vip).copied().unwrap_or_default();
            let worsened = if expected < before {
                Some(now)
            } else {
                worsened
            };
            self.wanted.insert(vip, (expected, worsened));
            let was = self.told.get(&vip).copied().unwrap_or_default();
            let is = self.world.announced(vip);
            self.told.insert(vip, is);
            prop_assert!(is <= expected, "worse at once: {:?} for {:?}", is, expected);
            let standing = self.world.damping.standings().get(&vip).copied();
            let wait = standing.and_then(|standing| standing.wait);
            if is < expected {
                let held = worsened.map(|at| at + Duration::from_secs(DAMPED));
                let found = wait.map(|wait| (wait.until, wait.cause));
                prop_assert_eq!(found, held.map(|until| (until, Cause::HoldDown)));
            }
            if is > was && is != Some(State::Doubt) {
                let held = worsened.map(|at| at + Duration::from_secs(DAMPED));
                prop_assert!(
                    held.is_none_or(|until| until <= now),
                    "held down: {:?}",
                    standing
                );
            }
            let kind = "announced";
            self.seen.note(format!("vip {place}"), kind, word(is));
        }
        self.look_at_rings()?;
        // The same again is no change.
        let desired = self.world.desired.clone();
        let told = self.world.damping.announced();
        self.world.decide();
        prop_assert!(desired == self.world.desired, "nothing has happened");
        prop_assert_eq!(told, self.world.damping.announced());
        Ok(())
    }

    fn look_at_backends(&mut self) -> Result<(), TestCaseError> {
        let World {
            model,
            table,
            desired,
            now,
            ..
        } = &self.world;
        for (service, plan) in model.services.iter().zip(&desired.services) {
            let backends = service.backends.iter().zip(table.backends(&service.name));
            for (place, (backend, health)) in backends.enumerate() {
                let is = health.is_available();
                let fell = self.fell.get(&backend.address).copied();
                if let (true, Some(fell)) = (is, fell) {
                    let held = fell + Duration::from_secs(HOLD_DOWN);
                    prop_assert!(held <= *now, "{} is held down", backend.name);
                    self.fell.remove(&backend.address);
                }
                let whom = format!("backend {}", backend.name);
                let before = self.seen.now.get(&whom).map(String::as_str);
                let was = matches!(before, Some("health up" | "health going down"));
                if was && !is {
                    self.fell.insert(backend.address, *now);
                }
                self.seen.note(whom, "health", &health.state().to_string());
                let standing = plan.standing[place].label();
                self.seen
                    .note(format!("standing {}", backend.name), "flows", standing);
            }
            let disabled = if self.world.disabled.contains(&service.name) {
                "yes"
            } else {
                "no"
            };
            self.seen
                .note(service.name.to_string(), "disabled", disabled);
        }
        let maintenance = if self.world.maintenance { "yes" } else { "no" };
        self.seen
            .note("host".to_owned(), "maintenance", maintenance);
        // The hysteresis of `web`, which has one look a moment.
        let healthy = self.healthy(1);
        let mark = if self.lost { RECOVERY } else { MINIMUM };
        self.lost = healthy < mark && self.had;
        self.had |= healthy >= mark;
        Ok(())
    }

    /// The healthy backends that a service counts.
    fn healthy(&self, place: usize) -> u32 {
        let service = &self.world.model.services[place];
        let health = self.world.table.backends(&service.name);
        let backends = service.backends.iter().zip(health);
        let mut count = 0;
        for (backend, health) in backends {
            let counts = backend.role == Role::Active;
            let drained = self.world.drained.contains(&backend.address);
            count += u32::from(counts && !drained && health.is_available());
        }
        count
    }

    /// What the address of a service is to be announced as, by the words of
    /// docs/decision.md.
    fn expected(&self, place: usize) -> Option<State> {
        let service = &self.world.model.services[place];
        let healthy = self.healthy(place);
        let all = self.world.table.backends(&service.name);
        let by_backends = match place {
            0 if healthy >= 1 => State::Up,
            1 if !self.lost && healthy >= GOOD => State::Up,
            1 if !self.lost && healthy >= MINIMUM => State::Degraded,
            1 if self.sorry_serves() => State::Degraded,
            _ => State::Down,
        };
        let is_victim = |health: &health::Health| {
            let reason = self.world.doubt.reason(health.evidence());
            reason.is_some() && !health.is_available()
        };
        let state = match by_backends {
            State::Down if all.iter().any(is_victim) => State::Doubt,
            state => state,
        };
        let is_disabled = self.world.disabled.contains(&service.name);
        let state = if is_disabled {
            state.min(State::Disabled)
        } else {
            state
        };
        let is_sent = self.world.desired.services[place].ring.is_some();
        match state {
            State::Down | State::Disabled => Some(state).filter(|_| place == 0 && is_sent),
            State::Doubt => Some(state).filter(|_| is_sent),
            _ if self.world.maintenance => Some(State::Maintenance),
            state => Some(state),
        }
    }

    fn sorry_serves(&self) -> bool {
        let service = &self.world.model.services[1];
        let sorry = &self.world.table.backends("web")[4];
        sorry.is_available() && !self.world.drained.contains(&service.backends[4].address)
    }

    /// In doubt whoever it covers keeps its flows and has slots.
    fn look_at_rings(&self) -> Result<(), TestCaseError> {
        for plan in &self.world.desired.services {
            let Some(doubted) = View(&self.world).doubted(&plan.service) else {
                continue;
            };
            let shares = plan.ring.as_ref().map(|ring| ring.shares());
            let shares = shares.unwrap_or_default();
            let says_sorry = shares.get(4).is_some_and(|share| *share > 0);
            for (place, covered) in doubted.backends.into_iter().enumerate() {
                if !covered {
                    continue;
                }
                prop_assert!(plan.keeps_flows(place), "{:?}", plan.standing);
                let backend = &plan.service.backends[place];
                let is_in = backend.role == Role::Active && !plan.drained[place];
                if plan.condition.doubt.is_some() && is_in && !says_sorry {
                    let told = format!("{} of {:?}", backend.name, plan.standing);
                    prop_assert!(shares[place] > 0, "{told}, {shares:?}");
                }
            }
        }
        Ok(())
    }
}

fn toggle<T: Ord>(set: &mut BTreeSet<T>, item: T) {
    if !set.remove(&item) {
        set.insert(item);
    }
}

/// Many stories, the same ones always.
#[test]
fn whatever_happens_the_rules_are_kept_and_every_state_is_reached_and_left() {
    let mut runner = TestRunner::deterministic();
    let (mut entered, mut left) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..100 {
        let events = story().new_tree(&mut runner).expect("a story").current();
        let mut watch = Watch::new();
        for (i, event) in events.iter().enumerate() {
            if let Err(error) = watch.play(*event) {
                panic!("{error}, at event {i} of {:?}", &events[..=i]);
            }
        }
        entered.extend(watch.seen.entered);
        left.extend(watch.seen.left);
    }
    let all = [
        (
            "health",
            &["unknown", "up", "going down", "down", "going up"][..],
        ),
        ("flows", &["up", "draining", "failing", "down"]),
        ("disabled", &["yes", "no"]),
        ("maintenance", &["yes", "no"]),
        (
            "announced",
            &[
                "up",
                "degraded",
                "maintenance",
                "doubt",
                "disabled",
                "down",
                "-",
            ],
        ),
    ];
    let all: BTreeSet<String> = all
        .into_iter()
        .flat_map(|(kind, states)| states.iter().map(move |state| format!("{kind} {state}")))
        .collect();
    assert_eq!(left, all, "left");
    let unknown = "health unknown".to_owned();
    assert!(entered.is_superset(&all), "{unknown}: {entered:?}");
}
