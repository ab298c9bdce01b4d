//! The project's own commands, run as `cargo xtask <command>`: a module each.

mod bench;
mod build;
mod demo;
mod fuzz;
mod load;
mod setup;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set up, build, load, demonstrate and test vipd.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need; does nothing twice
    Setup(setup::Args),
    /// Build the eBPF objects and the agent that carries them
    Build,
    /// Build, attach to an interface and pin
    Load(load::LoadArgs),
    /// Undo what `load` did
    Unload(load::UnloadArgs),
    /// Tell the story in a lab: a router, two balancers, three backends, and what a client sees
    Demo(demo::Args),
    /// Measure, and compare with the goals
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Check and test everything, or run one tier of tests
    Test(test::Args),
    /// Feed the decoders what a fuzzer thinks up
    Fuzz(fuzz::Args),
    /// Check the house rules
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(args) => setup::run(&args),
        Task::Build => build::run(),
        Task::Load(args) => load::load(&args),
        Task::Unload(args) => load::unload(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Bench(bench) => bench::run(&bench),
        Task::Test(args) => test::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
