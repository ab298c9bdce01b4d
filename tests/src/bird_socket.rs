//! BIRD's control socket, without the start of a client for each question.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a BIRD.
#[derive(Debug)]
pub struct BirdSocket(BufReader<UnixStream>);

impl BirdSocket {
    /// Connects, and reads the greeting.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("connect to BIRD at {}", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut socket = Self(BufReader::new(stream));
        socket.answer()?;
        Ok(socket)
    }

    /// Asks, for instance `show status`; returns the lines of the answer.
    pub fn ask(&mut self, request: &str) -> Result<String> {
        self.0
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())?;
        self.answer().with_context(|| format!("`{request}`"))
    }

    /// How many routes of a session were taken in.
    pub fn imported(&mut self, session: &str) -> Result<usize> {
        let text = self.ask(&format!("show protocols all {session}"))?;
        let mut channels = text.lines().filter_map(|line| {
            let (count, _) = line
                .trim()
                .strip_prefix("Routes:")?
                .split_once(" imported")?;
            count.trim().parse::<usize>().ok()
        });
        channels
            .next()
            .with_context(|| format!("no routes are counted in {text}"))
    }

    /// Each line begins with a code of four digits, or a space where the code is
    /// the last one; behind it comes `-`, or a space in the last line.
    fn answer(&mut self) -> Result<String> {
        let mut answer = String::new();
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line)? > 0, "BIRD has gone");
            let (code, rest) = match line.split_at_checked(4) {
                Some((code, rest)) if code.bytes().all(|it| it.is_ascii_digit()) => (code, rest),
                _ => ("", line.as_str()),
            };
            answer += rest.get(1..).unwrap_or_default();
            match (code.bytes().next(), rest.starts_with(' ')) {
                (Some(b'8' | b'9'), true) => bail!("BIRD answers: {}", answer.trim_end()),
                (Some(_), true) => return Ok(answer),
                _ => {}
            }
        }
    }
}
