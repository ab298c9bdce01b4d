//! keepalived on a host, for VRRP alone.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{host::Host, process::Process};

/// A running keepalived. Killed, its VRRP process takes the addresses away.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
}

impl Keepalived {
    /// Starts it.
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        let config = host.write("keepalived.conf", config)?;
        let mut command = Command::new("keepalived");
        command
            .args(["--vrrp", "--dont-fork", "--log-console", "--no-syslog"])
            .arg("--use-file")
            .arg(config)
            .arg("--pid")
            .arg(host.dir().join("keepalived.pid"))
            .arg("--vrrp_pid")
            .arg(host.dir().join("keepalived-vrrp.pid"));
        let process = host
            .spawn("keepalived", &mut command)
            .context("keepalived is not installed: run `cargo xtask setup`")?;
        Ok(Self { process })
    }

    /// The process, to be stopped or killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
