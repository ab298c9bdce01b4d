//! `cargo xtask bench path`.

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
    /// How often every way is measured, 5 times or more
    #[arg(long)]
    rounds: Option<u32>,
    /// How long each measurement takes
    #[arg(long)]
    seconds: Option<u32>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let numbers = [("--rounds", args.rounds), ("--seconds", args.seconds)]
        .map(|(name, value)| (name, value.map(|value| value.to_string())));
    let mut words = Vec::new();
    words.extend(args.check.then_some("--check"));
    words.extend(args.write_docs.then_some("--write-docs"));
    for (name, value) in &numbers {
        if let Some(value) = value {
            words.extend([*name, value]);
        }
    }
    super::hand_over("bench_path", &words, Scope::Bench, |_| {
        build::agent().map(drop)
    })
}
