//! What the benchmarks share: services, the machine they ran on, and where
//! their results go.

mod service;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

pub use self::service::service;

/// The machine and the day, for whoever reads the results.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name of the processor and how many of them there are.
    pub processor: String,
    /// The kernel's release.
    pub kernel: String,
    /// In UTC, as `date` writes it.
    pub date: String,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or("?", |(_, value)| value.trim())
        };
        let count = cpuinfo
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: format!(
                "{} (family {}, model {}), {count} processors",
                field("model name"),
                field("cpu family"),
                // Not the name, which begins the same.
                cpuinfo
                    .lines()
                    .find(|line| line.starts_with("model\t"))
                    .and_then(|line| line.split_once(':'))
                    .map_or("?", |(_, value)| value.trim()),
            ),
            kernel: format!("Linux {}", kernel.trim()),
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

/// Writes `target/bench/<name>.json` and returns its path.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_json(name: &str, value: &Value) -> Result<PathBuf> {
    let directory = root().join("target/bench");
    let path = directory.join(format!("{name}.json"));
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&path, format!("{value:#}\n")))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Replaces what stands between the markers `<!-- <name> -->` and
/// `<!-- /<name> -->` of docs/performance.md.
///
/// # Errors
///
/// When the file or its markers are missing.
pub fn write_docs(name: &str, text: &str) -> Result<PathBuf> {
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
