//! Trouble in a log: the same words once, and then now and then with a count, so that
//! what goes on for a week fills no disk.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Trouble that goes on is told again after this time.
const AGAIN: Duration = Duration::from_secs(5 * 60);

/// Kinds of trouble that are told in that time; one that comes on top is not.
const KINDS: usize = 32;

/// Which words have been told, and how often they came since.
#[derive(Debug, Default)]
pub struct Repeats(VecDeque<Told>);

#[derive(Debug)]
struct Told {
    words: String,
    at: Instant,
    since: u64,
}

impl Repeats {
    /// Takes in words. `None`: not to be told again yet. Otherwise how often
    /// they came without being told.
    pub fn note(&mut self, words: &str, now: Instant) -> Option<u64> {
        if let Some(told) = self.0.iter_mut().find(|told| told.words == words) {
            if now.duration_since(told.at) < AGAIN {
                told.since += 1;
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.since));
        }
        if self.0.len() == KINDS {
            let is_past = |told: &Told| now.duration_since(told.at) >= AGAIN;
            self.0.remove(self.0.iter().position(is_past)?);
        }
        self.0.push_back(Told {
            words: words.to_owned(),
            at: now,
            since: 0,
        });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_that_goes_on_is_told_once_and_again_after_a_while_with_a_count() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        let mut told = Vec::new();
        for second in 0..601 {
            let now = start + Duration::from_secs(second);
            for words in ["no answer", "reset"] {
                if let Some(times) = repeats.note(words, now) {
                    told.push((second, words, times));
                }
            }
        }
        let expected = [
            (0, "no answer", 0),
            (0, "reset", 0),
            (300, "no answer", 299),
            (300, "reset", 299),
            (600, "no answer", 299),
            (600, "reset", 299),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_so_is_what_is_told() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        let later = now + AGAIN;
        for (now, expected) in [(now, KINDS), (now, 0), (later, KINDS), (later, 0)] {
            let words = (0..1000).map(|number| format!("{now:?} {number}"));
            let told = words.filter(|words| repeats.note(words, now) == Some(0));
            assert_eq!((told.count(), repeats.0.len()), (expected, KINDS));
        }
        assert_eq!(repeats.note("new", later), None);
        assert_eq!(repeats.note("new", later + AGAIN), Some(0));
    }
}
