//! Agents that are killed while they change the maps.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use fastrand::Rng;
use vipd::dataplane::pins::Pins;

/// Agents killed, one after the other, over the same pinned maps.
const KILLS: usize = 200;
/// Each changes the maps all the time, and lives for up to so many
/// microseconds more.
const LIFE_US: u64 = 15_000;

#[test]
fn two_hundred_agents_killed_while_they_change_the_maps_leave_them_consistent() {
    let seed = Rng::new().u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let pins = Scratch(format!(
        "/sys/fs/bpf/vipd-test-{}-killed",
        std::process::id()
    ));
    let mut unfinished = 0;
    for kill in 0..KILLS {
        let mut agent = Agent::start(&pins, random.u64(..));
        match agent.ready() {
            Ok(found) => unfinished += usize::from(found > 0),
            Err(words) => panic!("after {kill} kills, with seed {seed}: {words}"),
        }
        sleep(Duration::from_micros(random.u64(..LIFE_US)));
    }
    println!("{unfinished} of {KILLS} were killed while they moved slots");
    assert!(unfinished > 0, "no agent was killed at work");
}

/// Pins, removed whatever happens.
struct Scratch(String);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Pins::new(self.0.as_ref()).remove();
    }
}

/// A process that is killed when it is dropped.
struct Agent(Child);

impl Agent {
    fn start(pins: &Scratch, seed: u64) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_killed_agent"))
            .args([&pins.0, &seed.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.expect("it can be started"))
    }

    /// Waits until it has checked what it found; says how much of that was
    /// half done.
    fn ready(&mut self) -> Result<usize, String> {
        let mut line = String::new();
        let output = self.0.stdout.as_mut().expect("it is piped");
        let read = BufReader::new(output).read_line(&mut line);
        read.expect("it can be read");
        line.strip_prefix("ready ")
            .and_then(|found| found.trim().parse().ok())
            .ok_or_else(|| {
                let mut words = String::new();
                let errors = self.0.stderr.as_mut().expect("it is piped");
                errors.read_to_string(&mut words).expect("it can be read");
                words
            })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}
