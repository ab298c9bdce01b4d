//! `bpf-linker`, which turns the compiler's bitcode into one eBPF object. It
//! reads only bitcode of its own LLVM or an older one, so it is built here
//! against an LLVM chosen by the compiler's, into a directory of its own whose
//! name tells both versions; a `bpf-linker` of the developer's stays untouched.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::packages::{self, Package};
use crate::shell;

/// The release of bpf-linker that the eBPF programs are built with.
const VERSION: &str = "0.13.0";

/// The LLVMs it can be built against (its features `llvm-NN`) that know the
/// CPU features we ask for.
const LLVMS: [u32; 2] = [22, 23];

const CXX: Package = Package {
    name: "g++",
    provides: "c++",
    why: "bpf-linker links LLVM, which is C++",
};

/// The bpf-linker for a compiler of that LLVM, if it is here and runs.
pub fn find(compiler_llvm: u32) -> Option<PathBuf> {
    let linker = match llvm_for(compiler_llvm)? {
        Source::Llvm(llvm) => directory(llvm).ok()?.join("bin/bpf-linker"),
        Source::Path(linker) => linker,
    };
    is_pinned_version(&linker).then_some(linker)
}

/// Where a linker for bitcode of that LLVM can come from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// Built here against Debian's LLVM of this major version.
    Llvm(u32),
    /// One of the right release that is on the `PATH`, where this machine has
    /// no LLVM to build against.
    Path(PathBuf),
}

/// Chooses the LLVM to build bpf-linker against: the compiler's own, or a
/// newer one; `None` when this machine offers none.
pub fn llvm_for(compiler_llvm: u32) -> Option<Source> {
    let fits = LLVMS.into_iter().filter(|llvm| *llvm >= compiler_llvm);
    fits.clone()
        .find(|llvm| is_llvm_installed(*llvm))
        .or_else(|| {
            fits.into_iter()
                .find(|llvm| packages::is_available(&dev_package(*llvm)))
        })
        .map(Source::Llvm)
        .or_else(|| {
            shell::find_program("bpf-linker")
                .filter(|it| is_pinned_version(it))
                .map(Source::Path)
        })
}

/// Builds bpf-linker for a compiler of that LLVM.
pub fn install(compiler_llvm: u32) -> Result<PathBuf> {
    let Some(Source::Llvm(llvm)) = llvm_for(compiler_llvm) else {
        bail!(
            "no LLVM for bpf-linker: the eBPF compiler writes bitcode of LLVM {compiler_llvm}, \
             bpf-linker {VERSION} can be built against LLVM {LLVMS:?}, and apt offers no \
             package {package} or newer.\n\
             Put a ready-made bpf-linker {VERSION} on the PATH (its project publishes them; \
             `cargo binstall bpf-linker@{VERSION}` fetches one).",
            package = dev_package(compiler_llvm),
        );
    };
    let dev_package = dev_package(llvm);
    let mut missing = Vec::new();
    if !is_llvm_installed(llvm) {
        missing.push(dev_package.as_str());
    }
    if !CXX.is_present() {
        eprintln!("    {}: {}", CXX.name, CXX.why);
        missing.push(CXX.name);
    }
    if !missing.is_empty() {
        packages::install(&missing)?;
    }

    let directory = directory(llvm)?;
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "install",
            "bpf-linker",
            "--locked",
            "--force",
            "--version",
            VERSION,
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .arg("--root")
        .arg(&directory)
        // Both of its build scripts look for LLVM, each in its own way, and
        // an older LLVM on the PATH must not win.
        .env("LLVM_PREFIX", prefix(llvm))
        .env(format!("LLVM_SYS_{llvm}1_PREFIX"), prefix(llvm));
    shell::step(
        &format!("building bpf-linker {VERSION} against LLVM {llvm} (about a minute)"),
        || {
            shell::run(
                &mut cargo,
                "cargo's own words are above. With the crate registry reachable, run \
                 `cargo xtask setup` again.",
            )
        },
    )?;
    find(compiler_llvm).with_context(|| {
        format!(
            "the bpf-linker just built into {} does not run; run its bin/bpf-linker by hand to see why",
            directory.display()
        )
    })
}

fn is_llvm_installed(llvm: u32) -> bool {
    Path::new(&prefix(llvm)).join("lib/libLLVM.so").exists()
}

fn prefix(llvm: u32) -> String {
    format!("/usr/lib/llvm-{llvm}")
}

fn dev_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

/// Outside of `target`, so that `cargo clean` and further clones do not cost
/// another build.
fn directory(llvm: u32) -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("neither HOME nor XDG_CACHE_HOME is set: nowhere to keep bpf-linker")?;
    Ok(cache.join(format!("vipd/bpf-linker-{VERSION}-llvm-{llvm}")))
}

fn is_pinned_version(linker: &Path) -> bool {
    shell::capture(Command::new(linker).arg("--version"))
        .is_some_and(|said| said.trim() == format!("bpf-linker {VERSION}"))
}
