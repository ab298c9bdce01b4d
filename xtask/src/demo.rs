//! `cargo xtask demo`: build everything the story needs, then let it be told
//! by the `demo` program of the `tests` crate.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::{
    build,
    setup::{self, Scope},
    shell,
};

/// Arguments of `cargo xtask demo`, handed on as they are.
#[derive(clap::Args)]
pub struct Args {
    /// Needs no terminal; writes target/demo/scorecard.json and fails when a bound is missed
    #[arg(long)]
    ci: bool,
    /// Leave the lab standing, with hints what to try
    #[arg(long)]
    keep: bool,
}

/// Runs `cargo xtask demo`.
pub fn run(args: &Args) -> Result<()> {
    shell::require_root("making network namespaces and loading eBPF programs")?;
    let toolchain = setup::ensure(Scope::Lab)?;
    build::ebpf(&toolchain)?;
    build::agent()?;
    shell::step("building the demo", || {
        shell::run(
            &mut shell::cargo([
                "build",
                "--release",
                "--package",
                "vipd-tests",
                "--bin",
                "demo",
            ]),
            "The compiler's own words are above.",
        )
    })?;

    let mut demo = shell::command(shell::root().join("target/release/demo"));
    demo.args(args.ci.then_some("--ci"))
        .args(args.keep.then_some("--keep"));
    let error = demo.exec();
    Err(error).context("could not start target/release/demo")
}
