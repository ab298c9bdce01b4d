//! A process of the lab, which ends with the value that stands for it.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::{
    host::Host,
    owner::Owner,
    wait::{STARTING, wait_until},
};

/// A running program on a host. Dropping it kills it, and nothing else: it is
/// signalled by the number of the child that was started here.
#[derive(Debug)]
pub struct Process {
    host: Host,
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` on `host`, in a process group of its own, so that a
    /// Ctrl-C at the terminal does not reach it.
    pub(crate) fn start(host: &Host, name: &str, command: &mut Command) -> Result<Self> {
        let log = host.dir().join(format!("{name}.log"));
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .current_dir(host.dir())
            .process_group(0);
        let child = host
            .enter(|| Ok(command.spawn()?))
            .with_context(|| format!("start {command:?} on {}", host.name()))?;
        let process = Self {
            host: host.clone(),
            name: name.to_owned(),
            child,
            log,
        };
        process.enlist()?;
        Ok(process)
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has printed, those before it under the same name included.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended; `None` while it runs.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails, with the log, when it does not run any more.
    pub fn ensure_running(&mut self) -> Result<()> {
        let exited = self.exited()?;
        ensure!(
            exited.is_none(),
            "{} on {} has ended ({}):\n{}",
            self.name,
            self.host.name(),
            exited.map_or_else(String::new, |status| status.to_string()),
            self.log()
        );
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }

    /// Stops it with SIGSTOP, until SIGCONT; all its threads stand when this
    /// returns. The signal alone comes to the first of them.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let id = WaitId::Pid(Pid::from_child(&self.child));
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        wait_until(&format!("{} stands still", self.name), STARTING, || {
            ensure!(waitid(id.clone(), options)?.is_some(), "it runs");
            Ok(())
        })
    }

    /// Kills it with SIGKILL; it is gone when this returns.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(within)
    }

    /// Waits for the end.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "{} on {} has not ended within {within:?}",
                self.name,
                self.host.name()
            );
            sleep(Duration::from_millis(5));
        }
    }

    /// Puts it on the lab's process list, by which a later lab ends it if
    /// this process is killed.
    fn enlist(&self) -> Result<()> {
        if let Some(process) = Owner::of(self.pid()) {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.host.lab().id().process_list())?
                .write_all(format!("{process}-{}\n", self.name).as_bytes())?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.host.lab().is_kept() {
            // It may have ended already; there is nothing to tell.
            let _ = self.kill();
        }
    }
}
