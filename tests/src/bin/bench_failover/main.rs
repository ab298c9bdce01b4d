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

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use rustix::process::nice;
use vipd_tests::{
    Lab,
    bench::{self, Common, in_lab, publish, verdict},
};

use crate::{death::die, frr::FrrStage, planned::Plan, results::Results, stage::Stage};

/// Of so many deaths before BIRD there is one before FRR.
const FRR_EVERY: u32 = 4;
/// For so many of them each plan is carried out once.
const PLANS_EVERY: u32 = 7;
/// What all of the labs is preferred by, see nice(2).
const NICE: i32 = 20;
/// With goals or documents; see [`punctual`].
const MINUTES: u32 = 10;

/// For how long a client notices that a balancer or a backend dies.
#[derive(clap::Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Only one part
    #[arg(long)]
    only: Vec<Part>,
    /// How often a balancer with vipd dies before BIRD. After each two deaths one of
    /// the others has its turn
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    tries: u32,
    /// How often backends die in each way
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    deaths: u32,
    /// For so many minutes BFD is watched on busy processors; 10 with goals or documents
    #[arg(long)]
    punctuality: Option<u32>,
    /// Do nothing but keep the processors busy, for so many seconds
    #[arg(long, hide = true)]
    spin: Option<u32>,
    /// Do nothing but wait, for so many seconds
    #[arg(long, hide = true)]
    wait: Option<u32>,
}

/// A part of it all.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Balancers die, and leave on purpose
    Balancers,
    /// Backends die, and checks notice
    Backends,
    /// The same, and BFD notices
    BackendsBfd,
}

impl Options {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn minutes(&self) -> u32 {
        let long = self.common.check || self.common.write_docs;
        self.punctuality.unwrap_or(if long { MINUTES } else { 0 })
    }
}

fn main() -> ExitCode {
    bench::main(run)
}

fn run(options: &Options) -> Result<ExitCode> {
    if let Some(seconds) = options.spin {
        punctual::spin(seconds.into());
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(seconds) = options.wait {
        punctual::wait(seconds.into());
        return Ok(ExitCode::SUCCESS);
    }
    let Options { tries, deaths, .. } = *options;
    let Common { check, write_docs } = options.common;

    // Routers and client are machines of their own elsewhere, and do not wait for
    // what else is done here.
    nice(-NICE).context("take precedence over others")?;
    let mut missed = Vec::new();
    if options.has(Part::Balancers) {
        let results = balancers(tries, options.minutes())?;
        let (text, json) = (results.markdown(), results.json());
        println!("{text}");
        publish("failover", &json, &text, write_docs)?;
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
        let write = write_docs && parts.len() == 2;
        let (text, json) = (results.markdown(), results.json());
        println!("{text}");
        publish("failover-backends", &json, &text, write)?;
        missed.extend(results.missed());
    }
    Ok(verdict(&missed, check))
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
