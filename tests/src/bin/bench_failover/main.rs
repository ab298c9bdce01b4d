//! `cargo xtask bench failover`: for how long a client notices that a balancer
//! dies, by vipd, keepalived and ExaBGP; that it notices nothing of what is done
//! on purpose; how punctual BFD is on busy processors; and for how long new
//! connections are sent to a backend that has died.

mod backends;
mod death;
mod frr;
mod pairs;
mod planned;
mod punctual;
mod results;
mod stage;
mod stream;

use std::{env, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::nice;
use serde_json::Value;
use vipd_tests::{
    Lab,
    bench::{verdict, write_docs, write_json},
};

use crate::{death::die, frr::FrrStage, planned::Plan, results::Results, stage::Stage};

/// Deaths before BIRD, unless told otherwise. After each two of them, one of the
/// others has its turn.
const TRIES: u32 = 20;
/// Of so many deaths before BIRD there is one before FRR.
const FRR_EVERY: u32 = 4;
/// For so many of them each plan is carried out once.
const PLANS_EVERY: u32 = 7;
/// How often backends die in each way.
const DEATHS: u32 = 50;
/// What all of the labs is preferred by, see nice(2).
const NICE: i32 = 20;
/// With goals or documents; see [`punctual`].
const MINUTES: u32 = 10;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Options {
    check: bool,
    write_docs: bool,
    /// All parts, if empty.
    only: Vec<Part>,
    tries: Option<u32>,
    deaths: Option<u32>,
    minutes: Option<u32>,
    /// Do nothing but keep the processors busy, for so many seconds.
    spin: Option<u32>,
    /// Do nothing but wait, for so many seconds.
    wait: Option<u32>,
}

/// A part of it all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Balancers die, and leave on purpose.
    Balancers,
    /// Backends die, and checks notice.
    Backends,
    /// The same, and BFD notices.
    BackendsBfd,
}

impl Part {
    const NAMES: [(&str, Self); 3] = [
        ("balancers", Self::Balancers),
        ("backends", Self::Backends),
        ("backends-bfd", Self::BackendsBfd),
    ];

    fn named(name: &str) -> Result<Self> {
        let found = Self::NAMES.into_iter().find(|(it, _)| *it == name);
        let names = Self::NAMES.map(|(name, _)| name).join(", ");
        found
            .map(|(_, part)| part)
            .with_context(|| format!("there is no part {name:?}; there are {names}"))
    }
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words.next();
                value.with_context(|| format!("{word} wants a value"))
            };
            let mut number = || -> Result<u32> {
                let value = value()?;
                value.parse().with_context(|| format!("{word} {value}"))
            };
            match word.as_str() {
                "--check" => options.check = true,
                "--write-docs" => options.write_docs = true,
                "--only" => options.only.push(Part::named(&value()?)?),
                "--deaths" => options.deaths = Some(number()?),
                "--tries" => options.tries = Some(number()?),
                "--punctuality" => options.minutes = Some(number()?),
                "--spin" => options.spin = Some(number()?),
                "--wait" => options.wait = Some(number()?),
                _ => bail!("{word} is not known"),
            }
        }
        Ok(options)
    }

    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn minutes(&self) -> u32 {
        let long = self.check || self.write_docs;
        self.minutes.unwrap_or(if long { MINUTES } else { 0 })
    }
}

fn run() -> Result<ExitCode> {
    let options = Options::parse(env::args().skip(1))?;
    if let Some(seconds) = options.spin {
        punctual::spin(seconds.into());
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(seconds) = options.wait {
        punctual::wait(seconds.into());
        return Ok(ExitCode::SUCCESS);
    }
    let tries = options.tries.unwrap_or(TRIES);
    let deaths = options.deaths.unwrap_or(DEATHS);
    ensure!(tries.min(deaths) > 0, "no try, no result");

    // Routers and client are machines of their own elsewhere, and do not wait for
    // what else is done here.
    nice(-NICE).context("take precedence over others")?;
    let mut missed = Vec::new();
    if options.has(Part::Balancers) {
        let results = balancers(tries, options.minutes())?;
        let (text, json) = (results.markdown(), results.json());
        tell(
            "failover",
            "bench failover",
            &text,
            &json,
            options.write_docs,
        )?;
        missed.extend(results.missed());
    }
    let parts = [(Part::Backends, false), (Part::BackendsBfd, true)];
    let parts: Vec<_> = parts.into_iter().filter(|it| options.has(it.0)).collect();
    if !parts.is_empty() {
        let mut results = backends::Results::default();
        for (_, with_bfd) in &parts {
            let by = if *with_bfd { "BFD" } else { "checks" };
            eprintln!("==> backends die, {by} notice");
            in_lab(|lab| backends::measure(lab, *with_bfd, deaths, &mut results))?;
        }
        // The document has both or none.
        let write = options.write_docs && parts.len() == 2;
        let (text, json) = (results.markdown(), results.json());
        tell(
            "failover-backends",
            "bench failover backends",
            &text,
            &json,
            write,
        )?;
        missed.extend(results.missed());
    }
    Ok(verdict(&missed, options.check))
}

fn balancers(tries: u32, minutes: u32) -> Result<Results> {
    let mut results = Results::default();
    in_lab(|lab| before_bird(lab, tries, &mut results))?;
    in_lab(|lab| before_frr(lab, tries.div_ceil(FRR_EVERY), &mut results))?;
    if minutes > 0 {
        eprintln!("==> BFD on busy processors, {minutes} minutes");
        in_lab(|lab| {
            results.punctuality = Some(punctual::watch(lab, minutes)?);
            Ok(())
        })?;
    }
    Ok(results)
}

/// Tells results to people and to machines: `file` is where the latter are, `place`
/// where the document has them.
fn tell(file: &str, place: &str, text: &str, json: &Value, write: bool) -> Result<()> {
    println!("{text}");
    let path = write_json(file, json)?;
    println!("\nThe same for machines: {}", path.display());
    if write {
        let path = write_docs(place, text)?;
        println!("Written into {}", path.display());
    }
    Ok(())
}

fn before_bird(lab: &Lab, tries: u32, results: &mut Results) -> Result<()> {
    eprintln!("==> deaths before BIRD");
    let mut stage = Stage::build(lab)?;
    for number in 0..tries {
        results.vipd.push(die(&stage.rack, &mut stage.vipd)?);
        if number % 2 == 0 {
            let (rack, pair) = stage.other(number as usize / 2);
            let death = die(rack, pair)?;
            results.others.push((pair.name(), death));
        }
    }
    eprintln!("==> nobody dies");
    for _ in 0..tries.div_ceil(PLANS_EVERY) {
        for plan in Plan::ALL {
            let outcome = plan.carry_out(&stage.rack, &stage.router, &mut stage.vipd)?;
            results.planned.push((plan, outcome));
        }
    }
    Ok(())
}

fn before_frr(lab: &Lab, tries: u32, results: &mut Results) -> Result<()> {
    eprintln!("==> deaths before FRR");
    let mut stage = FrrStage::build(lab)?;
    for _ in 0..tries {
        results.frr.push(stage.die()?);
    }
    Ok(())
}

/// Does it in a lab of its own, and tells the lab's logs when it fails.
fn in_lab(action: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new()?;
    action(&lab).inspect_err(|_| eprintln!("{}", lab.logs()))
}
