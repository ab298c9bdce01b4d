//! `cargo xtask bench failover`.

use anyhow::Result;

use crate::{build, setup::Scope};

/// Its arguments, handed on as they are.
#[derive(clap::Args)]
pub struct Args {
    /// Fail when a goal is missed
    #[arg(long)]
    check: bool,
    /// Put the tables into docs/performance.md
    #[arg(long)]
    write_docs: bool,
    /// Only one part: balancers, backends (checks notice), backends-bfd (BFD does)
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// How often a balancer with vipd dies before BIRD
    #[arg(long)]
    tries: Option<u32>,
    /// How often a backend dies in each way
    #[arg(long)]
    deaths: Option<u32>,
    /// How long BFD is watched on busy processors; 10 with --check or --write-docs, else 0
    #[arg(long, value_name = "MINUTES")]
    punctuality: Option<u32>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let numbers = [
        ("--tries", args.tries),
        ("--deaths", args.deaths),
        ("--punctuality", args.punctuality),
    ]
    .map(|(name, value)| (name, value.map(|value| value.to_string())));
    let mut words = Vec::new();
    words.extend(args.check.then_some("--check"));
    words.extend(args.write_docs.then_some("--write-docs"));
    words.extend(args.only.iter().flat_map(|part| ["--only", part]));
    for (name, value) in &numbers {
        if let Some(value) = value {
            words.extend([*name, value]);
        }
    }
    super::hand_over("bench_failover", &words, Scope::Bench, |_| {
        build::agent().map(drop)
    })
}
