//! `cargo xtask test`: formatting, lints, tidiness, documentation, then three tiers
//! of tests.

use std::{
    io::{BufRead as _, BufReader, pipe},
    ops::AddAssign,
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{
    build,
    setup::{self, Scope},
    shell, tidy,
};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Only this tier's tests, without formatting, lints, tidiness and documentation
    tier: Option<Tier>,
    /// Only the tests whose names contain this
    #[arg(requires = "tier")]
    filter: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// Runs anywhere, without root
    Pure,
    /// Runs packets through the XDP programs in the kernel
    Packet,
    /// Runs the agent between real routers and web servers in network namespaces
    Lab,
}

/// What one tier came to.
struct Outcome {
    tier: Tier,
    count: Count,
    elapsed: Duration,
}

/// Numbers of tests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    ignored: usize,
}

/// Runs `cargo xtask test`. Ends the process itself when a test failed, since
/// nothing may be printed after the line with the sum.
pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let tiers = args
        .tier
        .as_ref()
        .map_or(Tier::value_variants(), std::slice::from_ref);
    prepare(tiers, args.tier.is_none())?;
    let outcomes = run_tiers(tiers, args.filter.as_deref())?;

    let mut sum = Count::default();
    let mut passed = true;
    println!("\ntier     passed  failed  ignored     time");
    for Outcome {
        tier,
        count,
        elapsed,
    } in &outcomes
    {
        println!(
            "{:8} {:6}  {:6}  {:7}  {:5.1} s",
            tier.name(),
            count.passed,
            count.failed,
            count.ignored,
            elapsed.as_secs_f64(),
        );
        if count.passed + count.failed == 0 {
            println!(
                "         no test ran: a tier without tests shows nothing, so this is a failure"
            );
            passed = false;
        }
        passed &= count.failed == 0;
        sum += *count;
    }
    println!(
        "everything {:22} {:5.1} s",
        "",
        started.elapsed().as_secs_f64()
    );
    println!("{} passed, {} failed", sum.passed, sum.failed);
    if !passed {
        process::exit(1);
    }
    Ok(())
}

/// Everything that comes before the first test; compiles the tests too, so
/// that no compilation competes with a running lab.
fn prepare(tiers: &[Tier], everything: bool) -> Result<()> {
    if tiers.iter().any(|tier| *tier != Tier::Pure) {
        shell::require_root("the packet and lab tiers load eBPF programs, which")?;
    }
    let scope = if tiers.contains(&Tier::Lab) {
        Scope::Test
    } else if tiers.contains(&Tier::Packet) {
        Scope::Load
    } else {
        Scope::Build
    };
    let toolchain = setup::ensure(scope)?;
    if everything {
        shell::step("checking the formatting", || {
            shell::run(
                &mut shell::cargo(["fmt", "--all", "--check"]),
                "`cargo fmt --all` mends it.",
            )
        })?;
        shell::step("checking the house rules", tidy::run)?;
    }
    // The agent takes in the eBPF objects, so nothing compiles before them.
    build::ebpf(&toolchain)?;
    if everything {
        shell::step("linting", lint)?;
        shell::step("checking the documentation", document)?;
    }
    if tiers.contains(&Tier::Lab) {
        build::agent()?;
    }
    shell::step("compiling the tests", || {
        for args in tiers.iter().flat_map(|tier| tier.runs()) {
            let mut cargo = shell::cargo(["test", "--no-run"]);
            shell::run(cargo.args(*args), "The compiler's own words are above.")?;
        }
        Ok(())
    })
}

fn lint() -> Result<()> {
    let hint = "Clippy's own words are above. A lint is suppressed only by \
                `#[expect(lint, reason = \"...\")]`.";
    let clippy = |which: &[&str]| {
        let mut cargo = shell::cargo(["clippy", "--all-targets"]);
        cargo.args(which).args(["--", "-D", "warnings"]);
        cargo
    };
    shell::run(
        &mut clippy(&["--workspace", "--exclude", "vipd-ebpf"]),
        hint,
    )?;
    // The eBPF programs are linted as if they were for this machine, since
    // clippy's own compiler has no `core` for the BPF target. Here a program
    // without the standard library must not unwind.
    let mut ebpf = clippy(&["--package", "vipd-ebpf"]);
    shell::run(ebpf.env("CARGO_PROFILE_DEV_PANIC", "abort"), hint)
}

