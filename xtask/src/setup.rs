//! `cargo xtask setup`: brings a machine to where everything builds and tests.
//! Knows the parts and their order; each part is found and installed by a
//! module of its own.

mod compiler;
mod emulator;
mod linker;
mod packages;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, bail};

pub use self::compiler::Compiler;
use self::packages::Package;
use crate::shell;

const BPFFS: &str = "/sys/fs/bpf";

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Args {
    /// Only report; exit with 1 when something is missing
    #[arg(long)]
    check: bool,
    /// Only what building needs: no routers, no web server, no bpffs
    #[arg(long)]
    build_only: bool,
}

/// How much of the setup a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Compile everything.
    Build,
    /// Also load eBPF programs into the kernel.
    Load,
    /// Also run labs and the demo.
    Lab,
    /// Also run every test.
    Test,
    /// What labs need, and what vipd is measured with.
    Bench,
    /// All of it.
    Everything,
}

/// What compiles the eBPF programs.
pub struct Toolchain {
    /// The compiler, with its library sources.
    pub compiler: Compiler,
    /// The `bpf-linker` that reads its bitcode.
    pub linker: PathBuf,
}

/// Runs `cargo xtask setup`.
pub fn run(args: &Args) -> Result<()> {
    let scope = if args.build_only {
        Scope::Build
    } else {
        Scope::Everything
    };
    if args.check {
        return report(scope);
    }
    ensure(scope)?;
    report(scope)
}

/// Installs what is missing of `scope`; silent and quick when nothing is.
pub fn ensure(scope: Scope) -> Result<Toolchain> {
    // The routers first: whoever has to type a sudo command gets it at once.
    ensure_packages(scope)?;
    if scope != Scope::Build {
        ensure_bpffs()?;
    }
    if scope.emulates() && emulator::find().is_none() {
        emulator::install()?;
    }
    let compiler = match Compiler::find() {
        Some(compiler) => compiler,
        None => {
            packages::fetch_missing_lists()?;
            compiler::install()?
        }
    };
    let linker = match linker::find(compiler.llvm()) {
        Some(linker) => linker,
        None => linker::install(compiler.llvm())?,
    };
    Ok(Toolchain { compiler, linker })
}

/// Prints one line for each part; fails when one is missing.
fn report(scope: Scope) -> Result<()> {
    let mut missing = 0;
    let mut line = |what: &str, why: &str, found: Option<String>| {
        let state = if found.is_some() { "ok" } else { "missing" };
        missing += usize::from(found.is_none());
        println!("{state:8} {what:15} {}", found.as_deref().unwrap_or(why));
    };

    let compiler = Compiler::find();
    line(
        "eBPF compiler",
        "a compiler with its library sources: no release ships `core` for eBPF",
        compiler.as_ref().map(ToString::to_string),
    );
    let linker = compiler.and_then(|compiler| linker::find(compiler.llvm()));
    line(
        "bpf-linker",
        "makes one eBPF object out of the compiler's bitcode",
        linker.map(|path| path.display().to_string()),
    );
    if scope != Scope::Build {
        line(
            "bpffs",
            "pinned maps and programs live there; packets flow on without the agent",
            is_bpffs_mounted().then(|| format!("mounted at {BPFFS}")),
        );
    }
    for package in scope.packages() {
        line(
            package.name,
            package.why,
            package.is_present().then(|| package.why.into()),
        );
    }
    if scope.emulates() {
        let found = emulator::find().map(|path| path.display().to_string());
        line("emulator", emulator::WHY, found);
    }

    if missing > 0 {
        bail!("{missing} of these are missing; `cargo xtask setup` installs them");
    }
    Ok(())
}

impl Scope {
    /// The packages it needs, besides those of the compiler.
    fn packages(self) -> impl Iterator<Item = &'static Package> {
        let (lab, bench): (&[_], &[_]) = match self {
            Self::Build | Self::Load => (&[], &[]),
            Self::Lab | Self::Test => (packages::LAB, &[]),
            Self::Bench | Self::Everything => (packages::LAB, packages::BENCH),
        };
        lab.iter().chain(bench)
    }

    /// Whether it runs another kernel than this machine's.
    fn emulates(self) -> bool {
        matches!(self, Self::Test | Self::Everything)
    }
}

fn ensure_packages(scope: Scope) -> Result<()> {
    let missing: Vec<_> = scope
        .packages()
        .filter(|package| !package.is_present())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("packages for labs and benchmarks that are not here:");
    for package in &missing {
        eprintln!("    {:13} {}", package.name, package.why);
    }
    packages::install(
        &missing
            .iter()
            .map(|package| package.name)
            .collect::<Vec<_>>(),
    )
}

fn ensure_bpffs() -> Result<()> {
    if is_bpffs_mounted() {
        return Ok(());
    }
    // Without a mode, everybody may make directories in it.
    let mount = ["-t", "bpf", "-o", "mode=0700", "bpf", BPFFS];
    if !shell::is_root() {
        bail!(
            "bpffs is not mounted at {BPFFS}, where programs and maps are pinned. Run:\n    {}\n\
             then run this command again.",
            shell::render(Command::new("sudo").arg("mount").args(mount)),
        );
    }
    eprintln!("mounting bpffs at {BPFFS}, where programs and maps are pinned");
    shell::run(
        Command::new("mount").args(mount),
        "Does this kernel have eBPF (CONFIG_BPF_SYSCALL), and may this container mount?",
    )
}

fn is_bpffs_mounted() -> bool {
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
        mounts.lines().any(|mount| {
            let mut fields = mount.split(' ').skip(1);
            fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
        })
    })
}
