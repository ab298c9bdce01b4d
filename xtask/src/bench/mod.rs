//! `cargo xtask bench`: builds what a benchmark needs, then lets a program of
//! the `tests` crate measure.

mod dataplane;

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::{
    build,
    setup::{self, Scope},
    shell,
};

/// The benchmarks.
#[derive(Subcommand)]
pub enum Bench {
    /// What a packet costs, beside floors in the same run; writes target/bench/dataplane.json
    Dataplane(dataplane::Args),
}

/// Runs `cargo xtask bench`.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Dataplane(args) => dataplane::run(args),
    }
}

/// Builds everything, and becomes a program of the `tests` crate.
fn hand_over(program: &str, words: &[&str]) -> Result<()> {
    shell::require_root("loading eBPF programs")?;
    let toolchain = setup::ensure(Scope::Load)?;
    build::ebpf(&toolchain)?;
    build::ebpf_for_benchmarks(&toolchain)?;
    shell::step("building the benchmark", || {
        shell::run(
            &mut shell::cargo([
                "build",
                "--release",
                "--package",
                "vipd-tests",
                "--bin",
                program,
            ]),
            "The compiler's own words are above.",
        )
    })?;
    let path = shell::root().join("target/release").join(program);
    let mut command = shell::command(&path);
    command.args(words);
    Err(command.exec()).with_context(|| format!("could not start {}", path.display()))
}
