//! For which changes a hook is yet to be run. One run at a time for each subject, in
//! the order in which it changed; while it cannot follow, the latest state wins, and
//! what has passed meanwhile is not told.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::SystemTime,
};

use super::subject::{REMOVED, Subject, Trigger, UNKNOWN};

/// A subject has come into a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who.
    pub subject: Subject,
    /// What it is now.
    pub state: &'static str,
    /// Why, in plain words.
    pub reason: String,
    /// When it was seen.
    pub at: SystemTime,
}

/// The changes that one hook is to be run for. There is never more than one for each
/// subject.
#[derive(Debug, Default)]
pub struct Queue {
    /// What each subject was when the hook was last run for it, or need not be.
    told: HashMap<Subject, &'static str>,
    /// In the order of their turns.
    waiting: BTreeMap<u64, Change>,
    turns: HashMap<Subject, u64>,
    next: u64,
    running: HashSet<Subject>,
    /// Changes that were not told, since another one came before their turn.
    superseded: u64,
}

impl Queue {
    /// One for a hook that is new, while runs for these subjects are under way that were
    /// another's. [`Queue::done`] must follow for each.
    #[must_use]
    pub fn beside(running: HashSet<Subject>) -> Self {
        Self {
            running,
            ..Self::default()
        }
    }

    /// Takes in a change that `triggers` may be for.
    pub fn note(&mut self, change: Change, triggers: &[Trigger]) {
        let subject = &change.subject;
        let wanted = triggers.iter().any(|it| it.is_for(subject, change.state));
        let told = self.told.get(subject).copied().unwrap_or(UNKNOWN);
        let turn = self.turns.get(subject).copied();
        if let Some(turn) = turn {
            self.superseded += 1;
            self.waiting.remove(&turn);
        }
        if !wanted {
            self.turns.remove(subject);
            self.tell(&change);
        } else if change.state == told || (told, change.state) == (UNKNOWN, REMOVED) {
            self.turns.remove(subject);
        } else {
            let turn = turn.unwrap_or_else(|| {
                self.next += 1;
                self.next
            });
            self.turns.insert(subject.clone(), turn);
            self.waiting.insert(turn, change);
        }
    }

    /// What the hook is to be run for next, and what the subject was when it was told
    /// of it last. [`Queue::done`] must follow.
    pub fn start(&mut self) -> Option<(Change, &'static str)> {
        let mut waiting = self.waiting.iter();
        let (turn, _) = waiting.find(|(_, change)| !self.running.contains(&change.subject))?;
        let turn = *turn;
        let change = self.waiting.remove(&turn)?;
        self.turns.remove(&change.subject);
        self.running.insert(change.subject.clone());
        let previous = self.tell(&change);
        Some((change, previous))
    }

    /// A run for this subject has come to its end.
    pub fn done(&mut self, subject: &Subject) {
        self.running.remove(subject);
    }

    /// How many runs there are now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How many changes wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many changes were not told, since another one came before their turn.
    #[must_use]
    pub const fn superseded(&self) -> u64 {
        self.superseded
    }

