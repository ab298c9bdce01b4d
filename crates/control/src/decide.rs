//! The decision: from the model and the health of backends to what is to be
//! forwarded, and in what state virtual addresses may be announced.
//!
//! The outcome is a state, not a list of changes: whoever applies it compares
//! it with what there is. What did not change is shared with the decision
//! before, so comparing is cheap. Of the decision before only two things matter:
//! the last ring, of a service of whose backends nothing is known any more, and
//! whether a service had enough backends ([`duty`](crate::duty) has two marks for
//! that).
//!
//! Packets need somebody to go to, also where nobody is healthy: then they go where
//! they went, to all that fell lately and not to the last one alone. Such backends
//! are *presumed* to serve. In [doubt](crate::doubt) those are that it covers.

mod draft;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use self::draft::Draft;
use crate::{
    announcement::State,
    condition::{Condition, follow},
    duty::Duty,
    hash::{Fields, siphash},
    model::{Backend, Mode, Model, Service, Tally, Vip},
    ring::{Ring, RingBase},
    slow_start::Share,
    standing::Standing,
};

/// What is to be forwarded and announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// One per service, in the order of their names.
    pub services: Vec<Arc<ServicePlan>>,
    /// One per virtual address.
    pub vips: BTreeMap<Vip, Arc<VipPlan>>,
}

/// What is to be forwarded for one service.
#[derive(Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// As configured.
    pub service: Arc<Service>,
    /// What each backend means for flows, in the service's order; also those of
    /// weight 0, and those off duty.
    pub standing: Vec<Standing>,
    /// Whether the operator has drained each, dead or alive.
    pub drained: Vec<bool>,
    /// Whether each takes new flows: it [may](Standing::takes_flows), and is on
    /// [duty](crate::duty).
    pub available: Vec<bool>,
    /// Whether each keeps its flows, and has its share of new ones where nobody is
    /// healthy enough to take them, though its checks fail. Who is missing does not.
    pub presumed: Vec<bool>,
    /// The share of each, while it starts slowly less than the whole.
    pub shares: Vec<Share>,
    /// How the service is, and why.
    pub condition: Condition,
    /// What the ring is made from.
    pub base: Arc<RingBase>,
    /// Who owns which slot; `None` when nobody was available since the service
    /// or its backends were configured, and where nothing is forwarded. If nobody is
    /// available *now*, those own it that are presumed to serve: packets of a farm
    /// that is thought dead are better sent than dropped.
    pub ring: Option<Arc<Ring>>,
    /// [`Ring::fingerprint`] of the ring under the cluster secret.
    pub ring_fingerprint: Option<u64>,
    /// Of all that the data plane is to apply for this service, except for the
    /// virtual addresses.
    pub fingerprint: u64,
    /// Which secret the fingerprints are made with, in a form that does not
    /// tell it.
    pub(crate) keyed: u64,
}

/// What is to become of one virtual address.
#[derive(Debug, PartialEq, Eq)]
pub struct VipPlan {
    /// The state that its services are in: that of the best one, since a worse
    /// announcement would take its traffic away from that one, too.
    pub state: State,
    /// The services on it, in the order of their names.
    pub services: Vec<Arc<ServicePlan>>,
    /// Of all that the data plane is to apply for this address; what it
    /// acknowledges with.
    pub fingerprint: u64,
}

/// Says how the backends of a service are, in the service's order.
pub trait HealthView {
    /// What checks say, one word per backend of `service`. Who is missing is
    /// dead.
    fn standing(&self, service: &Service) -> Vec<Standing>;

    /// Whom the operator has drained, one flag per backend. Who is missing is
    /// not.
    fn drained(&self, _service: &Service) -> Vec<bool> {
        Vec::new()
    }

    /// What share of its slots each backend has that takes new flows. Who is
    /// missing has the whole.
    fn shares(&self, _service: &Service) -> Vec<Share> {
        Vec::new()
    }

    /// Why the service is disabled, in plain words, if it is: by the operator or
    /// by a file.
    fn disabled(&self, _service: &Service) -> Option<Arc<str>> {
        None
    }

    /// Why some of its backends may be the victims of our own network, if they may.
    fn doubted(&self, _service: &Service) -> Option<Doubted> {
        None
    }

    /// Who was available until nobody was: all that fell together with the last
    /// one. Who is missing was not.
    fn fallen(&self, _service: &Service) -> Vec<bool> {
        Vec::new()
    }
}

/// Backends that may be the victims of our own network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubted {
    /// Why, in plain words.
    pub why: Arc<str>,
    /// Which, in the service's order.
    pub backends: Vec<bool>,
}

/// Whether each backend is available; otherwise it is dead.
impl<F: Fn(&Service, &Backend) -> bool> HealthView for F {
    fn standing(&self, service: &Service) -> Vec<Standing> {
        let standing = |backend| match self(service, backend) {
            true => Standing::Available,
            false => Standing::Dead,
        };
        service.backends.iter().map(standing).collect()
    }
}

