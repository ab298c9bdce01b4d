//! `cargo xtask bench dataplane`.

use anyhow::Result;

use super::{Common, Words, hand_over};
use crate::{build, setup::Scope};

/// Its arguments, handed on as they are.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Only cases whose name contains this; no goals then
    #[arg(long)]
    only: Option<String>,
    /// How often every case is measured
    #[arg(long)]
    rounds: Option<u32>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let words = Words::default()
        .common(&args.common)
        .values("--only", &args.only)
        .values("--rounds", args.rounds);
    hand_over(
        "bench_dataplane",
        &words,
        Scope::Load,
        build::ebpf_for_benchmarks,
    )
}
