//! The data plane without an agent: `vipd load` and `vipd unload`, which
//! `cargo xtask load` and `unload` call.

use anyhow::{Result, ensure};
use vipd_tests::{AgentConfig, Machine, Site, Vipd};

use crate::support::{SMALL, VIP, ensure_spread, in_lab};

#[test]
fn load_says_native_and_forwards_and_unload_leaves_nothing() {
    in_lab(|lab| {
        let site = Site::without_agents(lab, SMALL, &[VIP.into()])?;
        let balancer = &site.rack.balancers[0];
        let config = AgentConfig::default()
            .service("web", VIP.into(), "ipip", &site.rack.backends)
            .text(balancer);
        let config = balancer.host.write("vipd.toml", &config)?;
        let config = config.to_string_lossy();

        let said = vipd(balancer, &["load", "--config", &config, "--iface", "eth0"])?;
        ensure!(said.contains("native"), "it said {said}");
        site.rack
            .router
            .ip(&format!("route add {VIP} via {}\n", balancer.ipv4))?;
        ensure_spread(&site, VIP.into(), 5)?;

        vipd(balancer, &["unload", "--config", &config])?;
        let link = balancer
            .host
            .run("ip", &["-details", "link", "show", "eth0"])?;
        ensure!(!link.contains("prog/xdp"), "a program is left: {link}");
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
