//! The command line of vipd.

use std::{
    env,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;

use vipd::config::{Config, Finding};

/// Keeps virtual IPs alive.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Checks configuration files and says everything that is wrong with them.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Check { files } => check(&files),
    }
}

/// Checks each file; the exit code tells whether all of them can be used.
fn check(files: &[PathBuf]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match Config::load(file) {
            Ok((config, warnings)) => {
                show(&warnings);
                println!("{}: OK, {}", file.display(), config.summary());
            }
            Err(error) => {
                show(&error.findings);
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn show(findings: &[Finding]) {
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stderr().is_terminal() && !no_colour;
    for finding in findings {
        eprintln!("{}\n", finding.render(colour));
    }
}
