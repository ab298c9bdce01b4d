//! The log of the loop, written by another thread: whoever reads it may be slow.

use std::{
    io,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use tracing::{Level, info, warn};

/// Lines that may wait to be written. What comes when there are more is lost.
const WAITING_MAX: usize = 1000;

/// Where lines go.
#[derive(Debug)]
pub struct Log(SyncSender<(Level, String)>);

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
        thread::Builder::new().name("log".into()).spawn(write)?;
        Ok(Self(sender))
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
        // Better a line lost than a packet late.
        let _ = self.0.try_send((level, line));
    }
}
