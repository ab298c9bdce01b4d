//! What is announced to whom: aggregates and rules.

use std::net::{Ipv4Addr, Ipv6Addr};

use toml::de::DeValue;
use vipd_control::{announcement::State, model::Vip};

use crate::config::{
    community::Community,
    report::{Report, Span},
    routing::{Asn, NextHop},
    table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
    text::Name,
    value::{Int, read_word, words},
    written::Number,
};

table! {
    /// A prefix that is announced while enough virtual addresses inside it are.
    /// All of it is held by an unreachable route on this host meanwhile: what
    /// is inside and is no virtual address does not go in a circle. Addresses
    /// inside that this host must reach need a route of their own that is at
    /// least as long.
    ///
    /// ```toml
    /// [[bgp.aggregate]]
    /// prefix = "198.51.100.0/24"
    /// ```
    Aggregate = "[[bgp.aggregate]]" {
        /// The prefix. Unique among aggregates and virtual prefixes.
        prefix: Vip, required;
        /// So many virtual addresses inside it must be alive.
        min_alive: Int<u32, 1, 1_000_000>, default "1";
        /// Whether virtual addresses inside it are announced by it alone and not
        /// one by one.
        suppress: bool, default "false";
    }
}

table! {
    /// What a peer is told of a prefix in a state. Without rules each peer is
    /// told of everything with the attributes of its `[[bgp.peer]]`. Rules are
    /// applied in the order of the file: every one that matches changes what it
    /// names, so later ones win.
    ///
    /// A prefix, virtual or an aggregate, is in one of these states. `"up"`:
    /// alive. `"degraded"`: alive, but with fewer backends than `degraded_below`
    /// of the service, or only with a sorry one; announced like up.
    /// `"maintenance"`: alive on a host that is about to leave; it has
    /// the community `graceful-shutdown` (RFC 8326) and over iBGP local
    /// preference 0, whatever rules say, unless they name this state; those
    /// that do have the last word on both, wherever they stand. `"doubt"`: all
    /// backends fell silent at once, so that it may be our own network; announced
    /// as in maintenance, and packets are sent where they went.
    /// `"disabled"`: by the operator or by `disable_file`; and `"down"`: too few
    /// backends are healthy; in both it is withdrawn, unless a rule
    /// that names this state announces it (fail open: routers come back to it
    /// when nothing better is left, and packets are sent to the backends that
    /// fell last, all that fell within `window` of `[doubt]`).
    ///
    /// ```toml
    /// [[bgp.rule]]
    /// peers = ["tor1"]
    /// med = 100
    ///
    /// [[bgp.rule]]
    /// states = ["down"]
    /// announce = true
    /// med_add = 900
    /// ```
    Rule = "[[bgp.rule]]" {
        /// For these peers only, by name.
        peers: Vec<At<Name>>, optional "all peers";
        /// For these prefixes and what is inside them.
        prefixes: Vec<At<Vip>>, optional "all prefixes";
        /// For the virtual addresses of these services.
        services: Vec<At<Name>>, optional "all services, and aggregates";
        /// Whether for aggregates only, or for none.
        aggregate: bool, optional "for both";
        /// In these states only.
        states: Vec<At<State>>, optional "all states";
        /// Whether it is announced. `true` brings back what is down or disabled
        /// only in a rule whose `states` name that state.
        announce: bool, optional "as before";
        /// MULTI_EXIT_DISC.
        med: Number, optional "as before";
        /// What is added to MULTI_EXIT_DISC; none counts as 0.
        med_add: Number, optional "nothing";
        /// What is added to MULTI_EXIT_DISC besides: nothing to the first of
        /// `prefixes`, once as much to the second, twice to the third, and so on.
        med_step: Number, optional "nothing";
        /// Where `med_step` begins, as a place in `prefixes` counted from 0; those
        /// before it follow after the last. So nodes with different starts each
        /// are the best for another prefix.
        med_start: Number, optional "0";
        /// LOCAL_PREF; iBGP peers only.
        local_preference: Number, optional "as before";
        /// How many more times our AS stands in the AS path; eBGP peers only.
        prepend: Int<u8, 0, 16>, optional "as before";
        /// ASes that stand in the AS path behind our own, at most 16.
        as_path: Vec<At<Asn>>, optional "as before";
        /// Communities that are added, as in `[[bgp.peer]]`.
        communities: Vec<At<Community>>, default "[]";
        /// Communities instead of all before; `communities` come on top.
        communities_set: Vec<At<Community>>, optional "those before stay";
        /// Next hop of IPv4 routes, as in `[[bgp.peer]]`.
        next_hop_ipv4: NextHop<Ipv4Addr>, optional "as before";
        /// Next hop of IPv6 routes, as in `[[bgp.peer]]`.
        next_hop_ipv6: NextHop<Ipv6Addr>, optional "as before";
    }
}

words! { State {
    "up" => Self::Up,
    "degraded" => Self::Degraded,
    "maintenance" => Self::Maintenance,
    "doubt" => Self::Doubt,
    "disabled" => Self::Disabled,
    "down" => Self::Down,
} }
