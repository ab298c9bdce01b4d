//! How routes are rendered for one Established session: next hop, attributes,
//! UPDATE messages as full as they can be.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use ipnet::IpNet;
use thiserror::Error;

use super::Route;
use crate::wire::{AsPath, Attributes, Dialect, Family, MpReach, MpUnreach, Update, is_reserved};

/// LOCAL_PREF of a route that asks for none (the value other speakers assume).
const DEFAULT_LOCAL_PREF: u32 = 100;

/// Most octets of communities on one route: with the longest AS path and
/// everything else there is still room for prefixes in the message.
const MAX_COMMUNITY_OCTETS: usize = 2000;

/// Most ASes behind ours: what is left of a message beside
/// [`MAX_COMMUNITY_OCTETS`] and 256 times our own AS, in both widths.
const MAX_AS_PATH: usize = 64;

/// What the two sides agreed on, as far as routes are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outlet {
    pub(crate) dialect: Dialect,
    pub(crate) local_as: u32,
    pub(crate) peer_as: u32,
    pub(crate) families: BTreeSet<Family>,
    pub(crate) next_hop_v4: Option<Ipv4Addr>,
    pub(crate) next_hop_v6: Option<Ipv6Addr>,
    /// Refreshes are marked (RFC 7313).
    pub(crate) marks: bool,
    /// We have offered graceful restart.
    pub(crate) restarts: bool,
}

/// Why a route is not sent on an Established session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unsent {
    /// One side did not offer the family.
    #[error("the session does not carry {0}: one side does not offer it")]
    FamilyNotNegotiated(Family),
    /// The session runs over the other family and no next hop is configured.
    #[error("no next hop for {0}: the session has no such address of its own, configure one")]
    NoNextHop(Family),
    /// The next hop given is of the other family, or link-local.
    #[error("the next hop {0} is not a global address of the prefix's family")]
    UnfitNextHop(IpAddr),
    /// The communities do not fit a message.
    #[error("the communities take {0} octets, at most {MAX_COMMUNITY_OCTETS} fit")]
    TooManyCommunities(usize),
    /// The AS path does not fit a message.
    #[error("the AS path has {0} ASes behind ours, at most {MAX_AS_PATH} fit")]
    AsPathTooLong(usize),
    /// The peer would drop the route.
    #[error("AS {0} of the AS path is ours or the peer's, which would be a loop")]
    AsLoop(u32),
    /// Nobody has such an AS (RFC 7607, RFC 6793).
    #[error("AS {0} of the AS path is reserved and cannot be used")]
    ReservedAs(u32),
}

impl Outlet {
    /// The next hop of `route`, or why the route cannot be sent here.
    pub(super) fn next_hop(&self, family: Family, route: &Route) -> Result<IpAddr, Unsent> {
        if !self.families.contains(&family) {
            return Err(Unsent::FamilyNotNegotiated(family));
        }
        check_attributes(self, route)?;
        let own = match family {
            Family::Ipv4Unicast => self.next_hop_v4.map(IpAddr::V4),
            Family::Ipv6Unicast => self.next_hop_v6.map(IpAddr::V6),
        };
        let next_hop = route.next_hop.or(own).ok_or(Unsent::NoNextHop(family))?;
        match (family, next_hop) {
            (Family::Ipv4Unicast, IpAddr::V4(_)) => Ok(next_hop),
            (Family::Ipv6Unicast, IpAddr::V6(address)) if !address.is_unicast_link_local() => {
                Ok(next_hop)
            }
            (Family::Ipv4Unicast | Family::Ipv6Unicast, _) => Err(Unsent::UnfitNextHop(next_hop)),
        }
    }

