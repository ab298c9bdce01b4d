//! The vipd agent, as a library for its binary and its tests.

pub mod config;
pub mod dataplane;
pub mod speaker;
