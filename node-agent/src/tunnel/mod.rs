//! Packets of our own on the way that traffic takes: wrapped as the data plane
//! wraps, and sent by the kernel past it.
//!
//! - [`lane`]: how packets for a backend are carried
//! - [`sender`]: the sockets that send them
//! - [`ear`]: the sockets that hear what is answered
//! - [`heard`]: what it is an answer to
//! - [`ports`]: the ports that they come from
//! - [`endpoint`]: all of it for many exchanges at the same time
//! - [`packet`]: what is sent to find out who answers, and what comes back
//! - [`inquirer`]: one such question
//! - [`datagram`]: datagrams and echoes
//! - [`tcp`], [`stream`]: whole connections

pub mod datagram;
pub mod ear;
pub mod endpoint;
pub mod heard;
pub mod inquirer;
pub mod lane;
pub mod packet;
pub mod ports;
pub mod sender;
pub mod stream;
pub mod tcp;
