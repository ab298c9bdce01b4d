//! `cargo xtask bench`: builds what a benchmark needs, then lets a program of
//! the `tests` crate measure.

mod dataplane;
mod path;

use std::{ffi::OsStr, os::unix::process::CommandExt as _};

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
    /// Web requests through vipd, beside a host that routes and HAProxy; writes target/bench/path.json
    Path(path::Args),
}

/// Runs `cargo xtask bench`.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Dataplane(args) => dataplane::run(args),
        Bench::Path(args) => path::run(args),
    }
}

/// Builds what a benchmark of the XDP program needs, and becomes it.
fn hand_over(program: &str, words: &[&str]) -> Result<()> {
    shell::require_root("loading eBPF programs")?;
    let toolchain = setup::ensure(Scope::Load)?;
    build::ebpf(&toolchain)?;
    build::ebpf_for_benchmarks(&toolchain)?;
    become_program(program, words)
}

/// Builds what a benchmark in a lab needs, the agent too, and becomes it.
fn lab(program: &str, words: &[String]) -> Result<()> {
    shell::require_root("making network namespaces and loading eBPF programs")?;
    let toolchain = setup::ensure(Scope::Bench)?;
    build::ebpf(&toolchain)?;
    build::agent()?;
    become_program(program, words)
}

/// Builds a program of the `tests` crate, and becomes it.
fn become_program(program: &str, words: &[impl AsRef<OsStr>]) -> Result<()> {
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
