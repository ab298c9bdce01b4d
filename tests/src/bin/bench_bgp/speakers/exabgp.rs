//! ExaBGP, which reads orders from a process that it has started.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::Write as _,
};

use anyhow::Result;
use vipd_tests::{Machine, Process, ROUTER_IPV4, start_exabgp};

use super::{LOCAL_AS, ROUTER_AS, Speaker, addresses};
use crate::results::Change;

pub struct Exabgp {
    orders: File,
    _process: Process,
}

impl Exabgp {
    pub fn start(machine: &Machine) -> Result<Self> {
        let Machine { host, ipv4, .. } = machine;
        let orders = host.dir().join("orders");
        let orders = orders.to_string_lossy();
        host.run("mkfifo", &[&orders])?;
        let config = format!(
            "process orders {{ run /bin/cat {orders}; encoder text; }}
neighbor {ROUTER_IPV4} {{
    router-id {ipv4};
    local-address {ipv4};
    local-as {LOCAL_AS};
    peer-as {ROUTER_AS};
    family {{ ipv4 unicast; }}
    api {{ processes [ orders ]; }}
}}
"
        );
        let process = start_exabgp(host, &config)?;
        // For both, so that it neither waits for a reader nor ends with one.
        let orders = OpenOptions::new().read(true).write(true).open(&*orders)?;
        Ok(Self {
            orders,
            _process: process,
        })
    }
}

impl Speaker for Exabgp {
    fn name(&self) -> &'static str {
        "ExaBGP"
    }

    fn order(&mut self, change: Change) -> Result<()> {
        let verb = match change {
            Change::Announce => "announce",
            Change::Withdraw => "withdraw",
        };
        let mut order = format!("{verb} attributes next-hop self nlri");
        for address in addresses() {
            write!(order, " {address}/32")?;
        }
        order += "\n";
        Ok(self.orders.write_all(order.as_bytes())?)
    }
}
