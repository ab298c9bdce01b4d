//! What clients and routers saw of backends that died, and how that is shown.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};
use vipd_tests::bench::{Machine, Spread};

use super::{
    Death, Loss, Updates,
    updates::{GOAL_MS, Latency},
};

/// All of it, in the order it was measured.
#[derive(Default)]
pub struct Results {
    pub losses: Vec<(Death, Loss)>,
    pub updates: Updates,
}

/// What deaths of one kind came to.
struct Row {
    death: Death,
    tries: usize,
    /// Until the last new connection to the dead, in milliseconds.
    last: Spread,
    lost: Spread,
}

impl Results {
    fn of(&self, death: Death) -> impl Iterator<Item = &Loss> {
        let own = self.losses.iter().filter(move |(it, _)| *it == death);
        own.map(|(_, loss)| loss)
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        Death::ALL.into_iter().filter_map(|death| {
            Some(Row {
                death,
                tries: self.of(death).count(),
                last: Spread::of(self.of(death).map(|it| ms(it.last)))?,
                lost: Spread::of(self.of(death).map(|it| it.lost as f64))?,
            })
        })
    }

    /// Those of which there were any.
    fn latencies(&self) -> impl Iterator<Item = &Latency> {
        self.updates.0.iter().filter(|it| it.count > 0)
    }

    /// The longest time in which the client itself did not get to send, in
    /// milliseconds.
    fn stall(&self) -> f64 {
        let stalls = self.losses.iter().map(|(_, it)| ms(it.stall));
        stalls.fold(0.0, f64::max)
    }

    /// The goals that are not met, in words.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for Row { death, last, .. } in self.rows() {
            let (longest, goal) = (last.max, death.goal_ms());
            if longest > goal {
                missed.push(format!(
                    "{}: the last new connection comes after {longest:.0} ms, the goal is {goal}",
                    death.name()
                ));
            }
        }
        for latency in self.latencies().filter(|it| it.change == "worse") {
            let share = latency.share_within(GOAL_MS);
            if share < 0.5 {
                missed.push(format!(
                    "{:.0} % of the decisions that make something worse are UPDATEs within \
                     {GOAL_MS} ms, the goal is half of them",
                    share * 100.0
                ));
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
             | a backend dies; what notices | tries | last new connection ms, median | min | max \
             | goal | connections lost, median |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
            self.stall()
        );
        for row in self.rows() {
            let Spread { median, min, max } = row.last;
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {median:.0} | {min:.0} | {max:.0} | {:.0} | {:.0} |",
                row.death.name(),
                row.tries,
                row.death.goal_ms(),
                row.lost.median
            );
        }
        text += "\n| from a decision to its UPDATE | UPDATEs | mean ms | median ms, at most | within \
                 1 ms |\n\
                 | --- | ---: | ---: | ---: | ---: |\n";
        for latency in self.latencies() {
            let _ = writeln!(
                text,
                "| something gets {} | {} | {:.2} | {} | {:.0} % |",
                latency.change,
                latency.count,
                latency.mean_ms(),
                latency.median_at_most_ms(),
                latency.share_within(GOAL_MS) * 100.0
            );
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let rows = self.rows().map(|row| {
            json!({
                "name": row.death.name(),
                "tries": row.tries,
                "last_ms": row.last.json(),
                "lost": row.lost.json(),
                "goal_ms": row.death.goal_ms(),
                "all_ms": self.of(row.death).map(|it| ms(it.last)).collect::<Vec<_>>(),
            })
        });
        json!({
            "machine": Machine::here().json(),
            "deaths": rows.collect::<Vec<_>>(),
            "client_stall_ms": self.stall(),
            "decision_to_update": self.latencies().map(Latency::json).collect::<Vec<_>>(),
            "goal_update_median_ms": GOAL_MS,
            "missed": self.missed(),
        })
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
