//! `cargo xtask fuzz`: runs the targets of `fuzz/`, by cargo-fuzz and a nightly
//! compiler. What is tried goes to `target/fuzz/`; the corpus in `fuzz/corpus/` is
//! where it starts from, and changes by hand only.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// Only this target, by its name in fuzz/fuzz_targets/; else one after the other
    target: Option<String>,
    /// How long each runs
    #[arg(long, default_value_t = 600)]
    seconds: u32,
}

/// Runs `cargo xtask fuzz`.
pub fn run(args: &Args) -> Result<()> {
    if shell::find_program("cargo-fuzz").is_none() {
        bail!("cargo-fuzz is missing. Run:\n    cargo install cargo-fuzz");
    }
    let mut targets = targets(&shell::root().join("fuzz/fuzz_targets"))?;
    if let Some(target) = &args.target {
        if !targets.contains(target) {
            bail!(
                "there is no target `{target}`; there are {}",
                targets.join(", ")
            );
        }
        targets = vec![target.clone()];
    }
    // The versions that the agent is built with.
    let lock = |directory: &str| shell::root().join(directory).join("Cargo.lock");
    fs::copy(lock(""), lock("fuzz")).context("cannot copy Cargo.lock to fuzz/")?;
    for target in targets {
        let found = format!("target/fuzz/corpus/{target}");
        fs::create_dir_all(shell::root().join(&found))
            .with_context(|| format!("cannot make {found}"))?;
        let mut fuzz = shell::cargo(["+nightly", "fuzz", "run", "--target-dir", "target/fuzz"]);
        fuzz.args([&target, &found, &format!("fuzz/corpus/{target}"), "--"]);
        fuzz.arg(format!("-max_total_time={}", args.seconds));
        fuzz.arg("-print_final_stats=1");
        shell::step(&format!("fuzzing {target}"), || {
            shell::run(
                &mut fuzz,
                "Mend what was found; its bytes belong into fuzz/corpus/ from then on.",
            )
        })?;
    }
    Ok(())
}

/// Names of the targets, in order.
fn targets(directory: &Path) -> Result<Vec<String>> {
    let unreadable = || format!("cannot read {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if let Some(name) = path.file_stem() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
