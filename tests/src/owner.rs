//! Whose something is that outlives a process: a process by its number and its
//! start, which together tell it from any other.

use std::{fmt, fs};

use anyhow::{Context as _, Result};

/// A process that runs, or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    /// In clock ticks since boot.
    start: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> Result<Self> {
        let pid = std::process::id();
        Self::of(pid).with_context(|| format!("/proc does not tell about process {pid}"))
    }

    /// The process of that number; `None` when there is none, or a zombie.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; after it come the state
        // (field 3) and the start time (field 22) of proc_pid_stat(5).
        let (_, after_name) = stat.rsplit_once(") ")?;
        let mut fields = after_name.split(' ');
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, start })
    }

    /// Reads what stands before the rest of a name, `PID-START-REST`.
    pub(crate) fn parse(name: &str) -> Option<(Self, &str)> {
        let (pid, rest) = name.split_once('-')?;
        let (start, rest) = rest.split_once('-')?;
        let owner = Self {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        };
        Some((owner, rest))
    }

    /// Its number.
    pub(crate) fn pid(self) -> u32 {
        self.pid
    }

    /// Whether it runs, and not another one that got its number.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_only_as_itself() {
        let this = Owner::this().unwrap();
        assert!(this.is_alive());
        let before = Owner {
            start: this.start - 1,
            ..this
        };
        assert!(!before.is_alive(), "another process had the number before");
        let nobody = Owner {
            pid: u32::MAX,
            start: 1,
        };
        assert!(!nobody.is_alive());
    }

    #[test]
    fn an_owner_is_read_from_a_name() {
        let owner = Owner { pid: 7, start: 89 };
        for (name, expected) in [
            ("7-89-a-name", Some((owner, "a-name"))),
            ("7-89-1", Some((owner, "1"))),
            ("7-89", None),
            ("7-name", None),
            ("7-x-name", None),
        ] {
            assert_eq!(Owner::parse(name), expected, "{name}");
        }
    }
}
