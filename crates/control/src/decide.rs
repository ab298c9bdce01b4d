//! The decision: from the model and the health of backends to what is to be
//! forwarded and which virtual addresses may be announced.
//!
//! The outcome is a state, not a list of changes: whoever applies it compares
//! it with what there is. What did not change is shared with the decision
//! before, so comparing is cheap.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    hash::{Fields, siphash},
    model::{Backend, Mode, Model, Service, Vip},
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
    /// weight 0.
    pub standing: Vec<Standing>,
    /// Whether the operator has drained each, dead or alive.
    pub drained: Vec<bool>,
    /// Whether each takes new flows: [`Standing::takes_flows`].
    pub available: Vec<bool>,
    /// The share of each, while it starts slowly less than the whole.
    pub shares: Vec<Share>,
    /// Number of available backends with a weight; the drained do not count.
    pub healthy: u32,
    /// Number of configured backends with a weight.
    pub configured: u32,
    /// What the ring is made from.
    pub base: Arc<RingBase>,
    /// Who owns which slot; `None` when nobody was available since the service
    /// or its backends were configured. If nobody is available *now*, the ring
    /// is the last one: packets of a farm that is thought dead are better sent
    /// than dropped.
    pub ring: Option<Arc<Ring>>,
    /// [`Ring::fingerprint`] of the ring under the cluster secret.
    pub ring_fingerprint: Option<u64>,
    /// Of all that the data plane is to apply for this service, except for the
    /// virtual addresses.
    pub fingerprint: u64,
    /// Whether enough backends are healthy.
    pub alive: bool,
    /// Which secret the fingerprints are made with, in a form that does not
    /// tell it.
    pub(crate) keyed: u64,
}

/// What is to become of one virtual address.
#[derive(Debug, PartialEq, Eq)]
pub struct VipPlan {
    /// Whether it may be announced.
    pub alive: bool,
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
    /// is the decision before, or the default: it saves work, and says how the
    /// ring of a service was when nobody is left. Plans that did not change are
    /// the same `Arc` as there.
    #[must_use]
    pub fn decide(&self, model: &Model, health: &impl HealthView, previous: &Desired) -> Desired {
        let plan = |(i, service): (usize, &Arc<Service>)| {
            // Mostly it is where it was, which spares the search.
            let there = previous.services.get(i);
            let previous = there
                .filter(|plan| plan.service.name == service.name)
                .or_else(|| previous.related(service));
            self.plan(service, health, previous)
        };
        let services: Vec<_> = model.services.iter().enumerate().map(plan).collect();
        let share = |(vip, services)| {
            let previous = previous.vips.get(&vip);
            let same = previous.filter(|plan| plan.services == services);
            let plan = same.map_or_else(|| Arc::new(VipPlan::new(services)), Arc::clone);
            (vip, plan)
        };
        let vips = by_vip(&services).into_iter().map(share).collect();
        Desired { services, vips }
    }

    fn plan(
        &self,
        service: &Arc<Service>,
        health: &impl HealthView,
        previous: Option<&Arc<ServicePlan>>,
    ) -> Arc<ServicePlan> {
        let mut standing = health.standing(service);
        standing.resize(service.backends.len(), Standing::Dead);
        let mut drained = health.drained(service);
        drained.resize(service.backends.len(), false);
        for (standing, drained) in standing.iter_mut().zip(&drained) {
            if *drained {
                *standing = standing.drained();
            }
        }
        let mut shares = health.shares(service);
        shares.resize(service.backends.len(), Share::WHOLE);
        for (share, standing) in shares.iter_mut().zip(&standing) {
            if !standing.takes_flows() {
                *share = Share::NONE;
            }
        }
        let unchanged = |p: &&Arc<ServicePlan>| {
            p.service == *service
                && p.standing == standing
                && p.drained == drained
                && p.shares == shares
                && p.keyed == self.keyed
        };
        if let Some(same) = previous.filter(unchanged) {
            return Arc::clone(same);
        }
        let available: Vec<_> = standing.iter().map(|s| s.takes_flows()).collect();

        let related = previous.filter(|plan| plan.base.fits(service));
        let base = related.map_or_else(
            || Arc::new(RingBase::new(service)),
            |plan| Arc::clone(&plan.base),
        );
        let last = related.and_then(|plan| plan.ring.as_ref());
        let ring = last
            .map_or_else(|| base.ring(&shares), |ring| ring.update(&shares))
            .map(Arc::new)
            .or_else(|| last.cloned());

        let ring_fingerprint = ring.as_ref().map(|ring| ring.fingerprint(&self.secret));
        let healthy = weighted(service, |i| available[i]);
        Arc::new(ServicePlan {
            fingerprint: service_fingerprint(service, ring_fingerprint),
            alive: healthy >= service.min_healthy,
            keyed: self.keyed,
            service: Arc::clone(service),
            standing,
            drained,
            available,
            shares,
            healthy,
            configured: weighted(service, |_| true),
            base,
            ring,
            ring_fingerprint,
        })
    }
}

/// Number of backends that have a weight and are chosen by their place.
fn weighted(service: &Service, chosen: impl Fn(usize) -> bool) -> u32 {
    let backends = (0..).zip(&service.backends);
    let counted = backends.filter(|(i, backend)| backend.weight > 0 && chosen(*i));
    counted.fold(0, |count, _| count + 1)
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
        Self {
            alive: any_service_alive(&services),
            fingerprint: services
                .iter()
                .fold(Fields::default(), |fields, s| fields.number(s.fingerprint))
                .hash(FINGERPRINT_KEY),
            services,
        }
    }

    /// Why it is alive or not, in plain words, for example `web: 0 of 3
    /// backends healthy, 1 wanted`.
    #[must_use]
    pub fn reason(&self) -> String {
        let reasons: Vec<_> = self.services.iter().map(|s| s.reason()).collect();
        reasons.join("; ")
    }
}

/// The policy of when a virtual address may be announced: when at least one of
/// its services is alive, since withdrawing it would take that one down too.
fn any_service_alive(services: &[Arc<ServicePlan>]) -> bool {
    services.iter().any(|service| service.alive)
}

impl ServicePlan {
    /// Why it is alive or not, in plain words.
    #[must_use]
    pub fn reason(&self) -> String {
        let Self {
            healthy,
            configured,
            ..
        } = self;
        let Service {
            name, min_healthy, ..
        } = &*self.service;
        let found = format!("{name}: {healthy} of {configured} backends healthy");
        if self.alive {
            found
        } else {
            format!("{found}, {min_healthy} wanted")
        }
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
