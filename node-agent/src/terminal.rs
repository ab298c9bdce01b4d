//! What commands say to whoever runs them. Standard output may be closed at any
//! time by whoever reads it (`vipd status | head -1`), which is no failure.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use thiserror::Error;

/// Exit code when standard output was closed, as of a program that SIGPIPE has
/// ended: 128 and the signal's number.
pub const CLOSED: u8 = 128 + 13;

/// Why nothing more can be printed.
#[derive(Debug, Error)]
pub enum PrintError {
    /// Whoever read it has had enough.
    #[error("standard output is closed")]
    Closed,
    /// It is a file that cannot be written, for example.
    #[error("cannot write to standard output: {0}")]
    Failed(#[source] io::Error),
}

/// Prints text as it is to standard output.
///
/// # Errors
///
/// When it is closed or cannot be written.
pub fn print(text: impl Display) -> Result<(), PrintError> {
    let mut out = io::stdout().lock();
    let written = write!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => PrintError::Closed,
        _ => PrintError::Failed(error),
    })
}

/// Prints a line to standard output.
///
/// # Errors
///
/// As [`print()`].
pub fn line(text: impl Display) -> Result<(), PrintError> {
    print(format_args!("{text}\n"))
}

/// Prints a line to standard error. If that is closed too, there is nobody to
/// tell.
pub fn tell(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
