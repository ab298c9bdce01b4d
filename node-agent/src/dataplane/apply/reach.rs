//! What is known of the way to a backend.

use std::{net::IpAddr, sync::Arc};

use crate::netlink::way::{Problems, Way, Ways};

/// The kernel's word on the ways to all backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The ways there are.
    pub ways: Arc<Ways>,
    /// Why there is none to others. An address in neither has not been looked
    /// up yet.
    pub problems: Arc<Problems>,
}

/// The way to one backend.
pub enum Look<'a> {
    /// Frames can take it.
    Way(&'a Way),
    /// There is none.
    None,
    /// Nobody has looked yet: what a previous agent knew stays.
    Unknown,
}

impl Reach {
    /// Whether this is the very same word as another; saves comparing it.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ways, &other.ways) && Arc::ptr_eq(&self.problems, &other.problems)
    }

    /// Whether records for `address` come out alike by another word. Next hops
    /// have a table of their own.
    pub fn is_alike(&self, other: &Self, address: IpAddr) -> bool {
        let seen = |reach: &Self| {
            let way = reach.ways.get(&address);
            let way = way.map(|way| (way.source, way.gateway.is_some()));
            (way, reach.problems.contains_key(&address))
        };
        seen(self) == seen(other)
    }

    /// The way to `address`; with `on_link`, without a gateway.
    pub fn look(&self, address: IpAddr, on_link: bool) -> Look<'_> {
        match self.ways.get(&address) {
            Some(way) if on_link && way.gateway.is_some() => Look::None,
            Some(way) => Look::Way(way),
            None if self.problems.contains_key(&address) => Look::None,
            None => Look::Unknown,
        }
    }
}

impl<'a> Look<'a> {
    /// The way, if one is known.
    pub fn way(self) -> Option<&'a Way> {
        match self {
            Self::Way(way) => Some(way),
            Self::None | Self::Unknown => None,
        }
    }
}
