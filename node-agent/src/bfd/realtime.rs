//! What keeps a busy host from making us late: priority and memory. Both are
//! asked for and done without where they are not given.

use std::io;

use rustix::{
    fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
    io::read,
    mm::{MlockAllFlags, mlockall},
};

/// Above all that shares the processor by turns, below the kernel's own threads.
const PRIORITY: i32 = 20;

/// Asks for both. What was refused, in words.
#[must_use]
pub fn prepare() -> Vec<String> {
    let mut refused = Vec::new();
    if let Err(error) = take_precedence() {
        refused.push(format!(
            "no real-time priority ({error}): a busy host may delay packets"
        ));
    }
    // On fault: what is touched stays, the rest of the program need not come.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = mlockall(flags) {
        refused.push(format!(
            "memory is not locked ({error}): swapping may delay packets"
        ));
    }
    refused
}

/// Puts this thread, and none that it starts, under `SCHED_FIFO`.
fn take_precedence() -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: PRIORITY,
    };
    // SAFETY: the parameter is a plain struct that is alive during the call; 0 is
    // the calling thread.
    let result = unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameter,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// SIGTERM, SIGINT and SIGHUP as something to wait for, which end nothing by
/// themselves any more. To be made before other threads are, which inherit it.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// What a signal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The end.
    Stop,
    /// The configuration anew.
    Reload,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take() -> io::Result<Self> {
        // SAFETY: the set is made by sigemptyset before it is used and is alive
        // during the calls; the descriptor is new and nobody else's.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&raw mut set, signal);
            }
            let error =
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// A signal that has come.
    pub fn next(&self) -> Option<Signal> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let length = read(&self.0, &mut info).ok()?;
        // The number is the first field.
        let number = *info.get(..length)?.first_chunk()?;
        let hangup = i32::from_ne_bytes(number) == libc::SIGHUP;
        Some(if hangup { Signal::Reload } else { Signal::Stop })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
