//! How an agent stops: in order, losing nothing, or leaving the data plane.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipd_tests::{AgentConfig, Machine, Probes, Site, Size, host_prefix, wait_until};

use crate::support::{SMALL, VIP, in_lab};

/// An ordered stop lingers for 2 s by default.
const STOP: Duration = Duration::from_secs(10);

#[test]
fn an_agent_told_to_stop_withdraws_first_and_loses_no_connection() {
    in_lab(|lab| {
        let size = Size {
            balancers: 2,
            backends: 2,
        };
        let mut site = Site::build(lab, size, &[VIP.into()], &|rack| {
            AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends)
        })?;
        let probes = Probes::start(&site.rack.client, (VIP, 80).into());
        sleep(Duration::from_millis(500));
        let status = site.agents[0].process().terminate(STOP)?;
        sleep(Duration::from_millis(500));
        let report = probes.finish()?;

        ensure!(status.success(), "{status}");
        report.ensure_all_answered()?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers[1..])?;
        // The kernel detaches a moment after the last pin is gone.
        wait_until("the program is off", Duration::from_secs(20), || {
            ensure!(!has_xdp(&site.rack.balancers[0])?, "it is still attached");
            Ok(())
        })?;
        let pins = site.rack.balancers[0].host.pins().join("vipd");
        ensure!(!pins.exists(), "{} is still there", pins.display());
        Ok(())
    });
}

#[test]
fn an_agent_told_to_keep_the_data_plane_leaves_it_forwarding_and_adopts_it_again() {
    in_lab(|lab| {
        let mut site = Site::build(lab, SMALL, &[VIP.into()], &|rack| {
            let config = AgentConfig {
                dataplane: "on_stop = \"keep\"\n".to_owned(),
                ..AgentConfig::default()
            };
            config.service("web", VIP.into(), "ipip", &rack.backends)
        })?;
        // Whether anybody announces the VIP or not, its packets come here.
        let balancer = site.rack.balancers[0].clone();
        let by_hand = format!("{VIP} via {} metric 1", balancer.ipv4);
        site.rack.router.ip(&format!("route add {by_hand}\n"))?;
        let probes = Probes::start(&site.rack.client, (VIP, 80).into());

        let status = site.agents[0].process().terminate(STOP)?;
        ensure!(status.success(), "{status}");
        wait_until("the router has no route", STOP, || {
            site.router.ensure_next_hops(&host_prefix(VIP.into()), &[])
        })?;
        ensure!(has_xdp(&balancer)?, "the program is gone");
        sleep(Duration::from_millis(500));

        let start = Instant::now();
        site.agents[0].start_again()?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
        sleep(Duration::from_millis(500));
        let report = probes.finish()?;
        let after_start: Vec<_> = report
            .failures()
            .map(|failure| failure.started.checked_duration_since(start))
            .collect();
        ensure!(
            after_start.is_empty(),
            "{:?}, so long after the new start: {after_start:?}; verdicts: {}",
            report.by_failure(),
            site.agents[0].status()?["dataplane"]["verdicts"],
        );
        Ok(())
    });
}

fn has_xdp(machine: &Machine) -> Result<bool> {
    let link = machine
        .host
        .run("ip", &["-details", "link", "show", "eth0"])?;
    Ok(link.contains("prog/xdp"))
}
