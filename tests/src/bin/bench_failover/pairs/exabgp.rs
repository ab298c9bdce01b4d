//! Two hosts with ExaBGP and its health check: no BFD, and the shortest hold time
//! that it takes. The service is on the hosts themselves.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use vipd_tests::{Host, Machine, Process, ROUTER_IPV4, Rack, UdpEcho, start_exabgp};

use super::{LOCAL_AS, PORT, Pair, ROUTER_AS, ensure_routes, target};

const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 30);

/// Two ExaBGP.
pub struct Exabgp {
    machines: Vec<Machine>,
    router: Host,
    /// Which of them dies next.
    turn: usize,
    _processes: Vec<Process>,
    _echoes: Vec<UdpEcho>,
}

impl Exabgp {
    /// On these machines of the rack.
    pub fn start(rack: &Rack, machines: &[Machine]) -> Result<Self> {
        let (mut processes, mut echoes) = (Vec::new(), Vec::new());
        for machine in machines {
            machine.bind_vips(&[VIP.into()])?;
            echoes.push(UdpEcho::start(&machine.host, VIP.into(), PORT)?);
            processes.push(start_exabgp(&machine.host, &config(machine))?);
        }
        Ok(Self {
            machines: machines.to_vec(),
            router: rack.router.clone(),
            turn: 0,
            _processes: processes,
            _echoes: echoes,
        })
    }
}

impl Pair for Exabgp {
    fn name(&self) -> &'static str {
        "ExaBGP, hold time 3 s"
    }

    fn target(&self) -> SocketAddr {
        target(VIP)
    }

    fn ready(&self) -> Result<Machine> {
        ensure_routes(&self.router, VIP, &self.machines)?;
        let victim = self.machines.get(self.turn % self.machines.len());
        victim.cloned().context("there is no machine")
    }

    fn revived(&mut self) {
        self.turn += 1;
    }
}

fn config(machine: &Machine) -> String {
    let us = machine.ipv4;
    format!(
        "process watch {{
    run /usr/bin/python3 -m exabgp healthcheck --cmd true --ip {VIP}/32 \
     --no-ip-setup --interval 1 --rise 1 --fall 2 --no-ack --no-syslog;
    encoder text;
}}
neighbor {ROUTER_IPV4} {{
    router-id {us};
    local-address {us};
    local-as {LOCAL_AS};
    peer-as {ROUTER_AS};
    hold-time 3;
    family {{ ipv4 unicast; }}
    api {{ processes [ watch ]; }}
}}
"
    )
}
