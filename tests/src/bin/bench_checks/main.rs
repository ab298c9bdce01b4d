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

use std::{env, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use vipd_tests::{
    Lab,
    bench::{verdict, write_docs, write_json},
};

use crate::{checkers::Checker, farm::Farm, results::Results, sample::measure};

/// What all of this is preferred by, see nice(2).
const NICE: i32 = -20;

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
    backends: u32,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            check: false,
            write_docs: false,
            rounds: 5,
            seconds: 30,
            backends: 10_000,
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
                "--backends" => options.backends = number()?,
                _ => bail!("{word} is not known"),
            }
        }
        ensure!(options.rounds > 0, "no round, no result");
        ensure!(options.seconds > 1, "each backend is asked once a second");
        ensure!(
            (1..=farm::MOST).contains(&options.backends),
            "1 to {} backends are possible",
            farm::MOST
        );
        Ok(options)
    }
}

fn run() -> Result<ExitCode> {
    let options = Options::parse(env::args().skip(1))?;
    // Others on this machine are no reason to be late.
    nice(NICE).context("take precedence over others")?;
    allow_sockets()?;
    let lab = Lab::new()?;
    let results = rounds(&lab, &options).inspect_err(|_| eprintln!("{}", lab.logs()))?;

    println!("{}", results.markdown());
    let path = write_json("checks", &results.json())?;
    println!("\nThe same for machines: {}", path.display());
    if options.write_docs {
        let path = write_docs("bench checks", &results.markdown())?;
        println!("Written into {}", path.display());
    }
    Ok(verdict(&results.missed(), options.check))
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
