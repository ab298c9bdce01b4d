//! The ring: which backend owns which slot.
//!
//! A packet's flow hash, cut to its low bits, names a slot; the slot names a
//! backend. The ring is a **pure function** of the configured backends (their
//! addresses and weights) and of who among them is available, so every node
//! arrives at the same one, whatever the order in its file and whatever
//! happened before. It is made in two steps:
//!
//! 1. The *base* deals all slots to all **configured** backends with a weight,
//!    by Maglev. It changes with the configuration only.
//! 2. The slots of backends that are not available are dealt out, each by
//!    itself, among those that are, by rendezvous hashing.
//!
//! Hence a death moves the slots of the dead backend and no other, and its
//! return takes exactly those back.
//!
//! The identity of a backend is its **address**, not its name: two nodes that
//! name the same servers differently, or in another order, must still send a
//! flow to the same server. An IPv4 address and its IPv4-mapped IPv6 form are
//! the same identity. Addresses are unique within a service. A backend has no
//! port of its own here; should a later mode give it one, the port becomes
//! part of the identity.

mod maglev;
mod rendezvous;
#[cfg(test)]
mod tests;

use std::{iter::repeat, net::IpAddr, sync::Arc};

use crate::{
    hash::{Fields, nth, siphash},
    model::{Backend, Service},
    ring::rendezvous::Contender,
};

/// Smallest ring [`default_ring_size`] gives.
pub const MIN_DEFAULT_RING_SIZE: u32 = 4096;
/// Largest ring [`default_ring_size`] gives.
pub const MAX_DEFAULT_RING_SIZE: u32 = 65_536;
/// Largest ring there can be; a larger size is taken as this one.
pub const MAX_RING_SIZE: u32 = 1 << 20;
/// Most backends a ring can tell apart; further ones own nothing, so the
/// configuration must refuse them.
pub const MAX_BACKENDS: usize = u16::MAX as usize;

/// The number of slots for a service of so many configured backends, unless
/// the operator says otherwise.
///
/// Only three steps, 4096, 16384 and 65536, taken at 32 and 128 backends, so
/// that adding or removing a backend hardly ever changes the size; and a pure
/// function of the count (no "keep the size there was"), so that all nodes
/// agree. Every backend has at least 128 slots up to 512 backends. The base is
/// even to one slot; what the size buys is evenness when backends are down,
/// since their slots are dealt out at random.
///
/// Measured, largest share relative to its fair one, equal weights, mean of
/// 20 sets of addresses (`balance_of_the_default_sizes` in the tests):
///
/// | backends | slots | all up | 10 % down (at least one) |
/// |---:|---:|---:|---:|
/// | 3 | 4096 | 1.000 | 1.007 |
/// | 10 | 4096 | 1.001 | 1.022 |
/// | 32 | 4096 | 1.000 | 1.064 |
/// | 33 | 16384 | 1.001 | 1.029 |
/// | 100 | 16384 | 1.001 | 1.066 |
/// | 128 | 16384 | 1.000 | 1.073 |
/// | 129 | 65536 | 1.002 | 1.034 |
/// | 500 | 65536 | 1.007 | 1.090 |
/// | 1000 | 65536 | 1.007 | 1.135 |
///
/// A slot costs two bytes here, four while some backend is down, and eight in
/// the kernel's map; for 100 backends 32, 64 and 128 KiB.
#[must_use]
pub const fn default_ring_size(backends: usize) -> u32 {
    match backends {
        0..=32 => MIN_DEFAULT_RING_SIZE,
        33..=128 => 16_384,
        _ => MAX_DEFAULT_RING_SIZE,
    }
}

/// What is fixed by the configuration alone: the slots while every backend is
/// available, and what is needed to deal out those of the unavailable.
#[derive(Debug, PartialEq, Eq)]
pub struct RingBase {
    size: u32,
    /// In the order of the service's backends, as all that has an ordinal.
    addresses: Box<[IpAddr]>,
    contenders: Box<[Contender]>,
    /// Those with a weight, in the order of [`rendezvous::sort`].
    weighted: Box<[Contender]>,
    /// Ordinal of the owner of each slot; empty when nobody has a weight.
    slots: Arc<[u16]>,
}

/// The slots of one service as they are to be now. There is always somebody
/// to own them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    base: Arc<RingBase>,
    /// Per ordinal: available and with a weight.
    serving: Box<[bool]>,
    slots: Arc<[u16]>,
}

/// How evenly a ring spreads over the backends that serve, relative to their
/// weights: 1 is exactly fair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// Largest share of a backend, relative to its fair one.
    pub max: f64,
    /// Smallest share of a backend, relative to its fair one.
    pub min: f64,
}

impl RingBase {
    /// Computes the base of a service's ring. This takes milliseconds for the
    /// largest ring, so keep it as long as it [`fits`](Self::fits).
    #[must_use]
    pub fn new(service: &Service) -> Self {
        let contender = |(ordinal, backend): (u16, &Backend)| Contender {
            ordinal,
            weight: backend.weight,
            key: identity(backend.address),
        };
        let backends = || service.backends.iter().take(MAX_BACKENDS);
        let contenders: Box<[_]> = (0..).zip(backends()).map(contender).collect();
        let mut weighted = contenders.to_vec();
        weighted.retain(|c| c.weight > 0);
        rendezvous::sort(&mut weighted);
        Self {
            size: service.ring_size,
            addresses: backends().map(|b| b.address).collect(),
            slots: maglev::deal(&weighted, service.ring_size).into(),
            weighted: weighted.into(),
            contenders,
        }
    }

