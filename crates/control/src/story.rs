//! All parts together, from a check to the announcement, on a clock of their own:
//! the health table, doubt, the decision, the gate and damping. The data plane
//! applies at once what is decided.

mod properties;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    announcement::State,
    check::{CheckCode, CheckResult, Observation},
    damping::{self, Damping, Heard},
    decide::{Decider, Desired, Doubted, HealthView},
    doubt::{Anchor, Doubt, Terms},
    gate::{self, Gate, Plane},
    health::{Initial, Path},
    health_table::{Change, HealthTable},
    model::{Model, Service, Tracked, Vip, tests::service},
    slow_start::Share,
    standing::Standing,
};

/// What a check or BFD finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Good,
    Silent,
    Refused,
    SaysNo,
    BfdUp,
    BfdDown,
    /// The check could not be made.
    OurFault,
}

/// A host that balances, and what it has announced.
struct World {
    start: Instant,
    now: Instant,
    model: Model,
    table: HealthTable,
    doubt: Doubt,
    doubt_terms: Option<Terms>,
    anchor: Option<Anchor>,
    desired: Desired,
    gate: Gate,
    damping: Damping,
    damping_terms: damping::Terms,
    maintenance: bool,
    /// Services that are announced also while they are down or disabled.
    fails_open: BTreeSet<Vip>,
    /// Backends by their addresses, services by their names.
    drained: BTreeSet<IpAddr>,
    disabled: BTreeSet<Arc<str>>,
}

/// What the decision sees.
struct View<'a>(&'a World);

impl HealthView for View<'_> {
    fn standing(&self, service: &Service) -> Vec<Standing> {
        self.0.table.standing(service)
    }

    fn drained(&self, service: &Service) -> Vec<bool> {
        let backends = service.backends.iter();
        let drained = backends.map(|backend| self.0.drained.contains(&backend.address));
        drained.collect()
    }

    fn shares(&self, service: &Service) -> Vec<Share> {
        self.0.table.shares(service)
    }

    fn disabled(&self, service: &Service) -> Option<Arc<str>> {
        let found = self.0.disabled.get(&service.name);
        found.map(|_| "by the operator".into())
    }

    fn doubted(&self, service: &Service) -> Option<Doubted> {
        self.0.table.doubted(service, &self.0.doubt)
    }

    fn fallen(&self, service: &Service) -> Vec<bool> {
        self.0.table.fallen(service, Terms::USUAL.window)
    }
}

impl World {
    /// Services, of which nothing is known yet.
    fn new(services: impl IntoIterator<Item = Service>) -> Self {
        let model = Model {
            services: services.into_iter().map(Arc::new).collect(),
        };
        let start = Instant::now();
        let mut table = HealthTable::default();
        table.apply(&model, &|_, _| Initial::Unknown, start);
        let mut world = Self {
            start,
            now: start,
            model,
            table,
            doubt: Doubt::default(),
            doubt_terms: Some(Terms::USUAL),
            anchor: None,
            desired: Desired::default(),
            gate: Gate::default(),
            damping: Damping::default(),
            damping_terms: damping::Terms::OFF,
            maintenance: false,
            fails_open: BTreeSet::new(),
            drained: BTreeSet::new(),
            disabled: BTreeSet::new(),
        };
        world.decide();
        world
    }

    /// Takes in what is found of a backend, and decides if that matters, as the
    /// engine does. What has changed of it.
    fn find(&mut self, service: usize, place: usize, found: Found) -> Vec<Change> {
        let service = &self.model.services[service];
        let backend = Tracked::of(service, &service.backends[place]);
        let checked = |code| CheckResult::new(code, Duration::from_millis(1));
        let result = match found {
            Found::Good => checked(CheckCode::L7Ok),
            Found::Silent => checked(CheckCode::L4Timeout),
            Found::Refused => CheckResult {
                refused: true,
                ..checked(CheckCode::L4Con)
            },
            Found::SaysNo => checked(CheckCode::L7Status),
            Found::OurFault => checked(CheckCode::SockErr),
            Found::BfdUp | Found::BfdDown => {
                let path = match found {
                    Found::BfdUp => Path::Up,
                    _ => Path::Down("control detection time expired".into()),
                };
                let changes = self.table.hear(&backend, path, self.now);
                return self.take_in(changes);
            }
        };
        let observation = Observation {
            service: backend.service,
            backend: backend.address,
            result,
        };
        let changes = self.table.observe(observation, self.now).changes;
        self.take_in(changes)
    }

    fn take_in(&mut self, changes: Vec<Change>) -> Vec<Change> {
        if changes.iter().any(Change::matters) {
            self.decide();
        }
        changes
    }

    /// Looks at everything now.
    fn decide(&mut self) {
        let terms = self.doubt_terms.as_ref();
        self.doubt
            .update(self.table.evidence(), None, terms, self.now);
        if self.doubt.is_open() && self.anchor.is_some() {
            // It answers as soon as it is asked.
            self.doubt
                .update(self.table.evidence(), self.anchor, terms, self.now);
        }
        let decider = Decider::new(*b"a cluster secret");
        self.desired = decider.decide(&self.model, &View(self), &self.desired);
        self.announce();
    }

    /// What the gate makes of the decision, and damping of that.
    fn announce(&mut self) {
        let vips = self.desired.vips.iter();
        let acknowledged = vips.clone().map(|(vip, plan)| (*vip, plan.fingerprint));
        let sent = vips.filter(|(_, plan)| plan.services.iter().any(|s| s.ring.is_some()));
        let plane = Plane {
            acknowledged: &acknowledged.collect(),
            forwarded: &sent.map(|(vip, _)| *vip).collect(),
            fault: None,
            lacks: &BTreeMap::new(),
            bound: &BTreeMap::new(),
        };
        let terms = gate::Terms {
            maintenance: self.maintenance,
            fails_open: |vip, _| self.fails_open.contains(&vip),
        };
        self.gate.update(&self.desired, &plane, &terms);
        let wanted = self.gate.announced();
        self.damping
            .update(&wanted, &self.damping_terms, heard, self.now);
    }

    /// Lets time pass, and looks when something is due; while there is doubt, always.
    fn wait_until(&mut self, then: Instant) {
        while let Some(due) = [self.doubt.next(), self.damping.next()]
            .into_iter()
            .flatten()
            .min()
            && due <= then
        {
            self.now = due.max(self.now);
            let before = (self.doubt.clone(), self.damping.clone());
            self.decide();
            if before == (self.doubt.clone(), self.damping.clone()) {
                break;
            }
        }
        self.now = then;
        if self.doubt.is_open() {
            self.decide();
        }
    }

    fn announced(&self, vip: Vip) -> Option<State> {
        self.damping.announced().get(&vip).copied()
    }
}

/// Each state has attributes of its own.
fn heard(_: Vip, from: Option<State>, to: Option<State>) -> Heard {
    match (from, to) {
        (from, to) if from == to => Heard::Nothing,
        (Some(_), None) => Heard::Withdrawal,
        (None, _) => Heard::Announcement,
        (Some(_), Some(_)) => Heard::Attributes,
    }
}

/// A virtual address of its own for each service.
fn vip(last: u8) -> Vip {
    IpAddr::from([192, 0, 2, last]).into()
}

fn word(state: Option<State>) -> &'static str {
    state.map_or("-", State::label)
}
