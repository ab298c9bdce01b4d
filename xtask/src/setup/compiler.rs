//! The compiler of the eBPF programs. No release channel ships `core` for the
//! BPF target, so it must be one whose library sources are here to build it
//! from: rustup's nightly with `rust-src`, or Debian's `rustc-web` with
//! `rust-web-src`, for machines where rustup can download nothing.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use super::{linker, packages};
use crate::shell;

/// The oldest compiler that builds this workspace (its `rust-version`).
const OLDEST: Version = (1, 95);

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src"];

/// Seconds that rustup may take to fetch a component before we go on without.
const RUSTUP_PATIENCE: &str = "120";

type Version = (u32, u32);

/// A compiler, seen on this machine, that can build the eBPF programs.
pub struct Compiler {
    origin: Origin,
    about: About,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    RustupNightly,
    Debian,
}

/// What `rustc -vV` tells.
#[derive(Debug, PartialEq, Eq)]
struct About {
    version: Version,
    llvm: u32,
}

impl Compiler {
    /// The first compiler on this machine that has everything.
    pub fn find() -> Option<Self> {
        [Origin::RustupNightly, Origin::Debian]
            .into_iter()
            .find_map(|origin| Self::examine(origin).ok())
    }

    /// The LLVM major version whose bitcode it writes.
    pub fn llvm(&self) -> u32 {
        self.about.llvm
    }

    /// `cargo` set up to compile with this compiler.
    pub fn cargo(&self) -> Command {
        match self.origin {
            Origin::RustupNightly => shell::cargo(["+nightly"]),
            Origin::Debian => {
                let mut cargo = shell::cargo::<&str>([]);
                // -Z build-std is nightly's; both cargo and rustc heed this.
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }

    /// The compiler of that origin, or why it will not do.
    fn examine(origin: Origin) -> Result<Self, String> {
        let about = shell::capture(origin.rustc().arg("-vV"))
            .and_then(|text| About::parse(&text))
            .ok_or_else(|| format!("{origin} is not installed"))?;
        if about.version < OLDEST {
            let ((major, minor), (old_major, old_minor)) = (about.version, OLDEST);
            return Err(format!(
                "{origin} is rustc {major}.{minor}, older than {old_major}.{old_minor}"
            ));
        }
        let has_sources = shell::capture(origin.rustc().args(["--print", "sysroot"]))
            .is_some_and(|sysroot| library_of(sysroot.trim()).exists());
        if !has_sources {
            return Err(format!("{origin} is here without its library sources"));
        }
        if linker::llvm_for(about.llvm).is_none() {
            return Err(format!(
                "{origin} writes bitcode of LLVM {llvm}, for which no bpf-linker can be had here",
                llvm = about.llvm
            ));
        }
        Ok(Self { origin, about })
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.about.version;
        write!(
            f,
            "rustc {major}.{minor} of {}, LLVM {}",
            self.origin, self.about.llvm
        )
    }
}

impl Origin {
    fn rustc(self) -> Command {
        match self {
            Self::RustupNightly => {
                let mut rustc = Command::new("rustc");
                rustc.arg("+nightly");
                rustc
            }
            Self::Debian => Command::new(DEBIAN_RUSTC),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RustupNightly => "rustup's nightly",
            Self::Debian => "Debian's rustc-web",
        })
    }
}

impl About {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            let mut numbers = value.trim().split('.').map(str::parse::<u32>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        };
        Some(Self {
            version: field("release:")?,
            llvm: field("LLVM version:")?.0,
        })
    }
}

/// Gets a compiler with its sources: by rustup where it can download, else
/// from Debian.
pub fn install() -> Result<Compiler> {
    if let Err(reason) = install_by_rustup() {
        eprintln!("    {reason}; trying Debian's compiler instead");
        install_from_debian()?;
    }
    if let Some(compiler) = Compiler::find() {
        return Ok(compiler);
    }
    let reasons: Vec<_> = [Origin::RustupNightly, Origin::Debian]
        .into_iter()
        .filter_map(|origin| Compiler::examine(origin).err())
        .collect();
    bail!(
        "no compiler on this machine can build the eBPF programs:\n    {}\n\
         Either is enough: a nightly with its sources (`rustup toolchain install nightly \
         --component rust-src`), or Debian's {}.",
        reasons.join("\n    "),
        DEBIAN_PACKAGES.join(" and "),
    )
}

fn install_by_rustup() -> Result<(), String> {
    if shell::find_program("rustup").is_none() {
        return Err("rustup is not here".into());
    }
    // A nightly that is here already is not moved to another day.
    let has_nightly = shell::capture(&mut Origin::RustupNightly.rustc().arg("-vV")).is_some();
    let words: &[&str] = if has_nightly {
        &["component", "add", "rust-src", "--toolchain", "nightly"]
    } else {
        &[
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]
    };
    let mut rustup = Command::new("timeout");
    rustup.args([RUSTUP_PATIENCE, "rustup"]).args(words);
    shell::step(
        "getting the eBPF compiler: nightly with rust-src, by rustup",
        || shell::run(&mut rustup, ""),
    )
    .map_err(|_| "rustup could not download it".to_owned())?;
    Compiler::examine(Origin::RustupNightly).map(drop)
}

fn install_from_debian() -> Result<()> {
    if !DEBIAN_PACKAGES
        .iter()
        .all(|name| packages::is_available(name))
    {
        bail!(
            "neither rustup nor apt can provide a compiler for the eBPF programs.\n\
             On a machine with access to the Rust project's servers run \
             `rustup toolchain install nightly --component rust-src`; on Debian make the \
             security archive available, which holds {}.",
            DEBIAN_PACKAGES.join(" and "),
        );
    }
    packages::install(DEBIAN_PACKAGES)
}

fn library_of(sysroot: &str) -> PathBuf {
    Path::new(sysroot).join("lib/rustlib/src/rust/library/Cargo.lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_tells_its_version_and_its_llvm() {
        #[track_caller]
        fn check(text: &str, expected: Option<About>) {
            assert_eq!(About::parse(text), expected, "in {text:?}");
        }
        let about = |version, llvm| Some(About { version, llvm });
        check(
            "rustc 1.96.0 (built from a source tarball)\nrelease: 1.96.0\nLLVM version: 22.1.8\n",
            about((1, 96), 22),
        );
        check(
            "release: 1.97.0-nightly\nLLVM version: 23.1.0\n",
            about((1, 97), 23),
        );
        check("release: 1.96.0\n", None);
        check("", None);
    }
}
