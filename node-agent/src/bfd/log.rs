//! The log of the loop, written by another thread: whoever reads it may be slow.

use std::{
    io,
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use tracing::{Level, info, warn};

/// Lines that may wait to be written. What comes when there are more is lost.
const WAITING_MAX: usize = 1000;

/// Where lines go. What waits is written before it ends.
#[derive(Debug)]
pub struct Log {
    lines: Option<SyncSender<(Level, String)>>,
    writer: Option<JoinHandle<()>>,
}

impl Log {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start() -> io::Result<Self> {
        let (sender, lines) = sync_channel::<(Level, String)>(WAITING_MAX);
        let write = move || {
            for (level, line) in lines {
                if level == Level::WARN {
                    warn!("{line}");
                } else {
                    info!("{line}");
                }
            }
        };
        let writer = thread::Builder::new().name("log".into()).spawn(write)?;
        Ok(Self {
            lines: Some(sender),
            writer: Some(writer),
        })
    }

    /// What an operator follows.
    pub fn info(&self, line: String) {
        self.write(Level::INFO, line);
    }

    /// What may be wrong.
    pub fn warn(&self, line: String) {
        self.write(Level::WARN, line);
    }

    fn write(&self, level: Level, line: String) {
        if let Some(lines) = &self.lines {
            // Better a line lost than a packet late.
            let _ = lines.try_send((level, line));
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(writer) = self.writer.take() {
            // If it has panicked there is nobody to tell.
            let _ = writer.join();
        }
    }
}
