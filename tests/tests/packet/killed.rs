//! Agents that are killed while they change the maps.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use fastrand::Rng;
use vipd_tests::Scratch;

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
    let pins = Scratch::new("killed");
    let mut unfinished = 0;
    for kill in 0..KILLS {
        let mut agent = Agent::start(&pins, random.u64(..));
        match agent.ready() {
            Ok(found) => unfinished += usize::from(found > 0),
            Err(words) => panic!("after {kill} kills, with seed {seed}: {words}"),
        }
        sleep(Duration::from_micros(random.u64(..LIFE_US)));
    }
    let mut last = Agent::spawn(&pins, random.u64(..), &["rest"]);
    last.ready().expect("the last one takes over too");
    let rest = last.line("at rest").map(drop);
    assert_eq!(rest, Ok(()), "with seed {seed}");
    println!("{unfinished} of {KILLS} were killed while they moved slots");
    assert!(unfinished > 0, "no agent was killed at work");
}

/// A process that is killed when it is dropped.
struct Agent(Child, BufReader<ChildStdout>);

impl Agent {
    fn start(pins: &Scratch, seed: u64) -> Self {
        Self::spawn(pins, seed, &[])
    }

    fn spawn(pins: &Scratch, seed: u64, further: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_killed_agent"))
            .arg(pins.path())
            .arg(seed.to_string())
            .args(further)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let output = child.stdout.take().expect("it is piped");
        Self(child, BufReader::new(output))
    }

    /// Waits until it has checked what it found; says how much of that was
    /// half done.
    fn ready(&mut self) -> Result<usize, String> {
        let found = self.line("ready ")?;
        found.parse().map_err(|_| found)
    }

    /// What follows these words in its next line; or why it has ended.
    fn line(&mut self, words: &str) -> Result<String, String> {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("it can be read");
        let rest = line.strip_prefix(words).map(|rest| rest.trim().to_owned());
        rest.ok_or_else(|| {
            let mut told = String::new();
            let errors = self.0.stderr.as_mut().expect("it is piped");
            errors.read_to_string(&mut told).expect("it can be read");
            told
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}
