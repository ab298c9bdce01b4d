//! The vipd agent, as a library for its binary and its tests.
//!
//! [`agent`] starts everything and connects it; each other module is one room.

// They panic when whoever reads has gone; `terminal` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod agent;
pub mod announce;
pub mod api;
pub mod bfd;
pub mod capture;
pub mod check_once;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod decap;
pub mod departure;
pub mod dependencies;
pub mod disable_files;
pub mod doctor;
pub mod doubt;
pub mod engine;
pub mod events;
pub mod explain;
pub mod headers;
pub mod hooks;
pub mod inquiry;
mod leaving;
pub mod local;
mod looker;
mod memory;
pub mod metrics;
pub mod netlink;
pub mod overrides;
pub mod plane;
pub mod preflight;
pub mod preload;
pub mod probe;
mod questions;
mod repeats;
pub mod request;
pub mod run;
pub mod show;
pub mod sockopt;
pub mod speaker;
pub mod state_file;
pub mod status;
pub mod terminal;
pub mod tunnel;
pub mod views;
