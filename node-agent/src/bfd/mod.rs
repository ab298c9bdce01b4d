//! `vipd bfd`: the process that runs the BFD sessions.
//!
//! Routers take a BFD session that goes down as a reason to drop BGP and all
//! routes. So BFD must not die with the agent: it is a process of its own, small,
//! without an async runtime, that lives on while the agent is restarted and takes
//! sessions down by itself when packets would be lost (`holds`).
//!
//! ```text
//!  configuration --> process <== Unix socket ==> client (in the agent)
//!   interfaces ----->   |                        show   (vipd show bfd)
//!                    UDP ports
//! ```
//!
//! The C bit ("control plane independent") is set when the configuration has a
//! data plane: then neither BFD nor forwarding, which the XDP program does, needs
//! the agent. A router in graceful restart may then trust BFD: when the session
//! goes down, forwarding is gone, not only BGP.

pub mod client;
mod datagram;
mod holds;
mod links;
mod log;
mod plan;
mod process;
pub mod protocol;
mod realtime;
mod server;
pub mod show;
mod view;
mod wake;

pub use self::{plan::Plan, process::run};
