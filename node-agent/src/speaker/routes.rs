//! What one peer is to know: what is announced, each with the attributes that
//! the peer and its rules give it.

use std::{collections::BTreeMap, sync::Arc};

use vipd_bgp::{
    Route, Routes,
    wire::{self, LargeCommunity},
};

use crate::{
    announce::Announced,
    config::{Attributes, Community, NextHop},
};

/// The routes for the peer of that name. None as long as what is announced does
/// not know the peer: nobody has said yet what it may hear of.
#[must_use]
pub fn routes(announced: &Announced, peer: &str) -> Routes {
    let bgp = announced.bgp.as_ref();
    let Some(peer) = bgp.and_then(|bgp| bgp.peer(peer)) else {
        return Routes::new();
    };
    // Mostly all prefixes are the same case, and share one route.
    let mut cases = BTreeMap::new();
    let route = |(&prefix, &state)| {
        let case = peer.case(prefix, state);
        let route: &Option<Arc<Route>> = cases
            .entry(case)
            .or_insert_with_key(|case| peer.attributes(case).map(|given| Arc::new(route(given))));
        Some((prefix.prefix(), Arc::clone(route.as_ref()?)))
    };
    announced.states.iter().filter_map(route).collect()
}

fn route(attributes: Attributes) -> Route {
    let mut route = Route {
        next_hop: match attributes.next_hop {
            NextHop::Own => None,
            NextHop::Given(address) => Some(address),
        },
        med: attributes.med,
        local_pref: attributes.local_preference,
        prepend: attributes.prepend,
        as_path: attributes.as_path.iter().map(|asn| asn.number()).collect(),
        ..Route::default()
    };
    for community in attributes.communities {
        match community {
            Community::Standard(value) => route.communities.push(wire::Community(value)),
            Community::Extended(extended) => route.extended_communities.push(extended),
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

#[cfg(test)]
mod tests {
    use vipd_bgp::wire::ExtendedCommunity;
    use vipd_control::{announcement::State, model::Vip};

    use super::*;
    use crate::speaker::tests::bgp;

    /// Two addresses of IPv4, one of IPv6.
    fn announced() -> Announced {
        let states = ["198.51.100.10", "198.51.100.11", "2001:db8::10"].map(|text| {
            let address: std::net::IpAddr = text.parse().expect("an address");
            (Vip::from(address), State::Up)
        });
        Announced {
            states: states.into(),
            bgp: Some(Arc::new(bgp())),
            complete: true,
            ..Announced::default()
        }
    }

    #[test]
    fn prefixes_that_are_told_of_alike_share_a_route() {
        let routes = routes(&announced(), "router");
        let routes: Vec<_> = routes.values().collect();
        assert_eq!(routes.len(), 2, "the session carries IPv4 only: {routes:?}");
        assert!(Arc::ptr_eq(routes[0], routes[1]), "{routes:?}");
    }

    #[test]
    fn a_peer_that_is_not_known_yet_is_told_nothing() {
        assert_eq!(routes(&announced(), "other"), Routes::new());
        let nobody = Announced {
            bgp: None,
            ..announced()
        };
        assert_eq!(routes(&nobody, "router"), Routes::new());
    }

    #[test]
    fn every_kind_of_community_goes_where_it_belongs() {
        let community = |text: &str| text.parse::<Community>().expect("a community");
        let mut announced = announced();
        let mut bgp = bgp();
        let mut peer = (*bgp.peers[0]).clone();
        peer.communities = ["64500:1", "rt:64500:2", "64500:3:4"].map(community).into();
        bgp.peers = vec![Arc::new(peer)];
        announced.bgp = Some(Arc::new(bgp));
        let routes = routes(&announced, "router");
        let route = routes.values().next().expect("there is one");
        let large = LargeCommunity {
            global: 64500,
            local1: 3,
            local2: 4,
        };
        assert_eq!(route.communities, [wire::Community(64500 << 16 | 1)]);
        assert_eq!(
            route.extended_communities,
            [ExtendedCommunity(0x0002_FBF4_0000_0002)]
        );
        assert_eq!(route.large_communities, [large]);
    }
}
