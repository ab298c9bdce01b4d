//! What the benchmarks share: how they begin and end, services, the machine they
//! ran on, and where their results go.

mod service;
mod spread;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::{Value, json};

pub use self::{service::service, spread::Spread};
use crate::Lab;

/// Options of a benchmark that has goals.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Common {
    /// Fail when a goal is missed
    #[arg(long)]
    pub check: bool,
    /// Put the tables into docs/performance.md
    #[arg(long)]
    pub write_docs: bool,
}

/// A benchmark's `main`: takes its options from the command line and runs it.
pub fn main<O: Parser>(run: impl FnOnce(&O) -> Result<ExitCode>) -> ExitCode {
    run(&O::parse()).unwrap_or_else(|error| {
        eprintln!("\nerror: {error:#}");
        ExitCode::FAILURE
    })
}

/// Does it in a lab of its own, and tells the lab's logs when it fails.
///
/// # Errors
///
/// Those of the action, or when there can be no lab.
pub fn in_lab<T>(action: impl FnOnce(&Lab) -> Result<T>) -> Result<T> {
    let lab = Lab::new()?;
    action(&lab).inspect_err(|_| eprintln!("{}", lab.logs()))
}

/// The machine and the day, for whoever reads the results.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name of the processor and how many of them there are.
    pub processor: String,
    /// The kernel's version, without the name of its build.
    pub kernel: String,
    /// In UTC, as `date` writes it.
    pub date: String,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let fields: Vec<(&str, &str)> = cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let all = |wanted| fields.iter().filter(move |(name, _)| *name == wanted);
        let field = |name| all(name).next().map_or("?", |(_, value)| *value);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: format!(
                "{} (family {}, model {}), {} processors",
                field("model name"),
                field("cpu family"),
                field("model"),
                all("processor").count(),
            ),
            kernel: format!("Linux {}", version(&kernel)),
            date: today(),
        }
    }

    /// For a file of results.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "processor": self.processor,
            "kernel": self.kernel,
            "date": self.date,
        })
    }
}

/// Tells results to machines, in `target/bench/<name>.json`, and if `write` says so
/// to readers of docs/performance.md: `text` replaces what stands there between the
/// markers `<!-- bench <name> -->` and `<!-- /bench <name> -->`. Says where they are.
///
/// # Errors
///
/// When one of them cannot be written, or the markers are missing.
pub fn publish(name: &str, json: &Value, text: &str, write: bool) -> Result<()> {
    let path = write_json(name, json)?;
    println!("\nThe same for machines: {}", path.display());
    if write {
        let path = write_docs(&format!("bench {name}"), text)?;
        println!("Written into {}", path.display());
    }
    Ok(())
}

fn write_json(name: &str, value: &Value) -> Result<PathBuf> {
    let directory = root().join("target/bench");
    let path = directory.join(format!("{name}.json"));
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&path, format!("{value:#}\n")))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn write_docs(name: &str, text: &str) -> Result<PathBuf> {
    let path = root().join("docs/performance.md");
    let place = || path.display().to_string();
    let old = fs::read_to_string(&path).with_context(place)?;
    let (opening, closing) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let (before, rest) = old
        .split_once(&opening)
        .with_context(|| format!("{} lacks {opening}", place()))?;
    let (_, after) = rest
        .split_once(&closing)
        .with_context(|| format!("{} lacks {closing}", place()))?;
    let new = format!("{before}{opening}\n\n{}\n\n{closing}{after}", text.trim());
    fs::write(&path, new).with_context(place)?;
    Ok(path)
}

/// The numbers that a kernel's release begins with.
fn version(release: &str) -> &str {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.');
    let numbers = &release[..end.unwrap_or(release.len())];
    numbers.trim_end_matches('.')
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn today() -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "+%F"])
        .output();
    output.map_or_else(
        |_| "?".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Tells the goals that are missed, and how the program is to end: with `check`, as
/// a failure if there are any.
#[must_use]
pub fn verdict(missed: &[String], check: bool) -> ExitCode {
    for goal in missed {
        println!("missed: {goal}");
    }
    if missed.is_empty() {
        println!("All goals are met.");
    }
    if check && !missed.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn of_a_kernels_release_the_numbers_are_told() {
        for (release, told) in [
            ("6.1.0-37-amd64\n", "6.1.0"),
            ("6.12.9+bpo-cloud-amd64", "6.12.9"),
            ("6.18.5.abc", "6.18.5"),
            ("6.18\n", "6.18"),
        ] {
            assert_eq!(version(release), told, "{release}");
        }
    }
}
