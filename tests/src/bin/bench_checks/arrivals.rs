//! When each backend is asked: the first packets of all connections to the farm,
//! with the times at which the kernel took them in.

use std::{
    io::ErrorKind,
    mem::size_of,
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use vipd::sockopt;

use crate::farm::backend;

/// Room for the packets of some seconds, in bytes.
const BUFFER: i32 = 64 << 20;
/// Enough of a packet to see whose it is.
const HEADERS: usize = 64;
/// Between two looks at the socket.
const LOOK: Duration = Duration::from_millis(5);

/// Watches from its making on.
pub struct Arrivals {
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Counted from 0.
    pub backend: u32,
    /// Since 1970, by the kernel's clock.
    pub at: Duration,
}

/// What has been seen.
struct Log {
    /// Since the last [`Arrivals::take`], in the order of their coming.
    arrivals: Vec<Arrival>,
    /// Client's port and sequence number of each backend's last connection: one
    /// whose first packet comes again is no other.
    last: Vec<Option<Opening>>,
}

/// What tells a connection from others to the same backend.
type Opening = [u8; 8];

impl Arrivals {
    /// In the namespace of the calling thread, which has so many backends.
    pub fn watch(backends: u32) -> Result<Self> {
        let socket = socket().context("watch what arrives")?;
        let log = Arc::new(Mutex::new(Log {
            arrivals: Vec::new(),
            last: vec![None; backends as usize],
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (log, stop) = (Arc::clone(&log), Arc::clone(&stop));
            move || follow(&socket, &log, &stop)
        });
        Ok(Self {
            log,
            stop,
            thread: Some(thread),
        })
    }

    /// All that has come since the last time, once what has come until now is
    /// seen.
    pub fn take(&self) -> Vec<Arrival> {
        sleep(4 * LOOK);
        std::mem::take(&mut lock(&self.log).arrivals)
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

/// A socket that is shown each TCP packet without ACK that comes to this host: one
/// that opens a connection, or a reset of one that has not been answered.
fn socket() -> Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(ipproto::TCP),
    )?;
    for (name, value) in [(libc::SO_RCVBUFFORCE, BUFFER), (libc::SO_TIMESTAMPNS, 1)] {
        sockopt::set_int(&socket, libc::SOL_SOCKET, name, value)?;
    }
    only_openings(&socket)?;
    Ok(socket)
}

/// Has the kernel drop what opens no connection before it is copied.
fn only_openings(socket: &impl AsRawFd) -> Result<()> {
    const SYN_ACK: u32 = 0x12;
    const SYN: u32 = 0x02;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut program = [
        // X = length of the IP header, A = flags of the TCP header behind it.
        instruction(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0, 0, 13),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, SYN_ACK),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, SYN),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, HEADERS as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: SO_ATTACH_FILTER takes a sock_fprog (socket(7)), and the program that
    // it points to lives during the call.
    unsafe { sockopt::set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program) }
        .context("attach a filter")
}

fn follow(socket: &OwnedFd, log: &Mutex<Log>, stop: &AtomicBool) {
    let mut packet = [0; HEADERS];
    while !stop.load(Ordering::Relaxed) {
        let mut seen = Vec::new();
        let ended = loop {
            match sockopt::receive(&socket.as_fd(), &mut packet, 0) {
                Ok(received) => {
                    let opening = opening(&packet[..received.length]);
                    seen.extend(opening.zip(timestamp(received.control())));
                }
                Err(error) => break error,
            }
        };
        lock(log).add(seen);
        match ended.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => sleep(LOOK),
            _ => {
                eprintln!("what arrives is not seen any more: {ended}");
                return;
            }
        }
    }
}

impl Log {
    fn add(&mut self, seen: Vec<((u32, Opening), Duration)>) {
        for ((backend, opening), at) in seen {
            let Some(last) = self.last.get_mut(backend as usize) else {
                continue;
            };
            if last.replace(opening) != Some(opening) {
                self.arrivals.push(Arrival { backend, at });
            }
        }
    }
}

/// Of an IPv4 packet the backend that it is for, and what tells its connection from
/// others.
fn opening(packet: &[u8]) -> Option<(u32, Opening)> {
    let to: [u8; 4] = *packet.get(16..)?.first_chunk()?;
    let length = usize::from(packet.first()? & 0xf) * size_of::<u32>();
    // Ports and sequence number.
    let opening = *packet.get(length..)?.first_chunk()?;
    Some((backend(Ipv4Addr::from(to))?, opening))
}

/// The kernel's time, a timespec.
fn timestamp(control: &[u8]) -> Option<Duration> {
    const HALF: usize = size_of::<u64>();
    let stamp = sockopt::messages(control)
        .find(|it| (it.level, it.kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS))?;
    let number = |at: usize| Some(u64::from_ne_bytes(*stamp.data.get(at..)?.first_chunk()?));
    Some(Duration::new(
        number(0)?,
        u32::try_from(number(HALF)?).ok()?,
    ))
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::address;

    #[test]
    fn a_connection_is_seen_once_however_often_it_is_begun() {
        let packet = |backend, port: u16| {
            let mut packet = [0; 40];
            packet[0] = 0x45;
            packet[16..20].copy_from_slice(&address(backend).octets());
            packet[20..22].copy_from_slice(&port.to_be_bytes());
            packet
        };
        let mut log = Log {
            arrivals: Vec::new(),
            last: vec![None; 2],
        };
        // Backend, port, and whether that is another check.
        let cases = [
            (0, 1000, true),
            (1, 1000, true),
            (0, 1000, false),
            (0, 1001, true),
            (2, 1000, false),
        ];
        for (number, (backend, port, _)) in cases.into_iter().enumerate() {
            let opening = opening(&packet(backend, port)).expect("it is whole");
            log.add(vec![(opening, Duration::from_secs(number as u64))]);
        }
        let expected = cases.iter().enumerate().filter(|(_, case)| case.2);
        let expected: Vec<_> = expected
            .map(|(number, case)| Arrival {
                backend: case.0,
                at: Duration::from_secs(number as u64),
            })
            .collect();
        assert_eq!(log.arrivals, expected);
        assert_eq!(opening(&packet(0, 1)[..19]), None, "it is cut");
    }
}
