//! A fault that is believed at once, and its end only after a while: the longer,
//! the sooner it had come back the last time.

use std::time::{Duration, Instant};

/// How long a fault that is over still counts.
#[derive(Clone, Debug)]
pub struct Steady {
    least: Duration,
    most: Duration,
    pause: Duration,
    fault: Option<Fault>,
    /// When the last one ended.
    ended: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Fault {
    words: String,
    /// Since when it is over.
    over: Option<Instant>,
}

/// A fault that comes back within so many pauses doubles the pause.
const SOON: u32 = 10;

impl Steady {
    /// A fault counts for `least` after its end; for up to `most` when it comes back
    /// again and again.
    #[must_use]
    pub const fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            pause: least,
            fault: None,
            ended: None,
        }
    }

    /// Takes in what is wrong now, if anything, and gives back what counts.
    pub fn judge(&mut self, found: Option<String>, now: Instant) -> Option<String> {
        match (found, &mut self.fault) {
            (Some(words), Some(fault)) => *fault = Fault { words, over: None },
            (Some(words), None) => {
                let soon = |ended| now < ended + self.pause * SOON;
                self.pause = match self.ended {
                    Some(ended) if soon(ended) => self.most.min(self.pause * 2),
                    _ => self.least,
                };
                self.fault = Some(Fault { words, over: None });
            }
            (None, Some(fault)) => {
                let over = *fault.over.get_or_insert(now);
                if now >= over + self.pause {
                    self.fault = None;
                    self.ended = Some(now);
                }
            }
            (None, None) => {}
        }
        let fault = self.fault.as_ref()?;
        Some(match fault.over {
            None => fault.words.clone(),
            Some(_) => format!(
                "{}; this is over, and no longer counts after {:?} without",
                fault.words, self.pause
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_counts_at_once_and_its_end_after_a_pause_that_grows() {
        let start = Instant::now();
        let seconds = Duration::from_secs;
        let mut steady = Steady::new(seconds(3), seconds(8));
        // Second, whether there is a fault, and whether one counts.
        let story = [
            (0, false, false),
            (1, true, true),
            (2, false, true),
            (4, false, true),
            (5, false, false),
            // Soon again: six seconds now.
            (10, true, true),
            (11, false, true),
            (16, false, true),
            // A relapse starts the pause anew.
            (16, true, true),
            (17, false, true),
            (22, false, true),
            (23, false, false),
            // And again: not more than eight.
            (30, true, true),
            (31, false, true),
            (38, false, true),
            (39, false, false),
            // Long after: as in the beginning.
            (200, true, true),
            (201, false, true),
            (204, false, false),
        ];
        for (second, found, counts) in story {
            let found = found.then(|| "eth0 is gone".to_owned());
            let is_over = found.is_none();
            let judged = steady.judge(found, start + seconds(second));
            assert_eq!(judged.is_some(), counts, "second {second}: {judged:?}");
            if let Some(words) = judged {
                assert!(words.starts_with("eth0 is gone"), "{words}");
                assert_eq!(words.contains("this is over"), is_over, "{words}");
            }
        }
    }
}
