//! `cargo xtask tidy`: the house rules that a program can check. Each rule is
//! a pure function in a module below; here they are fed and their findings told.

mod dependencies;
mod documents;
mod licences;
mod text;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use self::dependencies::Graph;
use crate::shell;

/// Directories that hold no text of ours, by their paths from the root.
const FOREIGN: [&str; 5] = [
    "target",
    ".git",
    "fuzz/artifacts",
    "fuzz/corpus",
    "fuzz/target",
];

/// A breach of a house rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// The file, from the root of the repository.
    path: String,
    /// Counted from 1.
    line: usize,
    what: String,
    why: &'static str,
    mend: &'static str,
}

/// A file of ours that is text.
struct File {
    path: String,
    text: String,
}

/// All that is there, and the texts of our files.
struct Tree<'a>(&'a [File]);

impl documents::Repository for Tree<'_> {
    fn exists(&self, path: &str) -> bool {
        shell::root().join(path).exists()
    }

    fn text(&self, path: &str) -> Option<&str> {
        let file = self.0.iter().find(|file| file.path == path);
        file.map(|file| file.text.as_str())
    }
}

/// Runs `cargo xtask tidy`.
pub fn run() -> Result<()> {
    let files = files()?;
    let mut findings: Vec<Finding> = files.iter().flat_map(text::check).collect();
    findings.extend(text::check_long_list(&files));

    let documents = files.iter().filter(|file| file.path.ends_with(".md"));
    let repository = Tree(&files);
    findings.extend(documents.flat_map(|document| documents::check(document, &repository)));

    let graph = metadata()?;
    let manifest = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.map_or("", |file| file.text.as_str())
    };
    findings.extend(dependencies::check(&graph, &manifest));
    findings.extend(licences::check(&graph, manifest(licences::RULES))?);

    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!(
            "{} findings, each with how to mend it above",
            findings.len()
        );
    }
    println!("    {} files follow the house rules", files.len());
    cargo_deny()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            what,
            why,
            mend,
        } = self;
        write!(
            f,
            "{path}:{line}: {what}\n    why:  {why}\n    mend: {mend}"
        )
    }
}

/// Every text file of ours, whether committed or not.
fn files() -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let place = shell::root().join(&directory);
        let unreadable = || format!("cannot read {}", place.display());
        for entry in fs::read_dir(&place).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            let path = directory.join(entry.file_name());
            let kind = entry.file_type().with_context(unreadable)?;
            if kind.is_dir() && !FOREIGN.iter().any(|name| path == Path::new(name)) {
                directories.push(path);
            } else if kind.is_file() {
                // What is not UTF-8 is no text of ours, but an image or the like.
                if let Ok(text) = fs::read_to_string(entry.path()) {
                    files.push(File {
                        path: path.to_string_lossy().into_owned(),
                        text,
                    });
                }
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Who depends on whom, as cargo resolves it for Linux with all our features.
fn metadata() -> Result<Graph> {
    let mut cargo = shell::cargo(["metadata", "--format-version", "1", "--all-features"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let text = shell::capture(&mut cargo).with_context(|| {
        format!(
            "`{}` failed; run it by hand to see why",
            shell::render(&cargo)
        )
    })?;
    Graph::parse(&text).context("cargo metadata says something unexpected")
}

/// cargo-deny knows more than our own reading of its file does, but takes
/// minutes to build, so it has its say only where it is installed. Advisories
/// need the network; they are for whoever asks for them.
fn cargo_deny() -> Result<()> {
    if shell::find_program("cargo-deny").is_none() {
        return Ok(());
    }
    shell::run(
        &mut shell::cargo(
            "deny --offline --log-level error check bans licenses sources".split(' '),
        ),
        "cargo-deny's own words are above; its rules are in deny.toml.",
    )
}
