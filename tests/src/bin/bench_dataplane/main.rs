//! `cargo xtask bench dataplane`: what a packet costs in the XDP program,
//! beside floors in the same run.
//!
//! Every case is run once per round, so that what disturbs the machine for a
//! while disturbs all of them. A case's net cost is its thread CPU time less
//! that of the wrapper calling a program that does nothing, in the same round.

mod case;
mod floors;
mod packets;
#[path = "../../../../ebpf/src/bench/plan.rs"]
mod plan;
mod plane;
mod runner;

use std::{collections::BTreeMap, env, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::ProgramFd;
use vipd_control::ring::default_ring_size;

use crate::{
    case::{Case, MANY, Target},
    floors::Floor,
    plan::Plan,
    plane::Plane,
    runner::Runner,
};

/// Packets of one measurement.
const PACKETS: u32 = 1_000_000;
/// Packets before it, to fill the caches with what the case needs.
const WARM_UP: u32 = 100_000;
/// How often every case is measured, at least.
const ROUNDS: u32 = 7;

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
    only: Option<String>,
    rounds: u32,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            only: None,
            rounds: 9,
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} wants a value"))
            };
            match word.as_str() {
                "--only" => options.only = Some(value()?),
                "--rounds" => options.rounds = value()?.parse::<u32>()?.max(ROUNDS),
                _ => bail!("{word} is not known"),
            }
        }
        Ok(options)
    }
}

/// A case with what it needs, and what it has cost.
struct Measured {
    case: Case,
    frame: Vec<u8>,
    plan: Plan,
    nanos: Vec<f64>,
}

fn run() -> Result<ExitCode> {
    let options = Options::parse(env::args().skip(1))?;
    let mut stage = Stage::new()?;
    let mut measured: Vec<Measured> = case::cases()
        .into_iter()
        .filter(|case| {
            let only = options.only.as_ref();
            only.is_none_or(|only| case.name.contains(only.as_str()))
        })
        .map(|case| {
            let frame = case.kind.frame();
            let plan = case.kind.plan(&frame, case.flows, case.services);
            Measured {
                case,
                frame,
                plan,
                nanos: Vec::new(),
            }
        })
        .collect();
    for round in 1..=options.rounds {
        eprint!("\rround {round} of {}", options.rounds);
        stage.round(&mut measured)?;
    }
    eprintln!();
    println!(
        "{:24} {:>11} {:>8} {:>8} {:>8} {:>8}",
        "case", "flows", "services", "median", "min", "max"
    );
    for Measured { case, nanos, .. } in &mut measured {
        nanos.sort_by(f64::total_cmp);
        println!(
            "{:24} {:>11} {:>8} {:>8.1} {:>8.1} {:>8.1}",
            case.name,
            case.flows_label(),
            case.services,
            nanos[nanos.len() / 2],
            nanos[0],
            nanos[nanos.len() - 1]
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// All programs, loaded and filled.
struct Stage {
    runner: Runner,
    floors: BTreeMap<Target, Floor>,
    planes: BTreeMap<Target, Plane>,
}

impl Stage {
    fn new() -> Result<Self> {
        let ring_size = default_ring_size(usize::from(plane::BACKENDS));
        let [a, b, c, _] = MANY;
        Ok(Self {
            runner: Runner::load()?,
            floors: BTreeMap::from([
                (Target::F1, Floor::plain("f1")?),
                (Target::F2, Floor::plain("f2")?),
                (Target::F3, Floor::balancer([a, b, c, 1], 1, ring_size)?),
            ]),
            planes: BTreeMap::from([(Target::Balancer, Plane::new(&case::services())?)]),
        })
    }

    fn program(&mut self, target: Target) -> Result<ProgramFd> {
        if let Some(floor) = self.floors.get_mut(&target) {
            return floor.program();
        }
        let plane = self.planes.get_mut(&target);
        plane.context("no such program")?.program()
    }

    /// Measures every case once.
    fn round(&mut self, measured: &mut [Measured]) -> Result<()> {
        // By what the wrapper does for them.
        let mut nothing: BTreeMap<(u32, bool), f64> = BTreeMap::new();
        for Measured {
            case,
            frame,
            plan,
            nanos,
        } in measured
        {
            let shape = (plan.is_ipv6, plan.flows == case::EVERY_PACKET);
            let base = match nothing.get(&shape) {
                Some(base) => *base,
                None => {
                    let mut plan = *plan;
                    self.runner.run_nothing(&mut plan, frame, WARM_UP)?;
                    let base = self.runner.run_nothing(&mut plan, frame, PACKETS)?.nanos;
                    *nothing.entry(shape).or_insert(base)
                }
            };
            let program = self.program(case.target)?;
            let counted = |planes: &BTreeMap<Target, Plane>| {
                planes.get(&case.target).map(|p| p.counted(case.verdict))
            };
            let before = counted(&self.planes);
            self.runner.run(&program, plan, frame, WARM_UP)?;
            let ran = self.runner.run(&program, plan, frame, PACKETS)?;
            let after = counted(&self.planes);
            if let (Some(before), Some(after)) = (before, after) {
                ensure!(
                    after - before == u64::from(WARM_UP + PACKETS),
                    "{}: {} of {} packets were {}",
                    case.name,
                    after - before,
                    WARM_UP + PACKETS,
                    case.verdict.label()
                );
            }
            ensure!(
                ran.action == case.action && ran.length == plan.length + case.grows,
                "{}: XDP's verdict {} and {} bytes, expected {} and {}",
                case.name,
                ran.action,
                ran.length,
                case.action,
                plan.length + case.grows
            );
            nanos.push(ran.nanos - base);
        }
        Ok(())
    }
}
