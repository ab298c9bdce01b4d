//! Comparing what nobody has changed with what the maps hold, so that what has
//! drifted heals: service by service, in small portions, so that nothing new
//! waits for it.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use super::{Applier, Placed};

/// What a portion may come to, in slots that are looked at.
const PORTION: usize = 1 << 13;
/// What a backend's record costs, in slots.
const RECORD: usize = 16;

/// A walk over all services, again and again, in portions.
#[derive(Default)]
pub struct Walk {
    /// The last one visited in this round.
    after: Option<Arc<str>>,
}

impl Walk {
    /// Visits the next services, until what `visit` says they cost, in slots,
    /// comes to a portion. Says whether that was the last of them.
    pub fn go_on(
        &mut self,
        services: &mut BTreeMap<Arc<str>, Placed>,
        mut visit: impl FnMut(&Arc<str>, &mut Placed) -> usize,
    ) -> bool {
        let after = self.after.take();
        let from = after.as_deref().map_or(Unbounded, Excluded);
        let mut spent = 0;
        for (name, placed) in services.range_mut::<str, _>((from, Unbounded)) {
            spent += visit(name, placed);
            if spent >= PORTION {
                self.after = Some(Arc::clone(name));
                return false;
            }
        }
        true
    }
}

impl Applier {
    /// Has the next pass compare some more of what is unchanged. Says whether
    /// that is the last of it, and the next call begins from the front.
    pub fn review(&mut self) -> bool {
        let is_last = self.reviewed.go_on(&mut self.services, |_, placed| {
            placed.settled = false;
            placed.ring.1 as usize + placed.backends.len() * RECORD
        });
        self.half_in_doubt |= is_last;
        self.hops_changed |= is_last;
        is_last
    }
}
