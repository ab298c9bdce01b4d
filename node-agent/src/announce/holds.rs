//! Which addresses are held by an unreachable route, and which are to be.
//!
//! An address has at most one job at a time, so that no two requests about it
//! overtake each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use vipd_control::model::Vip;

/// The state of all addresses that are held, or about to be.
#[derive(Debug, Default)]
pub struct Holds {
    vips: BTreeMap<Vip, Hold>,
}

#[derive(Clone, Copy, Debug)]
enum Hold {
    /// The kernel has been asked to hold it.
    Taking,
    /// It is held, or counts as held since the kernel refuses.
    Held {
        /// When it is let go; `None` while it is wanted.
        until: Option<Instant>,
        /// The route is not there, and the kernel has been asked anew.
        anew: bool,
        /// The kernel has refused when it was asked last.
        refused: bool,
        /// When the kernel answered.
        since: Instant,
    },
    /// The kernel has been asked to let go of it.
    Releasing,
}

/// What the kernel is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Hold the address.
    Hold(Vip),
    /// Let go of it.
    Release(Vip),
}

impl Holds {
    /// What a previous agent holds: let go after `linger`, unless wanted before.
    #[must_use]
    pub fn inherited(vips: impl IntoIterator<Item = Vip>, linger: Duration, now: Instant) -> Self {
        let held = Hold::Held {
            until: Some(now + linger),
            anew: false,
            refused: false,
            since: now,
        };
        Self {
            vips: vips.into_iter().map(|vip| (vip, held)).collect(),
        }
    }

    /// Follows what is wanted, and says what is to be done for it now. What is
    /// not wanted any more is held for `linger`.
    #[must_use]
    pub fn follow(&mut self, wanted: &BTreeSet<Vip>, linger: Duration, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (&vip, hold) in &mut self.vips {
            if let Hold::Held { until, anew, .. } = hold {
                if wanted.contains(&vip) {
                    *until = None;
                } else if *until.get_or_insert(now + linger) <= now && !*anew {
                    *hold = Hold::Releasing;
                    jobs.push(Job::Release(vip));
                }
            }
        }
        for &vip in wanted {
            self.vips.entry(vip).or_insert_with(|| {
                jobs.push(Job::Hold(vip));
                Hold::Taking
            });
        }
        jobs
    }

    /// Compares with what the kernel has, by a list that was begun at `asked`, and
    /// says what is to be held anew, and whether somebody has let go of it: what
    /// the kernel refused before is only tried again.
    #[must_use]
    pub fn found(&mut self, kernel: &BTreeSet<Vip>, asked: Instant) -> Vec<(Job, bool)> {
        let mut jobs = Vec::new();
        for (&vip, hold) in &mut self.vips {
            if let Hold::Held {
                anew,
                refused,
                since,
                ..
            } = hold
                && !*anew
                && *since < asked
                && !kernel.contains(&vip)
            {
                *anew = true;
                jobs.push((Job::Hold(vip), !*refused));
            }
        }
        jobs
    }

    /// A job has been done, or refused: an address that cannot be held is taken
    /// for held, since it is announced all the same. Says whether that is news.
    pub fn done(&mut self, job: Job, refused: bool, now: Instant) -> bool {
        match job {
            Job::Hold(vip) => {
                let (until, before) = match self.vips.get(&vip) {
                    Some(Hold::Held { until, refused, .. }) => (*until, *refused),
                    _ => (None, false),
                };
                let held = Hold::Held {
                    until,
                    anew: false,
                    refused,
                    since: now,
                };
                self.vips.insert(vip, held);
                before != refused
            }
            Job::Release(vip) => {
                self.vips.remove(&vip);
                refused
            }
        }
    }

    /// Those of `wanted` that are held.
    #[must_use]
    pub fn held(&self, wanted: &BTreeSet<Vip>) -> BTreeSet<Vip> {
        let is_held = |vip: &&Vip| matches!(self.vips.get(vip), Some(Hold::Held { .. }));
        wanted.iter().filter(is_held).copied().collect()
    }

