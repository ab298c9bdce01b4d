//! The events that are remembered, bounded so that one subject that changes all
//! the time takes no room from the others. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use super::{Cause, Event, EventView, Subject};

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events about one subject.
    pub per_subject: usize,
    /// Events in all.
    pub total: usize,
}

impl Default for Limits {
    /// About 5 MB at most.
    fn default() -> Self {
        Self {
            per_subject: 64,
            total: 16384,
        }
    }
}

/// Events by their subjects. What there is no room for goes by age: of a subject
/// that has its fill, its own oldest; of all together, the oldest of the subject
/// that has most.
#[derive(Debug)]
pub struct History {
    limits: Limits,
    subjects: HashMap<Subject, VecDeque<Arc<Kept>>>,
    /// By how many a subject has, then by the age of its oldest.
    ranks: BTreeSet<Rank>,
    count: usize,
    last: u64,
}

type Rank = (usize, Reverse<u64>, Subject);

/// An event with a number of its own.
#[derive(Debug)]
pub struct Kept {
    /// Counts from 1 in the order in which they were recorded.
    pub id: u64,
    /// The event.
    pub event: Event,
}

impl History {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            subjects: HashMap::new(),
            ranks: BTreeSet::new(),
            count: 0,
            last: 0,
        }
    }

    /// Takes in an event, and lets go of what there is no room for.
    pub fn add(&mut self, event: Event) -> Arc<Kept> {
        self.last += 1;
        let kept = Arc::new(Kept {
            id: self.last,
            event,
        });
        self.change(kept.event.subject.clone(), |events| {
            events.push_back(Arc::clone(&kept));
        });
        while let Some(rank) = self.ranks.last()
            && (rank.0 > self.limits.per_subject || self.count > self.limits.total)
        {
            let subject = rank.2.clone();
            self.change(subject, |events| drop(events.pop_front()));
        }
        kept
    }

    /// Changes the events of a subject, and what goes by their number.
    fn change(&mut self, subject: Subject, change: impl FnOnce(&mut VecDeque<Arc<Kept>>)) {
        let mut events = self.subjects.remove(&subject).unwrap_or_default();
        let rank = |events: &VecDeque<Arc<Kept>>| {
            let oldest = events.front()?.id;
            Some((events.len(), Reverse(oldest), subject.clone()))
        };
        if let Some(rank) = rank(&events) {
            self.ranks.remove(&rank);
        }
        self.count -= events.len();
        change(&mut events);
        self.count += events.len();
        if let Some(rank) = rank(&events) {
            self.ranks.insert(rank);
            self.subjects.insert(subject, events);
        }
    }

    /// All that is remembered since then, in the order of time.
    #[must_use]
    pub fn since(&self, since: Option<SystemTime>) -> Vec<EventView> {
        let all = self.subjects.values().flatten();
        let recent =
            |kept: &&Arc<Kept>| since.is_none_or(|since| kept.event.trail.at.wall >= since);
        let mut chosen: Vec<_> = all.filter(recent).collect();
        // Tasks record by themselves, so what comes first may be the later one.
        chosen.sort_by_key(|kept| (kept.event.trail.at.monotonic, kept.id));
        chosen.into_iter().map(|kept| self.view(kept)).collect()
    }

    /// An event with the numbers of those that it came of, as far as they are
    /// remembered.
    #[must_use]
    pub fn view(&self, kept: &Kept) -> EventView {
        let causes = kept.event.causes.iter();
        let mut causes: Vec<_> = causes.filter_map(|cause| self.find(cause)).collect();
        causes.sort_unstable();
        causes.dedup();
        EventView::new(kept, causes)
    }

    fn find(&self, cause: &Cause) -> Option<u64> {
        let events = self.subjects.get(&cause.subject)?;
        let is_meant = |kept: &&Arc<Kept>| {
            let number = kept.event.trail.number;
            kept.event.step == cause.step && cause.after < number && number <= cause.upto
        };
        events.iter().rev().find(is_meant).map(|kept| kept.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Step, Trail};

    fn event(number: u64, subject: &str, step: Step) -> Event {
        let trail = Trail {
            number,
            ..Trail::default()
        };
        Event::new(trail, Subject::Service(subject.into()), step, "")
    }

    /// Who is remembered, as often as it is, in the order of recording.
    fn remembered(history: &History) -> String {
        let events = history.since(None).into_iter();
        events.filter_map(|event| event.about.service).collect()
    }

    #[test]
    fn who_changes_all_the_time_takes_no_room_from_the_others() {
        let limits = |per_subject, total| Limits { per_subject, total };
        for (sentence, limits, recorded, expected) in [
            ("there is room", limits(3, 9), "abab", "abab"),
            ("one has its fill", limits(3, 9), "baaaaa", "baaa"),
            (
                "the oldest of who has most goes",
                limits(9, 4),
                "baaac",
                "baac",
            ),
            ("among equals the oldest", limits(9, 3), "abcd", "bcd"),
            ("nor when it began first", limits(9, 4), "aaaabcd", "abcd"),
        ] {
            let mut history = History::new(limits);
            for (number, subject) in (1..).zip(recorded.chars()) {
                history.add(event(number, &subject.to_string(), Step::Decision));
            }
            assert_eq!(remembered(&history), expected, "{sentence}: {history:#?}");
        }
    }

    #[test]
    fn a_cause_is_the_last_one_that_was_known() {
        let mut history = History::new(Limits::default());
        for (number, step) in [
            (2, Step::Decision),
            (4, Step::Decision),
            (5, Step::Maps),
            (8, Step::Decision),
        ] {
            history.add(event(number, "web", step));
        }
        let check = |sentence, subject: &str, step, after, upto, expected: &[u64]| {
            let cause = Cause {
                subject: Subject::Service(subject.into()),
                step,
                after,
                upto,
            };
            let caused = event(9, "web", Step::Announcement).caused_by([cause.clone(), cause]);
            let kept = Kept {
                id: 7,
                event: caused,
            };
            assert_eq!(history.view(&kept).causes, expected, "{sentence}");
        };
        check("the last", "web", Step::Decision, 0, 9, &[4]);
        check("what came later is none", "web", Step::Decision, 0, 7, &[2]);
        check("the very one", "web", Step::Decision, 3, 4, &[2]);
        check("what was known is none", "web", Step::Decision, 4, 7, &[]);
        check("another step", "web", Step::Maps, 0, 9, &[3]);
        check("another subject", "api", Step::Maps, 0, 9, &[]);
    }

    #[test]
    fn whatever_is_recorded_the_bounds_hold() {
        let limits = Limits {
            per_subject: 5,
            total: 40,
        };
        let mut history = History::new(limits);
        for number in 1..5000_u64 {
            // Few subjects often, many seldom.
            let subject = match number % 3 {
                0 => number % 101,
                _ => number % 4,
            };
            history.add(event(number, &subject.to_string(), Step::State));
            let counted: usize = history.subjects.values().map(VecDeque::len).sum();
            assert!(counted == history.count && counted <= limits.total);
            assert_eq!(history.ranks.len(), history.subjects.len());
            let most = history.subjects.values().map(VecDeque::len).max();
            assert!(most <= Some(limits.per_subject), "{most:?}");
        }
    }
}
