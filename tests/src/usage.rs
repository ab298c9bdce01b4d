//! What a process takes, by what the kernel tells.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

/// User and system time so far of a process with all its threads, in steps of
/// 10 ms.
///
/// # Errors
///
/// When it has ended.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = read(pid, "stat")?;
    // The name, in parentheses, may hold anything; after it come the fields 3
    // and on of proc_pid_stat(5). 14 and 15 are the times.
    let ticks: Option<Vec<u64>> = stat.rsplit_once(") ").and_then(|(_, fields)| {
        let times = fields.split(' ').skip(11).take(2);
        times.map(|field| field.parse().ok()).collect()
    });
    let ticks = ticks.with_context(|| format!("no times in {stat}"))?;
    Ok(TICK * ticks.iter().sum::<u64>() as u32)
}

/// What the kernel counts as the process's own memory, in bytes.
///
/// # Errors
///
/// When it has ended.
pub fn anonymous_memory(pid: u32) -> Result<u64> {
    let status = read(pid, "status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .context("the kernel does not tell RssAnon")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// Of the times in /proc.
pub const TICK: Duration = Duration::from_millis(10);

fn read(pid: u32, name: &str) -> Result<String> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
