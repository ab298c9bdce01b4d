//! Who uses which index: allocation with a grace time before reuse, since a
//! packet may still be looking at what was just taken away.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

/// How long what was given back is left alone. A packet is done in
/// microseconds; this is for a processor that was stopped in between.
pub const GRACE: Duration = Duration::from_millis(100);

/// Indices of a table with `first..limit` to give out.
pub struct Indices {
    next: u32,
    limit: u32,
    free: BTreeSet<u32>,
    cooling: VecDeque<(Instant, u32)>,
    used: u32,
}

impl Indices {
    /// All of `first..limit`, none given out.
    #[must_use]
    pub fn new(first: u32, limit: u32) -> Self {
        Self {
            next: first,
            limit,
            free: BTreeSet::new(),
            cooling: VecDeque::new(),
            used: 0,
        }
    }

    /// Marks what a previous agent left in use. To be called before any
    /// [`Indices::take`].
    pub fn adopt(&mut self, used: &BTreeSet<u32>) {
        if let Some(last) = used.last() {
            self.free = (self.next..*last).filter(|i| !used.contains(i)).collect();
            self.next = last + 1;
        }
        self.used = u32::try_from(used.len()).unwrap_or(u32::MAX);
    }

    /// An index that nobody uses, or `None` when the table is full.
    pub fn take(&mut self, now: Instant) -> Option<u32> {
        while let Some((since, index)) = self.cooling.front().copied()
            && now.duration_since(since) >= GRACE
        {
            self.cooling.pop_front();
            self.free.insert(index);
        }
        let index = match self.free.pop_first() {
            Some(index) => index,
            None if self.next < self.limit => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        self.used += 1;
        Some(index)
    }

    /// Gives an index back; it rests for [`GRACE`].
    pub fn give_back(&mut self, index: u32, now: Instant) {
        self.cooling.push_back((now, index));
        self.used -= 1;
    }

    /// How many are in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used
    }
}

/// Contiguous stretches of ring slots: first fit, neighbours merged.
pub struct Stretches {
    /// Start and length of what is free.
    free: BTreeMap<u32, u32>,
    cooling: VecDeque<(Instant, u32, u32)>,
    used: u32,
}

impl Stretches {
    /// All of `0..limit`, but for what a previous agent left in use as
    /// (start, length).
    #[must_use]
    pub fn new(limit: u32, used: &BTreeMap<u32, u32>) -> Self {
        let mut this = Self {
            free: BTreeMap::new(),
            cooling: VecDeque::new(),
            used: used.values().sum(),
        };
        let mut start = 0;
        for (begin, length) in used {
            if *begin > start {
                this.free.insert(start, begin - start);
            }
            start = start.max(begin + length);
        }
        if start < limit {
            this.free.insert(start, limit - start);
        }
        this
    }

    /// The start of `length` slots that nobody uses.
    pub fn take(&mut self, length: u32, now: Instant) -> Option<u32> {
        while let Some((since, start, length)) = self.cooling.front().copied()
            && now.duration_since(since) >= GRACE
        {
            self.cooling.pop_front();
            self.merge(start, length);
        }
        let (start, room) = self.free.iter().find(|(_, room)| **room >= length)?;
        let (start, room) = (*start, *room);
        self.free.remove(&start);
        if room > length {
            self.free.insert(start + length, room - length);
        }
        self.used += length;
        Some(start)
    }

    /// Gives a stretch back; it rests for [`GRACE`].
    pub fn give_back(&mut self, start: u32, length: u32, now: Instant) {
        self.cooling.push_back((now, start, length));
        self.used -= length;
    }

    fn merge(&mut self, mut start: u32, mut length: u32) {
        if let Some((before, room)) = self.free.range(..start).next_back().map(|(s, r)| (*s, *r))
            && before + room == start
        {
            self.free.remove(&before);
            start = before;
            length += room;
        }
        if let Some(room) = self.free.remove(&(start + length)) {
            length += room;
        }
        self.free.insert(start, length);
    }

    /// How many slots are in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_rests_before_it_is_given_out_again() {
        let start = Instant::now();
        let mut indices = Indices::new(1, 3);
        assert_eq!(indices.take(start), Some(1));
        assert_eq!(indices.take(start), Some(2));
        assert_eq!(indices.take(start), None, "the table is full");
        indices.give_back(1, start);
        assert_eq!(indices.take(start + GRACE / 2), None, "still resting");
        assert_eq!(indices.take(start + GRACE), Some(1));
        assert_eq!(indices.used(), 2);
    }

    #[test]
    fn adopted_indices_are_not_given_out() {
        let now = Instant::now();
        let mut indices = Indices::new(1, 10);
        indices.adopt(&BTreeSet::from([2, 5]));
        let given: Vec<_> = std::iter::from_fn(|| indices.take(now)).collect();
        assert_eq!(given, [1, 3, 4, 6, 7, 8, 9]);
    }

    #[test]
    fn stretches_given_back_grow_together() {
        let start = Instant::now();
        let mut space = Stretches::new(100, &BTreeMap::from([(10, 20)]));
        assert_eq!(space.take(30, start), Some(30), "behind what was adopted");
        assert_eq!(space.take(10, start), Some(0), "in front of it");
        assert_eq!(space.take(60, start), None);
        space.give_back(10, 20, start);
        space.give_back(0, 10, start);
        space.give_back(30, 30, start);
        assert_eq!(space.take(60, start), None, "still resting");
        assert_eq!(space.take(100, start + GRACE), Some(0), "all in one piece");
        assert_eq!(space.used(), 100);
    }
}
