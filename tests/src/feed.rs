//! A TCP service on a backend that does not wait for a request, and sends on
//! after its client has closed its own side.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::host::Host;

/// Between two bytes to each client.
const PACE: Duration = Duration::from_millis(50);
/// How long a client waits for a byte.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends each client the host's name in a line, and then dots without end, until
/// it is dropped.
#[derive(Debug)]
pub struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Feed {
    /// Serves the port on all IPv4 addresses.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        let listener = host.enter(|| {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
            listener.with_context(|| format!("bind TCP {port}"))
        })?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let name = format!("{}\n", host.name());
        let thread = thread::spawn(move || {
            let mut clients = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                while let Ok((mut client, _)) = listener.accept() {
                    if client.write_all(name.as_bytes()).is_ok() {
                        clients.push(client);
                    }
                }
                clients.retain_mut(|client| client.write_all(b".").is_ok());
                sleep(PACE);
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

/// A client of a [`Feed`].
#[derive(Debug)]
pub struct Fed {
    stream: BufReader<TcpStream>,
    /// The backend that sends.
    pub backend: String,
}

impl Fed {
    /// Opens a connection, and reads who sends.
    pub fn open(host: &Host, target: SocketAddr) -> Result<Self> {
        let stream = host.enter(|| Ok(TcpStream::connect_timeout(&target, PATIENCE)?))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let mut backend = String::new();
        stream.read_line(&mut backend).context("no name is sent")?;
        backend.truncate(backend.trim_end().len());
        Ok(Self { stream, backend })
    }

    /// Closes the client's side: it receives on.
    pub fn half_close(&self) -> Result<()> {
        Ok(self.stream.get_ref().shutdown(Shutdown::Write)?)
    }

    /// Fails unless bytes go on coming.
    pub fn ensure_alive(&mut self) -> Result<()> {
        // What has come before does not count.
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true)?;
        let mut buffer = [0; 4096];
        let end = loop {
            match (&mut &*stream).read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        stream.set_nonblocking(false)?;
        end.with_context(|| format!("{} has broken it off", self.backend))?;
        let length = (&mut &*stream).read(&mut buffer);
        let length = length.with_context(|| format!("{} is silent", self.backend))?;
        ensure!(length > 0, "{} has closed it", self.backend);
        Ok(())
    }
}
