//! A small UDP service on a backend.

use std::{
    io,
    net::{IpAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::host::Host;

/// Answers every datagram to `address`:`port` with `<host's name>:` and the
/// datagram, until it is dropped.
#[derive(Debug)]
pub struct UdpEcho {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl UdpEcho {
    /// Binds the address, which must be on the host already, and serves it.
    pub fn start(host: &Host, address: IpAddr, port: u16) -> Result<Self> {
        let socket = host.enter(|| {
            UdpSocket::bind((address, port)).with_context(|| format!("bind UDP {address} {port}"))
        })?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let name = host.name().to_owned();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if serve_one(&socket, &name).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

fn serve_one(socket: &UdpSocket, name: &str) -> io::Result<()> {
    let mut datagram = [0; 2048];
    match socket.recv_from(&mut datagram) {
        Ok((length, client)) => {
            let mut answer = format!("{name}:").into_bytes();
            answer.extend_from_slice(&datagram[..length]);
            socket.send_to(&answer, client)?;
            Ok(())
        }
        Err(error)
            if matches!(
                error.kind(),
                // An ICMP error of an earlier answer also comes this way.
                io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
