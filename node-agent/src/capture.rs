//! `vipd capture`: packets as they come and as they leave, with the verdict.
//!
//! The agent puts the capturing program in the place of the forwarding one,
//! hands on what it captures, and puts the other back when whoever asked has
//! left, when the time is up, or when enough was captured. There is one capture
//! at a time.

use std::{fmt::Write as _, io, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    sync::{Mutex, OwnedMutexGuard, mpsc, oneshot, watch},
    time::timeout,
};
use vipd_abi::Captured;

pub use self::request::{Refused, Request};
use self::running::Plan;
use crate::{
    dataplane::{apply::Applied, kernel::KernelError, pins::Pins, tap::Tap},
    explain::{Backend, Names, gue_port, interface_name, service_name},
    headers,
};

pub mod client;
pub mod pcapng;
mod request;
mod running;

/// How long a capture that is about to end is waited for.
const ENDING: Duration = Duration::from_secs(1);
/// Messages that wait for a slow reader.
const WAITING: usize = 256;

/// What a capture tells, line by line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// A packet.
    Packet(Box<Packet>),
    /// How many there were so far.
    Counts(Counts),
    /// The end, and why.
    Ended {
        /// In words.
        why: String,
        /// How many there were.
        counts: Counts,
    },
}

/// How many packets there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Captured.
    pub captured: u64,
    /// Not looked at, since the rate or what may be copied was used up.
    pub limited: u64,
    /// Lost, since they were not read fast enough.
    pub lost: u64,
}

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packet {
    /// When, in nanoseconds since 1970.
    pub nanos: u64,
    /// The verdict's name.
    pub verdict: String,
    /// The service, unless the packet was for none.
    pub service: Option<String>,
    /// The backend.
    pub backend: Option<Backend>,
    /// Why that backend.
    pub because: Option<String>,
    /// UDP destination port of its tunnel.
    pub gue: Option<u16>,
    /// The frame as it came.
    pub came: Frame,
    /// The frame as it left, if it did.
    pub left: Option<Frame>,
}

/// A frame on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The interface.
    pub interface: String,
    /// Its length.
    pub length: u32,
    /// Its first bytes, in hexadecimal.
    #[serde(with = "hexadecimal")]
    pub bytes: Vec<u8>,
}

impl Packet {
    fn new(captured: &Captured, boot: u64, names: &Names, tap: &Tap) -> Self {
        let trace = &captured.trace;
        let record = tap.record(trace.backend).filter(|_| trace.service != 0);
        let frame = |index, length, bytes: &[u8]| Frame {
            interface: interface_name(index),
            length,
            bytes: bytes.to_vec(),
        };
        let leaves_by = match trace.leaves_by {
            0 => captured.came_by,
            index => index,
        };
        Self {
            nanos: boot.wrapping_add(captured.time),
            verdict: trace.verdict().map_or("unknown", |v| v.label()).to_owned(),
            service: (trace.service != 0).then(|| service_name(names, trace)),
            backend: record.as_ref().map(|record| names.backend(record)),
            because: record
                .and(trace.basis())
                .map(|basis| basis.label().to_owned()),
            gue: record.as_ref().and_then(gue_port),
            came: frame(captured.came_by, captured.length_in, captured.came()),
            left: (captured.length_out != 0)
                .then(|| frame(leaves_by, captured.length_out, captured.left())),
        }
    }

    /// What became of it: verdict, service, backend and why.
    #[must_use]
    pub fn fate(&self) -> String {
        let mut text = self.verdict.clone();
        if let Some(service) = &self.service {
            let _ = write!(text, ", service {service}");
        }
        if let Some(backend) = &self.backend {
            let _ = write!(text, ", backend {backend}");
        }
        if let Some(because) = &self.because {
            let _ = write!(text, ": {because}");
        }
        text
    }

    /// Its headers and its fate in a line, without the time.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text = format!(
            "{} {}, {} bytes: {}",
            self.came.interface,
            headers::line(&self.came.bytes, None),
            self.came.length,
            self.fate()
        );
        if let Some(left) = &self.left {
            let _ = write!(text, " -> {}, {} bytes", left.interface, left.length);
        }
        text
    }
}

/// Why there is no capture.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// Another one runs.
    #[error("another capture runs; there can be one at a time")]
    Busy,
    /// The agent stops.
    #[error("the agent stops")]
    Stopping,
    /// The question makes no sense.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The program could not be loaded or put in place.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The ring buffer could not be read.
    #[error("cannot read what is captured: {0}")]
    Read(#[from] io::Error),
}

/// Whoever captures, one at a time.
#[derive(Clone)]
pub struct Captures {
    pins: Pins,
    applied: watch::Receiver<Arc<Applied>>,
    /// The kernel's id of the capturing program, while there is one.
    program: Arc<watch::Sender<Option<u32>>>,
    one: Arc<Mutex<()>>,
    stopping: Arc<watch::Sender<bool>>,
}

impl Captures {
    /// Captures on the data plane that is pinned there.
    #[must_use]
    pub fn new(pins: Pins, applied: watch::Receiver<Arc<Applied>>) -> Self {
        Self {
            pins,
            applied,
            program: Arc::new(watch::Sender::new(None)),
            one: Arc::default(),
            stopping: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Where the data plane is pinned.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The kernel's id of the capturing program, while it may be attached.
    #[must_use]
    pub fn program(&self) -> watch::Receiver<Option<u32>> {
        self.program.subscribe()
    }

    /// Ends the capture that runs, and lets none begin. Comes back when the
    /// forwarding program is in place.
    pub async fn stop(&self) -> OwnedMutexGuard<()> {
        self.stopping.send_replace(true);
        Arc::clone(&self.one).lock_owned().await
    }

    /// Begins a capture; its messages come out of the channel. It ends when the
    /// channel is closed.
    ///
    /// # Errors
    ///
    /// When another one runs, the question makes no sense, or the kernel
    /// refuses.
    pub async fn start(&self, request: Request) -> Result<mpsc::Receiver<Message>, CaptureError> {
        if *self.stopping.borrow() {
            return Err(CaptureError::Stopping);
        }
        let permit = timeout(ENDING, Arc::clone(&self.one).lock_owned()).await;
        let permit = permit.map_err(|_| CaptureError::Busy)?;
        let names = Names::of(&self.applied.borrow());
        let filter = request.filter(&names)?;
        let (messages, out) = mpsc::channel(WAITING);
        let plan = Plan {
            pins: self.pins.clone(),
            program: Arc::clone(&self.program),
            filter,
            names,
            count: request.count,
            limit: request.limit(),
            messages,
            stopping: self.stopping.subscribe(),
        };
        let (begun, beginning) = oneshot::channel();
        // Whoever asked may leave at any moment; what has begun is ended in
        // order, and only then may another begin.
        tokio::spawn(plan.carry_out(permit, begun));
        beginning.await.map_err(|_| CaptureError::Stopping)??;
        Ok(out)
    }
}

/// Bytes as a text of hexadecimal digits.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        serializer.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|pair| {
                let pair = std::str::from_utf8(pair).unwrap_or("");
                u8::from_str_radix(pair, 16).map_err(|_| D::Error::custom("not hexadecimal"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
