//! The agent's half of flow state: how a ring slot changes hands.
//!
//! The half of the packets is [`vipd_abi::route`]. Together they keep one
//! invariant: in [`Phase::Learn`] a flow that is not recorded belongs to
//! `previous`, in [`Phase::Track`] and [`Phase::Stable`] to `current`; anything
//! else is recorded. So no flow leaves a backend that can still serve it:
//!
//! - A slot that is taken from a backend that can still serve *learns*: for one
//!   idle time the flows that go on are recorded for the backend they are on.
//! - Then it *tracks*: what is recorded stays where it is, the rest belongs to
//!   the new owner.
//! - Once no packet has gone elsewhere for one idle time, it is *stable*, and
//!   costs no table.
//!
//! Nobody waits for flows that cannot be. From a backend that has never been
//! sent a packet nothing is learnt; and once nothing is recorded for others than
//! its owner, a slot is stable. So a fresh start, where backends come up one
//! after the other, is over soon.
//!
//! Everything here is about one slot's word, or about the words of one ring.
//! Whoever stores them marks a dead backend's record before its slots change,
//! and gives a backend that returns from the dead another record.

mod evidence;
#[cfg(test)]
mod tests;

use vipd_abi::{Phase, Slot, Stamp, Tick};

pub use self::evidence::Evidence;

/// What a backend record that a slot names is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its flows are served: the backend is available, draining, or failing
    /// while it keeps its flows.
    Serves,
    /// It serves nothing any more; what was recorded for it has ended.
    Dead,
    /// The same backend has this other record now.
    Moved(u32),
}

/// The slot's next word, so that new flows go to `wanted`, or to whom they go
/// now if that is `None`. `fate` says what becomes of the records it names;
/// record 0 is nobody and never asked about. Without `learns` flows are not
/// remembered, and move with their slot at once.
#[must_use]
pub fn turn(slot: Slot, wanted: Option<u32>, learns: bool, fate: impl Fn(u32) -> Fate) -> Slot {
    let slot = follow(slot, &fate);
    let serves = |index| index != 0 && fate(index) != Fate::Dead;
    let Some(wanted) = wanted else { return slot };
    let slot = match slot.phase() {
        Phase::Learn if !serves(slot.previous()) => bury(slot),
        _ => slot,
    };
    change(slot, wanted, serves(slot.current()), learns)
}

/// The word with the records that moved replaced by those they moved to. The
/// flows notice nothing: it is the same backend.
fn follow(slot: Slot, fate: &impl Fn(u32) -> Fate) -> Slot {
    let moved = |index| match index {
        0 => 0,
        _ => match fate(index) {
            Fate::Moved(to) => to,
            Fate::Serves | Fate::Dead => index,
        },
    };
    let (previous, current) = (moved(slot.previous()), moved(slot.current()));
    match slot.phase() {
        Phase::Stable => Slot::stable(current),
        Phase::Learn => Slot::learn(previous, current),
        Phase::Track => Slot::track(current),
    }
}

/// The word of a slot that `wanted` takes over; `can_serve` tells of whom it
/// belongs to now.
#[must_use]
pub fn change(slot: Slot, wanted: u32, can_serve: bool, learns: bool) -> Slot {
    if wanted == slot.current() {
        return slot;
    }
    match slot.phase() {
        Phase::Stable | Phase::Track if can_serve && learns => Slot::learn(slot.current(), wanted),
        Phase::Stable => Slot::stable(wanted),
        Phase::Track => Slot::track(wanted),
        // Back to whom all belongs that is not recorded.
        Phase::Learn if wanted == slot.previous() => Slot::track(wanted),
        Phase::Learn => Slot::learn(slot.previous(), wanted),
    }
}

/// The word of a learning slot whose `previous` has died. It is not stable:
/// flows may be recorded for others than `current`.
#[must_use]
pub fn bury(slot: Slot) -> Slot {
    match slot.phase() {
        Phase::Learn => Slot::track(slot.current()),
        Phase::Stable | Phase::Track => slot,
    }
}

/// Whole ticks after which a packet that has read the word before is counted and
/// recorded. It is done in microseconds.
const GRACE: u32 = 1;

/// The word of a slot whose phase began at `since` and that has met what its
/// stamp says. `idle` is the service's, in ticks. A stamp may be from an earlier
/// use of the slot; the evidence is of `now` or later.
///
/// One flow can be missed: a packet on its way that the full table turns away
/// just when its slot ceases to learn.
#[must_use]
pub fn advance<F: Fn(u32) -> bool>(
    slot: Slot,
    (since, stamp): (Tick, Stamp),
    evidence: &Evidence<F>,
    now: Tick,
    idle: u16,
) -> Slot {
    let quiet = |met: u32| now.0.saturating_sub(since.0.max(met)) > u32::from(idle);
    let is_old = |at: Tick| at.0.saturating_sub(since.0) > GRACE;
    match slot.phase() {
        // Whoever has sent a packet since is recorded.
        Phase::Learn if quiet(stamp.refused) => Slot::track(slot.current()),
        // Or there is nobody.
        Phase::Learn if is_old(now) && !evidence.has_met(slot.previous()) => {
            Slot::track(slot.current())
        }
        // Whatever is recorded for others has ended.
        Phase::Track if quiet(stamp.foreign) => Slot::stable(slot.current()),
        Phase::Track if evidence.of_no_others(slot.current()).is_some_and(is_old) => {
            Slot::stable(slot.current())
        }
        Phase::Stable | Phase::Learn | Phase::Track => slot,
    }
}

