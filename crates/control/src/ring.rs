//! The ring: which backend owns which slot.
//!
//! A packet's flow hash, cut to its low bits, names a slot; the slot names a
//! backend. The ring is a **pure function** of the configured backends (their
//! addresses and weights) and of who among them is available, so every node
//! arrives at the same one, whatever the order in its file and whatever
//! happened before. It is made in two steps:
//!
//! 1. The *base* deals all slots to all **configured** backends with a weight,
//!    by Maglev. It changes with the configuration, and when another line of
//!    backends goes on [duty](crate::duty).
//! 2. The slots of backends that are not available are dealt out, each by
//!    itself, among those that are, by rendezvous hashing.
//!
//! Hence a death moves the slots of the dead backend and no other, and its
//! return takes exactly those back.
//!
//! A backend that starts slowly has a [`Share`]: at each slot it draws a number
//! of its own, always the same, and counts as available there only if the number
//! is below its share. A larger share lets it in at more slots and away from
//! none, so while it grows a slot moves once, to this backend. Where all that
//! are left start slowly and none is let in, all are.
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
    duty::Line,
    hash::{Fields, nth, siphash},
    model::{Backend, Service},
    ring::rendezvous::{Contender, Field},
    slow_start::Share,
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
    /// Per ordinal the share of whom is available and has a weight.
    shares: Box<[Share]>,
    slots: Arc<[u16]>,
}

/// How evenly a ring spreads over the backends that serve, relative to their
/// weights: 1 is exactly fair. Those that start slowly have less by intent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// Largest share of a backend, relative to its fair one.
    pub max: f64,
    /// Smallest share of a backend, relative to its fair one.
    pub min: f64,
}

impl RingBase {
    /// Computes the base of a service's ring while that line is on duty: who is
    /// not has no weight. This takes milliseconds for the largest ring, so keep it
    /// as long as it [`fits`](Self::fits).
    #[must_use]
    pub fn new(service: &Service, line: Line) -> Self {
        let contender = |(ordinal, backend): (u16, &Backend)| Contender {
            ordinal,
            weight: line.weight(backend),
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

    /// Whether this is the base of `service` while that line is on duty: the same
    /// backends in the same order with the same weights, and the same size.
    #[must_use]
    pub fn fits(&self, service: &Service, line: Line) -> bool {
        let mine = self.addresses.iter().zip(&self.contenders);
        let mine = mine.map(|(&address, c)| (address, c.weight));
        let theirs = service.backends.iter().take(MAX_BACKENDS);
        let theirs = theirs.map(|b| (b.address, line.weight(b)));
        self.size == service.ring_size && mine.eq(theirs)
    }

    /// The ring while the backends have these shares, in the order of the
    /// service's backends: nothing for whom is not available, or is missing
    /// here; a flag stands for the whole. `None` when nobody has a share and a
    /// weight.
    #[must_use]
    pub fn ring<S: Copy + Into<Share>>(self: &Arc<Self>, shares: &[S]) -> Option<Ring> {
        let whole = |c: &Contender| Share::from(c.weight > 0);
        let origin = Ring {
            base: Arc::clone(self),
            shares: self.contenders.iter().map(whole).collect(),
            slots: Arc::clone(&self.slots),
        };
        origin.update(shares)
    }
}

impl Ring {
    /// The ring of the same base while the backends have other shares; as
    /// [`RingBase::ring`], at the cost of what moves.
    #[must_use]
    pub fn update<S: Copy + Into<Share>>(&self, shares: &[S]) -> Option<Self> {
        let shares = shares.iter().map(|&share| share.into());
        let contenders = self.base.contenders.iter();
        let shares: Box<[Share]> = contenders
            .zip(shares.chain(repeat(Share::NONE)))
            .map(|(c, share)| if c.weight > 0 { share } else { Share::NONE })
            .collect();
        let somebody = shares.iter().any(|share| *share > Share::NONE);
        somebody.then(|| Self {
            base: Arc::clone(&self.base),
            slots: self.redeal(&shares),
            shares,
        })
    }

    /// The slots while the backends have these shares. A slot goes to its owner
    /// in the base if that is let in, else to the winner among all who are, which
    /// is one of: the present holder, if it still is; or somebody whose share has
    /// grown.
    fn redeal(&self, shares: &[Share]) -> Arc<[u16]> {
        let contender = |ordinal: u16| self.base.contenders[usize::from(ordinal)];
        let share = |ordinal: u16| shares[usize::from(ordinal)];
        let weighted = || self.base.weighted.iter().copied();
        if weighted().all(|c| share(c.ordinal) == Share::WHOLE) {
            return Arc::clone(&self.base.slots);
        }
        let all = Field::new(weighted().map(|c| (c, share(c.ordinal))));
        let grown = weighted().filter(|c| share(c.ordinal) > self.shares[usize::from(c.ordinal)]);
        let newcomers = Field::new(grown.map(|c| (c, share(c.ordinal))));

        let owners = self.base.slots.iter().zip(self.slots.iter());
        (0..)
            .zip(owners)
            .map(|(slot, (&owner, &holder))| {
                let is_in = |ordinal| contender(ordinal).is_let_in(share(ordinal), slot);
                if is_in(owner) {
                    owner
                } else if is_in(holder) {
                    newcomers.challenge(contender(holder), slot)
                } else {
                    let winner = all.winner(slot);
                    winner.unwrap_or_else(|| {
                        // Nobody is let in: all are.
                        match all.winner_of_all(slot) {
                            Some(winner) if share(owner) == Share::NONE => winner,
                            _ => owner,
                        }
                    })
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
        let mut shares = vec![0; self.shares.len()];
        for &ordinal in &*self.slots {
            shares[usize::from(ordinal)] += 1;
        }
        shares
    }

    /// How evenly the slots are spread.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let contenders = self.base.contenders.iter();
        let serving = || {
            contenders
                .clone()
                .zip(&self.shares)
                .filter(|(_, s)| **s > Share::NONE)
        };
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
