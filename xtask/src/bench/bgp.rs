//! `cargo xtask bench bgp`.

use anyhow::Result;

use crate::{build, setup::Scope};

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
    let rounds = args.rounds.map(|rounds| rounds.to_string());
    let mut words = Vec::new();
    words.extend(args.write_docs.then_some("--write-docs"));
    if let Some(rounds) = &rounds {
        words.extend(["--rounds", rounds]);
    }
    super::hand_over("bench_bgp", &words, Scope::Bench, |_| {
        build::agent().map(drop)
    })
}
