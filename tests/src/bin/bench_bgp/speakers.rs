//! Who announces: each has all routes at hand, and an order to announce or
//! withdraw them all.

mod agent;
mod bird;
mod exabgp;
mod gobgp;
mod session;

use std::net::Ipv4Addr;

use anyhow::Result;

pub use self::{
    agent::Agent, bird::BirdSpeaker, exabgp::Exabgp, gobgp::GobgpSpeaker, session::Session,
};
use crate::results::Change;

/// The AS of all speakers.
pub const LOCAL_AS: u32 = 64500;
/// The router's.
pub const ROUTER_AS: u32 = 64501;

/// Someone who announces.
pub trait Speaker {
    /// For the tables.
    fn name(&self) -> &'static str;

    /// What comes before the order and is no part of it.
    fn prepare(&mut self, _change: Change) -> Result<()> {
        Ok(())
    }

    /// Gives the order for a change; need not wait until it is done.
    fn order(&mut self, change: Change) -> Result<()>;

    /// Waits, after a withdrawal has been seen, for work that is left for later:
    /// it would disturb whoever comes next.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

/// How many host routes everybody has.
pub const ROUTES: usize = 10_000;

/// The host routes, in a row (RFC 2544: addresses for benchmarks).
fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    (first..).take(ROUTES).map(Ipv4Addr::from)
}
