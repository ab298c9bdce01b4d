//! What `vipd status` shows of the hooks.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A hook, and what became of its runs since the agent started or its configuration
/// changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    /// Name.
    pub name: String,
    /// Runs with exit code 0.
    pub succeeded: u64,
    /// Runs that have ended otherwise.
    pub failed: u64,
    /// Runs that were killed at their time-out.
    pub timed_out: u64,
    /// Runs that could not be.
    pub not_run: u64,
    /// Changes that were not told, since another one of the same subject came before
    /// their turn.
    pub superseded: u64,
    /// Changes that wait for their turn.
    pub waiting: usize,
    /// Programs that run.
    pub running: usize,
    /// Why the last run that failed did so.
    pub last_failure: Option<String>,
}

/// `hook page: 3 runs, 1 failed, last: vip 198.51.100.10: exit code 1`.
impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bad = self.failed + self.timed_out + self.not_run;
        write!(
            f,
            "hook {}: {} runs, {bad} failed",
            self.name,
            self.succeeded + bad
        )?;
        if self.running + self.waiting > 0 {
            write!(f, ", {} run now, {} wait", self.running, self.waiting)?;
        }
        match &self.last_failure {
            Some(failure) => write!(f, "; the last one to fail was for {failure}"),
            None => Ok(()),
        }
    }
}
