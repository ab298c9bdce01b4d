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

use std::{collections::BTreeMap, env, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use vipd_tests::bench::{self, Machine};

use crate::{
    report::{Line, Report, Spread},
    stage::{Measured, Stage},
};

/// How often every case is measured at least.
const LEAST_ROUNDS: u32 = 7;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let options = Options::parse(env::args().skip(1))?;
    let report = measure(&options)?;
    println!("\n{}\n\n{}", report.circumstances(), report.cases());
    let missed = report.goals.iter().filter(|goal| !goal.is_met()).count();
    if !report.goals.is_empty() {
        println!("{}", report.goals());
        println!("{} goals, {missed} missed\n", report.goals.len());
    }
    if options.only.is_none() {
        println!("{}", rings::table(&report.rings));
        let path = bench::write_json("dataplane", &report.json())?;
        println!("The same for machines: {}", path.display());
    }
    if options.write_docs {
        let path = bench::write_docs("bench dataplane", &report.document())?;
        println!("Written into {}", path.display());
    }
    Ok(if options.check && missed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
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
        command: options.command.clone(),
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

struct Options {
    check: bool,
    write_docs: bool,
    only: Option<String>,
    rounds: u32,
    /// As it can be typed again.
    command: String,
}

impl Options {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self> {
        let words: Vec<String> = words.collect();
        let mut options = Self {
            check: false,
            write_docs: false,
            only: None,
            rounds: 9,
            command: format!("cargo xtask bench dataplane {}", words.join(" "))
                .trim_end()
                .to_owned(),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} wants a value"))
            };
            match word.as_str() {
                "--check" => options.check = true,
                "--write-docs" => options.write_docs = true,
                "--only" => options.only = Some(value()?),
                "--rounds" => options.rounds = value()?.parse::<u32>()?.max(LEAST_ROUNDS),
                _ => bail!("{word} is not known; see `cargo xtask bench dataplane --help`"),
            }
        }
        if options.only.is_some() && (options.check || options.write_docs) {
            bail!("--only leaves out what --check and --write-docs need");
        }
        Ok(options)
    }

    /// Whether a case is to be measured: its name contains one of the words
    /// that are asked for, which commas separate.
    fn wants(&self, name: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.split(',').any(|word| name.contains(word.trim())))
    }
}
