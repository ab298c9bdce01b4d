//! Where a service takes virtual addresses from, as it is written.

use toml::de::DeValue;
use vipd_control::model::Vip;

use crate::config::{
    report::{Report, Span},
    table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
    text::InterfaceName,
    wish::Pattern,
};

table! {
    /// Addresses that others put on an interface of this host, and that become
    /// virtual addresses of the service as long as they are there: one that comes
    /// is checked, decided and announced as if it stood in `vips`, one that goes is
    /// withdrawn, without a reload. vipd neither binds them nor takes them away.
    /// `local` only.
    ///
    /// With neither `label` nor `within` it is all of the interface. Never taken
    /// are addresses that other hosts cannot reach (loopback, link-local), those
    /// with a lifetime (DHCP, autoconfiguration), those that this file names as
    /// something else, like the router id or a source, those that vipd has bound,
    /// and those in `vips` of a service. A service can take 1024. `vipd check`
    /// tells what it would take now.
    ///
    /// ```toml
    /// [[service]]
    /// name = "resolver"
    /// protocol = "tcp"
    /// port = 53
    /// mode = "local"
    ///
    /// [service.vips_from]
    /// interface = "lo"
    /// label = "lo:any*"
    /// within = ["2001:db8:30::/64"]
    /// ```
    VipsFrom = "[service.vips_from]" {
        /// The interface. One that is not there is waited for.
        interface: InterfaceName, required;
        /// The label of IPv4 addresses, in which `*` stands for any characters.
        /// IPv6 addresses have no label: with one they are taken only if
        /// `within` names some.
        label: Pattern, optional "with any";
        /// Prefixes that addresses of their family must be in. A family without
        /// one here is taken by its label, or not at all.
        within: Vec<At<Vip>>, default "[]";
    }
}
