//! `cargo xtask build`: the eBPF objects, then the agent that carries them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    setup::{self, Scope, Toolchain},
    shell,
};

/// Programs of the `ebpf` crate; each becomes `target/bpf/<name>`.
const PROGRAMS: [&str; 3] = ["balancer", "decap", "pass"];

/// Features that the balancer is built with once more, each as
/// `target/bpf/balancer-<feature>`.
const VARIANTS: [&str; 2] = ["explain", "capture"];

/// What the benchmarks measure the balancer by and with.
const BENCH_PROGRAMS: [&str; 4] = ["f1", "f2", "f3", "wrapper"];

const TARGET: &str = "bpfel-unknown-none";

/// Flags that packet code wants:
/// - `target-cpu=v3`: 32-bit registers and jumps, atomics with results;
/// - `allows-misaligned-mem-access`: one load for an unaligned packet field
///   instead of a load and a shift for each of its bytes;
/// - `--btf` and debug information: typed maps, and line numbers in what the
///   verifier says.
const RUSTFLAGS: [&str; 4] = [
    "-Ctarget-cpu=v3",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access,+alu32",
    "-Clink-arg=--btf",
    "-Cdebuginfo=2",
];

/// Runs `cargo xtask build`.
pub fn run() -> Result<()> {
    let toolchain = setup::ensure(Scope::Build)?;
    ebpf(&toolchain)?;
    agent()?;
    Ok(())
}

/// Builds the eBPF objects into `target/bpf`.
pub fn ebpf(toolchain: &Toolchain) -> Result<()> {
    objects(toolchain, "building the eBPF objects", &PROGRAMS, None)?;
    for feature in VARIANTS {
        let what = format!("building the balancer to {feature}");
        objects(toolchain, &what, &PROGRAMS[..1], Some(feature))?;
    }
    Ok(())
}

/// Builds those of the benchmarks, too.
pub fn ebpf_for_benchmarks(toolchain: &Toolchain) -> Result<()> {
    objects(
        toolchain,
        "building the eBPF objects of the benchmarks",
        &BENCH_PROGRAMS,
        None,
    )
}

fn objects(
    toolchain: &Toolchain,
    what: &str,
    programs: &[&str],
    feature: Option<&str>,
) -> Result<()> {
    let mut cargo = toolchain.compiler.cargo();
    cargo
        .args(["build", "--release", "--package", "vipd-ebpf"])
        .args(programs.iter().flat_map(|name| ["--bin", name]))
        .args(feature.map(|feature| format!("--features={feature}")))
        .args(["--target", TARGET, "-Z", "build-std=core"])
        // A directory of its own: another compiler works here.
        .args(["--target-dir", "target/ebpf"])
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS",
            RUSTFLAGS.join(" "),
        )
        // These would override the flags above.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let built = shell::step(&format!("{what} ({})", toolchain.compiler), || {
        shell::run(
            &mut cargo,
            "The compiler's own words are above. When they speak of a missing tool or \
                 of `core`, see `cargo xtask setup --check`.",
        )?;
        programs
            .iter()
            .map(|name| install_object(name, feature))
            .collect::<Result<Vec<_>>>()
    })?;
    built.iter().for_each(|path| announce(path));
    Ok(())
}

/// Builds the agent, which takes in the eBPF objects; returns its path.
pub fn agent() -> Result<PathBuf> {
    shell::step("building the agent", || {
        shell::run(
            &mut shell::cargo(["build", "--release", "--package", "vipd"]),
            "The compiler's own words are above.",
        )
    })?;
    let agent = shell::root().join("target/release/vipd");
    announce(&agent);
    Ok(agent)
}

/// Copies one object to where the agent's build takes it from. An object that
/// did not change is left alone, so that the agent is not built anew.
fn install_object(name: &str, feature: Option<&str>) -> Result<PathBuf> {
    let from = shell::root()
        .join("target/ebpf")
        .join(TARGET)
        .join("release")
        .join(name);
    let installed = feature.map_or(name.to_owned(), |feature| format!("{name}-{feature}"));
    let to = shell::root().join("target/bpf").join(installed);
    let object = fs::read(&from)
        .with_context(|| format!("the ebpf crate built no program {name}: {}", from.display()))?;
    if fs::read(&to).is_ok_and(|old| old == object) {
        return Ok(to);
    }
    let place = || format!("cannot write {}", to.display());
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(place)?;
    }
    fs::write(&to, object).with_context(place)?;
    Ok(to)
}

fn announce(path: &Path) {
    let size = fs::metadata(path).map_or(0, |file| file.len());
    let shown = path.strip_prefix(shell::root()).unwrap_or(path);
    eprintln!("    {:28} {:>8} KiB", shown.display(), size.div_ceil(1024));
}
