//! `cargo xtask bench updates`: how soon a decision is in the maps, with 1,000
//! services of 100 backends each, and what such an agent takes.

mod agent;
mod farm;

use std::{
    net::IpAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use vipd::dataplane::{
    apply::{Applier, Reach, Settings},
    kernel::Kernel,
};
use vipd_abi::{FlowKey, map};
use vipd_control::{
    check::{CheckCode, CheckResult, Observation},
    decide::{Decider, Desired},
    health::Initial,
    health_table::HealthTable,
    model::{Model, Service},
};
use vipd_tests::bench::{self, Common, Machine, publish, verdict};

use crate::farm::{HOSTS, SERVICES};

/// Changes of one backend of one service.
const CHANGES: usize = 500;
/// Changes of a host that serves in all services.
const HOST_CHANGES: u8 = 20;

/// How soon a decision is in the maps, and what a large agent takes.
#[derive(clap::Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    bench::main(run)
}

fn run(options: &Options) -> Result<ExitCode> {
    let machine = Machine::here();
    let mut lines = Vec::new();
    eprintln!("==> changes in {SERVICES} services of {HOSTS} backends each");
    let maps = changes(&mut lines)?;
    eprintln!("==> an agent that serves and checks them all");
    let most = agent::most_memory()?;
    let memory = |what, bytes, goal| Line {
        what,
        value: bytes as f64 / 1e6,
        unit: "MB",
        goal,
    };
    lines.push(memory(
        "agent's anonymous memory",
        most.running,
        Some(150.0),
    ));
    lines.push(memory("  while it starts", most.starting, None));
    lines.push(Line {
        what: "maps",
        value: maps as f64 / 1e6,
        unit: "MB",
        goal: None,
    });

    let command = "cargo xtask bench updates";
    let circumstances = format!(
        "{}, {}, {}: `{command}`, {CHANGES} changes of one backend, {HOST_CHANGES} of a host.",
        machine.processor, machine.kernel, machine.date
    );
    let table = table(&lines);
    println!("\n{circumstances}\n\n{table}");
    let results: Vec<Value> = lines.iter().map(Line::json).collect();
    let json = json!({
        "machine": machine.json(),
        "command": command,
        "results": results,
    });
    let Common { check, write_docs } = options.common;
    let text = format!("{circumstances}\n\n{table}");
    publish("updates", &json, &text, write_docs)?;
    let missed = lines.iter().filter(|line| !line.is_met());
    let missed: Vec<_> = missed.map(Line::words).collect();
    Ok(verdict(&missed, check))
}

/// One result.
struct Line {
    what: &'static str,
    value: f64,
    unit: &'static str,
    /// The most it may be.
    goal: Option<f64>,
}

impl Line {
    fn is_met(&self) -> bool {
        self.goal.is_none_or(|goal| self.value <= goal)
    }

    fn words(&self) -> String {
        let Self {
            what, value, unit, ..
        } = self;
        let goal = self.goal.unwrap_or_default();
        format!(
            "{}: {value:.3} {unit}, the goal is {goal} {unit}",
            what.trim()
        )
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "at_most": self.goal,
            "met": self.is_met(),
        })
    }
}

/// The data plane and who decides for it.
struct Farm {
    model: Model,
    health: HealthTable,
    decider: Decider,
    desired: Desired,
    applier: Applier,
    reach: Reach,
}

/// How long a change took.
#[derive(Clone, Copy)]
struct Took {
    decision: Duration,
    application: Duration,
}

impl Took {
    fn all(&self) -> f64 {
        millis(self.decision + self.application)
    }
}

impl Farm {
    /// Decides and applies what has been observed.
    fn change(&mut self) -> Result<Took> {
        let start = Instant::now();
        let health = &self.health;
        self.desired = self.decider.decide(&self.model, health, &self.desired);
        let decided = Instant::now();
        let applied = self
            .applier
            .apply(&self.desired, &self.reach, false, decided);
        let done = Instant::now();
        ensure!(applied.faults.is_empty(), "{:#?}", applied.faults);
        Ok(Took {
            decision: decided - start,
            application: done - decided,
        })
    }

    /// Compares what is unchanged with the maps; returns how long each part took,
    /// in milliseconds.
    fn review(&mut self) -> Vec<f64> {
        let mut parts = Vec::new();
        let mut is_last = false;
        while !is_last {
            let start = Instant::now();
            is_last = self.applier.review();
            self.applier.apply(&self.desired, &self.reach, false, start);
            parts.push(millis(start.elapsed()));
        }
        parts
    }

