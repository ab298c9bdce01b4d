//! One measurement: wrk on the client, and the CPU time that everything took
//! meanwhile.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::usage::{self, Processors};

use crate::stage::{Stage, Way};

/// How the client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// One request after the other on each of them.
    KeepAlive,
    /// A new one for each request.
    ConnectionEach,
}

/// What wrk counted, and what it cost.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub requests_per_second: f64,
    /// Of a request, in microseconds.
    pub p50: f64,
    /// As `p50`.
    pub p99: f64,
    /// CPU time of wrk, nginx, HAProxy, vipd's agent and the kernel's packet
    /// threads, in microseconds per request.
    pub cpu: f64,
    /// Of that, HAProxy's.
    pub haproxy_cpu: f64,
    /// What other programs took of the machine's processors, from 0 to 1.
    pub disturbed: f64,
}

/// Connections at the same time.
const CONNECTIONS: &str = "-c32";

/// Prints what wrk knows in numbers that need no guessing at units. Lua's
/// `os.clock` is the CPU time of the whole process.
const REPORT: &str = "\
done = function(summary, latency)
    local errors = summary.errors
    io.write(string.format('NUMBERS %d %d %d %d %d %.0f\\n',
        summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        os.clock() * 1e6))
end
";

impl Sample {
    /// Requests per second by the share of the processors that others left.
    /// On a quiet machine these are the requests per second.
    pub fn rate(&self) -> f64 {
        self.requests_per_second / (1.0 - self.disturbed)
    }
}

impl Load {
    pub const ALL: [Self; 2] = [Self::KeepAlive, Self::ConnectionEach];

    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::ConnectionEach => "a connection per request",
        }
    }

    /// Asks by that way for some seconds.
    pub fn run(self, stage: &Stage, way: Way, seconds: u32) -> Result<Sample> {
        let script = stage.client.write("report.lua", REPORT)?;
        let script = script.display().to_string();
        let duration = format!("-d{seconds}s");
        let url = format!("http://{}/", way.address());
        let mut words = vec!["-t1", CONNECTIONS, &duration, "-s", &script];
        if self == Self::ConnectionEach {
            words.extend(["-H", "Connection: close"]);
        }
        words.push(&url);

        let before = Cpu::now(stage)?;
        let said = stage.client.run("wrk", &words)?;
        let after = Cpu::now(stage)?;

        let numbers = numbers(&said).with_context(|| format!("wrk said {said}"))?;
        let [requests, duration, p50, p99, errors, wrk] = numbers;
        ensure!(errors == 0.0, "{way:?}, {}: wrk said {said}", self.name());
        ensure!(requests > 0.0, "{way:?}, {}: no request", self.name());
        let haproxy = after.haproxy - before.haproxy;
        let ours = wrk + haproxy + after.others - before.others;
        let foreign = (after.busy - before.busy - ours) / (after.passed - before.passed);
        Ok(Sample {
            requests_per_second: requests / (duration / 1e6),
            p50,
            p99,
            cpu: ours / requests,
            haproxy_cpu: haproxy / requests,
            disturbed: foreign.clamp(0.0, 0.99),
        })
    }
}

fn numbers(said: &str) -> Option<[f64; 6]> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("NUMBERS "))?;
    let numbers: Option<Vec<f64>> = line.split(' ').map(|word| word.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// CPU time so far, in microseconds.
struct Cpu {
    haproxy: f64,
    /// Of nginx, vipd's agent and the kernel's packet threads.
    others: f64,
    /// Of everybody on this machine.
    busy: f64,
    /// Of all processors, idle or not.
    passed: f64,
}

impl Cpu {
    fn now(stage: &Stage) -> Result<Self> {
        let mut others = cpu_time(stage.server.pid())? + cpu_time(stage.agent.pid())?;
        for thread in packet_threads()? {
            others += cpu_time(thread)?;
        }
        let Processors { busy, passed, .. } = Processors::now()?;
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        Ok(Self {
            haproxy: cpu_time(stage.haproxy.pid())?,
            others,
            busy: microseconds(busy),
            passed: microseconds(passed),
        })
    }
}

/// The kernel's threads that handle packets when nobody else's time is taken
/// for it.
fn packet_threads() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            found.push(pid);
        }
    }
    ensure!(!found.is_empty(), "no thread ksoftirqd/N is seen here");
    Ok(found)
}

/// User and system time of a process with all its threads, in microseconds.
fn cpu_time(pid: u32) -> Result<f64> {
    Ok(usage::cpu_time(pid)?.as_secs_f64() * 1e6)
}
