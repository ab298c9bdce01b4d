//! Who is asked what, and for whom: a check that several backends want alike is
//! made once.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use vipd_control::{
    model::{Backend, Check, CheckKind, Service, Tracked},
    schedule::Turn,
};

use super::check::Subject;

/// A check that is made again and again. It may stay as it is over many reloads,
/// so it keeps nothing else of the services.
#[derive(Debug)]
pub struct Target {
    /// What is asked.
    pub check: Arc<Check>,
    /// The backend that it is made of, one of those it is made for.
    pub backend: IpAddr,
    /// Its place in the interval.
    pub turn: Turn,
    asks: Asks,
    /// The backends that it is made for; none when nobody wants it any more.
    subjects: Mutex<Arc<[Tracked]>>,
    /// Somebody has joined who knows nothing yet.
    is_urgent: AtomicBool,
}

/// What two checks that are written alike must have in common to be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Asks {
    /// This host.
    Here,
    /// An address.
    Address(IpAddr),
    /// This very backend, whose name the check is told.
    Backend(Tracked, Arc<str>),
}

/// All targets.
#[derive(Default)]
pub struct Targets {
    all: Vec<Arc<Target>>,
    /// How many there have been: the number of the next turn.
    count: u32,
}

impl Targets {
    /// Follows a configuration. What is asked as before stays the same target.
    /// Those that are new.
    pub fn configure(&mut self, services: &[Arc<Service>]) -> Vec<Arc<Target>> {
        let mut checks = Checks::default();
        let before = std::mem::take(&mut self.all).into_iter();
        let mut before: HashMap<_, _> = before
            .map(|target| ((checks.number(&target.check), target.asks.clone()), target))
            .collect();
        let mut places = HashMap::new();
        let mut wanted: Vec<(_, IpAddr, Vec<Tracked>)> = Vec::new();
        let checked = services.iter().filter(|s| s.check.kind != CheckKind::None);
        for service in checked {
            let number = checks.number(&Arc::new(service.check.clone()));
            for backend in service.backends.iter().filter(|b| b.track.is_none()) {
                let key = (number, Asks::of(service, backend));
                let place = *places.entry(key.clone()).or_insert(wanted.len());
                let subject = Tracked::of(service, backend);
                match wanted.get_mut(place) {
                    Some((.., subjects)) => subjects.push(subject),
                    None => wanted.push((key, backend.address, vec![subject])),
                }
            }
        }
        let mut new = Vec::new();
        for (key, backend, subjects) in wanted {
            let subjects: Arc<[Tracked]> = subjects.into();
            let target = match before.remove(&key) {
                Some(old) => {
                    old.serve(subjects);
                    old
                }
                None => {
                    let target = Arc::new(Target {
                        check: checks.get(key.0),
                        backend,
                        turn: Turn::nth(self.count),
                        asks: key.1,
                        subjects: Mutex::new(subjects),
                        is_urgent: AtomicBool::new(false),
                    });
                    self.count = self.count.wrapping_add(1);
                    new.push(Arc::clone(&target));
                    target
                }
            };
            self.all.push(target);
        }
        for target in before.into_values() {
            target.serve([].into());
        }
        new
    }
}

impl Target {
    /// The backends that it is made for now.
    pub fn subjects(&self) -> Arc<[Tracked]> {
        let subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&subjects)
    }

    /// Whom it asks.
    pub fn subject(&self) -> Subject<'_> {
        let (service, backend) = match &self.asks {
            Asks::Backend(tracked, name) => (&*tracked.service, &**name),
            Asks::Here | Asks::Address(_) => ("", ""),
        };
        Subject {
            service,
            backend,
            address: self.backend,
        }
    }

    /// Whether anybody wants it.
    pub fn is_wanted(&self) -> bool {
        !self.subjects().is_empty()
    }

    /// Whether somebody has joined since this was asked last.
    pub fn take_urgency(&self) -> bool {
        self.is_urgent.swap(false, Ordering::Relaxed)
    }

    fn serve(&self, subjects: Arc<[Tracked]>) {
        let mut now = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if subjects.iter().any(|subject| !now.contains(subject)) {
            self.is_urgent.store(true, Ordering::Relaxed);
        }
        *now = subjects;
    }
}

impl Asks {
    fn of(service: &Service, backend: &Backend) -> Self {
        match &service.check.kind {
            CheckKind::File(_) => Self::Here,
            CheckKind::Program(_) => {
                let name = Arc::clone(&backend.name);
                Self::Backend(Tracked::of(service, backend), name)
            }
            CheckKind::None
            | CheckKind::Tcp(_)
            | CheckKind::Tls(..)
            | CheckKind::Http(..)
            | CheckKind::Dns(_)
            | CheckKind::Udp(_)
            | CheckKind::Icmp { .. } => {
                Self::Address(service.check.address.unwrap_or(backend.address))
            }
        }
    }
}

/// Checks by number; those that are equal have the same.
#[derive(Default)]
struct Checks {
    all: Vec<Arc<Check>>,
    /// Numbers of those that may be equal.
    alike: HashMap<Alike, Vec<usize>>,
}

/// What tells most checks apart.
type Alike = (
    u16,
    Option<IpAddr>,
    Option<IpAddr>,
    vipd_control::model::Timing,
);

impl Checks {
    fn number(&mut self, check: &Arc<Check>) -> usize {
        let alike = (check.port.get(), check.address, check.source, check.timing);
        let numbers = self.alike.entry(alike).or_default();
        let known = numbers
            .iter()
            .copied()
            .find(|number| self.all[*number] == *check);
        known.unwrap_or_else(|| {
            let number = self.all.len();
            self.all.push(Arc::clone(check));
            numbers.push(number);
            number
        })
    }

    fn get(&self, number: usize) -> Arc<Check> {
        Arc::clone(&self.all[number])
    }
}
