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

    /// Whether it can have so many routes at all.
    fn can_carry(&self, _amount: Amount) -> bool {
        true
    }

    /// What comes before the order and is no part of it.
    fn prepare(&mut self, _amount: Amount, _change: Change) -> Result<()> {
        Ok(())
    }

    /// Gives the order for a change; need not wait until it is done.
    fn order(&mut self, amount: Amount, change: Change) -> Result<()>;

    /// Waits, after a withdrawal has been seen, for work that is left for later:
    /// it would disturb whoever comes next.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

/// How many routes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// As many as vipd's data plane has room for, nearly.
    Few,
    /// More.
    Many,
}

impl Amount {
    pub const ALL: [Self; 2] = [Self::Few, Self::Many];

    pub const fn routes(self) -> usize {
        match self {
            Self::Few => 3_000,
            Self::Many => 10_000,
        }
    }

    /// A word for protocols and files.
    const fn word(self) -> &'static str {
        match self {
            Self::Few => "few",
            Self::Many => "many",
        }
    }

    /// Host routes in a row.
    fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let first = u32::from(Ipv4Addr::new(10, 64, 0, 0));
        (first..).take(self.routes()).map(Ipv4Addr::from)
    }
}
