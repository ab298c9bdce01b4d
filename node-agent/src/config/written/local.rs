//! What only services have that this host serves itself, as it is written.

use toml::de::DeValue;

use crate::config::{
    local::Label,
    report::{Report, Span},
    table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
    text::InterfaceName,
};

table! {
    /// Where vipd binds the addresses of a service in mode `local`, before they
    /// are announced, and until their withdrawal has lingered. `bind = false`
    /// instead: others bind them, on whatever interface, and vipd only looks.
    ///
    /// An address is announced while it is on an interface that is up. Whoever
    /// takes it away, or the interface down, withdraws it; vipd does not bind it
    /// anew against his will, but announces it when it is back. `vipd reload`
    /// binds what was taken away.
    ///
    /// ```toml
    /// [[service]]
    /// name = "mail"
    /// vips = ["198.51.100.25"]
    /// protocol = "tcp"
    /// port = 25
    /// mode = "local"
    ///
    /// [service.bind]
    /// interface = "lo"
    /// label = "lo:mail"
    /// ```
    Bind = "[service.bind]" {
        /// The interface. One that is not there is waited for.
        interface: InterfaceName, optional "`vipd0`, which vipd makes; `lo` where the kernel has no interfaces of type dummy";
        /// Label of IPv4 addresses, by which other programs know them: the
        /// interface's name, a colon, and more; at most 15 characters.
        label: Label, optional "none";
    }
}
