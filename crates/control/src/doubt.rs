//! Doubt: whether nobody answers because our own network has failed.
//!
//! When all backends fall silent at once, it is likelier that this host has lost
//! its way to them than that all of them have died. Then withdrawing everything
//! would be an outage of our own making, if only the checks have lost their way. So
//! packets go where they went, and addresses are announced as on a host that is
//! about to leave: whoever has a better way takes it.
//!
//! ```text
//!          all that were available
//!          fall silent within one window          somebody is heard, or an anchor
//!   Clear --------------------------------> Doubted ----------------------> Lifted
//!    ^ ^                                     |   ^                           |  |
//!    | |  an anchor answers, or              |   |  nobody is, any more      |  |
//!    | +--the limit has passed: they are dead+   +---------------------------+  |
//!    |                                                                          |
//!    +--------------------- one window has passed ------------------------------+
//! ```
//!
//! At least two addresses must have fallen, and more than half of all; those that
//! were silent long before say nothing either way. Whoever is available is heard,
//! and so is whoever has refused or said no since the first one fell: the network
//! works. Who answers well and is not up yet ends nothing: its next checks will.
//!
//! While doubt is lifted it still *covers* those that fell and have not been heard:
//! their checks come a moment later. An *anchor* is something else that would
//! answer if our network worked, for example the gateway. If it does when doubt
//! begins, the backends are dead; if it was silent, too, the network has come back.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// What the checks of a backend say of the way to it; of several that ask the same
/// address the best counts, which is the last here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// It was not available since the start, and does not say why.
    Unknown,
    /// It was available until then, and does not answer.
    Silent(Instant),
    /// It was available until then, and answers well, but is not up yet.
    Reviving(Instant),
    /// It is not available, and has last said so itself then: it has refused, or
    /// has given a bad answer.
    Audible(Instant),
    /// It is available.
    Available,
}

/// When there is doubt, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// They fall silent together if it takes no longer than this.
    pub window: Duration,
    /// Doubt ends after so long.
    pub limit: Duration,
}

impl Terms {
    /// Ten seconds and a minute.
    pub const USUAL: Self = Self {
        window: Duration::from_secs(10),
        limit: Duration::from_secs(60),
    };
}

/// Whether our own network is in doubt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    doubted: Option<Doubted>,
    /// Who fell until then is judged, and puts us in doubt no more.
    judged: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Doubted {
    /// When the first of them fell.
    since: Instant,
    /// When the limit has passed.
    until: Instant,
    why: Arc<str>,
    /// Until when it covers those that are not heard, while others are.
    lifted: Option<Instant>,
    /// Whether an anchor has come back.
    anchored: bool,
}

/// An anchor that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Which.
    pub address: IpAddr,
    /// Whether it was silent first while there was doubt.
    pub returned: bool,
}

/// What has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is doubt now, for this reason.
    Began(Arc<str>),
    /// Somebody is heard again.
    Lifted,
    /// The backends are dead after all, for this reason.
    Settled(String),
}

impl Doubt {
    /// Takes in what is known of all addresses now, and the first anchor that has
    /// answered since doubt began, if any has. Without terms there never is doubt.
    pub fn update(
        &mut self,
        evidence: impl Iterator<Item = (IpAddr, Evidence)> + Clone,
        anchor: Option<Anchor>,
        terms: Option<&Terms>,
        now: Instant,
    ) -> Option<Change> {
        let Some(terms) = terms else {
            return self.doubted.take().map(|_| Change::Lifted);
        };
        let Some(doubted) = &mut self.doubted else {
            let (since, why) = fallen(evidence, self.judged, terms, now)?;
            self.judged = Some(now);
            self.doubted = Some(Doubted {
                since,
                until: now + terms.limit,
                why: Arc::clone(&why),
                lifted: None,
                anchored: false,
            });
            return Some(Change::Began(why));
        };
        let mut found = evidence.clone().map(|(_, found)| found);
        doubted.anchored |= anchor.is_some_and(|anchor| anchor.returned);
        let is_heard =
            doubted.anchored || found.any(|found| found >= Evidence::Audible(doubted.since));
        match doubted.lifted {
            None if is_heard => {
                doubted.lifted = Some(now + terms.window);
                return Some(Change::Lifted);
            }
            Some(until) if is_heard && now < until => return None,
            Some(_) if is_heard => {
                self.doubted = None;
                // They may have fallen once more.
                return self.update(evidence, None, Some(terms), now);
            }
            Some(_) | None => {}
        }
        let again = doubted.lifted.take().is_some();
        if again {
            // Somebody has been heard in between.
            doubted.until = now + terms.limit;
        }
        let settled = match anchor {
            Some(Anchor { address, .. }) => {
                Some(format!("{address} answers, so our own network works"))
            }
            None if doubted.until <= now => {
                let limit = terms.limit.as_secs_f64();
                Some(format!("nobody has answered for {limit} s"))
            }
            None => None,
        };
        if let Some(why) = settled {
            self.doubted = None;
            self.judged = Some(now);
            return Some(Change::Settled(why));
        }
        again.then(|| Change::Began(Arc::clone(&doubted.why)))
    }

    /// Why there is doubt of a backend of which that is known, if there is.
    #[must_use]
    pub fn reason(&self, evidence: Evidence) -> Option<&Arc<str>> {
        let doubted = self.doubted.as_ref()?;
        match evidence {
            Evidence::Silent(fell) | Evidence::Reviving(fell) if fell >= doubted.since => {
                Some(&doubted.why)
            }
            _ => None,
        }
    }

    /// Whether there is doubt, and nobody has been heard since.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(&self.doubted, Some(doubted) if doubted.lifted.is_none())
    }

    /// When it ends by itself.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let doubted = self.doubted.as_ref()?;
        Some(doubted.lifted.unwrap_or(doubted.until))
    }
}

/// Since when and why it looks as if our own network had failed, if it does.
fn fallen(
    evidence: impl Iterator<Item = (IpAddr, Evidence)>,
    judged: Option<Instant>,
    terms: &Terms,
    now: Instant,
) -> Option<(Instant, Arc<str>)> {
    let mut addresses = BTreeMap::<IpAddr, Evidence>::new();
    for (address, found) in evidence {
        // As always, or almost.
        if found == Evidence::Available {
            return None;
        }
        let known = addresses.entry(address).or_insert(found);
        *known = found.max(*known);
    }
    let silent = addresses.values().filter_map(|found| match found {
        Evidence::Silent(fell) => Some(*fell),
        _ => None,
    });
    let silent = silent.filter(|fell| Some(*fell) > judged);
    let last = silent.clone().max()?;
    let together = silent.filter(|fell| *fell + terms.window >= last);
    let (count, since) = (together.clone().count(), together.min()?);
    let is_heard = || {
        let mut all = addresses.values();
        all.any(|found| *found >= Evidence::Audible(since))
    };
    let is_new = last + terms.window >= now;
    let is_most = count >= 2 && count * 2 > addresses.len();
    (is_new && is_most && !is_heard()).then(|| {
        let (all, window) = (addresses.len(), terms.window.as_secs_f64());
        let why = format!("{count} of {all} addresses fell silent within {window} s");
        (since, why.into())
    })
}
