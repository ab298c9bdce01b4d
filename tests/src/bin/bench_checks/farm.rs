//! Two hosts: one that checks, and one that has the addresses of all backends and
//! tells when each of them is asked.
//!
//! ```text
//!   checker ------------------- farm
//!    192.0.2.1            192.0.2.2, 198.18.0.0/15
//! ```

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use vipd_tests::{Door, Host, Lab, connect};

use crate::arrivals::Arrivals;

/// The first address of the network for benchmarks (RFC 2544).
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// So many addresses it has, but for its first and last.
pub const MOST: u32 = (1 << 17) - 2;
/// Where all backends listen.
pub const PORT: u16 = 80;

/// The hosts, wired up, and whoever listens on the farm.
pub struct Farm {
    /// Where vipd or HAProxy runs.
    pub checker: Host,
    /// When the backends are asked.
    pub arrivals: Arrivals,
    /// How many there are.
    pub backends: u32,
    _door: Door,
}

impl Farm {
    /// Builds it, with so many backends.
    pub fn build(lab: &Lab, backends: u32) -> Result<Self> {
        let hosts = lab.add_hosts(&["checker", "farm"])?;
        let [checker, farm] = <[Host; 2]>::try_from(hosts)
            .ok()
            .context("a host for each name")?;
        connect((&checker, "eth0"), (&farm, "eth0"), 1500)?;
        checker.ip("addr add 192.0.2.1/24 dev eth0\n\
             route add 198.18.0.0/15 via 192.0.2.2\n")?;
        // A local route makes all its addresses the host's own.
        farm.ip("addr add 192.0.2.2/24 dev eth0\n\
             route add local 198.18.0.0/15 dev lo\n")?;
        // All backends together have one queue.
        farm.sysctl(&[
            ("net/core/somaxconn", "65535"),
            ("net/ipv4/tcp_max_syn_backlog", "65535"),
        ])?;
        Ok(Self {
            arrivals: farm.enter(|| Arrivals::watch(backends))?,
            _door: Door::open(&farm, PORT)?,
            checker,
            backends,
        })
    }
}

/// The address of a backend, counted from 0.
pub fn address(backend: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + backend)
}

/// Which backend has the address.
pub fn backend(address: Ipv4Addr) -> Option<u32> {
    address.to_bits().checked_sub(FIRST.to_bits())
}
