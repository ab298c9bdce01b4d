//! What all the tasks publish, in one place, and the [`Status`] made from it.
//! Reads only.

mod announcements;
mod bfd;
mod bgp;
mod overrides;

use std::{
    num::NonZeroU64,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, Serializer};
use tokio::sync::watch;
use vipd_abi::Verdict;
use vipd_control::{
    check::{CheckResult, Took},
    decide::ServicePlan,
    health::{Health, State},
    model::Mode,
};

pub use self::announcements::Sight;
use crate::{
    announce::{Announced, Standings},
    bfd::client::States,
    config::Config,
    dataplane::{
        apply::{Applied, PhaseCount},
        tables::Counters,
    },
    departure::Ordered,
    engine::{Decision, SharedHealth},
    events::Latencies,
    hooks::{Tallies, Tally},
    local::Local,
    netlink::way::Problems,
    overrides::Overrides,
    probe::{Counted, Lateness},
    speaker::Peers,
    status::{self, Status},
};

/// The receiving ends of everything that is published.
#[derive(Clone)]
pub struct Views {
    /// When the agent started.
    pub started: Start,
    /// The configuration file.
    pub path: PathBuf,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// What is decided.
    pub decision: watch::Receiver<Decision>,
    /// Health of the backends.
    pub health: SharedHealth,
    /// What the operator has ordered.
    pub overrides: watch::Receiver<Arc<Overrides>>,
    /// How long decisions took to become UPDATEs.
    pub latencies: Arc<Latencies>,
    /// What is announced.
    pub announced: watch::Receiver<Arc<Announced>>,
    /// What the gate says.
    pub standings: watch::Receiver<Arc<Standings>>,
    /// The BGP sessions.
    pub peers: watch::Receiver<Peers>,
    /// What BFD says of them.
    pub bfd: watch::Receiver<States>,
    /// The data plane, if there is one.
    pub dataplane: Option<DataplaneViews>,
    /// What was found at the start or the last reload.
    pub findings: watch::Receiver<Arc<[String]>>,
    /// Whether the host is in maintenance.
    pub maintenance: watch::Receiver<Ordered>,
    /// What comes to addresses of this host itself meanwhile.
    pub arrivals: watch::Receiver<Option<status::Arrivals>>,
    /// How punctual the checks are.
    pub lateness: Arc<Lateness>,
    /// How hooks are doing.
    pub hooks: watch::Receiver<Tallies>,
    /// How the addresses stand that this host serves itself.
    pub local: watch::Receiver<Arc<Local>>,
}

/// A moment by both clocks, so that others can be told in seconds since 1970: the
/// same each time, also when the clock of the day has been set meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    instant: Instant,
    unix: f64,
}

impl Start {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            instant: Instant::now(),
            unix: since.unwrap_or_default().as_secs_f64(),
        }
    }

    /// A moment since then, in seconds since 1970.
    fn unix(&self, moment: Instant) -> f64 {
        self.unix + seconds(self.instant, moment)
    }
}

/// What the data plane publishes.
#[derive(Clone)]
pub struct DataplaneViews {
    /// Where it is pinned.
    pub pin_path: PathBuf,
    /// What has been applied.
    pub applied: watch::Receiver<Arc<Applied>>,
    /// Why it does not forward at all, if so.
    pub fault: watch::Receiver<Option<String>>,
    /// The counters.
    pub counters: Arc<Counters>,
    /// Why some backends have no way, by address.
    pub problems: watch::Receiver<Problems>,
    /// How the program is attached.
    pub interfaces: watch::Receiver<Vec<status::Interface>>,
}

