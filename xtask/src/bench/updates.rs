//! `cargo xtask bench updates`.

use anyhow::Result;

use super::{Common, Words, hand_over_agent};
use crate::setup::Scope;

/// Its arguments, handed on as they are.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
}

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let words = Words::default().common(&args.common);
    hand_over_agent("bench_updates", &words, Scope::Lab)
}
