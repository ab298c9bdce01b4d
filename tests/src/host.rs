//! A host of the lab: a network namespace that plays a machine.

use std::{
    fs::{self, File},
    io::Write as _,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{interrupt, lab::Lab, process::Process};

/// No command of the lab takes longer than this, in seconds.
const COMMAND_LIMIT: &str = "90";

/// Kernel settings of every host, before it has interfaces.
const SYSCTLS: &[(&str, &str)] = &[
    // Addresses are usable at once, and only those the lab gives.
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/autoconf", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    // Direct server return is asymmetric.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];

/// A network namespace with a name and a directory of its own in the lab.
///
/// Processes get into it by `setns` of the thread that starts them, so that
/// they see the machine's own /sys with the BPF file system in it (`ip netns
/// exec` would mount another /sys over it).
#[derive(Clone, Debug)]
pub struct Host {
    lab: Lab,
    name: String,
    netns: Arc<File>,
}

impl Host {
    pub(crate) fn create_all(lab: &Lab, names: &[&str]) -> Result<Vec<Self>> {
        let batch: String = names
            .iter()
            .map(|name| format!("netns add {}\n", lab.id().netns(name)))
            .collect();
        run(Command::new("ip").args(["-batch", "-"]), &batch)?;
        names.iter().map(|name| Self::open(lab, name)).collect()
    }

    fn open(lab: &Lab, name: &str) -> Result<Self> {
        let path = Path::new("/run/netns").join(lab.id().netns(name));
        let netns = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let host = Self {
            lab: lab.clone(),
            name: name.to_owned(),
            netns: Arc::new(netns),
        };
        fs::create_dir(host.dir())?;
        fs::create_dir(host.pins())?;
        host.sysctl(SYSCTLS)?;
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// The host's name in the lab: `client`, `lb1`, ..
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab it belongs to.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The name of its namespace, for `ip -n` and `ip netns exec`.
    pub fn netns_name(&self) -> String {
        self.lab.id().netns(&self.name)
    }

    /// The host's directory: configurations, sockets, logs.
    pub fn dir(&self) -> PathBuf {
        self.lab.dir().join(&self.name)
    }

    /// Where the host's BPF objects are pinned.
    pub fn pins(&self) -> PathBuf {
        self.lab.id().pins().join(&self.name)
    }

    /// Runs `action` in a thread that lives in this namespace. Sockets it
    /// opens and processes it starts belong to this host.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.netns.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("enter the namespace of {}", self.name))?;
                action()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a command on this host to its end and returns what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.enter(|| {
            let mut command = Command::new("timeout");
            command.arg(COMMAND_LIMIT).arg(program).args(arguments);
            run(&mut command, "")
        })
        .with_context(|| format!("on {}", self.name))
    }

    /// Runs lines of `ip` on this host, all in one go.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.enter(|| run(Command::new("ip").args(["-batch", "-"]), batch))
            .with_context(|| format!("on {}", self.name))?;
        Ok(())
    }

    /// The kernel's id of the XDP program on an interface, if there is one.
    pub fn xdp(&self, interface: &str) -> Result<Option<u32>> {
        let link = self.run("ip", &["-details", "link", "show", interface])?;
        let Some((_, rest)) = link.split_once("prog/xdp id ") else {
            return Ok(None);
        };
        let id = rest.split_whitespace().next().map(str::parse);
        let id = id.and_then(Result::ok);
        id.map(Some).with_context(|| format!("no id in {link}"))
    }

    /// Writes kernel settings, named by their paths below /proc/sys.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (name, value) in settings {
                fs::write(Path::new("/proc/sys").join(name), value)
                    .with_context(|| format!("set {name} on {}", self.name))?;
            }
            Ok(())
        })
    }

    /// Writes a file into the host's directory and returns its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir().join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file that only root may read.
    pub fn write_secret(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.write(name, "")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        self.write(name, text)
    }

    /// Makes a file that programs of all users may write, and returns its path.
    pub fn write_for_all(&self, name: &str) -> Result<PathBuf> {
        let path = self.write(name, "")?;
        fs::set_permissions(self.dir(), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }

    /// Starts a program that runs until it is stopped; its output goes to
    /// `<name>.log` in the host's directory.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let _creating = interrupt::creating();
        Process::start(self, name, command)
    }
}

/// Runs a command with `input`; an error tells the command and what it said.
fn run(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let Some(mut stdin) = child.stdin.take() else {
        bail!("{command:?} has no input");
    };
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?} failed ({}): {}{text}{input}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
    );
    Ok(text)
}
