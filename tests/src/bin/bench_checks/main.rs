//! `cargo xtask bench checks`: ten thousand backends checked each second by TCP,
//! by vipd and by HAProxy: what it takes of the processors, and how late the
//! checks are, by when their first packets come to the backends.
//!
//! A round measures each once, one after the other, so that what disturbs the
//! machine for a while disturbs all.

mod arrivals;
mod checkers;
mod farm;
mod results;
mod sample;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use vipd_tests::{
    Lab,
    bench::{self, Common, in_lab, publish, verdict},
};

use crate::{checkers::Checker, farm::Farm, results::Results, sample::measure};

/// What all of this is preferred by, see nice(2).
const NICE: i32 = -20;

/// What it takes to check many backends each second, beside HAProxy.
#[derive(clap::Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each measurement takes; each backend is asked once a second
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..))]
    seconds: u32,
    /// How many backends are checked
    #[arg(
        long,
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(farm::MOST)),
    )]
    backends: u32,
}

fn main() -> ExitCode {
    bench::main(run)
}

fn run(options: &Options) -> Result<ExitCode> {
    // Others on this machine are no reason to be late.
    nice(NICE).context("take precedence over others")?;
    allow_sockets()?;
    let results = in_lab(|lab| rounds(lab, options))?;
    let text = results.markdown();
    println!("{text}");
    let Common { check, write_docs } = options.common;
    publish("checks", &results.json(), &text, write_docs)?;
    Ok(verdict(&results.missed(), check))
}

fn rounds(lab: &Lab, options: &Options) -> Result<Results> {
    let farm = Farm::build(lab, options.backends)?;
    let time = Duration::from_secs(options.seconds.into());
    let mut results = Results::new(options.backends, time);
    for round in 0..options.rounds {
        // Nobody always comes after the same other.
        let (first, then) = Checker::ALL.split_at(round as usize % Checker::ALL.len());
        for checker in then.iter().chain(first) {
            let place = format!("round {} of {}", round + 1, options.rounds);
            let sample = measure(&farm, *checker, time)
                .with_context(|| format!("{place}, {}", checker.name()))?;
            eprintln!("    {place}, {}: {sample}", checker.name());
            results.add(*checker, sample);
        }
    }
    Ok(results)
}

/// As the unit does it: checks under way want a socket each.
fn allow_sockets() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).context("allow more open files")
}
