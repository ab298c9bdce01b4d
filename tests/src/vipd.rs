//! vipd on a host: the agent of a balancer, and the decapsulator of a backend.

use std::{
    env,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    host::Host,
    process::Process,
    wait::{STARTING, wait_until},
};

/// Where the agent's metrics are by default.
const METRICS: &str = "127.0.0.1:9842";

/// A running agent, with its own configuration, socket, state and pins.
#[derive(Debug)]
pub struct Vipd {
    host: Host,
    config: PathBuf,
    process: Process,
}

impl Vipd {
    /// The binary: `VIPD` in the environment, or the release build.
    pub fn binary() -> Result<PathBuf> {
        let path = env::var_os("VIPD").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/vipd"),
            PathBuf::from,
        );
        path.canonicalize()
            .with_context(|| format!("no agent at {}: run `cargo xtask build`", path.display()))
    }

    /// Starts the agent and returns when it answers on its socket.
    /// See [`crate::AgentConfig`] for a configuration.
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        let mut vipd = Self::launch(host, config)?;
        vipd.wait_for_answer()?;
        Ok(vipd)
    }

    /// The same without waiting for its answer, which takes long where it has very
    /// much to check.
    pub fn launch(host: &Host, config: &str) -> Result<Self> {
        let config = host.write("vipd.toml", config)?;
        let process = spawn(host, &config)?;
        Ok(Self {
            host: host.clone(),
            config,
            process,
        })
    }

    /// The same, with no more capabilities than the packaged unit leaves it.
    pub fn start_with_rights_of_unit(host: &Host, config: &str) -> Result<Self> {
        let config = host.write("vipd.toml", config)?;
        let mut command = with_rights_of("vipd.service")?;
        command.arg("run").arg("--config").arg(&config);
        let process = host.spawn("vipd", &mut command)?;
        let mut vipd = Self {
            host: host.clone(),
            config,
            process,
        };
        vipd.wait_for_answer()?;
        Ok(vipd)
    }

    /// Starts it again after it has ended.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = spawn(&self.host, &self.config)?;
        self.wait_for_answer()
    }

    /// `vipd status --json`.
    pub fn status(&self) -> Result<Value> {
        let text = self.command("status", &["--json"])?;
        serde_json::from_str(&text).with_context(|| format!("vipd status answered {text}"))
    }

    /// `vipd show bgp`, and what it prints.
    pub fn show_bgp(&self, arguments: &[&str]) -> Result<String> {
        let binary = Self::binary()?;
        let socket = self.host.dir().join("vipd.sock");
        let socket = socket.to_string_lossy();
        let all = [&["show", "bgp", "--socket", &socket], arguments].concat();
        self.host.run(&binary.to_string_lossy(), &all)
    }

    /// Fails, telling what there is, unless every service that has this backend
    /// has it up, or down, as wanted.
    pub fn ensure_backend(&self, name: &str, up: bool) -> Result<()> {
        let status = self.status()?;
        let services = status["services"].as_array().context("no services")?;
        let mut same_name = services
            .iter()
            .filter_map(|service| service["backends"].as_array())
            .flatten()
            .filter(|backend| backend["name"] == name)
            .peekable();
        ensure!(same_name.peek().is_some(), "no backend {name} in {status}");
        for backend in same_name {
            ensure!(backend["available"] == up, "{backend}");
        }
        Ok(())
    }

    /// Writes a configuration and asks for it with `vipd reload`. The error of
    /// a refused one tells why.
    pub fn reload(&self, config: &str) -> Result<String> {
        self.host.write("vipd.toml", config)?;
        self.command("reload", &[])
    }

    /// Writes a configuration and asks for it by SIGHUP.
    pub fn reload_by_signal(&self, config: &str) -> Result<()> {
        self.host.write("vipd.toml", config)?;
        self.process.signal(Signal::HUP)
    }

    /// `vipd drain SERVICE/BACKEND`, and what it prints. The error of a refused
    /// one tells why.
    pub fn drain(&self, target: &str, arguments: &[&str]) -> Result<String> {
        self.command("drain", &[&[target], arguments].concat())
    }

    /// `vipd undrain SERVICE/BACKEND`.
    pub fn undrain(&self, target: &str) -> Result<String> {
        self.command("undrain", &[target])
    }

    /// Fails, telling what there is, unless packets meet what is decided and
    /// every slot of every service is stable.
    pub fn ensure_settled(&self) -> Result<()> {
        for service in self.services_in_force()? {
            let phases = &service["phases"];
            let settled = phases["learn"] == 0 && phases["track"] == 0;
            ensure!(settled, "slots: {phases}");
        }
        Ok(())
    }

    /// Fails, telling what there is, unless packets meet what is decided. What is
    /// decided shows a moment before.
    pub fn ensure_in_force(&self) -> Result<()> {
        self.services_in_force().map(drop)
    }

    fn services_in_force(&self) -> Result<Vec<Value>> {
        let status = self.status()?;
        let services = status["services"].as_array().context("no services")?;
        for service in services {
            ensure!(service["in_force"] == true, "not in force: {service}");
        }
        Ok(services.clone())
    }

    /// What the status says of a BGP peer.
    pub fn peer(&self, name: &str) -> Result<Value> {
        let status = self.status()?;
        status["peers"]
            .as_array()
            .and_then(|peers| peers.iter().find(|peer| peer["name"] == name))
            .cloned()
            .with_context(|| format!("no peer {name} in {status}"))
    }

    /// The metrics page, in the format that `accept` asks for.
    pub fn metrics(&self, accept: &str) -> Result<String> {
        let answer = self.host.enter(|| {
            let mut stream = TcpStream::connect(METRICS).context("connect to the metrics page")?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(
                stream,
                "GET /metrics HTTP/1.1\r\nHost: {METRICS}\r\nAccept: {accept}\r\n\
                 Connection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "answered {answer}");
        Ok(answer)
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process, to be stopped or killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Runs a command of vipd that speaks to the agent; gives back what it says.
    pub fn command(&self, subcommand: &str, arguments: &[&str]) -> Result<String> {
        let binary = Self::binary()?;
        let socket = self.host.dir().join("vipd.sock");
        let socket = socket.to_string_lossy();
        let mut all = vec![subcommand, "--socket", &socket];
        all.extend(arguments);
        self.host.run(&binary.to_string_lossy(), &all)
    }

    /// Starts a command that speaks to the agent until it is stopped.
    pub fn spawn(&self, subcommand: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(Self::binary()?);
        let socket = self.host.dir().join("vipd.sock");
        command
            .args([subcommand, "--socket"])
            .arg(socket)
            .args(arguments);
        self.host.spawn(subcommand, &mut command)
    }

    fn wait_for_answer(&mut self) -> Result<()> {
        wait_until("vipd answers", STARTING, || {
            if self.process.exited()?.is_some() {
                bail!("it has ended: {}", self.process.log());
            }
            self.status()
        })?;
        Ok(())
    }
}

/// vipd with no more capabilities than this packaged unit leaves it.
pub(crate) fn with_rights_of(unit: &str) -> Result<Command> {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let text = std::fs::read_to_string(units.join(unit))?;
    let mut lines = text.lines();
    let set = lines.find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let set = set.context("the unit has no CapabilityBoundingSet")?;
    let added: String = set
        .split_whitespace()
        .map(|capability| capability.trim_start_matches("CAP_").to_lowercase())
        .map(|capability| format!(",+{capability}"))
        .collect();
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--bounding-set=-all{added}"))
        .arg("--inh-caps=-all")
        .arg(Vipd::binary()?);
    Ok(command)
}

fn spawn(host: &Host, config: &Path) -> Result<Process> {
    let mut command = Command::new(Vipd::binary()?);
    command.arg("run").arg("--config").arg(config);
    host.spawn("vipd", &mut command)
}

/// The decapsulating XDP program on a backend, which stands for IPIP in the
/// kernel. It is pinned, and goes with the lab.
#[derive(Debug)]
pub struct Decapsulator {
    host: Host,
    interface: String,
}

impl Decapsulator {
    /// Attaches it to `eth0` for tunnels from `sources`.
    pub fn attach(host: &Host, sources: &[&str]) -> Result<Self> {
        Self::attach_to(host, "eth0", sources)
    }

    /// The same on another interface.
    pub fn attach_to(host: &Host, interface: &str, sources: &[&str]) -> Result<Self> {
        let decapsulator = Self {
            host: host.clone(),
            interface: interface.to_owned(),
        };
        let from = sources.iter().flat_map(|source| ["--from", source]);
        decapsulator.command("attach", &from.collect::<Vec<_>>())?;
        Ok(decapsulator)
    }

    /// Takes it away.
    pub fn detach(self) -> Result<()> {
        self.command("detach", &[])
    }

    fn command(&self, subcommand: &str, arguments: &[&str]) -> Result<()> {
        let binary = Vipd::binary()?;
        let pins = self.host.pins().join("decap");
        let pins = pins.to_string_lossy();
        let interface = self.interface.as_str();
        let mut all = vec![
            "decap",
            subcommand,
            "--iface",
            interface,
            "--pin-path",
            &pins,
        ];
        all.extend(arguments);
        self.host.run(&binary.to_string_lossy(), &all)?;
        Ok(())
    }
}