    /// Whether this is the base of `service`: the same backends in the same
    /// order with the same weights, and the same size.
    #[must_use]
    pub fn fits(&self, service: &Service) -> bool {
        let mine = self.addresses.iter().zip(&self.contenders);
        let mine = mine.map(|(&address, c)| (address, c.weight));
        let theirs = service.backends.iter().take(MAX_BACKENDS);
        let theirs = theirs.map(|b| (b.address, b.weight));
        self.size == service.ring_size && mine.eq(theirs)
    }

    /// The ring while those backends are available whose flag is true, in the
    /// order of the service's backends (no flag means false). `None` when none
    /// of them has a weight.
    #[must_use]
    pub fn ring(self: &Arc<Self>, available: &[bool]) -> Option<Ring> {
        let origin = Ring {
            base: Arc::clone(self),
            serving: self.contenders.iter().map(|c| c.weight > 0).collect(),
            slots: Arc::clone(&self.slots),
        };
        origin.update(available)
    }
}

impl Ring {
    /// The ring of the same base while others are available; as
    /// [`RingBase::ring`], at the cost of what moves.
    #[must_use]
    pub fn update(&self, available: &[bool]) -> Option<Self> {
        let flags = available.iter().copied().chain(repeat(false));
        let contenders = self.base.contenders.iter();
        let serving: Box<[bool]> = contenders
            .zip(flags)
            .map(|(c, available)| available && c.weight > 0)
            .collect();
        serving.contains(&true).then(|| Self {
            base: Arc::clone(&self.base),
            slots: self.redeal(&serving),
            serving,
        })
    }

    /// The slots while `serving` serve. A slot goes to its owner in the base,
    /// else to the winner among all who serve, which is one of: the present
    /// holder, if it still serves; or somebody who did not serve before.
    fn redeal(&self, serving: &[bool]) -> Arc<[u16]> {
        let serves = |ordinal: u16| serving[usize::from(ordinal)];
        let weighted = self.base.weighted.iter().copied();
        let all: Vec<_> = weighted.filter(|c| serves(c.ordinal)).collect();
        if all.len() == self.base.weighted.len() {
            return Arc::clone(&self.base.slots);
        }
        let mut newcomers = all.clone();
        newcomers.retain(|c| !self.serving[usize::from(c.ordinal)]);

        let owners = self.base.slots.iter().zip(self.slots.iter());
        (0..)
            .zip(owners)
            .map(|(slot, (&owner, &holder))| {
                if serves(owner) {
                    owner
                } else if serves(holder) {
                    let holder = self.base.contenders[usize::from(holder)];
                    rendezvous::challenge(holder, &newcomers, slot)
                } else {
                    rendezvous::winner(&all, slot).unwrap_or(owner)
                }
            })
            .collect()
    }

    /// What this ring was made from.
    #[must_use]
    pub const fn base(&self) -> &Arc<RingBase> {
        &self.base
    }

    /// Per slot the ordinal of its backend in the service's list. The length is
    /// the ring size.
    #[must_use]
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// Number of slots of each backend, in the order of the service's list.
    #[must_use]
    pub fn shares(&self) -> Vec<u32> {
        let mut shares = vec![0; self.serving.len()];
        for &ordinal in &*self.slots {
            shares[usize::from(ordinal)] += 1;
        }
        shares
    }

    /// How evenly the slots are spread.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let contenders = self.base.contenders.iter();
        let serving = || contenders.clone().zip(&self.serving).filter(|(_, s)| **s);
        let weights: u64 = serving().map(|(c, _)| u64::from(c.weight)).sum();
        let fair = self.slots.len() as f64 / weights as f64;
        let shares = self.shares();
        let balance = Balance {
            max: f64::MIN,
            min: f64::MAX,
        };
        serving().fold(balance, |balance, (c, _)| {
            let share = f64::from(shares[usize::from(c.ordinal)]);
            let relative = share / (fair * f64::from(c.weight));
            Balance {
                max: balance.max.max(relative),
                min: balance.min.min(relative),
            }
        })
    }

    /// A number that two nodes share exactly when they send every flow to the
    /// same backend: it covers the backend's address for each slot, the size,
    /// and the cluster secret that keys the flow hash. It tells nothing about
    /// the secret and may be shown to anybody.
    ///
    /// Fixed: SipHash-2-4 under the secret of the size and of the sum, modulo
    /// 2^64, over all slots of element `slot` of the SplitMix64 sequence seeded
    /// with the backend's key; the key is SipHash-2-4 under `vipd ring member`
    /// of the address as 16 bytes, IPv4 as mapped.
    #[must_use]
    pub fn fingerprint(&self, secret: &[u8; 16]) -> u64 {
        let mark = |(slot, &ordinal): (u32, &u16)| {
            let backend = &self.base.contenders[usize::from(ordinal)];
            nth(backend.key, slot)
        };
        let sum = (0..)
            .zip(self.slots.iter())
            .map(mark)
            .fold(0, u64::wrapping_add);
        Fields::default()
            .number(u64::from(self.base.size))
            .number(sum)
            .hash(secret)
    }
}

/// The key that stands for a backend in all hashing.
fn identity(address: IpAddr) -> u64 {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    siphash(b"vipd ring member", &address.octets())
}
