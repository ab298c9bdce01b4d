//! What has changed since the last look at what the agent's tasks publish.

use std::{
    collections::{BTreeMap, HashMap},
    mem::{replace, take},
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use futures_util::future::{pending, select_all};
use tokio::sync::watch;
use vipd_control::{
    aggregate::Standing,
    announcement::State,
    decide::{Desired, ServicePlan},
    gate::Admission,
    health::{self, Health},
    model::Vip,
};

use super::{
    queue::Change,
    subject::{DOWN, Kind, REMOVED, Subject, UNKNOWN, UP},
};
use crate::{
    announce::Standings,
    engine::{Decision, SharedHealth},
    speaker::{PeerStatus, Peers},
    status::WITHDRAWN,
};

/// Where states are seen.
pub struct Sources {
    /// What is decided.
    decision: watch::Receiver<Decision>,
    /// What checks have found.
    health: SharedHealth,
    /// How everything stands that can be announced.
    standings: watch::Receiver<Arc<Standings>>,
    /// The BGP sessions.
    peers: watch::Receiver<Peers>,
    /// Each of them.
    statuses: BTreeMap<Arc<str>, watch::Receiver<PeerStatus>>,
}

/// What was seen at the last look.
#[derive(Default)]
pub struct Seen {
    desired: Arc<Desired>,
    services: HashMap<Arc<str>, SeenService>,
    standings: Arc<Standings>,
    peers: BTreeMap<Arc<str>, &'static str>,
}

struct SeenService {
    plan: Arc<ServicePlan>,
    state: &'static str,
    backends: Vec<&'static str>,
}

/// What a look finds.
struct Found<'a> {
    kinds: &'a [Kind],
    at: SystemTime,
    changes: Vec<Change>,
}

impl Sources {
    /// What the agent's tasks publish.
    #[must_use]
    pub const fn new(
        decision: watch::Receiver<Decision>,
        health: SharedHealth,
        standings: watch::Receiver<Arc<Standings>>,
        peers: watch::Receiver<Peers>,
    ) -> Self {
        Self {
            decision,
            health,
            standings,
            peers,
            statuses: BTreeMap::new(),
        }
    }

    /// Waits for any of it to change; gives back whether there can be more.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.decision.changed() => changed.is_ok(),
            changed = self.standings.changed() => changed.is_ok(),
            changed = self.peers.changed() => changed.is_ok(),
            () = any_changed(&mut self.statuses) => true,
        }
    }

    /// The sessions that there are, each with what was last seen of it marked as seen.
    fn sessions(&mut self) -> &mut BTreeMap<Arc<str>, watch::Receiver<PeerStatus>> {
        let peers = self.peers.borrow_and_update();
        self.statuses.retain(|name, status| {
            let view = peers.get(name);
            view.is_some_and(|view| view.status.same_channel(status))
        });
        for (name, view) in &*peers {
            let status = self.statuses.entry(Arc::clone(name));
            status.or_insert_with(|| view.status.clone());
        }
        &mut self.statuses
    }
}

/// Waits for any of the sessions to change. One that has ended does not any more.
async fn any_changed(statuses: &mut BTreeMap<Arc<str>, watch::Receiver<PeerStatus>>) {
    if statuses.is_empty() {
        return pending().await;
    }
    let changes = statuses.values_mut().map(|status| {
        Box::pin(async {
            if status.changed().await.is_err() {
                pending::<()>().await;
            }
        })
    });
    select_all(changes).await;
}

impl Seen {
    /// Whether there are backends of which nothing is known, so that their first
    /// state may come without anything else changing.
    pub fn is_waiting(&self) -> bool {
        let mut services = self.services.values();
        services.any(SeenService::is_waiting)
    }

    /// What has changed of subjects of these kinds. Of a kind that was not looked at
    /// before, everything has.
    pub fn look(&mut self, sources: &mut Sources, kinds: &[Kind]) -> Vec<Change> {
        let mut found = Found {
            kinds,
            at: SystemTime::now(),
            changes: Vec::new(),
        };
        let wants = |wanted: [Kind; 2]| wanted.iter().any(|kind| kinds.contains(kind));
        let decision = sources.decision.borrow_and_update().clone();
        let standings = Arc::clone(&sources.standings.borrow_and_update());
        // A large farm has very many of them.
        if wants([Kind::Backend, Kind::Service]) {
            self.look_at_services(&decision, &sources.health, &mut found);
        }
        if wants([Kind::Vip, Kind::Aggregate]) {
            self.look_at_prefixes(&standings, &decision, &mut found);
        }
        self.look_at_peers(sources.sessions(), &mut found);
        found.changes
    }

