//! `cargo xtask bench path`: what it costs a client to have vipd in its way,
//! beside a host that only routes and one that runs HAProxy.
//!
//! Every way is measured once per round, and compared with the routing host in
//! the same round, so that what disturbs the machine for a while disturbs all.

mod load;
mod results;
mod stage;

use std::process::ExitCode;

use anyhow::Result;
use vipd_tests::{
    Lab,
    bench::{self, Common, in_lab, publish, verdict},
};

use crate::{
    load::Load,
    results::{Results, WAYS},
    stage::Stage,
};

/// How often every way is measured, at least.
const FEWEST_ROUNDS: i64 = 5;
/// wrk is a command of the lab, none of which may take longer than 20 seconds.
const LONGEST: i64 = 15;

/// What it costs a client to have vipd in its way.
#[derive(clap::Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// How often every way is measured: many short times, since whoever else works
    /// here disturbs few of them then
    #[arg(
        long,
        default_value_t = 13,
        value_parser = clap::value_parser!(u32).range(FEWEST_ROUNDS..),
    )]
    rounds: u32,
    /// How long each measurement takes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=LONGEST))]
    seconds: u32,
}

fn main() -> ExitCode {
    bench::main(run)
}

fn run(options: &Options) -> Result<ExitCode> {
    let results = in_lab(|lab| measure(lab, options))?;
    println!("{}", results.text());
    let Common { check, write_docs } = options.common;
    publish("path", &results.json(), &results.markdown(), write_docs)?;
    Ok(verdict(&results.missed(), check))
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
