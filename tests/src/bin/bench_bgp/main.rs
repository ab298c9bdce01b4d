//! `cargo xtask bench bgp`: how soon a router knows of many routes, and of their
//! withdrawal, by vipd, BIRD, GoBGP and ExaBGP.
//!
//! All of them have a session with the same BIRD all the time. In each round
//! each of them announces and withdraws once, in turns.

mod results;
mod speakers;
mod stage;

use std::{env, process::ExitCode, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use vipd_tests::{
    Lab,
    bench::{write_docs, write_json},
};

use crate::{
    results::{Change, Results},
    stage::Stage,
};

/// Rounds, unless told otherwise.
const ROUNDS: u32 = 9;
/// Between two measurements: what is still being done is done then.
const PAUSE: Duration = Duration::from_millis(300);

const USAGE: &str = "Usage: bench_bgp [--rounds N] [--write-docs]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut rounds, mut to_docs) = (ROUNDS, false);
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => {
                let number = words.next().context("--rounds wants a number")?;
                rounds = number
                    .parse()
                    .with_context(|| format!("--rounds {number}"))?;
            }
            "--write-docs" => to_docs = true,
            _ => bail!("{word} is not known\n{USAGE}"),
        }
    }
    ensure!(rounds > 0, "no round, no result");

    let lab = Lab::new()?;
    eprintln!("==> a router, and everybody who speaks to it");
    let results = match measure(&lab, rounds) {
        Ok(results) => results,
        Err(error) => {
            eprintln!("{}", lab.logs());
            return Err(error);
        }
    };
    println!("{}", results.markdown());
    let path = write_json("bgp", &results.json())?;
    println!("\nThe same for machines: {}", path.display());
    if to_docs {
        let path = write_docs("bench bgp", &results.markdown())?;
        println!("Written into {}", path.display());
    }
    Ok(())
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
