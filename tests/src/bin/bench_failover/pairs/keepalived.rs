//! Two hosts with keepalived: VRRP with an advertisement each second, as it is by
//! default. The service is on the hosts themselves.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{Keepalived, Machine, UdpEcho};

use super::{PORT, Pair, target};

/// Of the network that the hosts share with the router.
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

/// Two keepalived.
pub struct VrrpPair {
    machines: Vec<Machine>,
    _processes: Vec<Keepalived>,
    _echoes: Vec<UdpEcho>,
}

impl VrrpPair {
    /// On these machines, the first of which is preferred.
    pub fn start(machines: &[Machine]) -> Result<Self> {
        let (mut processes, mut echoes) = (Vec::new(), Vec::new());
        for (machine, priority) in machines.iter().zip([101, 100]) {
            let host = &machine.host;
            // The service is there before the address is.
            host.sysctl(&[("net/ipv4/ip_nonlocal_bind", "1")])?;
            echoes.push(UdpEcho::start(host, VIP.into(), PORT)?);
            processes.push(Keepalived::start(host, &config(host.name(), priority))?);
        }
        Ok(Self {
            machines: machines.to_vec(),
            _processes: processes,
            _echoes: echoes,
        })
    }
}

impl Pair for VrrpPair {
    fn name(&self) -> &'static str {
        "keepalived, VRRP, 1 s"
    }

    fn target(&self) -> SocketAddr {
        target(VIP)
    }

    fn ready(&self) -> Result<Machine> {
        let mut masters = Vec::new();
        for machine in &self.machines {
            let addresses = machine.host.run("ip", &["-4", "address", "show", "eth0"])?;
            masters.push(addresses.contains(&format!(" {VIP}/32 ")));
        }
        // Both may be for a moment; then the preferred one stays.
        ensure!(masters == [true, false], "master: {masters:?}");
        self.machines
            .first()
            .cloned()
            .context("there is no machine")
    }
}

fn config(name: &str, priority: u8) -> String {
    format!(
        "global_defs {{
    router_id {name}
}}
vrrp_instance vip {{
    state BACKUP
    interface eth0
    virtual_router_id 101
    priority {priority}
    advert_int 1
    virtual_ipaddress {{
        {VIP}/32
    }}
}}
"
    )
}
