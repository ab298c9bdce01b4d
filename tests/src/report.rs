//! What a benchmark leaves behind: JSON in `target/bench/`, and its section of
//! docs/performance.md.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The document with a section for each benchmark.
const DOCUMENT: &str = "docs/performance.md";

/// What was measured in several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Of an even number, the upper of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: *values.get(values.len() / 2)?,
            min: *values.first()?,
            max: *values.last()?,
        })
    }

    /// As an object of three numbers.
    pub fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// Processors and kernel of this machine, in a few words.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let count = info
        .lines()
        .filter(|line| line.starts_with("processor\t"))
        .count();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{count} x {model}, Linux {}", kernel.trim())
}

/// Writes `target/bench/<bench>.json`.
pub fn write_json(bench: &str, value: &Value) -> Result<PathBuf> {
    let path = root().join("target/bench").join(format!("{bench}.json"));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&path, format!("{value:#}\n"))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Puts `text` between the benchmark's marks in docs/performance.md.
pub fn write_section(bench: &str, text: &str) -> Result<PathBuf> {
    let path = root().join(DOCUMENT);
    let old = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let new = with_section(&old, bench, text)
        .with_context(|| format!("{} has no marks for {bench}", path.display()))?;
    fs::write(&path, new).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn with_section(document: &str, bench: &str, text: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- begin: cargo xtask bench {bench} -->\n"),
        format!("<!-- end: cargo xtask bench {bench} -->\n"),
    );
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_odd_and_of_an_even_number_of_values() {
        let median = |values: &[f64]| Spread::of(values.iter().copied()).map(|it| it.median);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_section_is_replaced_between_its_marks_only() {
        let document = "A\n<!-- begin: cargo xtask bench a -->\nold\n\
                        <!-- end: cargo xtask bench a -->\nB\n";
        let expected = "A\n<!-- begin: cargo xtask bench a -->\n\nnew\n\n\
                        <!-- end: cargo xtask bench a -->\nB\n";
        assert_eq!(
            with_section(document, "a", "new\n").as_deref(),
            Some(expected)
        );
        assert_eq!(with_section(document, "b", "new"), None);
    }
}
