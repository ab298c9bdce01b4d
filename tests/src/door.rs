//! A TCP port that lets everybody in.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::net::Shutdown;

use crate::host::Host;

/// Between two looks at who has come: the kernel has let them in already, and all of
/// a moment together take less of the processors than one after the other.
const LOOK: Duration = Duration::from_millis(5);

/// Accepts connections at a port of all IPv4 addresses of a host, and ends them,
/// until it is dropped: then the kernel refuses them.
#[derive(Debug)]
pub struct Door {
    listener: Arc<TcpListener>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Opens it.
    pub fn open(host: &Host, port: u16) -> Result<Self> {
        let listener = host.enter(|| {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("port {port}"))
        })?;
        rustix::net::listen(&listener, i32::from(u16::MAX)).context("lengthen the queue")?;
        listener.set_nonblocking(true)?;
        let (listener, stop) = (Arc::new(listener), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (listener, stop) = (Arc::clone(&listener), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    while let Ok((visitor, _)) = listener.accept() {
                        drop(visitor);
                    }
                    sleep(LOOK);
                }
            }
        });
        Ok(Self {
            listener,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // From this moment on it is closed; if that fails, a bit later.
        let _ = rustix::net::shutdown(&*self.listener, Shutdown::Read);
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}