    /// An UPDATE that withdraws what `take` yields for the room there is.
    pub(super) fn withdrawal(
        &self,
        family: Family,
        take: impl FnOnce(usize) -> Vec<IpNet>,
    ) -> (Bytes, Vec<IpNet>) {
        let mut update = Update::default();
        if family != Family::Ipv4Unicast {
            update.attributes.mp_unreach = Some(MpUnreach {
                family,
                prefixes: Vec::new(),
            });
        }
        self.filled(update, take, |update| {
            match &mut update.attributes.mp_unreach {
                Some(unreach) => &mut unreach.prefixes,
                None => &mut update.withdrawn,
            }
        })
    }

    /// An UPDATE that announces what `take` yields for the room there is. The
    /// route must have a [`next_hop`](Self::next_hop).
    pub(super) fn announcement(
        &self,
        family: Family,
        route: &Route,
        take: impl FnOnce(usize) -> Vec<IpNet>,
    ) -> (Bytes, Vec<IpNet>) {
        let update = Update {
            attributes: self.attributes(family, route),
            ..Update::default()
        };
        self.filled(update, take, |update| {
            match &mut update.attributes.mp_reach {
                Some(reach) => &mut reach.prefixes,
                None => &mut update.announced,
            }
        })
    }

    /// Completes an UPDATE that is still without prefixes.
    fn filled(
        &self,
        mut update: Update,
        take: impl FnOnce(usize) -> Vec<IpNet>,
        field: impl FnOnce(&mut Update) -> &mut Vec<IpNet>,
    ) -> (Bytes, Vec<IpNet>) {
        let max = self.dialect.max_message_len();
        let room = max.saturating_sub(update.emit(self.dialect).len());
        let prefixes = take(room);
        field(&mut update).clone_from(&prefixes);
        (update.emit(self.dialect), prefixes)
    }

    /// The attributes of `route` as the peer is told them.
    pub(super) fn attributes(&self, family: Family, route: &Route) -> Attributes {
        let Dialect {
            internal,
            four_octet_as,
            extended_messages: _,
        } = self.dialect;
        let times = if internal {
            0
        } else {
            1 + usize::from(route.prepend)
        };
        let asns = [&vec![self.local_as; times], &*route.as_path].concat();
        let as_path = AsPath::sequence(&asns);
        let as4_path = (!four_octet_as && as_path.needs_four_octets()).then(|| as_path.clone());
        let next_hop = self.next_hop(family, route).ok();
        let (next_hop, mp_reach) = match (family, next_hop) {
            (Family::Ipv4Unicast, Some(IpAddr::V4(address))) => (Some(address), None),
            (_, next_hop) => (
                None,
                next_hop.map(|next_hop| MpReach {
                    family,
                    next_hop,
                    link_local: None,
                    prefixes: Vec::new(),
                }),
            ),
        };
        Attributes {
            origin: Some(route.origin),
            as_path: Some(as_path),
            as4_path,
            next_hop,
            med: route.med,
            local_pref: internal.then(|| route.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)),
            communities: route.communities.clone(),
            extended_communities: route.extended_communities.clone(),
            large_communities: route.large_communities.clone(),
            mp_reach,
            mp_unreach: None,
            other_family: false,
        }
    }
}

/// Whether the attributes fit a message and the peer would take them.
fn check_attributes(outlet: &Outlet, route: &Route) -> Result<(), Unsent> {
    let octets = community_octets(route);
    if octets > MAX_COMMUNITY_OCTETS {
        return Err(Unsent::TooManyCommunities(octets));
    }
    if route.as_path.len() > MAX_AS_PATH {
        return Err(Unsent::AsPathTooLong(route.as_path.len()));
    }
    for &asn in &route.as_path {
        if is_reserved(asn) {
            return Err(Unsent::ReservedAs(asn));
        }
        if [outlet.local_as, outlet.peer_as].contains(&asn) {
            return Err(Unsent::AsLoop(asn));
        }
    }
    Ok(())
}

fn community_octets(route: &Route) -> usize {
    route.communities.len() * 4
        + route.extended_communities.len() * 8
        + route.large_communities.len() * 12
}