impl Views {
    /// Everything as it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status_with(|services| services.iter().collect())
    }

    /// The same to be written: each service is made when its turn comes, since
    /// those of a large farm take tens of megabytes together.
    pub fn status_to_write(&self) -> impl Serialize {
        self.status_with(|services| services)
    }

    fn status_with<'a, S>(&'a self, services: impl FnOnce(Services<'a>) -> S) -> Status<S> {
        let now = Instant::now();
        let decision = self.decision.borrow().clone();
        let config = Arc::clone(&self.config.borrow());
        let views = self.peers.borrow().clone();
        // No lock is held while services are made, which takes long for many:
        // whoever publishes an announcement waits for it.
        let standings = Arc::clone(&self.standings.borrow());
        let announced = Arc::clone(&self.announced.borrow());
        let findings = Arc::clone(&self.findings.borrow());
        let local = Arc::clone(&self.local.borrow());
        let bfd = self.bfd.borrow().clone();
        let peers: Vec<_> = views
            .values()
            .map(|view| bgp::peer(&view.status.borrow(), &bfd, now, &self.started))
            .collect();
        Status {
            node: config.node.name().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: seconds(self.started.instant, now),
            start_time_seconds: self.started.unix,
            config: self.path.clone(),
            maintenance: self.maintenance.borrow().on,
            arrivals: self.arrivals.borrow().clone(),
            overrides: self.overrides_shown(&config.model),
            decision_to_update: self.latencies.read(),
            dataplane: self.dataplane.as_ref().map(DataplaneViews::status),
            checks: checks(self.lateness.counted()),
            vips: announcements::vips(&decision, &standings, &announced, &local, now),
            aggregates: announcements::aggregates(&decision, &standings, &announced, now),
            services: services(Services {
                views: self,
                decision,
                bfd,
                now,
            }),
            sessions: status::Sessions::of(&peers),
            peers,
            bfd_unreachable: self.bfd_unreachable(),
            findings: findings.to_vec(),
            hooks: self.hooks.borrow().iter().map(hook).collect(),
        }
    }

    fn service(
        &self,
        plan: &ServicePlan,
        decision: &Decision,
        said: &States,
        now: Instant,
    ) -> status::Service {
        let service = &plan.service;
        let shares = plan.ring.as_ref().map(|ring| ring.shares());
        let health: Vec<Health> = {
            let table = self.health.lock().unwrap_or_else(PoisonError::into_inner);
            table.backends(&service.name).to_vec()
        };
        let dataplane = self.dataplane.as_ref();
        let applied = dataplane.map(|dataplane| Arc::clone(&dataplane.applied.borrow()));
        let ended = self.overrides.borrow().ended(service);
        let recorded = applied.as_ref().and_then(|a| a.flows.get(&service.name));
        let backends: Vec<_> = service
            .backends
            .iter()
            .enumerate()
            .map(|(i, backend)| {
                let health = health.get(i);
                let flows = recorded.and_then(|flows| flows.get(&backend.name));
                let flows = flows.copied().unwrap_or_default();
                let counter = dataplane.map_or_else(Default::default, |d| {
                    d.counter(&service.name, &backend.name)
                });
                status::Backend {
                    name: backend.name.to_string(),
                    address: backend.address,
                    weight: backend.weight,
                    role: backend.role.label().to_owned(),
                    state: health.map_or("leaving", |h| state(h.state())).to_owned(),
                    standing: plan.standing.get(i).map_or("?", |s| s.label()).to_owned(),
                    drained: plan.drained.get(i) == Some(&true),
                    disabled: ended.get(i) == Some(&true),
                    available: plan.available.get(i) == Some(&true),
                    share_percent: plan.shares.get(i).map_or(100, |share| share.percent()),
                    since_seconds: health.map_or(0.0, |h| seconds(h.since(), now)),
                    check: health.and_then(Health::last).map(check),
                    bfd: (service.bfd && backend.track.is_none())
                        .then(|| bfd::session(backend.address, said)),
                    slots: shares.as_ref().and_then(|s| s.get(i).copied()).unwrap_or(0),
                    flows: flows.live,
                    flows_closing: flows.closing,
                    packets: counter.packets,
                    bytes: counter.bytes,
                }
            })
            .collect();
        let mut vips = service.vips.iter();
        status::Service {
            name: service.name.to_string(),
            leaving: vips.any(|vip| decision.leaving.contains(vip)),
            vips: service.vips.iter().map(ToString::to_string).collect(),
            protocol: service.protocol.to_string(),
            port: service.ports.to_string(),
            mode: match service.mode {
                Mode::L2Dsr => "l2-dsr",
                Mode::Ipip => "ipip",
                Mode::Gue(_) => "gue",
                Mode::Local => "local",
            }
            .to_owned(),
            alive: plan.is_alive(),
            state: plan.state().label().to_owned(),
            reason: plan.reason(),
            healthy: plan.healthy(),
            configured: plan.configured(),
            ring_size: if plan.forwards() {
                service.ring_size
            } else {
                0
            },
            ring_fingerprint: plan.ring_fingerprint.map(|f| format!("{f:016x}")),
            in_force: !plan.forwards()
                || applied.as_ref().is_some_and(|applied| {
                    let plan = |vip| decision.desired.vips.get(vip);
                    let mut vips = service.vips.iter();
                    vips.all(|vip| {
                        plan(vip).map(|p| p.fingerprint) == applied.vips.get(vip).copied()
                    })
                }),
            idle_seconds: service.idle.as_secs(),
            phases: applied
                .as_ref()
                .filter(|_| plan.forwards())
                .map(|applied| phases(applied.phases.get(&service.name))),
            flows: backends.iter().map(|b| b.flows).sum(),
            packets: backends.iter().map(|b| b.packets).sum(),
            bytes: backends.iter().map(|b| b.bytes).sum(),
            backends,
        }
    }
}

