//! `cargo xtask bench checks`.

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
    let numbers = [
        ("--rounds", args.rounds),
        ("--seconds", args.seconds),
        ("--backends", args.backends),
    ]
    .map(|(name, value)| (name, value.map(|value| value.to_string())));
    let mut words = Vec::new();
    words.extend(args.check.then_some("--check"));
    words.extend(args.write_docs.then_some("--write-docs"));
    for (name, value) in &numbers {
        if let Some(value) = value {
            words.extend([*name, value]);
        }
    }
    super::hand_over("bench_checks", &words, Scope::Bench, |_| {
        build::agent().map(drop)
    })
}
