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
    /// says no, shows that the network works. See
    /// [decision.md](decision.md#doubt).
    ///
    /// ```toml
    /// [doubt]
    /// anchors = ["192.0.2.254"]
    /// ```
    Doubt = "[doubt]" {
        /// Whether there is any doubt; if not, they are down at once.
        enabled: bool, default "true";
        /// They fall silent at once if it takes no longer than this. Longer than
        /// the slowest check takes to find a backend down, or up again: when
        /// somebody answers, the others have so long to answer, too.
        window: Duration, default "\"10s\"";
        /// After so long without an answer they are down.
        limit: Duration, default "\"60s\"";
        /// Addresses that answer if our own network works, by taking or refusing a
        /// TCP connection to port 179: when one of them does at once, the backends
        /// are down.
        /// Best something beyond the switch of the backends, such as another
        /// server's or a router's address; no virtual address and none of this host,
        /// which would always answer.
        anchors: Vec<At<IpAddr>>, default "[]";
    }
}
