//! `cargo xtask bench checks`.

use anyhow::Result;

use super::{Common, Words, hand_over_agent};
use crate::setup::Scope;

/// Its arguments, handed on as they are.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// How often each is measured
    #[arg(long)]
    rounds: Option<u32>,
    /// How long each measurement takes
    #[arg(long)]
    seconds: Option<u32>,
    /// How many backends are checked
    #[arg(long)]
    backends: Option<u32>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let words = Words::default()
        .common(&args.common)
        .values("--rounds", args.rounds)
        .values("--seconds", args.seconds)
        .values("--backends", args.backends);
    hand_over_agent("bench_checks", &words, Scope::Bench)
}
