//! BIRD, with its routes in a static protocol that is enabled and disabled.

use std::fmt::Write as _;

use anyhow::Result;
use vipd_tests::{Bird, BirdSocket, Machine, ROUTER_IPV4};

use super::{LOCAL_AS, ROUTER_AS, Speaker, addresses};
use crate::results::Change;

pub struct BirdSpeaker {
    socket: BirdSocket,
    _process: Bird,
}

impl BirdSpeaker {
    pub fn start(machine: &Machine) -> Result<Self> {
        let ipv4 = machine.ipv4;
        let mut config = format!(
            "log stderr all;
router id {ipv4};
protocol device {{ }}
protocol bgp upstream {{
    local {ipv4} as {LOCAL_AS};
    neighbor {ROUTER_IPV4} as {ROUTER_AS};
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
    ipv4 {{ import none; export where source = RTS_STATIC; next hop self; }};
}}
"
        );
        config += "protocol static all_routes { disabled; ipv4;\n";
        for address in addresses() {
            writeln!(config, "route {address}/32 blackhole;")?;
        }
        config += "}\n";
        let process = Bird::start(&machine.host, &config)?;
        Ok(Self {
            socket: process.connect()?,
            _process: process,
        })
    }
}

impl Speaker for BirdSpeaker {
    fn name(&self) -> &'static str {
        "BIRD"
    }

    fn order(&mut self, change: Change) -> Result<()> {
        let verb = match change {
            Change::Announce => "enable",
            Change::Withdraw => "disable",
        };
        self.socket.ask(&format!("{verb} all_routes"))?;
        Ok(())
    }
}
