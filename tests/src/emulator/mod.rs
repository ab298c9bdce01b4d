//! A machine with an older kernel: Debian's stock 6.1, emulated by QEMU, with a
//! file system in memory that holds what the test wants to run there.
//!
//! `cargo xtask setup` unpacks both; nothing of them is installed. There is no
//! hardware virtualisation in it, so it runs anywhere, some ten times slower.

mod cpio;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use self::cpio::Archive;
use crate::host::Host;

/// A boot and all commands; it takes half a minute on a busy machine.
const PATIENCE: Duration = Duration::from_secs(500);
/// Begins the line that ends a command's output.
const ANSWERED: &str = "= ";

/// QEMU and a kernel, as unpacked by `cargo xtask setup`.
#[derive(Debug)]
pub struct Emulator {
    root: PathBuf,
    kernel: PathBuf,
}

/// What is in the emulated machine, and what it does.
#[derive(Debug)]
pub struct Guest<'a> {
    emulator: &'a Emulator,
    files: Archive,
    libraries: BTreeSet<PathBuf>,
    commands: Vec<String>,
}

/// A command that was run in the emulated machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// The line as it was asked for.
    pub command: String,
    /// What it printed, errors included.
    pub output: String,
    /// Whether it ended with 0.
    pub success: bool,
}

impl Emulator {
    /// Finds both.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/emulator");
        let root = root.canonicalize().with_context(|| {
            format!("no emulator at {}: run `cargo xtask setup`", root.display())
        })?;
        let kernel = entries(&root.join("boot"))?
            .into_iter()
            .find(|path| named(path).starts_with("vmlinuz-"))
            .context(
                "the emulator has no kernel: remove target/emulator, then `cargo xtask setup`",
            )?;
        Ok(Self { root, kernel })
    }

    /// The version of the kernel.
    pub fn version(&self) -> String {
        named(&self.kernel).replace("vmlinuz-", "")
    }

    /// A kernel module that is no part of the kernel proper, by its path below
    /// `kernel/`.
    pub fn module(&self, path: &str) -> PathBuf {
        let modules = self.root.join("lib/modules").join(self.version());
        modules.join("kernel").join(path)
    }

    /// QEMU: the unpacked one, or the machine's own where there is one.
    fn qemu(&self) -> Command {
        let unpacked = self.root.join("usr/bin/qemu-system-x86_64");
        if !unpacked.exists() {
            return Command::new("qemu-system-x86_64");
        }
        let inside = |path: &str| self.root.join(path).display().to_string();
        let libraries = ["lib", "usr/lib"].map(|lib| inside(&format!("{lib}/x86_64-linux-gnu")));
        let mut qemu = Command::new(unpacked);
        qemu.env("LD_LIBRARY_PATH", libraries.join(":"))
            .env("QEMU_MODULE_DIR", inside("usr/lib/x86_64-linux-gnu/qemu"));
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(inside(firmware));
        }
        qemu
    }
}

impl<'a> Guest<'a> {
    /// A machine whose first process is `init`, which runs the lines of
    /// `/commands` one by one and prints what becomes of them.
    pub fn new(emulator: &'a Emulator, init: &Path) -> Result<Self> {
        let mut guest = Self {
            emulator,
            files: Archive::default(),
            libraries: BTreeSet::new(),
            commands: Vec::new(),
        };
        guest.program("/init", init)?;
        Ok(guest)
    }

    /// Puts a program there, with the libraries that it is linked with.
    pub fn program(&mut self, place: &str, path: &Path) -> Result<()> {
        self.files.add(place, &read(path)?, 0o755);
        let linked = Command::new("ldd")
            .arg(path)
            .output()
            .context("start ldd")?;
        for library in String::from_utf8_lossy(&linked.stdout)
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            let library = PathBuf::from(library);
            if !self.libraries.contains(&library) {
                let place = library.display().to_string();
                self.files.add(&place, &read(&library)?, 0o755);
                self.libraries.insert(library);
            }
        }
        Ok(())
    }

    /// Puts a file there.
    pub fn file(&mut self, place: &str, content: &[u8]) {
        self.files.add(place, content, 0o644);
    }

    /// Adds a line to what the machine does: a program's path and arguments,
    /// separated by blanks.
    pub fn command(&mut self, line: &str) {
        self.commands.push(line.to_owned());
    }

    /// Boots it, with QEMU as a process of `host`, and waits until it has
    /// powered itself off. Fails, with all that it printed, when it did not get
    /// to the last command.
    pub fn run(mut self, host: &Host) -> Result<Vec<Ran>> {
        self.files
            .add("/commands", self.commands.join("\n").as_bytes(), 0o644);
        let image = host.dir().join("initramfs");
        fs::write(&image, self.files.finish())?;

        let mut qemu = self.emulator.qemu();
        qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1024"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.emulator.kernel)
            .arg("-initrd")
            .arg(&image)
            .args(["-append", "console=ttyS0 panic=-1"]);
        let mut machine = host.spawn("qemu", &mut qemu)?;
        let ended = machine.wait(PATIENCE);
        let console = machine.log();
        let ran = parse(&console);
        let status = ended.with_context(|| format!("its console:\n{console}"))?;
        ensure!(
            ran.len() == self.commands.len(),
            "the machine ended ({status}) after {} of {} commands; its console:\n{console}",
            ran.len(),
            self.commands.len(),
        );
        Ok(ran)
    }
}

/// Finds the commands on the console: `$ LINE`, what it printed, `= CODE`.
fn parse(console: &str) -> Vec<Ran> {
    let mut ran = Vec::new();
    let mut running: Option<Ran> = None;
    for line in console.lines().map(|line| line.trim_end_matches('\r')) {
        match &mut running {
            None => {
                running = line.strip_prefix("$ ").map(|command| Ran {
                    command: command.to_owned(),
                    output: String::new(),
                    success: false,
                });
            }
            Some(command) => match line.strip_prefix(ANSWERED) {
                None => command.output += &format!("{line}\n"),
                Some(code) => {
                    command.success = code == "0";
                    ran.extend(running.take());
                }
            },
        }
    }
    ran
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(directory) else {
        bail!("{} cannot be listed", directory.display());
    };
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn named(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_between_the_kernels_own_lines() {
        let console = "[    1.2] Run /init as init process\r\n$ /bin/a b\r\none\r\n= 0\r\n\
                       [    1.3] noise\r\n$ /bin/c\r\n= 1\r\n$ /bin/never\r\nended in";
        let told = |command: &str, output: &str, success| Ran {
            command: command.into(),
            output: output.into(),
            success,
        };
        let expected = [told("/bin/a b", "one\n", true), told("/bin/c", "", false)];
        assert_eq!(parse(console), expected);
    }
}