/// Links in comments lead somewhere.
fn document() -> Result<()> {
    let mut cargo = shell::cargo(["doc", "--workspace", "--no-deps"]);
    shell::run(
        cargo.env("RUSTDOCFLAGS", "-D warnings"),
        "The words of rustdoc are above.",
    )
}

/// The pure tier keeps one core busy, the labs mostly wait: they share the
/// time. The packet tier is quick and goes before the labs.
fn run_tiers(tiers: &[Tier], filter: Option<&str>) -> Result<Vec<Outcome>> {
    let (pure, rooted): (Vec<_>, Vec<_>) = tiers.iter().partition(|tier| **tier == Tier::Pure);
    let one_by_one = |tiers: Vec<Tier>| -> Result<Vec<Outcome>> {
        tiers.into_iter().map(|tier| tier.run(filter)).collect()
    };
    thread::scope(|scope| {
        let pure = scope.spawn(|| one_by_one(pure));
        let rooted = one_by_one(rooted);
        let Ok(pure) = pure.join() else {
            bail!("the thread that ran the pure tier panicked; its message is above");
        };
        let mut outcomes = pure?;
        outcomes.extend(rooted?);
        Ok(outcomes)
    })
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Packet => "packet",
            Self::Lab => "lab",
        }
    }

    /// The arguments of each `cargo test` that makes up the tier.
    fn runs(self) -> &'static [&'static [&'static str]] {
        match self {
            // The default members, and what of the lab's library needs no lab.
            Self::Pure => &[&[], &["--package", "vipd-tests", "--lib"]],
            Self::Packet => &[&["--package", "vipd-tests", "--test", "packet"]],
            Self::Lab => &[&["--package", "vipd-tests", "--test", "lab"]],
        }
    }

    fn run(self, filter: Option<&str>) -> Result<Outcome> {
        let started = Instant::now();
        let mut count = Count::default();
        for args in self.runs() {
            let mut cargo = shell::cargo(["test", "--no-fail-fast"]);
            cargo.args(*args).args(filter);
            count += self.run_cargo(cargo)?;
        }
        Ok(Outcome {
            tier: self,
            count,
            elapsed: started.elapsed(),
        })
    }

    /// Runs one `cargo test`, shows its lines with the tier's name before
    /// them, and counts.
    fn run_cargo(self, mut cargo: process::Command) -> Result<Count> {
        let line = shell::render(&cargo);
        eprintln!("==> {}: {line}", self.name());
        let (output, input) = pipe().context("no pipe for the output of the tests")?;
        let mut child = cargo
            .stdin(process::Stdio::null())
            .stderr(
                input
                    .try_clone()
                    .context("no pipe for the errors of the tests")?,
            )
            .stdout(input)
            .spawn()
            .with_context(|| format!("could not start `{line}`"))?;
        // It holds the ends that are written to; the loop below would not end.
        drop(cargo);

        let mut count = Count::default();
        for text in BufReader::new(output).split(b'\n') {
            let text = text.with_context(|| format!("cannot read what `{line}` prints"))?;
            let text = String::from_utf8_lossy(&text);
            println!("{:6} | {text}", self.name());
            count += Count::parse(&text).unwrap_or_default();
        }
        let status = child.wait().with_context(|| format!("lost `{line}`"))?;
        if !status.success() && count.failed == 0 {
            println!(
                "{:6} | `{line}` ended with {status}; counted as one failure",
                self.name()
            );
            count.failed = 1;
        }
        Ok(count)
    }
}

impl Count {
    /// From the line with which a test binary ends.
    fn parse(line: &str) -> Option<Self> {
        let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let number = |name: &str| {
            numbers
                .split(';')
                .find_map(|part| part.trim().strip_suffix(name)?.trim().parse().ok())
        };
        Some(Self {
            passed: number("passed")?,
            failed: number("failed")?,
            ignored: number("ignored")?,
        })
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_from_the_line_a_test_binary_ends_with() {
        #[track_caller]
        fn check(line: &str, expected: Option<(usize, usize, usize)>) {
            let counted = Count::parse(line).map(|it| (it.passed, it.failed, it.ignored));
            assert_eq!(counted, expected, "in {line:?}");
        }
        check(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s",
            Some((12, 0, 1)),
        );
        check(
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            Some((3, 2, 0)),
        );
        check("test wire::a_keepalive_is_19_octets ... ok", None);
        check("test result: unheard of", None);
    }
}
