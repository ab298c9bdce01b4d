//! What vipd decides, and nothing else: from the configuration and the
//! observations of health checks to what is to be forwarded and announced.
//!
//! Everything here is a pure function of its arguments: no sockets, no clock,
//! no threads. Time is passed in.

pub mod check;
pub mod decide;
mod hash;
pub mod health;
pub mod health_table;
pub mod model;
pub mod ring;
pub mod schedule;
