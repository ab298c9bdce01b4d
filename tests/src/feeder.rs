//! A BGP peer that sends routes without end, as fast as they are taken. It
//! writes its messages by itself, so that it shares no mistake with the speaker.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{host::Host, wait::wait_until};

/// The feeder's AS.
const AS: u16 = 64502;
/// Its identifier, and the next hop of its routes.
const ADDRESS: [u8; 4] = [192, 0, 2, 2];
/// Seconds; keepalives come far more often.
const HOLD_TIME: u16 = 30;
const KEEPALIVE_PAUSE: Duration = Duration::from_secs(1);
/// How long the agent may take to dial and to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Message types (RFC 4271 section 4.1).
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const KEEPALIVE: u8 = 4;

/// Octets of an NLRI entry of a [`Batch`].
const ENTRY: usize = 5;
/// As many as one UPDATE holds beside its attributes.
pub const MOST_PER_UPDATE: usize = (4096 - 64) / ENTRY;

/// UPDATEs about prefixes, ready to be sent as often as one likes. The prefixes
/// are the 2^20 /28 of 10.0.0.0/8, by number.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    updates: u64,
}

impl Batch {
    /// Announces these prefixes, so many in an UPDATE.
    #[must_use]
    pub fn announcing(prefixes: Range<u32>, per_update: usize) -> Self {
        let attributes = sized(&attributes());
        Self::new(prefixes, per_update, |entries| {
            [&[0, 0], attributes.as_slice(), entries].concat()
        })
    }

    /// Withdraws these prefixes, so many in an UPDATE.
    #[must_use]
    pub fn withdrawing(prefixes: Range<u32>, per_update: usize) -> Self {
        Self::new(prefixes, per_update, |entries| {
            [sized(entries).as_slice(), &[0, 0]].concat()
        })
    }

    fn new(prefixes: Range<u32>, per_update: usize, body: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let entries: Vec<u8> = prefixes.flat_map(entry).collect();
        let chunks = entries.chunks(per_update.min(MOST_PER_UPDATE) * ENTRY);
        Self {
            updates: chunks.len() as u64,
            bytes: chunks
                .flat_map(|entries| message(UPDATE, &body(entries)))
                .collect(),
        }
    }
}

/// An established session. Dropping it closes the connection.
#[derive(Debug)]
pub struct Feeder {
    /// Locked for whole messages. Keepalives wait while a batch is sent, since
    /// UPDATEs restart the hold timer too (RFC 4271 section 8.2.2).
    stream: Arc<Mutex<TcpStream>>,
    stop: Option<Sender<()>>,
    threads: Vec<thread::JoinHandle<()>>,
    updates: u64,
}

impl Feeder {
    /// Waits for an agent to dial this address of the host, and opens a session
    /// for IPv4 routes.
    pub fn accept(host: &Host, address: SocketAddr) -> Result<Self> {
        let listener = host
            .enter(|| TcpListener::bind(address).with_context(|| format!("listen at {address}")))?;
        listener.set_nonblocking(true)?;
        let (stream, _) = wait_until("the agent dials", PATIENCE, || Ok(listener.accept()?))?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut reader = stream.try_clone()?;
        let mut feeder = Self {
            stream: Arc::new(Mutex::new(stream)),
            stop: None,
            threads: Vec::new(),
            updates: 0,
        };
        feeder.write(&open())?;
        let kind = read_message(&mut reader).context("the agent's OPEN")?;
        ensure!(kind == OPEN, "a message of type {kind} instead of an OPEN");
        feeder.write(&message(KEEPALIVE, &[]))?;
        let kind = read_message(&mut reader).context("the agent's KEEPALIVE")?;
        ensure!(
            kind == KEEPALIVE,
            "a message of type {kind} instead of a KEEPALIVE"
        );
        feeder.keep_alive(reader);
        Ok(feeder)
    }

    /// Sends all of it; returns when the sockets have taken it.
    pub fn send(&mut self, batch: &Batch) -> Result<()> {
        self.updates += batch.updates;
        self.write(&batch.bytes)
    }

    /// UPDATEs sent so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        lock_and_write(&self.stream, bytes).context("the agent has ended the session")
    }

    /// Sends keepalives, and takes in what the agent sends.
    fn keep_alive(&mut self, mut reader: TcpStream) {
        let (stop, stopped) = channel();
        self.stop = Some(stop);
        let stream = Arc::clone(&self.stream);
        self.threads.push(thread::spawn(move || {
            while stopped.recv_timeout(KEEPALIVE_PAUSE) == Err(RecvTimeoutError::Timeout) {
                // The next UPDATE finds out if it fails.
                let _ = lock_and_write(&stream, &message(KEEPALIVE, &[]));
            }
        }));
        self.threads.push(thread::spawn(
            move || {
                while read_message(&mut reader).is_ok() {}
            },
        ));
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop = None;
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        // It may be closed already.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        drop(stream);
        for thread in self.threads.drain(..) {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

fn lock_and_write(stream: &Mutex<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
    stream.write_all(bytes)
}

/// Reads a whole message and returns its type.
fn read_message(reader: &mut TcpStream) -> Result<u8> {
    let mut header = [0; 19];
    reader.read_exact(&mut header)?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let rest = length.checked_sub(header.len()).context("too short")?;
    reader.read_exact(&mut vec![0; rest])?;
    Ok(header[18])
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (19 + body.len()) as u16;
    [&[0xff; 16], &length.to_be_bytes()[..], &[kind], body].concat()
}

/// Preceded by the length in two octets.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// For IPv4 unicast, with AS numbers of four octets.
fn open() -> Vec<u8> {
    let [asn, hold_time] = [AS, HOLD_TIME].map(u16::to_be_bytes);
    let capabilities = [&[1, 4, 0, 1, 0, 1, 65, 4, 0, 0], &asn[..]].concat();
    let length = capabilities.len() as u8;
    let head = [&[4], &asn[..], &hold_time[..], &ADDRESS[..]].concat();
    let parameter = [&[length + 2, 2, length], &capabilities[..]].concat();
    message(OPEN, &[head, parameter].concat())
}

/// ORIGIN, an `AS_PATH` of three ASes, and `NEXT_HOP`.
fn attributes() -> Vec<u8> {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 14, 2, 3];
    for asn in [AS, 64510, 64511] {
        attributes.extend(u32::from(asn).to_be_bytes());
    }
    attributes.extend([0x40, 3, 4]);
    attributes.extend(ADDRESS);
    attributes
}

fn entry(number: u32) -> [u8; ENTRY] {
    let [_, b, c, d] = (number << 4).to_be_bytes();
    [28, 10, b, c, d]
}
