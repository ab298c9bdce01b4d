//! All that was measured, what it comes to, and how that is shown.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};
use vipd_tests::bench::{Machine, Spread};

use crate::{
    death::Death,
    frr::FrrDeath,
    planned::{Outcome, Plan},
    punctual::{Pace, Punctuality, SAFE_MS},
};

/// The longest gap that a client may see when a balancer dies, in milliseconds.
const LONGEST_GAP_MS: f64 = 300.0;

/// All of it, in the order it was measured.
#[derive(Default)]
pub struct Results {
    /// vipd's deaths before BIRD.
    pub vipd: Vec<Death>,
    /// Those of others, by their names.
    pub others: Vec<(&'static str, Death)>,
    pub frr: Vec<FrrDeath>,
    pub planned: Vec<(Plan, Outcome)>,
    pub punctuality: Option<Punctuality>,
}

/// What deaths of one kind came to.
struct Row {
    name: String,
    gap: Spread,
    tries: usize,
    /// Packets lost in each.
    lost: Spread,
    /// By the median and the longest gap of vipd before BIRD.
    ratios: Option<[f64; 2]>,
}

impl Row {
    fn of<'a>(name: &str, deaths: impl Iterator<Item = &'a Death> + Clone) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            gap: Spread::of(deaths.clone().map(|it| ms(it.gap)))?,
            lost: Spread::of(deaths.clone().map(|it| it.lost as f64))?,
            tries: deaths.count(),
            ratios: None,
        })
    }
}

impl Results {
    fn rows(&self) -> Vec<Row> {
        let vipd = Row::of("vipd, BFD 50 ms x 3, BIRD", self.vipd.iter());
        let standard = vipd.as_ref().map(|row| row.gap);
        let frr = self.frr.iter().map(|it| &it.death);
        let mut rows: Vec<Row> = vipd.into_iter().collect();
        rows.extend(Row::of("vipd, BFD 50 ms x 3, FRR", frr));
        let mut names: Vec<&str> = self.others.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        rows.extend(names.into_iter().rev().filter_map(|name| {
            let own = self.others.iter().filter(move |(other, _)| *other == name);
            Row::of(name, own.map(|(_, death)| death))
        }));
        for row in &mut rows {
            row.ratios = standard.map(|it| [row.gap.median / it.median, row.gap.max / it.max]);
        }
        rows
    }

    /// FRR's steps, from one to the next.
    fn steps(&self) -> Option<[(&'static str, Spread); 4]> {
        let spread = |value: &dyn Fn(&FrrDeath) -> Duration| {
            Spread::of(self.frr.iter().map(|it| ms(value(it))))
        };
        Some([
            ("bfdd notices", spread(&|it| it.noticed)?),
            (
                "until bgpd has ended the session",
                spread(&|it| it.ended.saturating_sub(it.noticed))?,
            ),
            (
                "until the kernel's route is another",
                spread(&|it| it.routed.saturating_sub(it.ended))?,
            ),
            (
                "until no packet is lost any more",
                spread(&|it| it.death.gap.saturating_sub(it.routed))?,
            ),
        ])
    }

    /// What all tries of each plan came to, and how many there were.
    fn plans(&self) -> Vec<(Plan, usize, Outcome)> {
        let rows = Plan::ALL.into_iter().map(|plan| {
            let own = || {
                let own = self.planned.iter().filter(move |(it, _)| *it == plan);
                own.map(|(_, outcome)| outcome)
            };
            let all = Outcome {
                sent: own().map(|it| it.sent).sum(),
                lost: own().map(|it| it.lost).sum(),
            };
            (plan, own().count(), all)
        });
        rows.filter(|(_, tries, _)| *tries > 0).collect()
    }

    /// The longest time in which the client itself did not get to send, in
    /// milliseconds.
    fn stall(&self) -> f64 {
        let others = self.others.iter().map(|(_, death)| death);
        let deaths = self.vipd.iter().chain(others);
        let all = deaths.chain(self.frr.iter().map(|it| &it.death));
        all.map(|it| ms(it.stall)).fold(0.0, f64::max)
    }

    /// The goals that are not met, in words.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        let longest = self.vipd.iter().map(|it| ms(it.gap)).fold(0.0, f64::max);
        if longest > LONGEST_GAP_MS {
            missed.push(format!(
                "a death is seen for {longest:.0} ms, the goal is {LONGEST_GAP_MS}"
            ));
        }
        for (plan, _, Outcome { sent, lost }) in self.plans() {
            if lost > 0 {
                missed.push(format!("{}: {lost} of {sent} packets lost", plan.name()));
            }
        }
        if let Some(it) = &self.punctuality {
            let judged = |session: &&Pace| session.interval_ms >= SAFE_MS;
            for session in it.sessions.iter().filter(judged) {
                let (interval, alarms) = (session.interval_ms, session.false_alarms);
                if alarms > 0 {
                    missed.push(format!(
                        "BFD at {interval} ms x 3: {alarms} false alarms on busy processors"
                    ));
                }
            }
        }
        missed
    }

