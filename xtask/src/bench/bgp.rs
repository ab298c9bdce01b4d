//! `cargo xtask bench bgp`.

use anyhow::Result;

use super::{Words, hand_over_agent};
use crate::setup::Scope;

/// Its arguments, handed on as they are.
#[derive(clap::Args)]
pub struct Args {
    /// Put the table into docs/performance.md
    #[arg(long)]
    write_docs: bool,
    /// How often everybody announces and withdraws
    #[arg(long)]
    rounds: Option<u32>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let words = Words::default()
        .flag("--write-docs", args.write_docs)
        .values("--rounds", args.rounds);
    hand_over_agent("bench_bgp", &words, Scope::Bench)
}
