//! Debian packages: which ones are wanted, which are missing, how they are installed.

use std::{ffi::OsStr, fs, path::Path, process::Command};

use anyhow::{Result, bail};

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
        name: "nftables",
        provides: "nft",
        why: "labs let a host fall silent by dropping its packets",
    },
    Package {
        name: "iputils-ping",
        provides: "ping",
        why: "labs ask whether a host answers",
    },
    Package {
        name: "tcpdump",
        provides: "tcpdump",
        why: "labs record the packets of a test that fails",
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
        why: "a third router for the BGP labs",
    },
    Package {
        name: "nginx-light",
        provides: "nginx",
        why: "the web server behind the VIP in the demo and the labs",
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