/// Decides. Keeps nothing between decisions but the secret: what need not be
/// computed again is found in the decision before.
#[derive(Clone)]
pub struct Decider {
    secret: [u8; 16],
    keyed: u64,
}

impl Decider {
    /// `secret` is what keys the cluster's flow hash; it enters the
    /// fingerprints.
    #[must_use]
    pub fn new(secret: [u8; 16]) -> Self {
        Self {
            secret,
            keyed: siphash(&secret, b"which secret"),
        }
    }

    /// What is to be, given what is configured and who is healthy. `previous`
    /// is the decision before, or the default. Plans that did not change are
    /// the same `Arc` as there.
    #[must_use]
    pub fn decide(&self, model: &Model, health: &impl HealthView, previous: &Desired) -> Desired {
        let services = model.services.iter().enumerate();
        let drafts = services.map(|(i, service)| {
            // Mostly it is where it was, which spares the search.
            let there = previous.services.get(i);
            let previous = there
                .filter(|plan| plan.service.name == service.name)
                .or_else(|| previous.related(service));
            Draft::new(service, health, previous)
        });
        let mut drafts: Vec<_> = drafts.collect();
        follow(
            drafts
                .iter_mut()
                .map(|draft| (&**draft.service, &mut draft.condition)),
        );
        let drafts = drafts.into_iter();
        let services: Vec<_> = drafts.map(|draft| self.plan(draft)).collect();
        let share = |(vip, services)| {
            let previous = previous.vips.get(&vip);
            let same = previous.filter(|plan| plan.services == services);
            let plan = same.map_or_else(|| Arc::new(VipPlan::new(services)), Arc::clone);
            (vip, plan)
        };
        let vips = by_vip(&services).into_iter().map(share).collect();
        Desired { services, vips }
    }

    fn plan(&self, draft: Draft<'_>) -> Arc<ServicePlan> {
        if let Some(same) = draft.unchanged(self.keyed) {
            return Arc::clone(same);
        }
        let Draft {
            service,
            previous,
            standing,
            drained,
            presumed,
            line,
            shares,
            condition,
        } = draft;
        let backends = service.backends.iter().zip(&standing);
        let on_duty = condition.duty.line;
        let available: Vec<_> = backends
            .map(|(backend, standing)| standing.takes_flows() && on_duty.has(backend.role))
            .collect();

        let related = previous.filter(|plan| plan.has_backends_of(service));
        let last = related.and_then(|plan| plan.ring.as_ref());
        let same_line = related.filter(|plan| plan.base.fits(service, line));
        let base = same_line.map_or_else(
            || Arc::new(RingBase::new(service, line)),
            |plan| Arc::clone(&plan.base),
        );
        let ring = last
            .filter(|ring| Arc::ptr_eq(ring.base(), &base))
            .map_or_else(|| base.ring(&shares), |ring| ring.update(&shares))
            .filter(|_| service.mode.forwards())
            .map(Arc::new)
            .or_else(|| last.cloned());

        let ring_fingerprint = ring.as_ref().map(|ring| ring.fingerprint(&self.secret));
        Arc::new(ServicePlan {
            fingerprint: service_fingerprint(service, ring_fingerprint),
            keyed: self.keyed,
            service: Arc::clone(service),
            standing,
            drained,
            available,
            presumed,
            shares,
            condition,
            base,
            ring,
            ring_fingerprint,
        })
    }
}

/// The services on each virtual address, in the order of their names.
fn by_vip(services: &[Arc<ServicePlan>]) -> BTreeMap<Vip, Vec<Arc<ServicePlan>>> {
    let mut vips = BTreeMap::<_, Vec<_>>::new();
    for plan in services {
        for &vip in &plan.service.vips {
            vips.entry(vip).or_default().push(Arc::clone(plan));
        }
    }
    vips
}

impl Desired {
    /// Without the services that this host serves itself, which are nothing to a
    /// data plane. Where there are none it is the same.
    #[must_use]
    pub fn forwarded(self: &Arc<Self>) -> Arc<Self> {
        if self.services.iter().all(|plan| plan.forwards()) {
            return Arc::clone(self);
        }
        let mut forwarded = Self::clone(self);
        forwarded.services.retain(|plan| plan.forwards());
        forwarded.vips.retain(|_, plan| !plan.is_local());
        Arc::new(forwarded)
    }

    /// The plan of a service, also if it had another name: that with the same
    /// protocol and ports on one of its addresses.
    fn related(&self, service: &Service) -> Option<&Arc<ServicePlan>> {
        let named = self.service(&service.name);
        named.or_else(|| {
            self.services
                .iter()
                .find(|plan| plan.service.meets(service))
        })
    }

