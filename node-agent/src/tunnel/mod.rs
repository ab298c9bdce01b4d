//! Packets of our own on the way that traffic takes: wrapped as the data plane
//! wraps, and sent by the kernel past it.
//!
//! - [`lane`]: how packets for a backend are carried
//! - [`sender`]: the sockets that send them
//! - [`ear`]: the sockets that hear what is answered
//! - [`packet`]: what is sent to find out who answers, and what comes back

pub mod ear;
pub mod lane;
pub mod packet;
pub mod sender;
