//! `cargo xtask bench bgp`: how soon a router knows of many routes, and of their
//! withdrawal, by vipd, BIRD, GoBGP and ExaBGP.
//!
//! All of them have a session with the same BIRD all the time. In each round
//! each of them announces and withdraws once, in turns.

mod results;
mod speakers;
mod stage;

use std::{process::ExitCode, thread::sleep, time::Duration};

use anyhow::Result;
use vipd_tests::{
    Lab,
    bench::{self, in_lab, publish},
};

use crate::{
    results::{Change, Results},
    stage::Stage,
};

/// Between two measurements: what is still being done is done then.
const PAUSE: Duration = Duration::from_millis(300);

/// How soon a router knows of many routes.
#[derive(clap::Parser)]
struct Options {
    /// How often everybody announces and withdraws
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Put the table into docs/performance.md
    #[arg(long)]
    write_docs: bool,
}

fn main() -> ExitCode {
    bench::main(run)
}

fn run(options: &Options) -> Result<ExitCode> {
    eprintln!("==> a router, and everybody who speaks to it");
    let results = in_lab(|lab| measure(lab, options.rounds))?;
    let text = results.markdown();
    println!("{text}");
    publish("bgp", &results.json(), &text, options.write_docs)?;
    Ok(ExitCode::SUCCESS)
}

fn measure(lab: &Lab, rounds: u32) -> Result<Results> {
    let mut stage = Stage::build(lab)?;
    let mut results = Results::default();
    for round in 1..=rounds {
        eprintln!("==> round {round} of {rounds}");
        for number in 0..stage.speakers.len() {
            for change in Change::ALL {
                sleep(PAUSE);
                let took = stage.time(number, change)?;
                let speaker = &mut stage.speakers[number];
                results.add(change, speaker.name(), took);
                if change == Change::Withdraw {
                    speaker.settle()?;
                }
            }
        }
    }
    Ok(results)
}
