//! What a process takes, by what the kernel tells.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};

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

/// What all processors have done since the start of the machine, together.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    /// In anything but idleness, the stolen time included.
    pub busy: Duration,
    /// Given to others by a hypervisor.
    pub stolen: Duration,
    /// Idle or not.
    pub passed: Duration,
}

impl Processors {
    /// Until now.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        // proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal, and
        // the time of guests, which is part of the first two.
        let line = stat.lines().next().and_then(|it| it.strip_prefix("cpu "));
        let fields: Option<Vec<u64>> = line.and_then(|line| {
            let fields = line.split_whitespace().take(8);
            fields.map(|field| field.parse().ok()).collect()
        });
        let Some([user, nice, system, idle, iowait, irq, softirq, steal]) =
            fields.and_then(|fields| <[u64; 8]>::try_from(fields).ok())
        else {
            bail!("/proc/stat holds {stat}");
        };
        let time = |ticks: u64| Duration::from_millis(ticks * TICK.as_millis() as u64);
        let busy = user + nice + system + irq + softirq + steal;
        Ok(Self {
            busy: time(busy),
            stolen: time(steal),
            passed: time(busy + idle + iowait),
        })
    }
}

/// Of the times in /proc.
pub const TICK: Duration = Duration::from_millis(10);

fn read(pid: u32, name: &str) -> Result<String> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
