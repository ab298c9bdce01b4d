//! A whole site: a rack with web servers on its backends, BIRD on its router,
//! and vipd on its balancers.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    agent_config::AgentConfig,
    bird::Bird,
    lab::Lab,
    nginx::Nginx,
    rack::{Machine, Rack, Size},
    vipd::{Decapsulator, Vipd},
    wait::wait_until,
};

/// How long the site may take to come into a state.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long slots may take to become stable, with the short memories of a lab.
const SETTLING: Duration = Duration::from_secs(60);

/// Everything that runs; what belongs together has the same index.
#[derive(Debug)]
pub struct Site {
    /// One for each balancer, once they are started.
    pub agents: Vec<Vipd>,
    /// The router's BGP daemon; its sessions are named after the balancers.
    pub router: Bird,
    /// One for each backend.
    pub servers: Vec<Nginx>,
    /// The machines.
    pub rack: Rack,
}

impl Site {
    /// All but the agents: backends that take tunnels from the rack and serve
    /// these VIPs, and the router waiting for the balancers.
    pub fn without_agents(lab: &Lab, size: Size, vips: &[IpAddr]) -> Result<Self> {
        let rack = Rack::build(lab, size)?;
        Ok(Self {
            agents: Vec::new(),
            router: Bird::on_router(&rack, "")?,
            servers: start_servers(&rack, vips)?,
            rack,
        })
    }

    /// A site with agents of this configuration, established with the router.
    pub fn build(lab: &Lab, size: Size, vips: &[IpAddr], config: Configure<'_>) -> Result<Self> {
        let mut site = Self::without_agents(lab, size, vips)?;
        site.start_agents(&config(&site.rack))?;
        site.wait_for_sessions()?;
        for vip in vips {
            site.wait_for_routes(*vip, &site.rack.balancers)?;
        }
        Ok(site)
    }

    /// Starts an agent on each balancer.
    pub fn start_agents(&mut self, config: &AgentConfig) -> Result<()> {
        for balancer in &self.rack.balancers {
            let agent = Vipd::start(&balancer.host, &config.text(balancer))?;
            self.agents.push(agent);
        }
        Ok(())
    }

    /// Waits until the router has its session with each balancer.
    pub fn wait_for_sessions(&self) -> Result<()> {
        wait_until("all BGP sessions are established", PATIENCE, || {
            self.rack.balancers.iter().try_for_each(|balancer| {
                self.router.ensure_established(balancer.host.name())?;
                Ok(())
            })
        })
    }

    /// Waits until the router sends the VIP to just these balancers.
    pub fn wait_for_routes(&self, vip: IpAddr, balancers: &[Machine]) -> Result<()> {
        let hops: Vec<IpAddr> = balancers.iter().map(|b| b.address_like(vip)).collect();
        let names: Vec<&str> = balancers.iter().map(|b| b.host.name()).collect();
        let sentence = format!("the router sends {vip} to {names:?}");
        wait_until(&sentence, PATIENCE, || {
            self.router.ensure_next_hops(&host_prefix(vip), &hops)
        })
    }

    /// Gives every agent another configuration.
    pub fn reload(&self, config: &AgentConfig) -> Result<()> {
        let pairs = self.agents.iter().zip(&self.rack.balancers);
        pairs
            .map(|(agent, balancer)| agent.reload(&config.text(balancer)))
            .try_for_each(|answer| answer.map(drop))
    }

    /// Has every agent drain a backend, given as `SERVICE/BACKEND`, or undrain
    /// it.
    pub fn drain(&self, backend: &str, drained: bool) -> Result<()> {
        for agent in &self.agents {
            if drained {
                agent.drain(backend, &[])?;
            } else {
                agent.undrain(backend)?;
            }
        }
        Ok(())
    }

    /// Waits until no agent has a slot whose flows depend on what it has
    /// recorded: then the other balancers would do the same.
    pub fn wait_until_settled(&self) -> Result<()> {
        wait_until("all slots are stable", SETTLING, || {
            self.agents.iter().try_for_each(Vipd::ensure_settled)
        })
    }

    /// Waits until every agent has that backend up, or down.
    pub fn wait_for_backend(&self, name: &str, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        let sentence = format!("all balancers see {name} {state}");
        wait_until(&sentence, PATIENCE, || {
            ensure!(!self.agents.is_empty(), "no agent runs");
            self.agents.iter().try_for_each(|agent| {
                agent.ensure_backend(name, up)?;
                agent.ensure_in_force()
            })
        })
    }
}

/// Web servers on the backends, which serve these VIPs and take tunnels from
/// the rack.
pub fn start_servers(rack: &Rack, vips: &[IpAddr]) -> Result<Vec<Nginx>> {
    rack.bind_vips(vips)?;
    let start = |backend: &Machine| {
        Decapsulator::attach(&backend.host, &["192.0.2.0/24", "2001:db8:1::/64"])?;
        Nginx::start(&backend.host)
    };
    rack.backends.iter().map(start).collect()
}

/// Makes the agents' configuration for a rack.
pub type Configure<'a> = &'a dyn Fn(&Rack) -> AgentConfig;

/// The VIP as a prefix of one address.
pub fn host_prefix(vip: IpAddr) -> String {
    let length = if vip.is_ipv4() { 32 } else { 128 };
    format!("{vip}/{length}")
}
