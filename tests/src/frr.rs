//! FRR (zebra and bgpd) on a host, and what it says.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    host::Host,
    process::Process,
    rack::Machine,
    wait::{STARTING, wait_until},
};

const DAEMONS: &str = "/usr/lib/frr";

/// A running FRR.
#[derive(Debug)]
pub struct Frr {
    host: Host,
    dir: PathBuf,
    bgpd: Process,
    /// zebra, and bfdd where it was asked for.
    _others: Vec<Process>,
}

impl Frr {
    /// Starts zebra and bgpd with `config` (bgpd's) and returns when bgpd
    /// answers.
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        Self::start_all(host, config, None)
    }

    /// The same, with bfdd and its configuration.
    pub fn start_with_bfd(host: &Host, config: &str, bfd: &str) -> Result<Self> {
        Self::start_all(host, config, Some(bfd))
    }

    fn start_all(host: &Host, config: &str, bfd: Option<&str>) -> Result<Self> {
        let dir = host.dir().join("frr");
        std::fs::create_dir_all(&dir)?;
        // The daemons give up root, and write sockets and pid files there.
        let owner = dir.to_string_lossy();
        host.run("chown", &["frr:frr", &owner])
            .context("FRR is not installed: run `cargo xtask setup`")?;
        // One that was killed has left it, and others would find nobody there.
        let zserv = dir.join("zserv.api");
        if zserv.exists() {
            std::fs::remove_file(&zserv)?;
        }
        let mut others = vec![start_daemon(host, &dir, "zebra", "")?];
        wait_until("zebra listens", STARTING, || {
            others[0].ensure_running()?;
            ensure!(zserv.exists(), "no zserv.api yet");
            Ok(())
        })?;
        if let Some(config) = bfd {
            others.push(start_daemon(host, &dir, "bfdd", config)?);
        }
        let bgpd = start_daemon(host, &dir, "bgpd", config)?;
        let mut frr = Self {
            host: host.clone(),
            dir,
            bgpd,
            _others: others,
        };
        wait_until("bgpd answers", STARTING, || {
            frr.bgpd.ensure_running()?;
            frr.vtysh("show version")
        })?;
        Ok(frr)
    }

    /// bgpd's configuration for the router of a rack: a session with each
    /// machine for both families, with further lines for each neighbour,
    /// written as what follows `neighbor <address>`.
    pub fn router_config(
        local_as: u32,
        machines: &[Machine],
        remote_as: u32,
        further: &[&str],
    ) -> String {
        let mut neighbours = String::new();
        let mut activated = String::new();
        for Machine { ipv4, .. } in machines {
            neighbours += &format!(
                " neighbor {ipv4} remote-as {remote_as}\n neighbor {ipv4} timers connect 1\n"
            );
            for line in further {
                neighbours += &format!(" neighbor {ipv4} {line}\n");
            }
            activated += &format!("  neighbor {ipv4} activate\n");
        }
        format!(
            "router bgp {local_as}
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 timers bgp 1 3
{neighbours}
 address-family ipv4 unicast
{activated} exit-address-family
 address-family ipv6 unicast
{activated} exit-address-family
"
        )
    }

    /// Asks FRR by its own shell.
    pub fn vtysh(&self, command: &str) -> Result<String> {
        let dir = self.dir.to_string_lossy();
        self.host
            .run("vtysh", &["--vty_socket", &dir, "-c", command])
    }

    /// Asks FRR by its own shell, for commands that end in `json`.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.vtysh(command)?;
        serde_json::from_str(&text).with_context(|| format!("`{command}` answered {text}"))
    }

    /// Fails, telling the state, unless the session with `neighbour` is
    /// established.
    pub fn ensure_established(&self, neighbour: &str) -> Result<()> {
        let answer = self.json(&format!("show bgp neighbors {neighbour} json"))?;
        let state = &answer[neighbour]["bgpState"];
        ensure!(state == "Established", "{neighbour} is {state}");
        Ok(())
    }

    /// What FRR says of its BFD session with this peer.
    pub fn bfd(&self, peer: &str) -> Result<Value> {
        let answer = self.json("show bfd peers json")?;
        let mut peers = answer.as_array().into_iter().flatten();
        let found = peers.find(|found| found["peer"] == peer).cloned();
        found.with_context(|| format!("no session with {peer}: {answer}"))
    }

    /// The paths to a prefix, with all their attributes.
    pub fn paths(&self, prefix: &str) -> Result<Vec<Value>> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let answer = self.json(&format!("show bgp {family} unicast {prefix} json"))?;
        Ok(answer["paths"].as_array().cloned().unwrap_or_default())
    }

    /// What one of its daemons has logged.
    pub fn log(&self, daemon: &str) -> String {
        let path = self.host.dir().join(format!("{daemon}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// bgpd, to be stopped or killed.
    pub fn bgpd(&mut self) -> &mut Process {
        &mut self.bgpd
    }
}

fn start_daemon(host: &Host, dir: &PathBuf, name: &str, config: &str) -> Result<Process> {
    let file = host.write(&format!("frr/{name}.conf"), config)?;
    let mut command = Command::new(format!("{DAEMONS}/{name}"));
    command.arg("-f").arg(file);
    command.arg("-i").arg(dir.join(format!("{name}.pid")));
    command.arg("-z").arg(dir.join("zserv.api"));
    command.arg("--vty_socket").arg(dir);
    if name == "bfdd" {
        command.arg("--bfdctl").arg(dir.join("bfdd.sock"));
    }
    command.args(["-P", "0", "--log", "stdout"]);
    host.spawn(name, &mut command)
}
