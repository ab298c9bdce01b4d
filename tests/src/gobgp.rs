//! GoBGP on a host, and what it says. It speaks BGP only: nothing reaches the
//! kernel's routes.

use std::{fmt::Write as _, fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    host::Host,
    process::Process,
    rack::Machine,
    wait::{STARTING, wait_until},
};

/// `session_state` of an established session in GoBGP's API.
const ESTABLISHED: u64 = 6;

/// A running GoBGP.
#[derive(Debug)]
pub struct Gobgp {
    process: Process,
    api: String,
}

impl Gobgp {
    /// Starts GoBGP and returns when it answers.
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        let config = host.write("gobgpd.toml", config)?;
        let socket = host.dir().join("gobgp.sock");
        // One that was killed leaves its socket behind, and none starts over it.
        let _ = fs::remove_file(&socket);
        let api = format!("unix://{}", socket.display());
        let mut command = Command::new("gobgpd");
        command.arg("-f").arg(config);
        command.args(["--api-hosts", &api, "--pprof-disable", "-p"]);
        let process = host
            .spawn("gobgpd", &mut command)
            .context("GoBGP is not installed: run `cargo xtask setup`")?;
        let mut gobgp = Self { process, api };
        wait_until("gobgpd answers", STARTING, || {
            gobgp.process.ensure_running()?;
            gobgp.ask(&["global"])
        })?;
        Ok(gobgp)
    }

    /// A configuration for a router of the rack: short timers, and a session
    /// with each machine for both families; where `further` enables graceful
    /// restart, for both too. `further` are lines of TOML in the neighbour's
    /// table, `ipv4` in that of its IPv4 routes.
    pub fn router_config(
        local_as: u32,
        machines: &[Machine],
        remote_as: u32,
        further: &str,
        ipv4: &str,
    ) -> String {
        let mut text = format!("[global.config]\nas = {local_as}\nrouter-id = \"192.0.2.1\"\n");
        for Machine { ipv4: address, .. } in machines {
            // Writing into a string cannot fail.
            let _ = write!(
                text,
                r#"
[[neighbors]]
config.neighbor-address = "{address}"
config.peer-as = {remote_as}
timers.config.connect-retry = 1
timers.config.hold-time = 3
{further}
[[neighbors.afi-safis]]
config.afi-safi-name = "ipv4-unicast"
mp-graceful-restart.config.enabled = true
{ipv4}
[[neighbors.afi-safis]]
config.afi-safi-name = "ipv6-unicast"
mp-graceful-restart.config.enabled = true
"#
            );
        }
        text
    }

    /// Asks GoBGP by its own client, for instance `neighbor`.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let all = [&["--target", &self.api], words].concat();
        self.process.host().run("gobgp", &all)
    }

    /// The same in JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.ask(&[&["-j"], words].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{words:?} is answered by {text}"))
    }

    /// Fails, telling the state, unless the session with `neighbour` is
    /// established.
    pub fn ensure_established(&self, neighbour: &str) -> Result<()> {
        let state = &self.json(&["neighbor", neighbour])?["state"]["session_state"];
        ensure!(*state == ESTABLISHED, "{neighbour} is in state {state}");
        Ok(())
    }

    /// The paths to a prefix, with all their attributes.
    pub fn paths(&self, prefix: &str) -> Result<Vec<Value>> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let mut answer = self.json(&["global", "rib", "-a", family, prefix])?;
        let paths = answer.get_mut(prefix).map(Value::take);
        Ok(match paths {
            Some(Value::Array(paths)) => paths,
            _ => Vec::new(),
        })
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process, to be stopped or killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
