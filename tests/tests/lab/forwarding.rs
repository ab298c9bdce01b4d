//! Packets through the VIP, in every mode and family, and what steers them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Result, ensure};
use vipd_tests::{AgentConfig, Nginx, Probes, Site, Size, UdpEcho, ask_udp, wait_until};

use crate::support::{SMALL, VIP, VIP6, ensure_spread, in_lab};

const DSR_VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
const DSR_VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x11);
const UDP_PORT: u16 = 5353;
const PATIENCE: Duration = Duration::from_secs(15);
/// So many questions miss one of two backends once in 10^12 runs.
const QUESTIONS: usize = 40;

#[test]
fn tcp_and_udp_reach_every_backend_by_ipip_and_l2_dsr_in_both_families() {
    in_lab(|lab| {
        let size = Size {
            balancers: 1,
            backends: 2,
        };
        let services: [(&str, IpAddr); 4] = [
            ("ipip", VIP.into()),
            ("ipip", VIP6.into()),
            ("l2-dsr", DSR_VIP.into()),
            ("l2-dsr", DSR_VIP6.into()),
        ];
        let vips = services.map(|(_, vip)| vip);
        let site = Site::build(lab, size, &vips, &|rack| {
            let mut config = AgentConfig::default();
            for (index, (mode, vip)) in services.into_iter().enumerate() {
                let (tcp, udp) = (format!("tcp{index}"), format!("udp{index}"));
                config = config.service(&tcp, vip, mode, &rack.backends).udp_service(
                    &udp,
                    (vip, UDP_PORT),
                    mode,
                    &rack.backends,
                );
            }
            config
        })?;
        let mut echoes = Vec::new();
        for backend in &site.rack.backends {
            for vip in vips {
                echoes.push(UdpEcho::start(&backend.host, vip, UDP_PORT)?);
            }
        }
        site.wait_for_backend("b1", true)?;
        site.wait_for_backend("b2", true)?;

        for vip in vips {
            ensure_spread(&site, vip, QUESTIONS)?;
            ensure_udp_spread(&site, vip)?;
        }
        ensure_metrics(&site)
    });
}

#[test]
fn a_vip_is_withdrawn_with_its_last_backend_and_announced_with_the_first_again() {
    in_lab(|lab| {
        let mut site = Site::build(lab, SMALL, &[VIP.into()], &|rack| {
            AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends)
        })?;
        ensure_spread(&site, VIP.into(), 5)?;

        site.servers[0].kill()?;
        site.wait_for_routes(VIP.into(), &[])?;
        site.router.ensure_established("lb1")?;

        site.servers[0] = Nginx::start(&site.rack.backends[0].host)?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
        ensure_spread(&site, VIP.into(), 5)
    });
}

#[test]
fn a_backend_that_changes_its_mac_address_is_followed() {
    in_lab(|lab| {
        let site = Site::build(lab, SMALL, &[DSR_VIP.into()], &|rack| {
            AgentConfig::default().service("web", DSR_VIP.into(), "l2-dsr", &rack.backends)
        })?;
        ensure_spread(&site, DSR_VIP.into(), 5)?;

        let backend = &site.rack.backends[0].host;
        // The backend tells its link of its new address, as failover does.
        backend.sysctl(&[("net/ipv4/conf/eth0/arp_notify", "1")])?;
        backend.ip("link set eth0 address 02:00:00:00:00:21\n")?;
        wait_until("the VIP answers at the new address", PATIENCE, || {
            ensure_spread(&site, DSR_VIP.into(), 5)
        })
    });
}

#[test]
fn a_dead_backend_costs_no_connection_to_another_once_it_is_out() {
    in_lab(|lab| {
        let size = Size {
            balancers: 1,
            backends: 3,
        };
        let mut site = Site::build(lab, size, &[VIP.into()], &|rack| {
            AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends)
        })?;
        for backend in ["b1", "b2", "b3"] {
            site.wait_for_backend(backend, true)?;
        }
        // A whole host is gone, which refuses nothing: only time tells.
        site.rack.unplug_silently(&site.rack.backends[1])?;
        site.wait_for_backend("b2", false)?;
        let probes = Probes::start(&site.rack.client, (VIP, 80).into());
        std::thread::sleep(Duration::from_secs(1));
        let report = probes.finish()?;
        report.ensure_all_answered()?;
        ensure!(report.by_backend().len() == 2, "{:?}", report.by_backend());
        site.agents[0].process().ensure_running()
    });
}

fn ensure_udp_spread(site: &Site, vip: IpAddr) -> Result<()> {
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..QUESTIONS {
        let answer = ask_udp(&site.rack.client, (vip, UDP_PORT).into(), b"hello")?;
        answered.insert(String::from_utf8(answer)?);
    }
    let expected = ["b1:hello".to_owned(), "b2:hello".to_owned()];
    ensure!(
        answered == expected.into(),
        "UDP {vip} is answered by {answered:?}"
    );
    Ok(())
}

/// Every family that is promised is on the page, and counts.
fn ensure_metrics(site: &Site) -> Result<()> {
    const FAMILIES: &[&str] = &[
        "vipd_build_info",
        "vipd_packets_total",
        "vipd_service_ring_fingerprint",
        "vipd_backend_packets_total",
        "vipd_backend_bytes_total",
        "vipd_backend_available",
        "vipd_backend_check_duration_seconds",
        "vipd_bgp_session_up",
        "vipd_bgp_session_state",
        "vipd_bgp_announced_prefixes",
        "vipd_map_entries",
    ];
    let page = site.agents[0].metrics("text/plain")?;
    let missing: Vec<_> = FAMILIES
        .iter()
        .filter(|family| !page.contains(&format!("# TYPE {family} ")))
        .collect();
    ensure!(missing.is_empty(), "{missing:?} are not in\n{page}");
    let counted = page.lines().any(|line| {
        line.starts_with("vipd_backend_packets_total{")
            && line.contains("\"b1\"")
            && !line.ends_with(" 0")
    });
    ensure!(counted, "no packet to b1 is counted in\n{page}");

    let page = site.agents[0].metrics("application/openmetrics-text; version=1.0.0")?;
    ensure!(
        page.trim_end().ends_with("# EOF"),
        "no OpenMetrics:\n{page}"
    );
    Ok(())
}
