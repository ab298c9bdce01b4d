//! The first process of an emulated machine: makes the file systems that are
//! expected everywhere, loads the kernel modules in `/modules`, runs the lines
//! of `/commands`, and powers the machine off.
//!
//! It prints `$ LINE` before a command and `= CODE` after it; whoever started
//! the machine reads that on its console.

use std::{
    fs::{self, File},
    process::Command,
};

use anyhow::{Context as _, Result};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot},
};

const FILE_SYSTEMS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("bpf", "/sys/fs/bpf"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];

fn main() {
    if std::process::id() != 1 {
        eprintln!("this is the first process of an emulated machine; it does nothing elsewhere");
        return;
    }
    if let Err(error) = work() {
        println!("the machine could not go on: {error:#}");
    }
    // QEMU is told to end where a machine would start again.
    if let Err(error) = reboot(RebootCommand::Restart) {
        println!("the machine does not end: {error}");
    }
}

fn work() -> Result<()> {
    for (kind, place) in FILE_SYSTEMS {
        fs::create_dir_all(place).with_context(|| format!("make {place}"))?;
        mount(*kind, *place, *kind, MountFlags::empty(), None)
            .with_context(|| format!("mount {place}"))?;
    }
    // From here on only the kernel's errors stand between the lines.
    fs::write("/proc/sys/kernel/printk", "4").context("quieten the kernel")?;
    for module in fs::read_dir("/modules").into_iter().flatten().flatten() {
        let path = module.path();
        finit_module(File::open(&path)?, c"", 0)
            .with_context(|| format!("load the module {}", path.display()))?;
    }
    for line in fs::read_to_string("/commands")?.lines() {
        println!("$ {line}");
        println!("= {}", run(line));
    }
    Ok(())
}

/// Runs a command, whose output goes where ours goes, and tells its code.
fn run(line: &str) -> i32 {
    let mut words = line.split_whitespace();
    let Some(program) = words.next() else {
        return 0;
    };
    match Command::new(program).args(words).status() {
        Ok(status) => status.code().unwrap_or(-1),
        Err(error) => {
            println!("cannot start it: {error}");
            -1
        }
    }
}
