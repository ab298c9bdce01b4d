//! What must hold of everything the agent reads from others: its configuration,
//! the sockets of its own programs, packets and the kernel.

use serde::{Serialize, de::DeserializeOwned};
use vipd::{
    bfd::protocol,
    capture,
    config::{Config, ConfigError, Finding},
    dataplane::tap,
    explain, headers, overrides,
    speaker::{dropped::Dropped, icmp},
};

/// Reads a configuration. Whatever is found is about a place in the text, or
/// about the file as a whole, and can be shown.
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let findings = match Config::parse(&text, "vipd.toml") {
        Ok((_, warnings)) => warnings,
        Err(ConfigError { findings }) => {
            assert!(!findings.is_empty(), "refused without a reason");
            findings
        }
    };
    for finding in &findings {
        shown(finding, &text);
    }
}

fn shown(finding: &Finding, text: &str) {
    for span in finding.spans() {
        assert!(text.get(span.clone()).is_some(), "{span:?}: {finding:?}");
    }
    let is_placed = finding.position().is_some();
    assert_eq!(is_placed, finding.spans().next().is_some(), "{finding:?}");
    assert!(!finding.render(false).is_empty() && !finding.title.is_empty());
}

/// Reads a line of each protocol that is spoken on the agent's sockets.
pub fn lines(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        same::<protocol::Request>(line);
        same::<overrides::Order>(line);
        same::<explain::Question>(line);
        same::<capture::Request>(line);
        same::<capture::Message>(line);
        // Times are fractions, whose last digit may change.
        if let Ok(message) = protocol::read(line) {
            let again = protocol::read(&protocol::line(&message));
            assert!(again.is_ok(), "{message:?}");
        }
        if let Some(capture::Message::Packet(packet)) = read(line) {
            assert!(!packet.line().is_empty());
        }
    }
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

/// What is read comes back when it is written.
fn same<T: DeserializeOwned + Serialize + PartialEq>(line: &[u8]) {
    if let Some(value) = read::<T>(line) {
        let again = read(&protocol::line(&value));
        assert!(again == Some(value), "{}", String::from_utf8_lossy(line));
    }
}

/// Tells of a frame in words. Its first two bytes are the port of GUE.
pub fn frame(bytes: &[u8]) {
    let Some((port, frame)) = bytes.split_first_chunk() else {
        return;
    };
    for gue in [None, Some(u16::from_be_bytes(*port))] {
        let lines = headers::lines(frame, gue);
        assert!(lines.len() <= 8 && lines.iter().all(|line| !line.is_empty()));
        assert!(!headers::line(frame, gue).is_empty());
    }
}

/// Reads what the kernel says: of an ICMP error, of a captured packet and of
/// dropped segments.
pub fn kernel(bytes: &[u8]) {
    let error = icmp::parse(bytes);
    // The socket address of the sender stands behind both headers.
    assert!(error.is_none() || bytes.len() >= 40);
    if let Some(captured) = tap::captured(bytes) {
        let (came, left) = (captured.came(), captured.left());
        assert!(came.len() + left.len() <= bytes.len());
        let _ = (captured.trace.verdict(), captured.trace.basis());
        let _ = headers::line(came, None) + &headers::line(left, None);
    }
    let _ = Dropped::parse(&String::from_utf8_lossy(bytes));
}
