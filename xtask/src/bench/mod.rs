//! `cargo xtask bench`: builds what a benchmark needs, then lets a program of
//! the `tests` crate measure.

mod bgp;
mod checks;
mod dataplane;
mod failover;
mod path;
mod updates;

use std::{fmt::Display, os::unix::process::CommandExt as _};

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

/// Options that benchmarks with goals have.
#[derive(clap::Args)]
struct Common {
    /// Fail when a goal is missed
    #[arg(long)]
    check: bool,
    /// Put the tables into docs/performance.md
    #[arg(long)]
    write_docs: bool,
}

/// Options as they are handed on.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn common(self, common: &Common) -> Self {
        self.flag("--check", common.check)
            .flag("--write-docs", common.write_docs)
    }

    fn flag(mut self, name: &str, is_given: bool) -> Self {
        self.0.extend(is_given.then(|| name.to_owned()));
        self
    }

    /// Each value after the name.
    fn values<T: Display>(mut self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        for value in values {
            self.0.extend([name.to_owned(), value.to_string()]);
        }
        self
    }
}

/// Builds the balancer and what else is said, and becomes a program of the
/// `tests` crate.
fn hand_over(
    program: &str,
    words: &Words,
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
    command.args(&words.0);
    Err(command.exec()).with_context(|| format!("could not start {}", path.display()))
}

/// The same, with an agent that carries the balancer.
fn hand_over_agent(program: &str, words: &Words, scope: Scope) -> Result<()> {
    hand_over(program, words, scope, |_| build::agent().map(drop))
}
