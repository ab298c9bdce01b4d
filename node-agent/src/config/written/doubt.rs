//! Doubt about our own network, as it is written.

use std::{net::IpAddr, time::Duration};

use toml::de::DeValue;

use crate::config::{
    report::{Report, Span},
    table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
};

table! {
    /// What happens when the backends of all services fall silent at once, so that
    /// it is likelier that this host has lost its own network. Packets go where
    /// they went, and addresses are announced in the state `"doubt"` (see
    /// `[[bgp.rule]]`) instead of being withdrawn. At least two addresses must
    /// fall, and more than half of all. A refused connection, or an answer that
    /// says no, shows that the network works.
    ///
    /// ```toml
    /// [doubt]
    /// enabled = true
    /// anchors = ["192.0.2.1"]
    /// ```
    Doubt = "[doubt]" {
        /// Whether there is any doubt; if not, they are down at once.
        enabled: bool, default "false";
        /// They fall silent at once if it takes no longer than this. Longer than
        /// the slowest check takes to find a backend down.
        window: Duration, default "\"10s\"";
        /// After so long without an answer they are down.
        limit: Duration, default "\"60s\"";
        /// Addresses that answer if our own network works, by taking or refusing a
        /// TCP connection to port 179, such as the routers of BGP: when one of
        /// them does, the backends are down.
        anchors: Vec<At<IpAddr>>, default "[]";
    }
}
