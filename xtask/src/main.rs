//! The project's own commands, run as `cargo xtask <command>`: a module each.

mod build;
mod setup;
mod shell;

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
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(args) => setup::run(&args),
        Task::Build => build::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
