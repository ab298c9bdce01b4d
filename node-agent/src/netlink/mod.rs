//! The kernel's links, addresses, routes and neighbours, by netlink: asked, followed,
//! and, for the unreachable routes that hold VIPs and the VIPs that this host
//! serves itself, written.
//!
//! - [`way`]: what there is to know about the way to a backend
//! - [`watch`]: follows these ways as the kernel's tables change
//! - [`link`](mod@link): interfaces, and what XDP program they carry
//! - [`hold`]: the unreachable routes
//! - [`address`]: the addresses of this host, and those that are bound
//! - [`host`]: tells when links or addresses change
//!
//! The rest is the way from the kernel's messages to a [`way::Way`]: `event`,
//! `neighbour` and `route` read messages, `snapshot` draws the conclusion.
//! Everything is of the network namespace of the thread that opens the socket.

pub mod address;
mod event;
pub mod hold;
pub mod host;
pub mod link;
mod neighbour;
mod route;
mod snapshot;
pub mod watch;
pub mod way;

use std::{future::Future, io, time::Duration};

use rtnetlink::Handle;

/// An answer of the kernel that takes longer has been lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// A netlink socket to ask the kernel by. Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

/// Why the kernel's tables could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel answered with an error.
    #[error("the kernel would not {step}: {source}")]
    Refused {
        /// What it was asked to do.
        step: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The kernel did not answer.
    #[error("the kernel was asked to {step} and has not answered for {PATIENCE:?}")]
    Silent {
        /// What it was asked to do.
        step: &'static str,
    },
    /// The events of the kernel have ended.
    #[error("the kernel closed the netlink socket")]
    Closed,
}

impl Netlink {
    /// Opens a socket, served by a task of its own until the last clone goes.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn connect() -> Result<Self, Error> {
        // With the strict check the kernel filters dumps as they are asked.
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(Error::Open)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }
}

impl Error {
    /// The kernel's error number, if it gave one.
    fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Open(_) | Self::Silent { .. } | Self::Closed => None,
        }
    }
}

/// Waits for the answer to a request.
async fn answer<T>(
    step: &'static str,
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, Error> {
    let answer = tokio::time::timeout(PATIENCE, request).await;
    let answer = answer.map_err(|_| Error::Silent { step })?;
    answer.map_err(|error| Error::Refused {
        step,
        source: match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        },
    })
}
