//! How punctual BFD is while the processors have more to do than they can: two
//! `vipd bfd` with a session at each of two paces, busy threads beside them, and
//! threads of the same priority that do nothing but wait.

use std::{
    env,
    hint::spin_loop,
    process::Command,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd::bfd::protocol::{Session, State};
use vipd_tests::{Bfd, Host, Lab, Process, connect, usage::Processors};

use crate::NICE;

/// Between two packets, in milliseconds; a peer waits for three of them. The
/// shortest that there is, and the shortest that `docs/bfd.md` calls safe.
const INTERVALS_MS: [u64; 2] = [10, SAFE_MS];
/// See [`INTERVALS_MS`].
pub const SAFE_MS: u64 = 50;
/// Busy threads for each processor.
const THREADS: usize = 2;
/// Between two looks; the processes themselves remember a minute.
const LOOK: Duration = Duration::from_secs(20);
/// That of `vipd bfd`.
const PRIORITY: &str = "20";
/// What a thread that only waits aims at.
const STEP: Duration = Duration::from_millis(10);

/// What came of it.
pub struct Punctuality {
    pub minutes: u32,
    /// Of all processors, from 0 to 1.
    pub busy: f64,
    /// What a hypervisor gave to others, from 0 to 1.
    pub stolen: f64,
    /// By how much threads that only wait were too late, in milliseconds, each
    /// time that it was more than [`STEP`].
    pub waiting: Vec<f64>,
    pub sessions: Vec<Pace>,
}

/// A session, by what both of its ends tell.
pub struct Pace {
    pub interval_ms: u64,
    /// The longest time between two packets, in milliseconds.
    pub longest_gap: f64,
    /// The longest that a packet came later than it should have, in
    /// milliseconds.
    pub latest: f64,
    /// How often it went down.
    pub false_alarms: u64,
    /// Packets sent.
    pub sent: u64,
}

/// Watches two processes for some minutes.
pub fn watch(lab: &Lab, minutes: u32) -> Result<Punctuality> {
    let hosts = lab.add_hosts(&["one", "two"])?;
    let [one, two] = <[Host; 2]>::try_from(hosts)
        .ok()
        .context("a host for each name")?;
    connect((&one, "eth0"), (&two, "eth0"), 1500)?;
    let mut processes = Vec::new();
    for (host, us, them) in [(&one, 1, 2), (&two, 2, 1)] {
        processes.push(start(host, us, them)?);
    }
    // They take us for their agents, whose absence would be a reason to go down.
    let agents = processes.iter().map(Bfd::attend);
    let _agents = agents.collect::<Result<Vec<_>>>()?;
    let mut paces = Vec::new();
    for interval_ms in INTERVALS_MS {
        for process in &processes {
            process.wait_for(&name(interval_ms), State::Up)?;
        }
        paces.push(Pace {
            interval_ms,
            longest_gap: 0.0,
            latest: 0.0,
            false_alarms: 0,
            sent: 0,
        });
    }

    let time = Duration::from_secs(60) * minutes;
    let seconds = time.as_secs().to_string();
    let usual = NICE.to_string();
    let usual = ("nice", ["-n", &usual]);
    let _spinning = ourselves(&one, "spin", usual, ["--spin", &seconds])?;
    let mut waiting = Vec::new();
    for host in [&one, &two] {
        let priority = ("chrt", ["--fifo", PRIORITY]);
        waiting.push(ourselves(host, "wait", priority, ["--wait", &seconds])?);
    }
    let (start, before) = (Instant::now(), Processors::now()?);
    while start.elapsed() < time {
        sleep(LOOK.min(time.saturating_sub(start.elapsed())));
        for pace in &mut paces {
            pace.look(&processes)?;
        }
    }
    let after = Processors::now()?;
    let share = |part: Duration| part.as_secs_f64() / (after.passed - before.passed).as_secs_f64();
    for pace in &paces {
        ensure!(pace.longest_gap > 0.0, "BFD has not come to speed");
    }
    Ok(Punctuality {
        minutes,
        busy: share(after.busy - before.busy),
        stolen: share(after.stolen - before.stolen),
        waiting: delays(&mut waiting)?,
        sessions: paces,
    })
}

impl Punctuality {
    /// How often a thread that only waits was so late that a session of this
    /// interval would have gone down, whatever runs it.
    pub fn stalls(&self, interval_ms: u64) -> usize {
        let longest = 2.0 * interval_ms as f64;
        self.waiting.iter().filter(|late| **late > longest).count()
    }

    /// The worst of them, in milliseconds.
    pub fn worst_stall(&self) -> f64 {
        self.waiting.iter().copied().fold(0.0, f64::max)
    }
}

impl Pace {
    fn look(&mut self, processes: &[Bfd]) -> Result<()> {
        let name = name(self.interval_ms);
        let ends = processes.iter().map(|process| process.session(&name));
        let ends: Vec<Session> = ends.collect::<Result<_>>()?;
        for gap in ends.iter().map(|end| end.worst_gap_last_minute) {
            // Until they have agreed on the interval they are slower.
            if gap.expected_seconds * 1e3 <= self.interval_ms as f64 {
                let late = gap.real_seconds - gap.expected_seconds;
                self.longest_gap = self.longest_gap.max(gap.real_seconds * 1e3);
                self.latest = self.latest.max(late * 1e3);
            }
        }
        // One end that gives up takes the other down.
        let downs = ends.iter().map(|end| end.downs);
        self.false_alarms = downs.max().unwrap_or_default();
        self.sent = ends.iter().map(|end| end.sent).sum();
        Ok(())
    }
}

/// Starts this program with these words, by another one with those.
fn ourselves(host: &Host, name: &str, by: (&str, [&str; 2]), words: [&str; 2]) -> Result<Process> {
    let mut command = Command::new(by.0);
    command.args(by.1).arg(env::current_exe()?).args(words);
    host.spawn(name, &mut command)
}

/// Waits for the end of those that wait, and reads what they say.
fn delays(waiting: &mut [Process]) -> Result<Vec<f64>> {
    let mut delays = Vec::new();
    for process in waiting {
        let status = process.wait(Duration::from_secs(10))?;
        let said = process.log();
        ensure!(status.success(), "a thread that waits has failed: {said}");
        for line in said.lines() {
            delays.push(line.parse().with_context(|| format!("it said {line:?}"))?);
        }
    }
    Ok(delays)
}

/// Waits again and again for some seconds, and prints by how many milliseconds
/// it was too late, where it was by more than [`STEP`].
pub fn wait(seconds: u64) {
    let mut due = Instant::now();
    let end = due + Duration::from_secs(seconds);
    let mut delays = Vec::new();
    while due < end {
        due += STEP;
        sleep(due.saturating_duration_since(Instant::now()));
        let late = due.elapsed();
        if late > STEP {
            delays.push(late);
            due = Instant::now();
        }
    }
    for late in delays {
        println!("{:.3}", late.as_secs_f64() * 1e3);
    }
}

/// Keeps all processors busy for some seconds.
pub fn spin(seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..THREADS * processors {
            scope.spawn(|| {
                while Instant::now() < end {
                    spin_loop();
                }
            });
        }
    });
}

/// One end: `us` and `them` are the last octets for the first of the sessions.
fn start(host: &Host, us: u8, them: u8) -> Result<Bfd> {
    let mut config = format!("[bgp]\nlocal_as = 64500\nrouter_id = \"192.0.2.{us}\"\n");
    for (interval_ms, offset) in INTERVALS_MS.into_iter().zip([0, 10]) {
        let (us, them, name) = (us + offset, them + offset, name(interval_ms));
        host.ip(&format!("addr add 192.0.2.{us}/24 dev eth0\n"))?;
        config += &format!(
            "[[bgp.peer]]\nname = \"{name}\"\naddress = \"192.0.2.{them}\"\nas = 64501\n\
             source = \"192.0.2.{us}\"\n[bgp.peer.bfd]\nmin_tx = \"{interval_ms}ms\"\n\
             min_rx = \"{interval_ms}ms\"\nmultiplier = 3\n"
        );
    }
    Bfd::start(host, &config)
}

fn name(interval_ms: u64) -> String {
    format!("peer-{interval_ms}ms")
}
