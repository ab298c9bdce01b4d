//! `cargo xtask bench dataplane`: what a packet costs in the XDP program,
//! beside floors in the same run.
//!
//! Every case is run once per round, so that what disturbs the machine for a
//! while disturbs all of them. A case's net cost is its thread CPU time less
//! that of the wrapper calling a program that does nothing, at the same time.

mod case;
mod floors;
mod flows;
mod goals;
mod packets;
#[path = "../../../../ebpf/src/bench/plan.rs"]
mod plan;
mod plane;
mod report;
mod rings;
mod runner;
mod stage;
mod steps;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;
use vipd_tests::bench::{self, Common, Machine, publish, verdict};

use crate::{
    report::{Line, Report, Spread},
    stage::{Measured, Stage},
};

/// How often every case is measured at least.
const LEAST_ROUNDS: i64 = 7;

/// What a packet costs in the XDP program.
#[derive(clap::Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Only cases whose name contains this, or one of several with commas between;
    /// no goals then
    #[arg(long, conflicts_with_all = ["check", "write_docs"])]
    only: Option<String>,
    /// How often every case is measured
    #[arg(
        long,
        default_value_t = 9,
        value_parser = clap::value_parser!(u32).range(LEAST_ROUNDS..),
    )]
    rounds: u32,
}

fn main() -> ExitCode {
    bench::main(run)
}

fn run(options: &Options) -> Result<ExitCode> {
    let report = measure(options)?;
    println!("\n{}\n\n{}", report.circumstances(), report.cases());
    if options.only.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}\n{}", report.goals(), rings::table(&report.rings));
    let Common { check, write_docs } = options.common;
    publish("dataplane", &report.json(), &report.document(), write_docs)?;
    Ok(verdict(&report.missed(), check))
}

fn measure(options: &Options) -> Result<Report> {
    let mut cases: Vec<Measured> = case::cases()
        .into_iter()
        .filter(|case| options.wants(case.name))
        .map(Measured::new)
        .collect();
    if options.only.is_none() {
        goals::ensure_judged(|key| cases.iter().any(|it| it.case.key() == Some(key)))?;
    }
    eprintln!("==> loading and filling the programs");
    let mut stage = Stage::new(&cases)?;
    stage.follow(&mut cases)?;
    for round in 1..=options.rounds {
        eprintln!("==> round {round} of {}", options.rounds);
        stage.round(&mut cases)?;
    }
    let mut programs = BTreeMap::new();
    for target in cases.iter().map(|measured| measured.case.target) {
        programs.insert(target, stage.program(target)?);
    }
    let lines: Vec<Line> = cases.iter().map(|it| Line::new(it, &programs)).collect();
    let median = |key| {
        let line = lines.iter().find(|line| line.case.key() == Some(key));
        line.map(|line| line.nanos.median)
    };
    Ok(Report {
        machine: Machine::here(),
        rounds: options.rounds,
        goals: goals::judge(median),
        wrapper: Spread::of(&stage.wrapper).median,
        disturbed: stage.disturbed(),
        rings: if options.only.is_none() {
            rings::lines()
        } else {
            Vec::new()
        },
        lines,
    })
}

impl Options {
    /// Whether a case is to be measured: its name contains one of the words
    /// that are asked for, which commas separate.
    fn wants(&self, name: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.split(',').any(|word| name.contains(word.trim())))
    }
}
