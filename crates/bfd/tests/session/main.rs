//! The session machine on a virtual clock: against a scripted peer, and two of
//! them wired together.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod authentication;
mod demultiplexing;
mod holding;
mod scripted;
mod states;
mod timers;
mod world;
