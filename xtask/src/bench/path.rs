//! `cargo xtask bench path`.

use anyhow::Result;

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
    let mut words: Vec<String> = Vec::new();
    words.extend(args.check.then(|| "--check".into()));
    words.extend(args.write_docs.then(|| "--write-docs".into()));
    for (name, value) in [("--rounds", args.rounds), ("--seconds", args.seconds)] {
        if let Some(value) = value {
            words.extend([name.into(), value.to_string()]);
        }
    }
    super::lab("bench_path", &words)
}
