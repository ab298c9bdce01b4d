//! What one peer is to know: the announced addresses with the peer's own
//! attributes.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use vipd_bgp::{
    Route, Routes,
    wire::{self, LargeCommunity},
};
use vipd_control::model::Vip;

use crate::config::{BgpPeer, Community, NextHop, Relation};

/// The routes for a peer: one per announced address or prefix of a family it
/// takes.
#[must_use]
pub fn routes(announced: &BTreeSet<Vip>, peer: &BgpPeer) -> Routes {
    let v4 = peer.families.ipv4.map(|hop| Arc::new(route(peer, hop)));
    let v6 = peer.families.ipv6.map(|hop| Arc::new(route(peer, hop)));
    announced
        .iter()
        .filter_map(|vip| {
            let route = if vip.is_ipv4() { &v4 } else { &v6 };
            Some((vip.prefix(), Arc::clone(route.as_ref()?)))
        })
        .collect()
}

fn route<A: Into<IpAddr>>(peer: &BgpPeer, next_hop: NextHop<A>) -> Route {
    let (local_pref, prepend) = match peer.relation {
        Relation::Internal { local_preference } => (Some(local_preference), 0),
        Relation::External { prepend } => (None, prepend),
    };
    let mut route = Route {
        next_hop: match next_hop {
            NextHop::Own => None,
            NextHop::Given(address) => Some(address.into()),
        },
        med: peer.med,
        local_pref,
        prepend,
        ..Route::default()
    };
    for community in &peer.communities {
        match *community {
            Community::Standard(value) => route.communities.push(wire::Community(value)),
            Community::Large(global, local1, local2) => {
                route.large_communities.push(LargeCommunity {
                    global,
                    local1,
                    local2,
                });
            }
        }
    }
    route
}
