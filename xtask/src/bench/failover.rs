//! `cargo xtask bench failover`.

use anyhow::Result;

use super::{Common, Words, hand_over_agent};
use crate::setup::Scope;

/// Its arguments, handed on as they are.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
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
    let words = Words::default()
        .common(&args.common)
        .values("--only", &args.only)
        .values("--tries", args.tries)
        .values("--deaths", args.deaths)
        .values("--punctuality", args.punctuality);
    hand_over_agent("bench_failover", &words, Scope::Bench)
}
