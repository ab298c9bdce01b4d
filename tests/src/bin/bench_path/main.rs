//! `cargo xtask bench path`: what it costs a client to have vipd in its way,
//! beside a host that only routes and one that runs HAProxy.
//!
//! Every way is measured once per round, and compared with the routing host in
//! the same round, so that what disturbs the machine for a while disturbs all.

mod load;
mod results;
mod stage;

use std::{env, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use vipd_tests::{
    Lab,
    bench::{verdict, write_docs, write_json},
};

use crate::{
    load::Load,
    results::{Results, WAYS},
    stage::Stage,
};

/// How often every way is measured, at least.
const FEWEST_ROUNDS: u32 = 5;
/// wrk is a command of the lab, none of which may take longer than 20 seconds.
const LONGEST: u32 = 15;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    check: bool,
    write_docs: bool,
    rounds: u32,
    seconds: u32,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            check: false,
            write_docs: false,
            // Many short ones: whoever else works here disturbs few of them.
            rounds: 13,
            seconds: 1,
        };
        while let Some(word) = words.next() {
            let mut number = || -> Result<u32> {
                let value = words.next();
                let value = value.with_context(|| format!("{word} wants a number"))?;
                value.parse().with_context(|| format!("{word} {value}"))
            };
            match word.as_str() {
                "--check" => options.check = true,
                "--write-docs" => options.write_docs = true,
                "--rounds" => options.rounds = number()?,
                "--seconds" => options.seconds = number()?,
                _ => bail!("{word} is not known"),
            }
        }
        let Self {
            rounds, seconds, ..
        } = options;
        ensure!(
            rounds >= FEWEST_ROUNDS,
            "at least {FEWEST_ROUNDS} rounds are needed"
        );
        ensure!(
            (1..=LONGEST).contains(&seconds),
            "a measurement takes 1 to {LONGEST} seconds"
        );
        Ok(options)
    }
}

fn run() -> Result<ExitCode> {
    let options = Options::parse(env::args().skip(1))?;
    let lab = Lab::new()?;
    let results = measure(&lab, &options).inspect_err(|_| eprintln!("{}", lab.logs()))?;

    println!("{}", results.text());
    let path = write_json("path", &results.json())?;
    println!("\nAs JSON: {}", path.display());
    if options.write_docs {
        let path = write_docs("bench path", &results.markdown())?;
        println!("Written into {}", path.display());
    }
    Ok(verdict(&results.missed(), options.check))
}

fn measure(lab: &Lab, options: &Options) -> Result<Results> {
    let stage = Stage::build(lab)?;
    for way in WAYS {
        stage.ensure_way(way)?;
    }
    let mut results = Results::default();
    for round in 0..options.rounds {
        for load in Load::ALL {
            // Nobody always comes after the same other.
            let (first, then) = WAYS.split_at(round as usize % WAYS.len());
            for way in then.iter().chain(first) {
                eprint!(
                    "\rround {} of {}, {}: {:40}",
                    round + 1,
                    options.rounds,
                    load.name(),
                    way.name()
                );
                results.add(load, *way, load.run(&stage, *way, options.seconds)?);
            }
        }
    }
    eprintln!();
    Ok(results)
}
