//! Debian packages: which ones are wanted, which are missing, how they are installed.

use std::{ffi::OsStr, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Installs packages without starting daemons; its own head says how.
const SCRIPT: &str = "xtask/src/setup/install-packages.sh";

/// A program that somebody else makes and that we take from a package.
pub struct Package {
    /// Debian's name.
    pub name: &'static str,
    /// A program's name, or an absolute path where it is not on any `PATH`:
    /// what makes the package count as present, wherever it came from.
    pub provides: &'static str,
    /// What does not work without it.
    pub why: &'static str,
}

/// What the benchmarks run, besides what the labs do.
pub const BENCH: &[Package] = &[
    Package {
        name: "wrk",
        provides: "wrk",
        why: "the client whose requests are counted",
    },
    Package {
        name: "haproxy",
        provides: "haproxy",
        why: "what vipd is compared with",
    },
    Package {
        name: "exabgp",
        provides: "exabgp",
        why: "what its BGP speaker is compared with, beside the routers of the labs",
    },
    Package {
        name: "keepalived",
        provides: "keepalived",
        why: "what its failover is compared with",
    },
];

/// What the labs and the demo run, besides what this repository builds.
pub const LAB: &[Package] = &[
    Package {
        name: "iproute2",
        provides: "ip",
        why: "labs make their hosts (network namespaces) and cables (veth) with it",
    },
    Package {
        name: "ethtool",
        provides: "ethtool",
        why: "labs turn checksum offload off on veth, where XDP would send unfinished sums",
    },
    Package {
        name: "iputils-ping",
        provides: "ping",
        why: "labs ask whether a host answers",
    },
    Package {
        name: "tshark",
        provides: "tshark",
        why: "the lab of captures opens their files with it, as an operator would",
    },
    Package {
        name: "bird2",
        provides: "bird",
        why: "the router of the demo and of the BGP labs",
    },
    Package {
        name: "frr",
        provides: "/usr/lib/frr/bgpd",
        why: "a second, independent router for the BGP labs",
    },
    Package {
        name: "gobgpd",
        provides: "gobgpd",
        why: "a third one",
    },
    Package {
        name: "nginx-light",
        provides: "nginx",
        why: "the web server behind the VIP in the demo and the labs",
    },
    Package {
        name: "nsd",
        provides: "nsd",
        why: "the DNS server that the labs check",
    },
];

impl Package {
    /// Whether what it provides is here.
    pub fn is_present(&self) -> bool {
        if self.provides.starts_with('/') {
            Path::new(self.provides).exists()
        } else {
            shell::find_program(self.provides).is_some()
        }
    }
}

/// Whether apt knows a version of the package that it could install.
pub fn is_available(name: &str) -> bool {
    shell::capture(Command::new("apt-cache").args(["policy", name]))
        .is_some_and(|policy| candidate(&policy).is_some())
}

/// Brings apt's package lists up to date where none were ever fetched, as on
/// a machine from a minimal image, so that [`is_available`] can be believed.
pub fn fetch_missing_lists() -> Result<()> {
    let has_lists = fs::read_dir("/var/lib/apt/lists").is_ok_and(|lists| {
        lists
            .flatten()
            .any(|list| list.file_name().to_string_lossy().contains("_Packages"))
    });
    if has_lists || !shell::is_root() || shell::find_program("apt-get").is_none() {
        return Ok(());
    }
    shell::step("fetching apt's package lists", || {
        shell::run(
            Command::new("apt-get").args(["update", "-q"]),
            "Without them no package can be installed. Is the network up?",
        )
    })
}

/// Brings apt's package lists up to date where we may; without, those that are
/// here must do.
pub fn refresh_lists() {
    if shell::is_root() {
        let updated = shell::capture(Command::new("apt-get").args(["update", "-q"]));
        if updated.is_none() {
            eprintln!("`apt-get update` failed; going on with the package lists that are here");
        }
    }
}

/// The package and those of its dependencies that are not installed.
pub fn missing_with(name: &str) -> Result<Vec<String>> {
    let mut apt = Command::new("apt-get");
    apt.args(["install", "--simulate", "--no-install-recommends", name]);
    let plan = shell::capture(&mut apt).with_context(|| {
        format!(
            "apt cannot provide {name}; `{}` tells why",
            shell::render(&apt)
        )
    })?;
    Ok(added(&plan).map(str::to_owned).collect())
}

/// Downloads packages and unpacks them below `place`, without installing them.
pub fn unpack(names: &[String], place: &Path) -> Result<()> {
    let archives = place.join("packages");
    fs::create_dir_all(&archives).with_context(|| format!("cannot make {}", archives.display()))?;
    // As root, apt would use a user of its own, who may not write here.
    let mut download = Command::new("apt-get");
    download
        .args(["download", "-q", "-o", "APT::Sandbox::User=root"])
        .args(names)
        .current_dir(&archives);
    shell::run(
        &mut download,
        "apt's own words are above. Is the network up?",
    )?;
    for archive in fs::read_dir(&archives)?.flatten() {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("--extract").arg(archive.path()).arg(place);
        shell::run(&mut dpkg, "dpkg's own words are above.")?;
    }
    fs::remove_dir_all(&archives).with_context(|| format!("cannot remove {}", archives.display()))
}

/// Installs packages, or says which command does it when we are not root.
pub fn install(names: &[&str]) -> Result<()> {
    if shell::find_program("apt-get").is_none() {
        bail!(
            "this machine has no apt-get, and setup knows no other way to get: {list}\n\
             Install their equivalents by hand, then run `cargo xtask setup` again.",
            list = names.join(" "),
        );
    }
    let script = || {
        [OsStr::new(SCRIPT)]
            .into_iter()
            .chain(names.iter().map(OsStr::new))
    };
    if !shell::is_root() {
        let by_hand = shell::render(Command::new("sudo").arg("sh").args(script()));
        bail!(
            "packages are missing, and installing them needs root. Run:\n    \
             {by_hand}\nthen run this command again.",
        );
    }
    let what = format!(
        "installing {} (their daemons are not started)",
        names.join(" ")
    );
    shell::step(&what, || {
        shell::run(
            shell::command("sh").args(script()),
            "apt's own words are above. Nothing was removed. Once apt can install these \
             packages, run `cargo xtask setup` again.",
        )
    })
}

/// The packages that a simulated installation would add, without those that it
/// would bring up to date: `Inst NAME (NEW ..)`, and `Inst NAME [OLD] (NEW ..)`.
fn added(plan: &str) -> impl Iterator<Item = &str> {
    plan.lines().filter_map(|line| {
        let (name, versions) = line.strip_prefix("Inst ")?.split_once(' ')?;
        versions.starts_with('(').then_some(name)
    })
}

/// The candidate version in the output of `apt-cache policy`.
fn candidate(policy: &str) -> Option<&str> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .map(str::trim)
        .filter(|version| *version != "(none)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_that_are_not_installed_are_added() {
        let plan = "Remv a [1]\nInst b (1 Debian:12 [amd64])\nInst c [1] (2 Debian:12)\n\
                    Inst d (1 Debian:12 [all])\nConf b (1 Debian:12 [amd64])\n";
        assert_eq!(added(plan).collect::<Vec<_>>(), ["b", "d"]);
    }

    #[test]
    fn apt_knows_a_package_when_its_policy_has_a_candidate() {
        #[track_caller]
        fn check(policy: &str, expected: Option<&str>) {
            assert_eq!(candidate(policy), expected, "in the policy {policy:?}");
        }
        check(
            "llvm-22-dev:\n  Installed: (none)\n  Candidate: 1:22.1.8-1\n",
            Some("1:22.1.8-1"),
        );
        check(
            "rust-web:\n  Installed: (none)\n  Candidate: (none)\n",
            None,
        );
        check("", None);
    }
}
