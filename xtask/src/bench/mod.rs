//! `cargo xtask bench`: builds what a benchmark needs, then lets a program of
//! the `tests` crate measure.

mod bgp;
mod checks;
mod dataplane;
mod failover;
mod path;
mod updates;

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::{
    build,
    setup::{self, Scope, Toolchain},
    shell,
};

/// The benchmarks.
#[derive(Subcommand)]
pub enum Bench {
    /// How soon a router knows of many routes, by vipd, BIRD, GoBGP and ExaBGP; writes target/bench/bgp.json
    Bgp(bgp::Args),
    /// What it takes to check 10,000 backends each second, beside HAProxy; writes target/bench/checks.json
    Checks(checks::Args),
    /// What a packet costs, beside floors in the same run; writes target/bench/dataplane.json
    Dataplane(dataplane::Args),
    /// How long a client notices that a balancer dies, beside keepalived and ExaBGP; writes target/bench/failover.json
    Failover(failover::Args),
    /// Web requests through vipd, a host that routes and HAProxy; writes target/bench/path.json
    Path(path::Args),
    /// How soon a change is in the maps, and what a large agent takes; writes target/bench/updates.json
    Updates(updates::Args),
}

/// Runs `cargo xtask bench`.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Bgp(args) => bgp::run(args),
        Bench::Checks(args) => checks::run(args),
        Bench::Dataplane(args) => dataplane::run(args),
        Bench::Failover(args) => failover::run(args),
        Bench::Path(args) => path::run(args),
        Bench::Updates(args) => updates::run(args),
    }
}

/// Builds the balancer and what else is said, and becomes a program of the
/// `tests` crate.
fn hand_over(
    program: &str,
    words: &[&str],
    scope: Scope,
    build_others: impl FnOnce(&Toolchain) -> Result<()>,
) -> Result<()> {
    shell::require_root("loading eBPF programs")?;
    let toolchain = setup::ensure(scope)?;
    build::ebpf(&toolchain)?;
    build_others(&toolchain)?;
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