    /// What is told, or need not be; gives back what was before.
    fn tell(&mut self, change: &Change) -> &'static str {
        let before = match change.state {
            REMOVED => self.told.remove(&change.subject),
            state => self.told.insert(change.subject.clone(), state),
        };
        before.unwrap_or(UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::subject::Kind;

    fn subject(name: &str) -> Subject {
        Subject::Service(name.into())
    }

    fn change(name: &str, state: &'static str) -> Change {
        Change {
            subject: subject(name),
            state,
            reason: String::new(),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    fn trigger(state: Option<&'static str>) -> Trigger {
        Trigger {
            kind: Kind::Service,
            state,
        }
    }

    /// What the hook is run for, as `NAME PREVIOUS-STATE`, when it is run for all that
    /// waits after each change, or only after those named `run`.
    #[track_caller]
    fn check(sentence: &str, triggers: &[Trigger], steps: &[&str], expected: &[&str]) {
        let mut queue = Queue::default();
        let mut runs = Vec::new();
        for step in steps {
            match step.split_once(' ') {
                Some((name, state)) => {
                    let states = Kind::Service.states();
                    let state = states.into_iter().find(|known| *known == state);
                    queue.note(change(name, state.expect("a state")), triggers);
                }
                None if *step == "done" => queue.done(&subject("a")),
                None => {
                    while let Some((change, previous)) = queue.start() {
                        runs.push(format!("{} {previous}-{}", change.subject, change.state));
                    }
                }
            }
        }
        assert_eq!(runs, expected, "{sentence}: {queue:#?}");
    }

    #[test]
    fn a_hook_is_run_for_each_change_or_the_latest_it_can_follow() {
        let any = [trigger(None)];
        check(
            "each change in its turn",
            &any,
            &["a up", "run", "done", "a down", "run"],
            &["a unknown-up", "a up-down"],
        );
        check(
            "never two at once for a subject",
            &any,
            &["a up", "run", "a down", "run"],
            &["a unknown-up"],
        );
        check(
            "the latest wins",
            &any,
            &["a up", "run", "a down", "a removed", "run", "done", "run"],
            &["a unknown-up", "a up-removed"],
        );
        check(
            "back before it was told",
            &any,
            &["a up", "run", "a down", "a up", "done", "run"],
            &["a unknown-up"],
        );
        check(
            "others do not wait, and nobody loses a turn",
            &any,
            &[
                "a up",
                "run",
                "a down",
                "b up",
                "a removed",
                "run",
                "done",
                "run",
            ],
            &["a unknown-up", "b unknown-up", "a up-removed"],
        );
        check(
            "who has come and gone before it was told",
            &any,
            &["a up", "a removed", "run"],
            &[],
        );
        check(
            "who has come back after a removal is unknown",
            &any,
            &[
                "a up",
                "run",
                "done",
                "a removed",
                "run",
                "done",
                "a up",
                "run",
            ],
            &["a unknown-up", "a up-removed", "a unknown-up"],
        );
    }

    #[test]
    fn a_hook_for_one_state_is_run_each_time_it_is_entered() {
        let down = [trigger(Some("down"))];
        check(
            "each time",
            &down,
            &[
                "a up", "run", "a down", "run", "done", "a up", "a down", "run",
            ],
            &["a up-down", "a up-down"],
        );
        check(
            "it has passed before its turn",
            &down,
            &["a up", "a down", "a up", "run"],
            &[],
        );
    }

    /// Whatever comes, and however slow the hook is.
    #[test]
    fn in_the_end_the_last_state_was_told_and_each_run_begins_where_the_last_has_ended() {
        let states = Kind::Service.states();
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut queue = Queue::default();
            let (mut now, mut told) = (HashMap::new(), HashMap::new());
            let mut running: Vec<Subject> = Vec::new();
            let triggers = [trigger(None)];
            let mut step = |queue: &mut Queue, running: &mut Vec<Subject>| {
                if let Some((change, previous)) = queue.start() {
                    assert!(
                        !running.contains(&change.subject),
                        "seed {seed}: two at once"
                    );
                    let last = told.insert(change.subject.clone(), change.state);
                    let last = last.filter(|last| *last != REMOVED).unwrap_or(UNKNOWN);
                    assert_eq!(previous, last, "seed {seed}");
                    running.push(change.subject);
                }
            };
            for _ in 0..100 {
                match random.u8(..3) {
                    0 => step(&mut queue, &mut running),
                    1 if !running.is_empty() => {
                        queue.done(&running.swap_remove(random.usize(..running.len())));
                    }
                    _ => {
                        let name = ["a", "b", "c"][random.usize(..3)];
                        let state = states[random.usize(..states.len())];
                        if now.insert(name, state) != Some(state) {
                            queue.note(change(name, state), &triggers);
                        }
                    }
                }
            }
            while queue.waiting() > 0 {
                running.drain(..).for_each(|subject| queue.done(&subject));
                step(&mut queue, &mut running);
            }
            for (name, state) in now {
                let told = told.get(&subject(name)).copied();
                let never = told.is_none() && state == REMOVED;
                assert!(
                    told == Some(state) || never,
                    "seed {seed}: {name} is {state}, told {told:?}"
                );
            }
        }
    }
}
