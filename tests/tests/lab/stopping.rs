//! How an agent stops: in order, losing nothing, or leaving the data plane.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, ensure};
use vipd_tests::{AgentConfig, Probes, Site, Size, host_prefix, wait_until};

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
            let left = site.rack.balancers[0].host.xdp("eth0")?;
            ensure!(left.is_none(), "it is still attached");
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
        let balancer = site.rack.balancers[0].clone();
        site.rack.route_by_hand(VIP.into(), &balancer)?;
        let probes = Probes::start(&site.rack.client, (VIP, 80).into());

        let status = site.agents[0].process().terminate(STOP)?;
        ensure!(status.success(), "{status}");
        wait_until("the router has no route", STOP, || {
            site.router.ensure_next_hops(&host_prefix(VIP.into()), &[])
        })?;
        ensure!(balancer.host.xdp("eth0")?.is_some(), "the program is gone");
        sleep(Duration::from_millis(500));

        site.agents[0].start_again()?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
        sleep(Duration::from_millis(500));
        let verdicts = &site.agents[0].status()?["dataplane"]["verdicts"];
        let report = probes.finish()?;
        report.ensure_all_answered().context(verdicts.to_string())
    });
}
