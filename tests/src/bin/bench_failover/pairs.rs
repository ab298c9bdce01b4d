//! Two hosts each that keep an address in service, by vipd or by another program.

mod exabgp;
mod keepalived;
mod vipd;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use vipd_tests::{Host, Machine};

pub use self::{exabgp::Exabgp, keepalived::VrrpPair, vipd::VipdPair};

/// The AS of all balancers, and the router's.
pub const LOCAL_AS: u32 = 64500;
/// See [`LOCAL_AS`].
pub const ROUTER_AS: u32 = 64501;
/// Where the services answer.
const PORT: u16 = 7;

/// Two hosts and the address that they keep in service.
pub trait Pair {
    /// For the tables.
    fn name(&self) -> &'static str;

    /// What clients ask.
    fn target(&self) -> SocketAddr;

    /// Fails, telling how it is, unless both stand by each other; returns the one
    /// that is to die.
    fn ready(&self) -> Result<Machine>;

    /// The one that was to die has died, and has been revived.
    fn revived(&mut self) {}
}

/// Fails unless the kernel's route leads to each of these.
fn ensure_routes(router: &Host, vip: Ipv4Addr, machines: &[Machine]) -> Result<()> {
    let route = router.run("ip", &["route", "show", &vip.to_string()])?;
    for Machine { ipv4, .. } in machines {
        let via = format!("via {ipv4} ");
        ensure!(route.contains(&via), "the route is {route:?}");
    }
    Ok(())
}

fn target(vip: Ipv4Addr) -> SocketAddr {
    (IpAddr::from(vip), PORT).into()
}