    /// For people.
    pub fn markdown(&self) -> String {
        let Machine {
            processor,
            kernel,
            date,
        } = Machine::here();
        let mut text = format!(
            "{processor}, {kernel}, {date}: `cargo xtask bench failover`; the client itself was \
             late by at most {:.0} ms.\n\n\
             | a host dies silently | tries | gap ms, median | min | max | median to vipd's | max \
             to vipd's | packets lost, median |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
            self.stall()
        );
        for row in self.rows() {
            let Spread { median, min, max } = row.gap;
            let [medians, longest] = row.ratios.unwrap_or([f64::NAN; 2]);
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {median:.0} | {min:.0} | {max:.0} | {medians:.2} | {longest:.2} | {:.0} |",
                row.name, row.tries, row.lost.median,
            );
        }
        if let Some(steps) = self.steps() {
            text += "\n| where FRR's time goes | ms, median | min | max |\n\
                     | --- | ---: | ---: | ---: |\n";
            for (name, Spread { median, min, max }) in steps {
                let _ = writeln!(text, "| {name} | {median:.0} | {min:.0} | {max:.0} |");
            }
        }
        text += "\n| on purpose, or restarted | tries | packets | lost |\n\
                 | --- | ---: | ---: | ---: |\n";
        for (plan, tries, all) in self.plans() {
            let _ = writeln!(
                text,
                "| {} | {tries} | {} | {} |",
                plan.name(),
                all.sent,
                all.lost
            );
        }
        if let Some(it) = &self.punctuality {
            let _ = writeln!(
                text,
                "\nBFD for {} minutes with {:.0} % of the processors busy, {:.1} % taken by other \
                 machines. Threads that only wait, with the same priority, were late by at most \
                 {:.1} ms.\n\n\
                 | two `vipd bfd` | packets | longest gap, ms | latest after it was due, ms | \
                 false alarms | waiting threads too late for it |\n\
                 | --- | ---: | ---: | ---: | ---: | ---: |",
                it.minutes,
                it.busy * 100.0,
                it.stolen * 100.0,
                it.worst_stall(),
            );
            for session in &it.sessions {
                let _ = writeln!(
                    text,
                    "| {} ms x 3 | {} | {:.1} | {:.1} | {} | {} |",
                    session.interval_ms,
                    session.sent,
                    session.longest_gap,
                    session.latest,
                    session.false_alarms,
                    it.stalls(session.interval_ms)
                );
            }
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let rows = self.rows().into_iter().map(|row| {
            json!({
                "name": row.name,
                "tries": row.tries,
                "gap_ms": row.gap.json(),
                "lost": row.lost.json(),
                "ratio_of_medians": row.ratios.map(|it| it[0]),
                "ratio_of_longest": row.ratios.map(|it| it[1]),
            })
        });
        let steps = self.steps().into_iter().flatten();
        let plans = self.plans().into_iter().map(|(plan, tries, all)| {
            json!({
                "name": plan.name(),
                "tries": tries,
                "sent": all.sent,
                "lost": all.lost,
            })
        });
        json!({
            "machine": Machine::here().json(),
            "deaths": rows.collect::<Vec<_>>(),
            "vipd_gaps_ms": self.vipd.iter().map(|it| ms(it.gap)).collect::<Vec<_>>(),
            "client_stall_ms": self.stall(),
            "frr_steps_ms": steps
                .map(|(name, spread)| json!({ "step": name, "ms": spread.json() }))
                .collect::<Vec<_>>(),
            "planned": plans.collect::<Vec<_>>(),
            "punctuality": self.punctuality.as_ref().map(Punctuality::json),
            "goal_longest_gap_ms": LONGEST_GAP_MS,
            "missed": self.missed(),
        })
    }
}

impl Punctuality {
    fn json(&self) -> Value {
        let sessions = self.sessions.iter().map(|it| {
            json!({
                "interval_ms": it.interval_ms,
                "multiplier": 3,
                "sent": it.sent,
                "longest_gap_ms": it.longest_gap,
                "latest_ms": it.latest,
                "false_alarms": it.false_alarms,
                "stalls_of_waiting_threads": self.stalls(it.interval_ms),
            })
        });
        json!({
            "minutes": self.minutes,
            "busy": self.busy,
            "stolen": self.stolen,
            "waiting_threads_late_ms": self.waiting,
            "safe_ms": SAFE_MS,
            "sessions": sessions.collect::<Vec<_>>(),
        })
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