/// The word a slot starts with in a ring of another size, made of the words of
/// the old one.
///
/// In a larger ring it is that of the slot whose flows it gets. In a smaller
/// one several slots become one, and a word has room for one of their owners:
/// flows of the others that are not recorded move.
#[must_use]
pub fn inherit(slot: u32, size: u32, old: &[Slot]) -> Slot {
    if old.is_empty() {
        return Slot::default();
    }
    let first = slot as usize % old.len();
    let mut parents = old
        .iter()
        .skip(first)
        .step_by(size.max(1) as usize)
        .copied();
    let word = parents.next().unwrap_or_default();
    // Somebody else's flows may be recorded: they are looked up.
    let looked_up = parents.any(|other| !other.is_stable());
    if word.is_stable() && looked_up {
        Slot::track(word.current())
    } else {
        word
    }
}

/// Since when a slot is in its phase, or that it is stable. While a large farm
/// comes up there are millions of them, so one takes four bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Since(u32);

impl Since {
    fn new(phase: Phase, tick: Tick) -> Self {
        Self(match phase {
            Phase::Stable => 0,
            Phase::Learn => Self::code(tick),
            Phase::Track => Self::code(tick) | 1,
        })
    }

    /// A tick is never 0. The clock would have to run for nine years to need
    /// the bit that is lost.
    fn code(Tick(tick): Tick) -> u32 {
        tick.saturating_mul(2) & !1
    }

    fn learns(self) -> bool {
        self.0 != 0 && self.0 & 1 == 0
    }

    fn tracks(self) -> bool {
        self.0 & 1 == 1
    }

    /// `None` stands for stable.
    fn tick(self) -> Option<Tick> {
        (self.0 != 0).then_some(Tick(self.0 / 2))
    }
}

/// The slots of one ring that are not stable, and since when their phases
/// count.
#[derive(Clone, Debug, Default)]
pub struct Unsettled {
    /// By slot; as long as the last of them needs.
    since: Vec<Since>,
    learning: u32,
    tracking: u32,
}

impl Unsettled {
    /// Slot number `slot` has got another word, which was stored at `now` at
    /// the latest. A word found in a ring whose past is not known counts as
    /// just stored, after any stable one.
    pub fn note(&mut self, slot: u32, old: Slot, new: Slot, now: Tick) {
        // In a learning slot another `current` changes nothing for the flows
        // of `previous`; anything else is a new beginning.
        let learns_on = new.phase() == Phase::Learn
            && old.phase() == Phase::Learn
            && old.previous() == new.previous();
        let known = self.since.get(slot as usize).and_then(|s| s.tick());
        if (old == new || learns_on) && known.is_some() {
            return;
        }
        self.set(slot, new.phase(), now);
    }

    fn set(&mut self, slot: u32, phase: Phase, now: Tick) {
        let place = slot as usize;
        if self.since.len() <= place {
            if phase == Phase::Stable {
                return;
            }
            self.since.resize(place + 1, Since::default());
        }
        let next = Since::new(phase, now);
        let before = std::mem::replace(&mut self.since[place], next);
        self.learning = self.learning + u32::from(next.learns()) - u32::from(before.learns());
        self.tracking = self.tracking + u32::from(next.tracks()) - u32::from(before.tracks());
        if self.is_empty() {
            self.since = Vec::new();
        }
    }

    fn entries(&self) -> impl Iterator<Item = (u32, Tick)> {
        let entries = (0..).zip(&self.since);
        entries.filter_map(|(slot, since)| Some((slot, since.tick()?)))
    }

    /// The slots that may move on, each with the word that `load` gives beside its
    /// stamp, and the next one. Whoever stores that, notes it. The rest is as for
    /// [`advance`].
    #[must_use]
    pub fn due<F: Fn(u32) -> bool>(
        &self,
        load: impl Fn(u32) -> (Slot, Stamp),
        evidence: &Evidence<F>,
        now: Tick,
        idle: u16,
    ) -> Vec<(u32, Slot, Slot)> {
        let slots = self.entries().map(|(slot, since)| {
            let (word, stamp) = load(slot);
            (
                slot,
                word,
                advance(word, (since, stamp), evidence, now, idle),
            )
        });
        slots.filter(|(_, word, next)| word != next).collect()
    }

    /// Counts all phases from `now` on: what happened before does not count.
    pub fn restart(&mut self, now: Tick) {
        for since in &mut self.since {
            if since.learns() {
                *since = Since::new(Phase::Learn, now);
            } else if since.tracks() {
                *since = Since::new(Phase::Track, now);
            }
        }
    }

    /// Whether all slots are stable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.learning == 0 && self.tracking == 0
    }

    /// Their numbers, in order.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.entries().map(|(slot, _)| slot)
    }

    /// How many slots learn, and how many track.
    #[must_use]
    pub fn counts(&self) -> (u32, u32) {
        (self.learning, self.tracking)
    }
}
