//! What is known of a service's flows: which of its backends can have any, and
//! for which some are recorded.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use vipd_abi::Tick;

/// Evidence about the flows of one service, for one look at its slots.
///
/// It tells backends apart by their counters, which the records of a backend
/// share: so a new record does not hide what the old one serves. A counter
/// starts at zero with its backend. What is not sent on to a backend is not
/// counted, and no loss either.
pub struct Evidence<F> {
    /// Of all records that slots or flows may name.
    counters: BTreeMap<u32, u32>,
    has_counted: F,
    /// What `has_counted` has said, by counter.
    asked: RefCell<BTreeMap<u32, bool>>,
    /// When the walk over the flow table began that found flows recorded for
    /// these, by counter.
    walk: Option<(Tick, BTreeSet<u32>)>,
}

impl<F: Fn(u32) -> bool> Evidence<F> {
    /// About a service with these records, each with its counter. `has_counted`
    /// says of a counter whether it is above zero; it is asked when that
    /// matters, once.
    pub fn new(records: impl IntoIterator<Item = (u32, u32)>, has_counted: F) -> Self {
        Self {
            counters: records.into_iter().collect(),
            has_counted,
            asked: RefCell::default(),
            walk: None,
        }
    }

    /// Adds what a walk over the flow table has found that began then: `names`
    /// says for which records there are flows.
    #[must_use]
    pub fn with_walk(self, began: Tick, names: impl Fn(u32) -> bool) -> Self {
        let records = self.counters.iter();
        let named = records.filter(|(record, _)| names(**record));
        let named = named.map(|(_, counter)| *counter).collect();
        Self {
            walk: Some((began, named)),
            ..self
        }
    }

    /// Whether the backend with this record has ever been sent a packet. Of a
    /// record that is not known that is assumed.
    pub fn has_met(&self, record: u32) -> bool {
        let Some(counter) = self.counters.get(&record) else {
            return true;
        };
        let mut asked = self.asked.borrow_mut();
        *asked
            .entry(*counter)
            .or_insert_with(|| (self.has_counted)(*counter))
    }

    /// When a walk began that has found flows recorded for no other backend than
    /// that with this record, if it has.
    pub fn of_no_others(&self, record: u32) -> Option<Tick> {
        let (began, named) = self.walk.as_ref()?;
        let own = self.counters.get(&record);
        let others = named.iter().any(|counter| Some(counter) != own);
        (!others).then_some(*began)
    }
}