/// The services of a status.
struct Services<'a> {
    views: &'a Views,
    decision: Decision,
    bfd: States,
    now: Instant,
}

impl Services<'_> {
    fn iter(&self) -> impl Iterator<Item = status::Service> {
        let plans = self.decision.desired.services.iter();
        plans.map(|plan| {
            self.views
                .service(plan, &self.decision, &self.bfd, self.now)
        })
    }
}

impl Serialize for Services<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl DataplaneViews {
    fn status(&self) -> status::Dataplane {
        let applied = Arc::clone(&self.applied.borrow());
        let mut faults = applied.faults.clone();
        for (address, problem) in self.problems.borrow().iter() {
            faults.insert(format!("backend {address}"), problem.clone());
        }
        status::Dataplane {
            pin_path: self.pin_path.clone(),
            interfaces: self.interfaces.borrow().clone(),
            fault: self.fault.borrow().clone(),
            faults,
            maps: applied
                .usage
                .iter()
                .map(|usage| status::MapUse {
                    map: usage.map.to_lowercase(),
                    used: usage.used,
                    capacity: usage.capacity,
                })
                .collect(),
            verdicts: Verdict::ALL
                .iter()
                .map(|verdict| {
                    let counter = self.counters.sum(*verdict as u32);
                    (verdict.label().to_owned(), counter.packets)
                })
                .collect(),
        }
    }

    fn counter(&self, service: &str, backend: &str) -> vipd_abi::Counter {
        let applied = self.applied.borrow();
        let index = applied.counters.get(service).and_then(|s| s.get(backend));
        index.map_or_else(Default::default, |index| self.counters.sum(*index))
    }
}

fn phases(count: Option<&PhaseCount>) -> status::Phases {
    let count = count.copied().unwrap_or_default();
    status::Phases {
        stable: count.stable,
        learn: count.learn,
        track: count.track,
    }
}

/// A backend's state in HAProxy's words.
fn state(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Up => "up",
        State::GoingDown(_) => "going down",
        State::Down => "down",
        State::GoingUp(_) => "going up",
    }
}

fn hook((name, tally): (&Arc<str>, &Tally)) -> status::Hook {
    status::Hook {
        name: name.to_string(),
        succeeded: tally.succeeded,
        failed: tally.failed,
        timed_out: tally.timed_out,
        not_run: tally.not_run,
        superseded: tally.superseded,
        waiting: tally.waiting,
        running: tally.running,
        last_failure: tally.last_failure.clone(),
    }
}

/// A result as it is shown.
#[must_use]
pub fn check(result: &CheckResult) -> status::Check {
    status::Check {
        code: result.code.to_string(),
        status: result.status,
        duration_seconds: result.duration.as_secs_f64(),
        phases: status::CheckPhases {
            connect_seconds: took(result.phases.connect),
            tls_seconds: took(result.phases.tls),
            answer_seconds: took(result.phases.answer),
        },
        certificate_expiry: result.certificate_expiry.map(NonZeroU64::get),
        detail: result.detail.clone(),
    }
}

fn checks(Counted { ended, late }: Counted) -> status::Checks {
    status::Checks { ended, late }
}

fn took(took: Took) -> Option<f64> {
    took.get().map(|took| took.as_secs_f64())
}

fn seconds(since: Instant, now: Instant) -> f64 {
    now.saturating_duration_since(since).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn who_announces_waits_for_no_service_that_is_shown() {
        let (config, _) = Config::parse("", "vipd.toml").expect("an empty file is legal");
        let standings = watch::Sender::<Arc<Standings>>::default();
        let announced = watch::Sender::<Arc<Announced>>::default();
        let views = Views {
            started: Start::now(),
            path: PathBuf::new(),
            config: watch::channel(Arc::new(config)).1,
            decision: watch::channel(Decision::default()).1,
            health: SharedHealth::default(),
            overrides: watch::channel(Arc::default()).1,
            latencies: Arc::default(),
            announced: announced.subscribe(),
            standings: standings.subscribe(),
            peers: watch::channel(Peers::default()).1,
            bfd: watch::channel(States::default()).1,
            dataplane: None,
            findings: watch::channel(Arc::from([])).1,
            maintenance: watch::channel(Ordered::default()).1,
            arrivals: watch::channel(None).1,
            lateness: Arc::default(),
            hooks: watch::channel(Tallies::default()).1,
            local: watch::channel(Arc::default()).1,
        };
        views.status_with(|_| {
            let (done, told) = mpsc::channel();
            thread::spawn(move || {
                standings.send_replace(Arc::default());
                announced.send_replace(Arc::default());
                let _ = done.send(());
            });
            let waited = told.recv_timeout(Duration::from_secs(20));
            assert!(waited.is_ok(), "it cannot publish while services are made");
        });
    }
}