    fn look_at_services(
        &mut self,
        decision: &Decision,
        health: &SharedHealth,
        found: &mut Found<'_>,
    ) {
        if Arc::ptr_eq(&self.desired, &decision.desired) && !self.is_waiting() {
            return;
        }
        self.desired = Arc::clone(&decision.desired);
        let table = health.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = take(&mut self.services);
        for plan in &decision.desired.services {
            let name = &plan.service.name;
            // Nobody checks a service that is leaving, and it has another name.
            let health = table.backends(name);
            if health.is_empty() {
                continue;
            }
            let old = before.remove(name);
            let now = match old {
                Some(old) if Arc::ptr_eq(&old.plan, plan) && !old.is_waiting() => old,
                old => {
                    let now = SeenService::new(plan, health, old.as_ref());
                    now.compare(old.as_ref(), health, found);
                    now
                }
            };
            self.services.insert(Arc::clone(name), now);
        }
        for (name, old) in before {
            for backend in &old.plan.service.backends {
                let subject = Subject::Backend(Arc::clone(&name), Arc::clone(&backend.name));
                found.removed(subject);
            }
            found.removed(Subject::Service(name));
        }
    }

    fn look_at_prefixes(
        &mut self,
        standings: &Arc<Standings>,
        decision: &Decision,
        found: &mut Found<'_>,
    ) {
        if Arc::ptr_eq(&self.standings, standings) {
            return;
        }
        let before = replace(&mut self.standings, Arc::clone(standings));
        // What waits by damping has not happened yet.
        let announced = |standings: &Standings, prefix: &Vip, state: Option<State>| {
            let damped = standings.damping.get(prefix);
            damped.map_or(state, |standing| standing.announced)
        };
        // What the data plane has not applied yet is announced a moment later.
        let vips = |standings: &Standings| -> BTreeMap<Vip, Option<State>> {
            let vips = standings.vips.iter();
            let settled = vips.filter(|(_, admission)| !admission.is_pending());
            settled
                .map(|(vip, admission)| (*vip, announced(standings, vip, admission.state())))
                .collect()
        };
        let reason = |vip: &Vip| {
            let plan = decision.desired.vips.get(vip)?;
            standings
                .vips
                .get(vip)
                .map(|it: &Admission| it.reason(plan))
        };
        let old = (vips(&before), before.known);
        found.compare(
            &old,
            &(vips(standings), standings.known),
            Subject::Vip,
            reason,
        );
        let aggregates = |standings: &Standings| -> BTreeMap<Vip, Option<State>> {
            let aggregates = standings.aggregates.iter();
            aggregates
                .map(|it| (it.prefix, announced(standings, &it.prefix, it.state)))
                .collect()
        };
        let reason = |prefix: &Vip| {
            let mut aggregates = standings.aggregates.iter();
            aggregates
                .find(|it| it.prefix == *prefix)
                .map(Standing::reason)
        };
        let old = (aggregates(&before), before.known);
        found.compare(
            &old,
            &(aggregates(standings), standings.known),
            Subject::Aggregate,
            reason,
        );
    }

    fn look_at_peers(
        &mut self,
        sessions: &mut BTreeMap<Arc<str>, watch::Receiver<PeerStatus>>,
        found: &mut Found<'_>,
    ) {
        let mut before = take(&mut self.peers);
        for (name, status) in sessions {
            let status = status.borrow_and_update();
            let old = before.remove(name).unwrap_or(UNKNOWN);
            let error = status.session.last_error.as_ref();
            let now = match (&status.session.established_at, error, old) {
                (Some(_), ..) => UP,
                // It has never been up, and nothing has gone wrong so far.
                (None, None, UNKNOWN) => UNKNOWN,
                (None, ..) => DOWN,
            };
            self.peers.insert(Arc::clone(name), now);
            if now != old {
                found.push(Subject::Peer(Arc::clone(name)), now, || match now {
                    UP => "the BGP session is established".to_owned(),
                    _ => error
                        .map_or("there is no BGP session", |error| &error.words)
                        .to_owned(),
                });
            }
        }
        for name in before.into_keys() {
            found.removed(Subject::Peer(name));
        }
    }
}

