//! Doubt: whether nobody answers because our own network has failed.
//!
//! When all backends fall silent at once, it is likelier that this host has lost
//! its way to them than that all of them have died. Then withdrawing everything
//! would be an outage of our own making, if only the checks have lost their way. So
//! packets go where they went, and addresses are announced as on a host that is
//! about to leave: whoever has a better way takes it.
//!
//! ```text
//!            all that were heard fall silent
//!            within one window
//!    Clear ----------------------------------> Doubted
//!      ^  ^             somebody is heard         |
//!      |  +---------------------------------------+
//!      |                                          | an anchor answers,
//!      |        somebody is heard                 v or the limit has passed
//!      +-------------------------------------- Settled: they are dead
//! ```
//!
//! At least two addresses must have fallen, and more than half of all; those that
//! were silent long before say nothing either way. Whoever refuses a connection is
//! heard: the network works. An *anchor* is something else that would answer if our
//! network worked, for example the gateway.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// What checks of an address say of the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// Nobody has asked yet.
    Unknown,
    /// It has been silent at layer 4 for as many checks as it takes, since then.
    Silent(Instant),
    /// It answers, be it with a refusal, or has not been silent for long enough.
    Heard,
}

/// When there is doubt, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// They fall silent together if it takes no longer than this.
    pub window: Duration,
    /// Doubt ends after so long.
    pub limit: Duration,
}

/// Whether our own network is in doubt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubt(Phase);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Clear,
    Doubted {
        until: Instant,
        why: Arc<str>,
    },
    Settled,
}

/// What has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is doubt now, for this reason.
    Began(Arc<str>),
    /// Somebody is heard again.
    Cleared,
    /// The backends are dead after all, for this reason.
    Settled(String),
}

impl Doubt {
    /// Takes in what is known of all addresses now; of one that is named several
    /// times the best counts. `anchor` is one that answers, if any does. Without
    /// terms there never is doubt.
    pub fn update(
        &mut self,
        evidence: impl Iterator<Item = (IpAddr, Evidence)>,
        anchor: Option<IpAddr>,
        terms: Option<&Terms>,
        now: Instant,
    ) -> Option<Change> {
        let mut addresses = BTreeMap::<IpAddr, Evidence>::new();
        for (address, found) in evidence {
            let known = addresses.entry(address).or_insert(found);
            *known = found.max(*known);
        }
        let is_heard = addresses.values().any(|found| *found == Evidence::Heard);
        let (next, change) = match (&self.0, terms) {
            (Phase::Clear, None) => return None,
            (Phase::Clear, Some(terms)) => {
                let why = fallen(&addresses, terms, now)?;
                if let Some(anchor) = anchor {
                    (Phase::Settled, Change::Settled(words_of(anchor)))
                } else {
                    let until = now + terms.limit;
                    let why: Arc<str> = why.into();
                    let began = Change::Began(Arc::clone(&why));
                    (Phase::Doubted { until, why }, began)
                }
            }
            (Phase::Doubted { .. }, None) => (Phase::Clear, Change::Cleared),
            (Phase::Doubted { .. }, Some(_)) if is_heard => (Phase::Clear, Change::Cleared),
            (Phase::Doubted { until, .. }, Some(terms)) => {
                let why = match anchor {
                    Some(anchor) => words_of(anchor),
                    None if *until <= now => {
                        format!("nobody has answered for {} s", terms.limit.as_secs())
                    }
                    None => return None,
                };
                (Phase::Settled, Change::Settled(why))
            }
            (Phase::Settled, _) if is_heard => (Phase::Clear, Change::Cleared),
            (Phase::Settled, _) => return None,
        };
        // The end of what was settled is no news: backends tell it themselves.
        let is_told = self.0 != Phase::Settled;
        self.0 = next;
        is_told.then_some(change)
    }

    /// Why there is doubt, if there is.
    #[must_use]
    pub fn reason(&self) -> Option<Arc<str>> {
        match &self.0 {
            Phase::Doubted { why, .. } => Some(Arc::clone(why)),
            Phase::Clear | Phase::Settled => None,
        }
    }

    /// When it ends by itself.
    #[must_use]
    pub const fn next(&self) -> Option<Instant> {
        match &self.0 {
            Phase::Doubted { until, .. } => Some(*until),
            Phase::Clear | Phase::Settled => None,
        }
    }
}

/// Why it looks as if our own network had failed, if it does.
fn fallen(addresses: &BTreeMap<IpAddr, Evidence>, terms: &Terms, now: Instant) -> Option<String> {
    let mut silent = Vec::new();
    for found in addresses.values() {
        match found {
            Evidence::Heard => return None,
            Evidence::Silent(since) => silent.push(*since),
            Evidence::Unknown => {}
        }
    }
    let last = silent.iter().copied().max()?;
    let together = silent.iter().filter(|since| **since + terms.window >= last);
    let count = together.count();
    let is_new = last + terms.window >= now;
    (is_new && count >= 2 && count * 2 > addresses.len()).then(|| {
        let window = terms.window.as_secs_f64();
        format!(
            "{count} of {} addresses fell silent within {window} s",
            addresses.len()
        )
    })
}

fn words_of(anchor: IpAddr) -> String {
    format!("{anchor} answers, so our own network works")
}
