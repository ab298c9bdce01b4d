//! What one peer is to know: the announced addresses with the peer's own
//! attributes.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use vipd_bgp::{
    Route, Routes,
    wire::{self, Community, LargeCommunity},
};

use crate::config::{self, BgpPeer, Relation};

/// The routes for a peer: one per announced address of a family it takes.
#[must_use]
pub fn routes(announced: &BTreeSet<IpAddr>, peer: &BgpPeer) -> Routes {
    let template = template(peer);
    let v4 = peer.families.ipv4.map(|next_hop| {
        Arc::new(Route {
            next_hop: next_hop.address().map(IpAddr::V4),
            ..template.clone()
        })
    });
    let v6 = peer.families.ipv6.map(|next_hop| {
        Arc::new(Route {
            next_hop: next_hop.address().map(IpAddr::V6),
            ..template.clone()
        })
    });
    announced
        .iter()
        .filter_map(|vip| {
            let route = if vip.is_ipv4() { &v4 } else { &v6 };
            Some((IpNet::from(*vip), Arc::clone(route.as_ref()?)))
        })
        .collect()
}