impl SeenService {
    fn new(plan: &Arc<ServicePlan>, health: &[Health], old: Option<&Self>) -> Self {
        let was = |i: usize| {
            let backend = plan.service.backends.get(i);
            old.zip(backend)
                .map_or(UNKNOWN, |(old, backend)| old.backend(&backend.name))
        };
        let standings = plan.standing.iter();
        let backends: Vec<_> = standings
            .enumerate()
            .map(|(i, standing)| match health.get(i) {
                None => UNKNOWN,
                Some(health) if health.state() == health::State::Unknown => UNKNOWN,
                // The first decision about it is yet to come.
                Some(health)
                    if !standing.keeps_flows()
                        && health.standing().keeps_flows()
                        && was(i) == UNKNOWN =>
                {
                    UNKNOWN
                }
                Some(_) => standing.label(),
            })
            .collect();
        let state = match plan.condition.state() {
            State::Down if backends.contains(&UNKNOWN) => UNKNOWN,
            state => state.label(),
        };
        Self {
            plan: Arc::clone(plan),
            state,
            backends,
        }
    }

    fn is_waiting(&self) -> bool {
        self.backends.contains(&UNKNOWN)
    }

    fn backend(&self, name: &str) -> &'static str {
        let mut backends = self.plan.service.backends.iter().zip(&self.backends);
        backends
            .find(|(backend, _)| *backend.name == *name)
            .map_or(UNKNOWN, |(_, state)| state)
    }

    /// Tells what is otherwise than it was.
    fn compare(&self, old: Option<&Self>, health: &[Health], found: &mut Found<'_>) {
        let service = &self.plan.service;
        let states = self.backends.iter().zip(&self.plan.drained);
        for (i, (backend, (now, drained))) in service.backends.iter().zip(states).enumerate() {
            // Mostly it is where it was.
            let before = match old {
                None => UNKNOWN,
                Some(old) if old.plan.service.backends.get(i) == Some(backend) => {
                    old.backends.get(i).copied().unwrap_or(UNKNOWN)
                }
                Some(old) => old.backend(&backend.name),
            };
            if *now != before && *now != UNKNOWN {
                let subject =
                    Subject::Backend(Arc::clone(&service.name), Arc::clone(&backend.name));
                found.push(subject, now, || {
                    let last = health.get(i).and_then(Health::last);
                    let last = last.map_or_else(|| "not checked".to_owned(), ToString::to_string);
                    if *drained {
                        format!("drained by the operator; {last}")
                    } else {
                        last
                    }
                });
            }
        }
        for backend in old.iter().flat_map(|old| &old.plan.service.backends) {
            if !service.backends.iter().any(|it| it.name == backend.name) {
                let subject =
                    Subject::Backend(Arc::clone(&service.name), Arc::clone(&backend.name));
                found.removed(subject);
            }
        }
        if self.state != old.map_or(UNKNOWN, |old| old.state) && self.state != UNKNOWN {
            let subject = Subject::Service(Arc::clone(&service.name));
            found.push(subject, self.state, || self.plan.reason());
        }
    }
}

/// Prefixes and the states in which they are announced, and whether everything was
/// known by then: before, a prefix that is not announced may be a moment later.
type Prefixes = (BTreeMap<Vip, Option<State>>, bool);

impl Found<'_> {
    fn push(&mut self, subject: Subject, state: &'static str, reason: impl FnOnce() -> String) {
        if self.kinds.contains(&subject.kind()) {
            self.changes.push(Change {
                subject,
                state,
                reason: reason(),
                at: self.at,
            });
        }
    }

    fn removed(&mut self, subject: Subject) {
        self.push(subject, REMOVED, || {
            "it is not configured any more".to_owned()
        });
    }

    fn compare(
        &mut self,
        before: &Prefixes,
        now: &Prefixes,
        subject: fn(Vip) -> Subject,
        reason: impl Fn(&Vip) -> Option<String>,
    ) {
        let state = |(prefixes, known): &Prefixes, prefix: &Vip| match prefixes.get(prefix) {
            Some(Some(state)) => state.label(),
            Some(None) if *known => WITHDRAWN,
            Some(None) | None => UNKNOWN,
        };
        for prefix in now.0.keys() {
            let state_now = state(now, prefix);
            if state_now != UNKNOWN && state_now != state(before, prefix) {
                self.push(subject(*prefix), state_now, || {
                    reason(prefix).unwrap_or_default()
                });
            }
        }
        for prefix in before.0.keys().filter(|prefix| !now.0.contains_key(prefix)) {
            if ![UNKNOWN, WITHDRAWN].contains(&state(before, prefix)) {
                let words = "it is not configured any more, or the agent stops";
                self.push(subject(*prefix), WITHDRAWN, || words.to_owned());
            }
        }
    }
}
