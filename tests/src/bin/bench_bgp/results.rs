//! All samples, what they come to, and how that is shown.

use std::fmt::Write as _;

use serde_json::{Value, json};
use vipd_tests::bench::{Machine, Spread};

use crate::speakers::ROUTES;

/// Who the others are compared with.
const STANDARD: &str = "BIRD";

/// What is asked of a speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// All of its routes.
    Announce,
    /// The same.
    Withdraw,
}

impl Change {
    pub const ALL: [Self; 2] = [Self::Announce, Self::Withdraw];

    const fn name(self) -> &'static str {
        match self {
            Self::Announce => "announced",
            Self::Withdraw => "withdrawn",
        }
    }
}

/// One measurement.
struct Sample {
    change: Change,
    speaker: &'static str,
    milliseconds: f64,
}

/// All of them, in the order they were taken.
#[derive(Default)]
pub struct Results(Vec<Sample>);

/// What one speaker came to.
struct Row {
    change: Change,
    speaker: &'static str,
    milliseconds: Spread,
    /// By the standard's time in the same round.
    ratio: Spread,
}

impl Results {
    pub fn add(&mut self, change: Change, speaker: &'static str, milliseconds: f64) {
        eprintln!("    {}, {speaker}: {milliseconds:.1} ms", change.name());
        self.0.push(Sample {
            change,
            speaker,
            milliseconds,
        });
    }

    fn of(&self, change: Change, speaker: &str) -> Vec<f64> {
        let samples = self
            .0
            .iter()
            .filter(|it| (it.change, it.speaker) == (change, speaker));
        samples.map(|it| it.milliseconds).collect()
    }

    fn rows(&self) -> Vec<Row> {
        let mut speakers: Vec<&'static str> = Vec::new();
        for sample in &self.0 {
            if !speakers.contains(&sample.speaker) {
                speakers.push(sample.speaker);
            }
        }
        let mut rows = Vec::new();
        for change in Change::ALL {
            let standard = self.of(change, STANDARD);
            rows.extend(speakers.iter().filter_map(|speaker| {
                let times = self.of(change, speaker);
                let ratios = times.iter().zip(&standard).map(|(a, b)| a / b);
                Some(Row {
                    change,
                    speaker,
                    ratio: Spread::of(ratios)?,
                    milliseconds: Spread::of(times)?,
                })
            }));
        }
        rows
    }

    /// For people.
    pub fn markdown(&self) -> String {
        let Machine {
            processor,
            kernel,
            date,
        } = Machine::here();
        let rounds = self.of(Change::Announce, STANDARD).len();
        let mut text = format!(
            "{processor}, {kernel}, {date}: `cargo xtask bench bgp`, {rounds} rounds of \
             {ROUTES} routes.\n\n\
             | change | by | median ms | max ms | ratio to {STANDARD} (min-max) |\n\
             | --- | --- | ---: | ---: | ---: |\n"
        );
        for row in self.rows() {
            let (time, ratio) = (row.milliseconds, row.ratio);
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {:.1} | {:.1} | {:.2} ({:.2}-{:.2}) |",
                row.change.name(),
                row.speaker,
                time.median,
                time.max,
                ratio.median,
                ratio.min,
                ratio.max
            );
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let rows = self.rows().into_iter().map(|row| {
            json!({
                "routes": ROUTES,
                "change": row.change.name(),
                "by": row.speaker,
                "milliseconds": row.milliseconds.json(),
                "ratio_to_bird": row.ratio.json(),
            })
        });
        json!({
            "machine": Machine::here().json(),
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}
