//! The data plane without an agent: `vipd load` and `vipd unload`, which
//! `cargo xtask load` and `unload` call.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{AgentConfig, Machine, Site, Vipd, wait_until};

use crate::support::{SMALL, VIP, ensure_spread, in_lab};

#[test]
fn load_says_native_and_forwards_an_agent_takes_over_and_unload_leaves_nothing() {
    in_lab(|lab| {
        let mut site = Site::without_agents(lab, SMALL, &[VIP.into()])?;
        let balancer = site.rack.balancers[0].clone();
        let config = AgentConfig::default().service("web", VIP.into(), "ipip", &site.rack.backends);
        let path = balancer.host.write("vipd.toml", &config.text(&balancer))?;
        let path = path.to_string_lossy();

        let said = vipd(&balancer, &["load", "--config", &path, "--iface", "eth0"])?;
        ensure!(said.contains("native"), "it said {said}");
        let loaded = balancer.host.xdp("eth0")?;
        let loaded = loaded.context("no program is attached")?;

        // No agent announces the VIP: a route by hand brings its packets here.
        site.rack.route_by_hand(VIP.into(), &balancer)?;
        ensure_spread(&site, VIP.into(), 5)?;

        site.start_agents(&config)?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
        ensure_spread(&site, VIP.into(), 5)?;

        site.agents[0].process().kill()?;
        ensure_spread(&site, VIP.into(), 5)?;

        vipd(&balancer, &["unload", "--config", &path])?;
        // The kernel detaches a moment after the last pin is gone.
        wait_until("the program is off", Duration::from_secs(20), || {
            let left = balancer.host.xdp("eth0")?;
            ensure!(left.is_none(), "loaded as {loaded}, left is {left:?}");
            Ok(())
        })?;
        let pins = balancer.host.pins().join("vipd");
        ensure!(!pins.exists(), "{} is left", pins.display());
        Ok(())
    });
}

fn vipd(machine: &Machine, arguments: &[&str]) -> Result<String> {
    machine
        .host
        .run(&Vipd::binary()?.to_string_lossy(), arguments)
}
