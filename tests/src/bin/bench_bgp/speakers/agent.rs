//! vipd as it is run: a drain of the only backend withdraws all addresses.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::{Builder, Runtime};
use vipd::{
    api::Client,
    overrides::{Act, Order, Target},
};
use vipd_tests::{AgentConfig, Host, Machine, Vipd, wait_until};

use super::{LOCAL_AS, ROUTER_AS, Speaker, addresses};
use crate::results::Change;

/// The one service.
const SERVICE: &str = "all";
/// How long it may take to let go of all addresses.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Agent {
    host: Host,
    client: Client,
    runtime: Runtime,
    backend: String,
    _process: Vipd,
}

impl Agent {
    pub fn start(machine: &Machine, backends: &[Machine]) -> Result<Self> {
        let backend = backends.first().context("no backend")?;
        let config = AgentConfig {
            local_as: LOCAL_AS,
            router_as: ROUTER_AS,
            peer: "connect_retry = \"1s\"\n".to_owned(),
            services: service(backend)?,
            ..AgentConfig::default()
        };
        let process = Vipd::start(&machine.host, &config.text(machine))?;
        let mut agent = Self {
            host: machine.host.clone(),
            client: Client::new(&machine.host.dir().join("vipd.sock")),
            runtime: Builder::new_current_thread().enable_all().build()?,
            backend: backend.host.name().to_owned(),
            _process: process,
        };
        agent.order(Change::Withdraw)?;
        Ok(agent)
    }
}

impl Speaker for Agent {
    fn name(&self) -> &'static str {
        "vipd"
    }

    fn order(&mut self, change: Change) -> Result<()> {
        let target = Target::backend(SERVICE, &self.backend);
        let order = Order {
            act: match change {
                Change::Withdraw => Act::Drain {
                    target,
                    deadline_seconds: None,
                },
                Change::Announce => Act::Undrain(target),
            },
            force: true,
            by: "bench".to_owned(),
            reason: None,
        };
        let answer = self.runtime.block_on(self.client.order(&order))?;
        ensure!(answer.done, "{}", answer.message);
        Ok(())
    }

    /// An address is held by a route of its own for some seconds more.
    fn settle(&mut self) -> Result<()> {
        wait_until("no address is held", PATIENCE, || {
            let words = ["route", "show", "type", "unreachable"];
            let held = self.host.run("ip", &words)?.lines().count();
            ensure!(held == 0, "{held} are");
            Ok(())
        })
    }
}

/// One service on all addresses, with one backend that is not checked.
fn service(backend: &Machine) -> Result<String> {
    let mut text = format!("\n[[service]]\nname = \"{SERVICE}\"\nvips = [\n");
    for address in addresses() {
        writeln!(text, "\"{address}\",")?;
    }
    write!(
        text,
        "]\nprotocol = \"udp\"\nport = 53\nmode = \"l2-dsr\"\n\
         [service.check]\ntype = \"none\"\n\
         [[service.backend]]\nname = \"{}\"\naddress = \"{}\"\n",
        backend.host.name(),
        backend.ipv4
    )?;
    Ok(text)
}
