//! A BGP-4 speaker that announces virtual IPs, as a state machine without I/O.
//!
//! This crate opens no socket, reads no clock and starts no task. It is told
//! what happened and what time it is, and answers with what to do. Whoever owns
//! the sockets (the *driver*) stays a dumb loop, and every situation, down to
//! the collision of two connections, can be played through in a test.
//!
//! # The rooms
//!
//! - [`wire`]: messages as bytes and as types. No bytes from the network make
//!   it panic; errors carry the NOTIFICATION they are answered with.
//! - `session`: [`Session`], the finite state machine of RFC 4271 for one
//!   peer, with its timers, back-off and collision handling.
//! - `rib`: what the peer is to know and what it has been told (Adj-RIB-Out).
//!   The driver hands in all [`Routes`] it wants announced, as often as it
//!   likes; only differences are sent, withdrawals first, and an announcement
//!   is never repeated unless the peer asks (ROUTE-REFRESH) or the session is
//!   new.
//!
//! Nothing is imported. UPDATEs of the peer are checked by RFC 7606, counted
//! and dropped, so a full table costs no memory. Where its prefixes are limited
//! they are remembered to be counted, up to the limit.
//!
//! # Driving a session
//!
//! 1. Feed it: [`Session::handle`] with an [`Input`], [`Session::set_routes`],
//!    and [`Session::handle_timeout`] when [`Session::poll_timeout`] is due
//!    (bytes that wait in a socket first, time second).
//! 2. After that, drain it: for each [`Direction`] whose socket is writable
//!    write what [`Session::poll_transmit`] yields and say so by
//!    [`Session::wrote`], do what [`Session::poll_action`] asks for, log what [`Session::poll_event`]
//!    tells.
//!
//! What is not polled does not pile up: there is one pending state per prefix,
//! at most one OPEN and one KEEPALIVE. So ask for messages only as the socket
//! takes them. When [`Action::Close`] comes, its last words go behind what was
//! already given to the socket (half a message included), then the connection
//! is closed, and nothing more is reported of it.
//!
//! An accepted connection is handed in only if [`Session::admits_incoming`].
//!
//! Say by [`Session::set_complete`] when the routes are all there are: the peer
//! is told their end (End-of-RIB), and after a restart drops what it has kept
//! and was not sent again.
//!
//! [`Session::reconfigure`] says what can change under a running session.
//!
//! To be replaced by another process, [`Input::Stop`] with
//! [`StopReason::Restart`]: a peer of graceful restart keeps the routes.
//!
//! To stop in good order: set no routes, write until [`Session::is_flushed`]
//! and the socket has taken everything, linger while packets still arrive,
//! then [`Input::Stop`].
//!
//! # Example
//!
//! ```
//! use std::net::Ipv4Addr;
//! use std::time::Instant;
//!
//! use vipd_bgp::{Action, Direction, Input, PeerConfig, Route, Routes, Session, State};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = PeerConfig::new(64496, 64497, Ipv4Addr::new(192, 0, 2, 1));
//! let mut session = Session::new(config, 1)?;
//! let now = Instant::now();
//!
//! // What the peer is to know can be said at any time.
//! let vip = "203.0.113.1/32".parse()?;
//! session.set_routes(Routes::from([(vip, Route::default().into())]));
//!
//! session.handle(Input::Start, now);
//! assert_eq!(session.poll_action(), Some(Action::Connect));
//!
//! // The driver dials; the connection stands; our OPEN is ready to be written.
//! let local = Ipv4Addr::new(192, 0, 2, 1).into();
//! session.handle(Input::TcpConnected { direction: Direction::Outgoing, local }, now);
//! assert_eq!(session.state(), State::OpenSent);
//! let open = session.poll_transmit(Direction::Outgoing).ok_or("an OPEN was expected")?;
//! assert_eq!(open[18], 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Not there yet
//!
//! IPv4 routes with IPv6 next hops, ADD-PATH, roles.

mod rib;
mod session;
pub mod wire;

pub use self::rib::{Route, Routes, Unsent};
pub use self::session::{
    Action, Agreed, AgreedRestart, Bfd, BfdMode, ConfigError, Counters, Deadlines, Direction,
    Event, GracefulRestart, Input, LastError, Messages, PeerConfig, Reconfigured, Session, State,
    Status, StopReason,
};