    /// The plan of a service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<ServicePlan>> {
        let found = self
            .services
            .binary_search_by(|plan| (*plan.service.name).cmp(name));
        found.ok().map(|i| &self.services[i])
    }
}

impl VipPlan {
    fn new(services: Vec<Arc<ServicePlan>>) -> Self {
        let states = services.iter().map(|service| service.state());
        Self {
            state: states.max().unwrap_or(State::Down),
            fingerprint: services
                .iter()
                .fold(Fields::default(), |fields, s| fields.number(s.fingerprint))
                .hash(FINGERPRINT_KEY),
            services,
        }
    }

    /// Whether one of its services has enough backends and is not disabled.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state.is_alive()
    }

    /// Whether this host serves the address itself: then nothing of it is
    /// forwarded.
    #[must_use]
    pub fn is_local(&self) -> bool {
        !self.services.iter().any(|service| service.forwards())
    }

    /// Why it is in its state, in plain words, for example `web: 0 of 3
    /// backends healthy, 1 wanted`.
    #[must_use]
    pub fn reason(&self) -> String {
        let reasons: Vec<_> = self.services.iter().map(|s| s.reason()).collect();
        reasons.join("; ")
    }
}

impl ServicePlan {
    /// Whether its packets are carried to other hosts.
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.service.mode.forwards()
    }

    /// The state it is in by itself.
    #[must_use]
    pub fn state(&self) -> State {
        self.condition.state()
    }

    /// Whether it has enough backends and is not disabled.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state().is_alive()
    }

    /// Healthy backends of the first line that have a weight.
    #[must_use]
    pub fn healthy(&self) -> u32 {
        self.condition.duty.active.backends
    }

    /// Backends of the first line that have a weight.
    #[must_use]
    pub fn configured(&self) -> u32 {
        self.condition.duty.configured.backends
    }

    /// Whether anybody takes new flows.
    #[must_use]
    pub fn has_takers(&self) -> bool {
        let mut backends = self.service.backends.iter().zip(&self.available);
        backends.any(|(backend, available)| *available && backend.weight > 0)
    }

    /// Whether flows that the backend at this place has stay with it.
    #[must_use]
    pub fn keeps_flows(&self, place: usize) -> bool {
        let by_checks = self.standing.get(place).is_some_and(|s| s.keeps_flows());
        by_checks || self.presumed.get(place).copied().unwrap_or(false)
    }

    /// How the service would be if the backend at this place took no new flows.
    #[must_use]
    pub fn without(&self, place: usize) -> Duty {
        let standing = self.standing.iter().enumerate();
        let healthy: Vec<_> = standing
            .map(|(i, standing)| i != place && standing.takes_flows())
            .collect();
        Duty::new(&self.service, &healthy, Some(&self.condition.duty))
    }

    /// Whether those backends on duty that `is_reached` says yes to, by their
    /// places, are enough for the state that the service is in.
    #[must_use]
    pub fn is_enough(&self, is_reached: impl Fn(usize) -> bool) -> bool {
        let mut reached = Tally::default();
        let backends = self.service.backends.iter().zip(&self.available);
        for (i, (backend, available)) in backends.enumerate() {
            if *available && is_reached(i) {
                reached.add(backend.weight);
            }
        }
        self.condition.duty.is_enough(&self.service.needs, reached)
    }

    /// Why it is in its state, in plain words.
    #[must_use]
    pub fn reason(&self) -> String {
        self.condition.reason(&self.service)
    }

    /// Whether a ring of this plan's backends is one of `service`'s: who owns a
    /// slot of it is found by its place, and had a share by its weight and role.
    fn has_backends_of(&self, service: &Service) -> bool {
        let key = |b: &Backend| (b.address, b.weight, b.role);
        let mine = self.service.backends.iter().map(key);
        self.service.ring_size == service.ring_size && mine.eq(service.backends.iter().map(key))
    }
}

/// Covers what packets of the service meet: name, protocol, ports, mode and
/// ring. The secret is in the ring's fingerprint.
fn service_fingerprint(service: &Service, ring: Option<u64>) -> u64 {
    let (first_port, last_port) = service.ports.bounds();
    let (mode, tunnel_port) = match service.mode {
        Mode::L2Dsr => (1, 0),
        Mode::Ipip => (2, 0),
        Mode::Gue(port) => (3, port.get()),
        Mode::Local => (4, 0),
    };
    let fields = Fields::default()
        .bytes(service.name.as_bytes())
        .number(service.protocol.number().into())
        .number(first_port.into())
        .number(last_port.into())
        .number(mode)
        .number(tunnel_port.into())
        .number(service.idle.as_millis() as u64);
    ring.into_iter()
        .fold(fields, Fields::number)
        .hash(FINGERPRINT_KEY)
}

/// The fingerprints of services and addresses are compared only, so the key
/// need not be secret.
const FINGERPRINT_KEY: &[u8; 16] = b"vipd fingerprint";
