//! How other threads speak to the loop: a channel, and a byte that wakes it.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use rustix::fd::{AsFd, BorrowedFd};

use super::{links::Link, plan::Plan};

/// What other threads tell.
#[derive(Debug)]
pub enum Wake {
    /// The interfaces of the host are now these.
    Links(BTreeMap<u32, Link>),
    /// Something is to be told to the operator.
    Warning(String),
    /// The configuration has been read, or is wrong.
    Read(Result<Box<Plan>, Vec<String>>),
}

/// Where they tell it.
#[derive(Clone, Debug)]
pub struct Waker {
    channel: Sender<Wake>,
    bell: Arc<UnixStream>,
}

/// The loop's side.
#[derive(Debug)]
pub struct Wakes {
    channel: Receiver<Wake>,
    bell: UnixStream,
}

/// Nobody listens any more.
#[derive(Debug)]
pub struct Gone;

/// Both sides.
///
/// # Errors
/// When there are no sockets left.
pub fn pair() -> io::Result<(Waker, Wakes)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let (sender, receiver) = channel();
    let bell = Arc::new(theirs);
    Ok((
        Waker {
            channel: sender,
            bell,
        },
        Wakes {
            channel: receiver,
            bell: ours,
        },
    ))
}

impl Waker {
    /// Tells something to the loop.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn wake(&self, wake: Wake) -> Result<(), Gone> {
        self.channel.send(wake).map_err(|_| Gone)?;
        // If the bell is full of bytes the loop will wake anyway.
        let _ = (&*self.bell).write(&[0]);
        Ok(())
    }
}

impl Wakes {
    /// What has been told, without waiting.
    pub fn next(&mut self) -> Option<Wake> {
        // What was told before a byte is taken is in the channel by then.
        let _ = self.bell.read(&mut [0; 64]);
        self.channel.try_recv().ok()
    }
}

impl AsFd for Wakes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
