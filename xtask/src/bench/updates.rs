//! `cargo xtask bench updates`.

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
}

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let mut words = Vec::new();
    words.extend(args.check.then_some("--check"));
    words.extend(args.write_docs.then_some("--write-docs"));
    super::hand_over("bench_updates", &words, Scope::Lab, |_| {
        build::agent().map(drop)
    })
}