    /// A check has found a backend of a service up, or refusing connections.
    fn observe(&mut self, service: &Arc<Service>, backend: IpAddr, is_up: bool) -> Result<()> {
        let code = if is_up {
            CheckCode::L4Ok
        } else {
            CheckCode::L4Con
        };
        let observation = Observation {
            service: Arc::clone(&service.name),
            backend,
            result: CheckResult::new(code, Duration::from_millis(1)),
        };
        let observed = self.health.observe(observation, Instant::now());
        let mut changes = observed.changes.iter();
        let is_other = changes.any(|change| change.standing.is_some());
        ensure!(is_other, "{}: {observed:?}", service.name);
        Ok(())
    }
}

/// Measures them; returns the bytes that the maps take.
fn changes(lines: &mut Vec<Line>) -> Result<u64> {
    let (kernel, tables) = Kernel::load(None, false)?;
    let settings = Settings {
        flow_key: FlowKey([1, 2]),
        ..Settings::default()
    };
    let model = farm::model()?;
    let mut health = HealthTable::default();
    health.apply(&model, &|_, _| Initial::Up, Instant::now());
    let mut farm = Farm {
        model,
        health,
        decider: Decider::new([1; 16]),
        desired: Desired::default(),
        applier: Applier::new(tables, settings),
        reach: Reach {
            ways: farm::ways().into(),
            ..Reach::default()
        },
    };
    let mut line = |what, value, unit, goal| {
        eprintln!("    {what}: {value:.2} {unit}");
        lines.push(Line {
            what,
            value,
            unit,
            goal,
        });
    };

    let first = farm.change()?;
    line("first load", first.all() / 1e3, "s", Some(5.0));
    line("  of it deciding", millis(first.decision) / 1e3, "s", None);

    let services = farm.model.services.clone();
    let mut took = Vec::new();
    for pair in 0..CHANGES / 2 {
        // Down and up again, one after the other, everywhere in the farm.
        let service = &services[pair * 379 % services.len()];
        let host = farm::host((pair % usize::from(HOSTS)) as u8).into();
        for is_up in [false, true] {
            farm.observe(service, host, is_up)?;
            took.push(farm.change()?);
        }
    }
    let one = Percentiles::of(took.iter().map(Took::all));
    line(
        "one backend of one service, median",
        one.median,
        "ms",
        Some(1.0),
    );
    line("  99th percentile", one.p99, "ms", Some(5.0));
    line("  longest", one.max, "ms", None);
    let deciding = Percentiles::of(took.iter().map(|it| millis(it.decision)));
    line("  of it deciding, median", deciding.median, "ms", None);

    let mut took = Vec::new();
    for pair in 0..HOST_CHANGES / 2 {
        let host = farm::host(pair).into();
        for is_up in [false, true] {
            for service in &services {
                farm.observe(service, host, is_up)?;
            }
            took.push(farm.change()?);
        }
    }
    let host = Percentiles::of(took.iter().map(Took::all));
    line("a host in all services, median", host.median, "ms", None);
    line("  longest", host.max, "ms", None);
    let deciding = Percentiles::of(took.iter().map(|it| millis(it.decision)));
    line("  of it deciding, median", deciding.median, "ms", None);

    let parts = Percentiles::of(farm.review().into_iter());
    line("comparing all, a part, median", parts.median, "ms", None);
    line("  99th percentile", parts.p99, "ms", Some(1.0));
    line("  all parts", parts.sum, "ms", None);
    Ok(map_bytes(kernel))
}

/// What the maps take, as their definitions say; the kernel rounds up to pages.
fn map_bytes(mut kernel: Kernel) -> u64 {
    let ebpf = kernel.ebpf();
    let maps = map::ALL.iter().filter_map(|name| match ebpf.map(name) {
        Some(aya::maps::Map::Array(data)) => data.info().ok(),
        _ => None,
    });
    maps.map(|info| {
        u64::from(info.max_entries()) * u64::from(info.value_size().next_multiple_of(8))
    })
    .sum()
}

/// Several times of the same kind, in milliseconds.
struct Percentiles {
    median: f64,
    p99: f64,
    max: f64,
    sum: f64,
}

impl Percentiles {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
        };
        Self {
            median: at(50),
            p99: at(99),
            max: at(100),
            sum: sorted.iter().sum(),
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn table(lines: &[Line]) -> String {
    let mut text = "\
        | what                               |    value | unit | goal at most |        |\n\
        |------------------------------------|---------:|------|-------------:|--------|\n"
        .to_owned();
    for line in lines {
        let goal = line.goal.map_or(String::new(), |goal| goal.to_string());
        let verdict = match (line.goal, line.is_met()) {
            (None, _) => "",
            (_, true) => "met",
            (_, false) => "MISSED",
        };
        text += &format!(
            "| {:34} | {:>8.2} | {:4} | {goal:>12} | {verdict:6} |\n",
            line.what, line.value, line.unit
        );
    }
    text
}
