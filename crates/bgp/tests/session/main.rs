//! The session machine on a virtual clock: two of them wired together, or one
//! against a scripted peer.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a panic is the report"
)]

mod attributes;
mod bfd;
mod chaos;
mod endings;
mod extended;
mod limits;
mod net;
mod opening;
mod reconfigure;
mod refresh;
mod restart;
mod routes;
mod scripted;
mod timers;
mod world;
