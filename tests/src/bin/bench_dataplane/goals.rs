//! What the balancer has to reach, as ratios of medians in one run.

use anyhow::{Result, ensure};

use crate::case::{EVERY_PACKET, FLOWS, name};

/// A median, by the name of its case and the number of flows.
pub type Key = (&'static str, u32);

/// A bound for one case, relative to another.
pub struct Goal {
    /// In words.
    pub name: &'static str,
    /// What is judged.
    pub case: Key,
    /// What by.
    pub by: Key,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    /// So many times as much at most.
    Times(f64),
    /// So much more at most, as a fraction or in nanoseconds, whichever is more.
    More(f64, f64),
}

/// A goal, and what came of it.
pub struct Judged {
    pub goal: Goal,
    /// The ratio of both medians.
    pub ratio: f64,
    /// The largest ratio allowed.
    pub most: f64,
}

impl Judged {
    pub fn is_met(&self) -> bool {
        self.ratio <= self.most
    }
}

/// Fails if there is a goal whose cases are not among those that are measured.
pub fn ensure_judged(is_measured: impl Fn(Key) -> bool) -> Result<()> {
    for Goal { case, by, .. } in goals() {
        for key in [case, by] {
            ensure!(
                is_measured(key),
                "a goal is about {key:?}, which is no case"
            );
        }
    }
    Ok(())
}

/// Judges all goals whose cases were measured.
pub fn judge(median: impl Fn(Key) -> Option<f64>) -> Vec<Judged> {
    goals()
        .into_iter()
        .filter_map(|goal| {
            let (case, by) = (median(goal.case)?, median(goal.by)?);
            let most = match goal.bound {
                Bound::Times(times) => times,
                Bound::More(fraction, nanos) => 1.0 + fraction.max(nanos / by),
            };
            let ratio = case / by;
            Some(Judged { goal, ratio, most })
        })
        .collect()
}

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut add = |name, case, by, bound| {
        goals.push(Goal {
            name,
            case,
            by,
            bound,
        });
    };
    let within = |percent: f64, nanos| Bound::More(percent / 100.0, nanos);
    for flows in FLOWS {
        let established = (name::ESTABLISHED, flows);
        let f3 = (name::F3, flows);
        add("0.8 x f3", established, f3, Bound::Times(0.8));
        add("4 x f2", established, (name::F2, 1), Bound::Times(4.0));
        if flows > 1 {
            let one = (name::ESTABLISHED, 1);
            add(
                "as one flow, 15 % or 3 ns",
                established,
                one,
                within(15.0, 3.0),
            );
        }
        let bound = within(10.0, 3.0);
        add(
            "as established, 10 % or 3 ns",
            (name::SYN, flows),
            established,
            bound,
        );
        let bound = within(15.0, 3.0);
        add(
            "as established, 15 % or 3 ns",
            (name::UDP, flows),
            established,
            bound,
        );
        for case in [name::IPV6, name::IPV4_IN_IPV6, name::GUE] {
            add("f3", (case, flows), f3, Bound::Times(1.0));
        }
        add("0.7 x f3", (name::L2, flows), f3, Bound::Times(0.7));
        add("0.4 x f3", (name::NOT_VIP, flows), f3, Bound::Times(0.4));
    }
    // New flows touch as much memory as many.
    add(
        "as established, 10 % or 3 ns",
        (name::SYN, EVERY_PACKET),
        (name::ESTABLISHED, 1_000_000),
        within(10.0, 3.0),
    );
    add(
        "1.2 x f3",
        (name::LEARN_HIT, 1),
        (name::F3, 1),
        Bound::Times(1.2),
    );
    goals
}
