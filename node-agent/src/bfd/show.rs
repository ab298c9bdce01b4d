//! `vipd show bfd`: asks the BFD process, and prints what it says.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::protocol::{self, Message, Request, Session, Status, line};

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the process that serves `socket`.
///
/// # Errors
///
/// When it cannot be reached or does not answer.
pub fn ask(socket: &Path) -> anyhow::Result<Status> {
    let place = socket.display();
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!("no BFD process serves {place}: `systemctl enable --now vipd-bfd` starts it")
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&line(&Request::Status))?;
    let mut answer = Vec::new();
    BufReader::new(stream)
        .read_until(b'\n', &mut answer)
        .with_context(|| format!("the BFD process at {place} does not answer"))?;
    let message = protocol::read(&answer)
        .with_context(|| format!("the BFD process at {place} is not understood"))?;
    match message {
        Message::Status(status) => Ok(status),
        other => bail!("the BFD process answered {other:?}"),
    }
}

/// The status for people.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    let agent = if status.agent {
        "connected"
    } else {
        "not connected"
    };
    let delay = milliseconds(status.worst_delay_seconds);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "agent {agent}, own delay at most {delay}");
    if status.sessions.is_empty() {
        let _ = writeln!(text, "no peer has BFD");
        return text;
    }
    let titles = [
        "PEER",
        "ADDRESS",
        "STATE",
        "FOR",
        "INTERVAL",
        "TIMEOUT",
        "WORST GAP",
        "UPS",
    ];
    let mut rows = vec![titles.map(str::to_owned)];
    rows.extend(status.sessions.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..titles.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    for (number, row) in rows.iter().enumerate() {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        let session = number
            .checked_sub(1)
            .and_then(|number| status.sessions.get(number));
        if let Some(session) = session.filter(|session| !session.why.is_empty()) {
            let _ = writeln!(text, "    {}", session.why);
        }
    }
    text
}

fn row(session: &Session) -> [String; 8] {
    let interface = session.interface.iter().map(|name| format!("%{name}"));
    let optional = |seconds: Option<f64>| seconds.map_or("-".to_owned(), milliseconds);
    let gap = &session.worst_gap;
    [
        session.name.clone(),
        format!("{}{}", session.remote, interface.collect::<String>()),
        session.state.to_string(),
        format!("{:.0} s", session.for_seconds),
        optional(session.transmit_interval_seconds),
        optional(session.detection_time_seconds),
        format!(
            "{} of {}",
            milliseconds(gap.real_seconds),
            milliseconds(gap.expected_seconds)
        ),
        session.ups.to_string(),
    ]
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.0} ms", seconds * 1000.0)
}
