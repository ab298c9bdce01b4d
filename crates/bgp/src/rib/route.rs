//! A route as the driver wants it announced to one peer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::wire::{Community, ExtendedCommunity, LargeCommunity, Origin};

/// Everything one peer is to know. Routes are shared, since a peer's VIPs
/// mostly have the same attributes.
pub type Routes = BTreeMap<IpNet, Arc<Route>>;

/// The attributes of one route. The default is a plain route via the address
/// of the session itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where the peer is to send the packets, in the family of the prefix.
    /// `None`: the session's own address, see
    /// [`PeerConfig::next_hop_v4`](crate::PeerConfig::next_hop_v4).
    pub next_hop: Option<IpAddr>,
    /// MULTI_EXIT_DISC, lower is better; compared among routes of one
    /// neighbouring AS only.
    pub med: Option<u32>,
    /// LOCAL_PREF, higher is better; sent to iBGP peers only, where `None`
    /// is 100.
    pub local_pref: Option<u32>,
    /// How often our AS stands in the path beyond the one time it must; of no
    /// effect on iBGP, where it does not stand there at all.
    pub prepend: u8,
    /// ASes behind ours and its prepends: where the route is said to come from.
    /// Neither our AS nor the peer's may be among them, since the peer would
    /// take that for a loop.
    pub as_path: Vec<u32>,
    /// ORIGIN.
    pub origin: Origin,
    /// Standard communities.
    pub communities: Vec<Community>,
    /// Extended communities.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// Large communities.
    pub large_communities: Vec<LargeCommunity>,
}