    /// When [`Holds::follow`] has something to let go, unless a job is done
    /// before.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let until = |hold: &Hold| match hold {
            Hold::Held {
                until, anew: false, ..
            } => *until,
            Hold::Held { anew: true, .. } | Hold::Taking | Hold::Releasing => None,
        };
        self.vips.values().filter_map(until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const LINGER: Duration = Duration::from_secs(10);

    fn vip(last: u8) -> Vip {
        IpAddr::from([198, 51, 100, last]).into()
    }

    /// What happens at one moment.
    enum Step {
        Wanted(&'static [u8]),
        /// What the kernel has.
        Found(&'static [u8]),
        Done(Job),
    }

    /// A moment of a test, `second` seconds after its start.
    fn at(start: Instant, second: u64) -> Instant {
        start + Duration::from_secs(second)
    }
    use Step::{Done, Found, Wanted};

    /// Each step: at which second, what happens, which jobs it gives, and
    /// which of the wanted are then held.
    #[track_caller]
    fn check(sentence: &str, steps: Vec<(u64, Step, Vec<Job>, &[u8])>) {
        let start = Instant::now();
        let mut holds = Holds::inherited([vip(9)], LINGER, start);
        let mut wanted = BTreeSet::new();
        for (i, (second, step, jobs, held)) in steps.into_iter().enumerate() {
            let set = |vips: &[u8]| vips.iter().copied().map(vip).collect();
            let now = at(start, second);
            let mut asked = Vec::new();
            match step {
                Wanted(vips) => wanted = set(vips),
                Found(vips) => {
                    let jobs = holds.found(&set(vips), now);
                    asked.extend(jobs.into_iter().map(|(job, _)| job));
                }
                Done(job) => assert!(!holds.done(job, false, now), "{sentence}, step {i}: news"),
            }
            asked.extend(holds.follow(&wanted, LINGER, now));
            assert_eq!(asked, jobs, "{sentence}, step {i}: {holds:#?}");
            let held: BTreeSet<_> = held.iter().copied().map(vip).collect();
            assert_eq!(
                holds.held(&wanted),
                held,
                "{sentence}, step {i}: {holds:#?}"
            );
        }
    }

    #[test]
    fn what_is_wanted_is_held_and_let_go_later() {
        let (hold, release) = (Job::Hold(vip(1)), Job::Release(vip(1)));
        let inherited = Job::Release(vip(9));
        check(
            "held, let go after the linger",
            vec![
                (0, Wanted(&[1]), vec![hold], &[]),
                (1, Wanted(&[1]), vec![], &[]),
                (2, Done(hold), vec![], &[1]),
                (3, Wanted(&[]), vec![], &[]),
                (12, Wanted(&[]), vec![inherited], &[]),
                (13, Wanted(&[]), vec![release], &[]),
                (14, Done(release), vec![], &[]),
            ],
        );
        check(
            "wanted again within the linger",
            vec![
                (0, Wanted(&[1, 9]), vec![hold], &[9]),
                (1, Done(hold), vec![], &[1, 9]),
                (2, Wanted(&[9]), vec![], &[9]),
                (8, Wanted(&[1, 9]), vec![], &[1, 9]),
                (20, Wanted(&[1, 9]), vec![], &[1, 9]),
            ],
        );
        check(
            "not wanted any more before it is held",
            vec![
                (0, Wanted(&[1, 9]), vec![hold], &[9]),
                (1, Wanted(&[9]), vec![], &[9]),
                (2, Done(hold), vec![], &[9]),
                (12, Wanted(&[9]), vec![release], &[9]),
            ],
        );
        check(
            "removed by somebody, it stays announced and is held anew, once",
            vec![
                (0, Wanted(&[1, 9]), vec![hold], &[9]),
                (1, Found(&[9]), vec![], &[9]),
                (2, Done(hold), vec![], &[1, 9]),
                (3, Found(&[1, 9]), vec![], &[1, 9]),
                (4, Found(&[9]), vec![hold], &[1, 9]),
                (5, Found(&[9]), vec![], &[1, 9]),
                (6, Done(hold), vec![], &[1, 9]),
                (7, Found(&[9]), vec![hold], &[1, 9]),
            ],
        );
        check(
            "removed while it lingers, it is held anew and let go in its time",
            vec![
                (1, Found(&[]), vec![Job::Hold(vip(9))], &[]),
                (10, Wanted(&[]), vec![], &[]),
                (11, Done(Job::Hold(vip(9))), vec![inherited], &[]),
                (12, Found(&[]), vec![], &[]),
                (13, Done(inherited), vec![], &[]),
                (14, Found(&[]), vec![], &[]),
            ],
        );
        check(
            "wanted again while it is let go",
            vec![
                (10, Wanted(&[]), vec![inherited], &[]),
                (11, Wanted(&[9]), vec![], &[]),
                (12, Done(inherited), vec![Job::Hold(vip(9))], &[]),
                (13, Done(Job::Hold(vip(9))), vec![], &[9]),
            ],
        );
    }

    #[test]
    fn what_the_kernel_refuses_is_tried_again_and_told_once() {
        let start = Instant::now();
        let mut holds = Holds::default();
        let job = Job::Hold(vip(1));
        let wanted = BTreeSet::from([vip(1)]);
        assert_eq!(holds.follow(&wanted, LINGER, start), [job]);
        assert!(holds.done(job, true, at(start, 1)), "the first refusal");
        assert_eq!(holds.held(&wanted), wanted, "it is announced all the same");
        for second in [10, 20] {
            let jobs = holds.found(&BTreeSet::new(), at(start, second));
            assert_eq!(jobs, [(job, false)], "nobody has let go of it");
            assert!(!holds.done(job, true, at(start, second + 1)), "again");
        }
        let _ = holds.found(&BTreeSet::new(), at(start, 30));
        assert!(holds.done(job, false, at(start, 31)), "it is held");
        let jobs = holds.found(&BTreeSet::new(), at(start, 40));
        assert_eq!(jobs, [(job, true)], "somebody has let go of it");
    }

    #[test]
    fn a_list_says_nothing_of_what_was_held_after_it_was_begun() {
        let start = Instant::now();
        let mut holds = Holds::default();
        let job = Job::Hold(vip(1));
        let _ = holds.follow(&BTreeSet::from([vip(1)]), LINGER, start);
        holds.done(job, false, at(start, 2));
        assert_eq!(holds.found(&BTreeSet::new(), at(start, 1)), []);
        assert_eq!(holds.found(&BTreeSet::new(), at(start, 3)), [(job, true)]);
    }
}
