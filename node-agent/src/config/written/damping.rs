//! Damping of our own announcements, as it is written.

use std::time::Duration;

use toml::de::DeValue;

use crate::config::{
    report::{Report, Span},
    table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
    value::Int,
};

/// A penalty.
type Figure = Int<u32, 1, 100_000>;

table! {
    /// Holds improvements of announcements back, so that routers that damp
    /// flapping routes (RFC 2439) never suppress ours. It is in force when the
    /// table is there. A worsening or a withdrawal is never delayed; an
    /// improvement, of a virtual address or an aggregate, waits as said here, and
    /// meanwhile the worse state stays. The penalty is shown in `vipd status`,
    /// also without this table. An agent that starts anew has counted nothing yet.
    ///
    /// ```toml
    /// [bgp.damping]
    /// hold_down = "30s"
    /// ```
    Damping = "[bgp.damping]" {
        /// An improvement waits until so long after the last worsening.
        hold_down: Duration, default "\"0s\"";
        /// Whether an improvement waits until the penalty leaves room for one more
        /// withdrawal below `suppress`, and is below `reuse` if it was over that
        /// limit.
        budget: bool, default "true";
        /// What routers count for a withdrawal.
        withdrawal: Figure, default "1000";
        /// What they count for a change of attributes.
        attribute_change: Figure, default "500";
        /// With so much they do not use a prefix.
        suppress: Figure, default "2000";
        /// Below that they use it again.
        reuse: Figure, default "750";
        /// The penalty halves in this time.
        half_life: Duration, default "\"15m\"";
    }
}
