//! The way to a backend: what the data plane needs to send it a frame.

use std::{collections::BTreeMap, net::IpAddr};

use vipd_abi::Uplink;

/// The way to an address as the kernel's tables have it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Ethernet address of the neighbour to send to.
    pub mac: [u8; 6],
    /// The interface to send by. Its MTU is that of the link or of the route,
    /// whichever is smaller.
    pub uplink: Uplink,
    /// The router on the way; `None` when the address is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The source address the kernel would choose.
    pub source: Option<IpAddr>,
}

/// The ways to the addresses that can be reached.
pub type Ways = BTreeMap<IpAddr, Way>;

/// Why the others cannot, in plain words.
pub type Problems = BTreeMap<IpAddr, String>;
