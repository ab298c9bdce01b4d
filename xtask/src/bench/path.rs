//! `cargo xtask bench path`.

use anyhow::Result;

use super::{Common, Words, hand_over_agent};
use crate::setup::Scope;

/// Its arguments, handed on as they are.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// How often every way is measured, 5 times or more
    #[arg(long)]
    rounds: Option<u32>,
    /// How long each measurement takes
    #[arg(long)]
    seconds: Option<u32>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let words = Words::default()
        .common(&args.common)
        .values("--rounds", args.rounds)
        .values("--seconds", args.seconds);
    hand_over_agent("bench_path", &words, Scope::Bench)
}
