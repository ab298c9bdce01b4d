//! `cargo xtask bench dataplane`.

use anyhow::Result;

use crate::{build, setup::Scope};

/// Its arguments, handed on as they are.
#[derive(clap::Args)]
pub struct Args {
    /// Fail when a goal is missed
    #[arg(long)]
    check: bool,
    /// Put the table into docs/performance.md
    #[arg(long)]
    write_docs: bool,
    /// Only cases whose name contains this; no goals then
    #[arg(long)]
    only: Option<String>,
    /// How often every case is measured
    #[arg(long)]
    rounds: Option<u32>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let rounds = args.rounds.map(|rounds| rounds.to_string());
    let mut words = Vec::new();
    words.extend(args.check.then_some("--check"));
    words.extend(args.write_docs.then_some("--write-docs"));
    if let Some(only) = &args.only {
        words.extend(["--only", only]);
    }
    if let Some(rounds) = &rounds {
        words.extend(["--rounds", rounds]);
    }
    super::hand_over(
        "bench_dataplane",
        &words,
        Scope::Load,
        build::ebpf_for_benchmarks,
    )
}
