//! ExaBGP on a host.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{host::Host, process::Process};

/// Starts ExaBGP as root, without the pipes of its command line.
pub fn start_exabgp(host: &Host, config: &str) -> Result<Process> {
    let config = host.write("exabgp.conf", config)?;
    let mut command = Command::new("exabgp");
    for (name, value) in [
        ("daemon.user", "root"),
        ("daemon.drop", "false"),
        ("api.cli", "false"),
        ("api.ack", "false"),
    ] {
        command.env(format!("exabgp.{name}"), value);
    }
    host.spawn("exabgp", command.arg(config))
        .context("ExaBGP is not installed: run `cargo xtask setup`")
}
