//! What came out: a table for people, and a file for machines.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};
use vipd_tests::bench::Machine;

use crate::{
    case::{Case, Target},
    goals::Judged,
    rings,
    runner::Program,
    stage::{Measured, SLICE},
    steps::Steps,
};

/// How it is measured.
const COMMAND: &str = "cargo xtask bench dataplane";

/// All that was measured.
pub struct Report {
    pub machine: Machine,
    pub rounds: u32,
    pub lines: Vec<Line>,
    /// Gross cost of a packet with the wrapper and a program that does nothing.
    pub wrapper: f64,
    /// Which part of the measurements others have disturbed throughout.
    pub disturbed: f64,
    pub goals: Vec<Judged>,
    pub rings: Vec<rings::Line>,
}

/// One case.
pub struct Line {
    pub case: Case,
    pub steps: Steps,
    pub program: Program,
    pub nanos: Spread,
}

/// What several measurements of the same thing have given.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN),
            min: sorted.first().copied().unwrap_or(f64::NAN),
            max: sorted.last().copied().unwrap_or(f64::NAN),
        }
    }
}

impl Line {
    pub fn new(measured: &Measured, programs: &BTreeMap<Target, Program>) -> Self {
        Self {
            case: measured.case.clone(),
            steps: measured.steps,
            program: programs[&measured.case.target],
            nanos: Spread::of(&measured.nanos),
        }
    }
}

impl Report {
    /// As Markdown, which reads well in a terminal too.
    pub fn cases(&self) -> String {
        let mut text = "\
            | case                     |       flows | services | median |    min |    max | instructions | lookups | program | JITed bytes |\n\
            |--------------------------|------------:|---------:|-------:|-------:|-------:|-------------:|--------:|--------:|------------:|\n"
            .to_owned();
        for line in &self.lines {
            let Line {
                case,
                steps,
                program,
                nanos,
            } = line;
            let _ = writeln!(
                text,
                "| {:24} | {:>11} | {:>8} | {:>6.1} | {:>6.1} | {:>6.1} | {:>12} | {:>7} | {:>7} | {:>11} |",
                case.name,
                case.flows_label(),
                case.services,
                nanos.median,
                nanos.min,
                nanos.max,
                steps.instructions,
                steps.lookups,
                program.instructions,
                program.machine_code,
            );
        }
        text
    }

    /// The goals, those that are missed marked.
    pub fn goals(&self) -> String {
        let mut text = "\
            | case                     |       flows | goal                          | ratio | at most |        |\n\
            |--------------------------|------------:|-------------------------------|------:|--------:|--------|\n"
            .to_owned();
        for judged in &self.goals {
            let (name, flows) = judged.goal.case;
            let flows = if flows == crate::case::EVERY_PACKET {
                "each packet".to_owned()
            } else {
                flows.to_string()
            };
            let _ = writeln!(
                text,
                "| {name:24} | {flows:>11} | {:29} | {:>5.2} | {:>7.2} | {:6} |",
                judged.goal.name,
                judged.ratio,
                judged.most,
                if judged.is_met() { "met" } else { "MISSED" },
            );
        }
        text
    }

    /// The goals that are missed, in words.
    pub fn missed(&self) -> Vec<String> {
        let missed = self.goals.iter().filter(|judged| !judged.is_met());
        let words = |Judged {
                         goal, ratio, most, ..
                     }: &Judged| {
            let (name, flows) = goal.case;
            format!(
                "{name}, {flows} flows, {}: {ratio:.2}, at most {most:.2}",
                goal.name
            )
        };
        missed.map(words).collect()
    }

    /// Where and how it was measured.
    pub fn circumstances(&self) -> String {
        format!(
            "{}, {}, {}: `{}`, {} rounds; the wrapper costs {:.1} ns; {:.0} % of the \
             measurements were disturbed.",
            self.machine.processor,
            self.machine.kernel,
            self.machine.date,
            COMMAND,
            self.rounds,
            self.wrapper,
            self.disturbed * 100.0,
        )
    }

    /// For docs/performance.md.
    pub fn document(&self) -> String {
        format!(
            "{}\n\n{}\n{}\n### Rings\n\n{}",
            self.circumstances(),
            self.cases(),
            self.goals(),
            rings::table(&self.rings),
        )
    }

    /// For target/bench/dataplane.json.
    pub fn json(&self) -> Value {
        let case = |line: &Line| {
            json!({
                "case": line.case.name,
                "flows": line.case.flows_label(),
                "services": line.case.services,
                "net_ns": {
                    "median": line.nanos.median,
                    "min": line.nanos.min,
                    "max": line.nanos.max,
                },
                "instructions": line.steps.instructions,
                "map_lookups": line.steps.lookups,
                "program_instructions": line.program.instructions,
                "jited_bytes": line.program.machine_code,
            })
        };
        let goal = |judged: &Judged| {
            json!({
                "case": judged.goal.case.0,
                "flows": judged.goal.case.1,
                "by": judged.goal.by.0,
                "by_flows": judged.goal.by.1,
                "goal": judged.goal.name,
                "ratio": judged.ratio,
                "at_most": judged.most,
                "met": judged.is_met(),
            })
        };
        json!({
            "machine": self.machine.json(),
            "command": COMMAND,
            "rounds": self.rounds,
            "packets_per_slice": SLICE,
            "wrapper_ns": self.wrapper,
            "disturbed": self.disturbed,
            "cases": self.lines.iter().map(case).collect::<Vec<_>>(),
            "goals": self.goals.iter().map(goal).collect::<Vec<_>>(),
            "rings": rings::json(&self.rings),
        })
    }
}
