//! What addresses depend on besides backends: interfaces and routes of the host,
//! and that its data plane does not drop too much.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use vipd_tests::{AgentConfig, Host, Lab, Machine, Site, Size, host_prefix, wait_until};

use crate::support::{PATIENCE, SMALL, VIP, in_lab};

#[test]
fn addresses_go_and_come_with_an_interface_and_a_route() {
    const DEPENDS: &str = "depends = { interfaces = [\"extra0\"], routes = [\"203.0.113.1\"] }\n";
    in_lab(|lab| {
        let site = site(lab, "")?;
        let host = &site.rack.balancers[0].host;
        host.ip("link add extra0 type veth peer name extra1\n\
                 link set extra0 up\nlink set extra1 up\n\
                 route add 203.0.113.0/24 dev extra0\n")?;
        let text = |service: &str| {
            let config = AgentConfig {
                service: service.to_owned(),
                ..AgentConfig::default()
            };
            let config = config.service("web", VIP.into(), "ipip", &site.rack.backends);
            config.text(&site.rack.balancers[0])
        };
        site.agents[0].reload(&text(DEPENDS))?;
        ensure_route(&site, true)?;
        let log = site.agents[0].log();
        ensure!(
            !log.contains("is withdrawn"),
            "the reload took nothing: {log}"
        );
        for (fault, words, mended) in [
            (
                "link set extra0 down\n",
                "it depends on extra0, which is down",
                "link set extra0 up\nroute add 203.0.113.0/24 dev extra0\n",
            ),
            (
                "link set extra1 down\n",
                "it depends on extra0, which has no carrier",
                "link set extra1 up\n",
            ),
            (
                "route replace unreachable 203.0.113.0/24\n",
                "it depends on a route to 203.0.113.1",
                "route replace 203.0.113.0/24 dev extra0\n",
            ),
            (
                "route replace blackhole 203.0.113.0/24\n",
                "it depends on a route to 203.0.113.1",
                "route replace 203.0.113.0/24 dev extra0\n",
            ),
            (
                "link del extra0\n",
                "it depends on extra0, which is not there",
                "link add extra0 type veth peer name extra1\n\
                 link set extra0 up\nlink set extra1 up\n\
                 route add 203.0.113.0/24 dev extra0\n",
            ),
        ] {
            host.ip(fault)?;
            ensure_route(&site, false)?;
            ensure_reason(&site, words)?;
            host.ip(mended)?;
            ensure_route(&site, true)?;
        }
        // What is new is looked at before it is in force.
        let lacking = text("depends = { interfaces = [\"extra7\"] }\n");
        let second = lacking.replace(&VIP.to_string(), "198.51.100.77");
        let (_, second) = second.split_once("[[service]]").unwrap_or_default();
        let second = second.replace("name = \"web\"", "name = \"second\"");
        site.agents[0].reload(&format!("{}\n[[service]]{second}", text(DEPENDS)))?;
        ensure_reason(&site, "it depends on extra7, which is not there")?;
        let log = site.agents[0].log();
        ensure!(!log.contains("198.51.100.77 is announced"), "{log}");
        ensure_route(&site, true)
    });
}

#[test]
fn a_data_plane_that_drops_too_much_is_withdrawn_until_it_is_well() {
    in_lab(|lab| {
        let site = site(lab, "max_drop_rate = 20\n")?;
        let client = &site.rack.client;
        let balancer = &site.rack.balancers[0].host;
        let lose = |backend: &Machine| -> Result<()> {
            site.rack.unplug_silently(backend)?;
            for address in [backend.ipv4.to_string(), backend.ipv6.to_string()] {
                let _ = balancer.run("ip", &["neigh", "del", &address, "dev", "eth0"]);
            }
            Ok(())
        };
        // One backend of two dies: its share is dropped, here as on any other node.
        let [first, second] = &site.rack.backends[..] else {
            bail!("two backends");
        };
        lose(first)?;
        let dropped = || -> Result<u64> {
            let status = site.agents[0].status()?;
            let count = status["dataplane"]["verdicts"]["no_next_hop"].as_u64();
            count.with_context(|| format!("no count: {status}"))
        };
        let before = dropped()?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(15) {
            send(client)?;
            let routes = site.router.routes(&host_prefix(VIP.into()))?;
            ensure!(!routes.is_empty(), "withdrawn for one dead backend");
        }
        let lost = dropped()? - before;
        ensure!(lost > 1000, "enough is dropped to matter: {lost}");
        // The other one, too: nothing can be forwarded any more.
        lose(second)?;
        wait_until("it is withdrawn", Duration::from_secs(60), || {
            send(client)?;
            let routes = site.router.routes(&host_prefix(VIP.into()))?;
            ensure!(routes.is_empty(), "{routes:?}");
            Ok(())
        })?;
        ensure_reason(&site, "no_next_hop), more than max_drop_rate = 20")?;
        let status = site.agents[0].status()?;
        ensure!(
            status["services"][0]["state"] == "up",
            "its backends are well: {status}"
        );
        for backend in [first, second] {
            site.rack.plug_in(backend)?;
        }
        wait_until("it is over", PATIENCE, || {
            ensure_reason(&site, "this is over, and no longer counts after 30s")
        })?;
        wait_until("it is announced again", Duration::from_secs(60), || {
            ensure_route(&site, true)
        })
    });
}

/// A service whose backends nobody checks.
fn site(lab: &Lab, dataplane: &str) -> Result<Site> {
    let size = Size {
        backends: 2,
        ..SMALL
    };
    Site::build(lab, size, &[VIP.into()], &|rack| {
        let config = AgentConfig {
            dataplane: dataplane.to_owned(),
            ..AgentConfig::default()
        };
        if dataplane.is_empty() {
            config.service("web", VIP.into(), "ipip", &rack.backends)
        } else {
            config.udp_service("web", (VIP.into(), 5000), "ipip", &rack.backends)
        }
    })
}

/// A hundred datagrams, each a flow of its own.
fn send(client: &Host) -> Result<()> {
    client.enter(|| {
        for _ in 0..100 {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            // Without a route the kernel says so.
            let _ = socket.send_to(b"x", SocketAddr::from((VIP, 5000)));
        }
        thread::sleep(Duration::from_millis(100));
        Ok(())
    })
}

fn ensure_route(site: &Site, has_route: bool) -> Result<()> {
    wait_until(&format!("a route: {has_route}"), PATIENCE, || {
        let routes = site.router.routes(&host_prefix(VIP.into()))?;
        ensure!(
            routes.is_empty() != has_route,
            "{routes:?}: {}",
            site.agents[0].status()?
        );
        Ok(())
    })
}

fn ensure_reason(site: &Site, words: &str) -> Result<()> {
    wait_until(&format!("it says `{words}`"), PATIENCE, || {
        let status = site.agents[0].status()?;
        let vips = status["vips"].as_array().into_iter().flatten();
        let mut reasons = vips.map(|vip| vip["reason"].to_string());
        ensure!(reasons.any(|reason| reason.contains(words)), "{status}");
        Ok(())
    })
}
