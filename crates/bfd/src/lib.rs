//! Bidirectional Forwarding Detection (RFC 5880) as a state machine without I/O.
//!
//! Two systems send each other small packets at a pace they agree on. Who hears
//! nothing for the detection time knows that the way, or the other end, is gone.
//! Here is the asynchronous mode, over a single hop (RFC 5881) and over several
//! (RFC 5883). Like `vipd-bgp`, this crate opens no socket, reads no clock and
//! starts no task.
//!
//! # The rooms
//!
//! - [`packet`]: control packets as bytes and as types. No bytes from the
//!   network make it panic; each [`Discard`] has a reason.
//! - [`authentication`]: passwords and keyed digests (RFC 5880 section 6.7).
//! - [`session`]: [`Session`], the state machine with one peer.
//! - [`sessions`]: [`Sessions`], all of them, and which of them a packet is for.
//!
//! # Driving it
//!
//! 1. Hand over each datagram with [`Sessions::receive`], then let time pass with
//!    [`Session::handle_timeout`] when [`Session::poll_timeout`] is due: first
//!    what waits in the socket, then the time, so that a driver that was held up
//!    does not take its own delay for the peer's.
//! 2. After that, for each session, send what [`Session::poll_transmit`] yields
//!    and log what [`Session::poll_event`] tells.
//!
//! # Example
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use vipd_bfd::{Config, Hops, Path, Sessions, State, Timing, packet};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Instant::now();
//! let mut sessions = Sessions::new(1);
//! let path = Path {
//!     remote: "192.0.2.1".parse()?,
//!     local: None,
//!     interface: None,
//!     hops: Hops::Single,
//! };
//! let timing = Timing::new(Duration::from_millis(300), Duration::from_millis(300), 3)?;
//! let id = sessions.add(path, Config::new(timing), now);
//! let session = sessions.get_mut(id).ok_or("it was just added")?;
//!
//! // The first packet is due at once; it says that we have heard nothing yet.
//! let mut buffer = [0; packet::MAX_LEN];
//! let len = session.poll_transmit(now, &mut buffer).ok_or("a packet was expected")?;
//! let received = packet::parse(&buffer[..len])?;
//! assert_eq!(received.packet.state, State::Down);
//! # Ok(())
//! # }
//! ```
//!
//! # Deliberately absent
//!
//! The echo function, and demand mode of our own (the peer's is obeyed). Both
//! make the peer's silence harder to tell from its will.

pub mod authentication;
pub mod packet;
mod random;
pub mod session;
pub mod sessions;
mod words;

pub use self::authentication::{Authentication, KeyError, Method};
pub use self::packet::Packet;
pub use self::session::{
    Cause, Config, ConfigError, Counters, Event, Gap, Hold, LastDown, Remote, Session, Status,
    Timing,
};
pub use self::sessions::{Arrival, Hops, Path, Sessions};
pub use self::words::{Diagnostic, Discard, Discards, State};
