//! What is announced to whom, as BIRD and FRR see it: rules per peer, prefix and
//! state, and aggregates.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{
    AgentConfig, Bird, BirdRoute, Frr, Nginx, QUICK, ROUTER_IPV4, Rack, Site, Size, Vipd, ask,
    host_prefix, wait_until,
};

use crate::support::{PATIENCE, SMALL, VIP, VIP6, in_lab, two_vips};

const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
const AGGREGATE: &str = "198.51.100.0/24";

/// Announced all the same when it is down, and worse.
const FAILS_OPEN: &str = "
[[bgp.rule]]
states = [\"down\"]
announce = true
med_add = 900
";

/// Addresses by their last digit, and MEDs by node and address.
type Table = BTreeMap<(String, u16), String>;

fn service_address(digit: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x30, 0, 0, 0, 0, digit).into()
}

/// Each node has a web server of its own behind it:
///
/// ```text
///        lb1 (b1)  lb2 (b2)  lb3 (b3)
///   ::1    102       101       100
///   ::2    101       100       102
///   ::3    100       102       101
/// ```
#[test]
fn each_address_has_its_best_and_its_second_node_and_when_down_900_more() {
    const MEDS: [(&str, [u32; 3]); 3] = [
        ("lb1", [102, 101, 100]),
        ("lb2", [101, 100, 102]),
        ("lb3", [100, 102, 101]),
    ];
    let table = |down: &[&str]| -> Table {
        let rows = MEDS.iter().flat_map(|(node, meds)| {
            let more = if down.contains(node) { 900 } else { 0 };
            let cells = (1..).zip(meds);
            cells.map(move |(digit, med)| ((node.to_string(), digit), (med + more).to_string()))
        });
        rows.collect()
    };
    in_lab(|lab| {
        let size = Size {
            balancers: 3,
            backends: 3,
        };
        let addresses: Vec<_> = (1..=3).map(service_address).collect();
        let mut site = Site::without_agents(lab, size, &addresses)?;
        for (i, (_, meds)) in MEDS.iter().enumerate() {
            let mut config = AgentConfig {
                check: QUICK.to_owned(),
                ..AgentConfig::default()
            };
            for (digit, med) in (1..).zip(meds) {
                let (name, vip) = (format!("s{digit}"), service_address(digit));
                config.peer += &format!("[[bgp.rule]]\nservices = [\"{name}\"]\nmed = {med}\n");
                config = config.service(&name, vip, "l2-dsr", &site.rack.backends[i..=i]);
            }
            config.peer += FAILS_OPEN;
            let balancer = &site.rack.balancers[i];
            site.agents
                .push(Vipd::start(&balancer.host, &config.text(balancer))?);
        }
        wait_for_table(&site, "all are well", &table(&[]))?;
        let before = route_of(&site, "lb2", 1)?;

        site.servers[0].kill()?;
        wait_for_table(&site, "lb1 is down", &table(&["lb1"]))?;
        // The router may know before those who ask the agent do.
        let state = |wanted: &str| {
            wait_until(&format!("the agent says {wanted}"), PATIENCE, || {
                let status = site.agents[0].status()?;
                let (vip, page) = (&status["vips"][0], site.agents[0].metrics("text/plain")?);
                ensure!(vip["state"] == wanted && vip["announced"] == true, "{vip}");
                let line = format!("vipd_vip_state{{vip=\"2001:db8:30::1\",state=\"{wanted}\"}} 1");
                ensure!(page.contains(&line), "no {line} in {page}");
                Ok(())
            })
        };
        state("down")?;
        for server in &mut site.servers[1..] {
            server.kill()?;
        }
        let all = ["lb1", "lb2", "lb3"];
        wait_for_table(&site, "everybody is down", &table(&all))?;

        site.servers = (site.rack.backends.iter())
            .map(|backend| Nginx::start(&backend.host))
            .collect::<Result<_>>()?;
        wait_for_table(&site, "all are back", &table(&[]))?;
        state("up")?;
        let after = route_of(&site, "lb2", 1)?;
        ensure!(before.attributes == after.attributes, "{after:?}");
        Ok(())
    });
}

#[test]
fn what_is_down_and_announced_is_still_forwarded_and_held() {
    in_lab(|lab| {
        let mut site = Site::build(lab, SMALL, &[VIP.into()], &|rack| {
            web(rack, &[VIP], FAILS_OPEN)
        })?;
        let balancer = site.rack.balancers[0].clone();
        let text = web(&site.rack, &[VIP], FAILS_OPEN).text(&balancer);
        // The server lives, only its check does not.
        let failing =
            |text: &str| text.replace("type = \"http\"\n", "type = \"http\"\nstatus = [\"204\"]\n");
        site.agents[0].reload(&failing(&text))?;
        let prefix = host_prefix(VIP.into());
        let is_worse = |site: &Site| {
            wait_until("the route is worse", PATIENCE, || {
                ensure_attributes(&site.router, &prefix, &[("BGP.med", "900")])
            })?;
            let answered = ask(&site.rack.client, (VIP, 80).into())?;
            ensure!(answered == "b1", "answered {answered}");
            ensure!(held(site)?.contains(&format!("unreachable {VIP}")));
            Ok(())
        };
        is_worse(&site)?;

        // An agent that is started meanwhile announces it too.
        site.agents[0].process().kill()?;
        site.wait_for_routes(VIP.into(), &[])?;
        site.agents[0].start_again()?;
        is_worse(&site)?;

        // Without the rule it is withdrawn at once.
        let without = web(&site.rack, &[VIP], "").text(&balancer);
        site.agents[0].reload(&failing(&without))?;
        site.wait_for_routes(VIP.into(), &[])
    });
}

#[test]
fn bird_and_frr_are_told_of_different_addresses_with_different_attributes() {
    in_lab(|lab| {
        let size = Size {
            balancers: 1,
            backends: 2,
        };
        let rack = Rack::build(lab, size)?;
        let bird = Bird::on_router(&rack, "")?;
        let frr_machine = &rack.backends[1];
        let frr = Frr::start(
            &frr_machine.host,
            &Frr::router_config(64502, &rack.balancers, 64500, &[]),
        )?;
        let balancer = &rack.balancers[0];
        let mut config = AgentConfig::default()
            .udp_service("one", (VIP.into(), 53), "l2-dsr", &rack.backends[..1])
            .udp_service("two", (SECOND.into(), 53), "l2-dsr", &rack.backends[..1]);
        config.peer += &format!(
            r#"communities = ["64500:1"]
[[bgp.peer]]
name = "frr"
address = "{}"
as = 64502
hold_time = "3s"
connect_retry = "1s"

[[bgp.rule]]
peers = ["frr"]
announce = false

[[bgp.rule]]
peers = ["frr"]
services = ["two"]
announce = true
med = 5
prepend = 1
as_path = [64510]
communities = ["64500:200", "64500:2:3", "rt:64500:100", "soo:65536:1"]
next_hop_ipv4 = "192.0.2.77"

[[bgp.rule]]
peers = ["router"]
prefixes = ["{VIP}"]
communities_set = ["64500:7:8", "rt:192.0.2.1:9", "rt:64500:100", "soo:64500:1"]
"#,
            frr_machine.ipv4
        );
        let _agent = Vipd::start(&balancer.host, &config.text(balancer))?;

        let (one, two) = (host_prefix(VIP.into()), host_prefix(SECOND.into()));
        wait_until("BIRD has both", PATIENCE, || {
            ensure_attributes(
                &bird,
                &one,
                &[
                    ("BGP.as_path", "64500"),
                    ("BGP.large_community", "(64500, 7, 8)"),
                    (
                        "BGP.ext_community",
                        "(rt, 64500, 100) (ro, 64500, 1) (rt, 192.0.2.1, 9)",
                    ),
                ],
            )?;
            ensure_attributes(&bird, &two, &[("BGP.community", "(64500,1)")])
        })?;
        ensure!(
            bird.routes(&one)?[0].attribute("BGP.community").is_none(),
            "the peer's own communities are replaced"
        );
        let path = wait_until("FRR has one of them", PATIENCE, || {
            let mut paths = frr.paths(&two)?;
            ensure!(paths.len() == 1, "{paths:?}");
            Ok(paths.remove(0))
        })?;
        for (pointer, value) in [
            ("/aspath/string", "64500 64500 64510".into()),
            ("/metric", 5.into()),
            ("/community/string", "64500:200".into()),
            ("/largeCommunity/string", "64500:2:3".into()),
            (
                "/extendedCommunity/string",
                "RT:64500:100 SoO:65536:1".into(),
            ),
            ("/nexthops/0/ip", serde_json::Value::from("192.0.2.77")),
        ] {
            let told = path.pointer(pointer);
            ensure!(told == Some(&value), "no {pointer} {value} in {path}");
        }
        ensure!(frr.paths(&one)?.is_empty(), "FRR hears of the other");
        Ok(())
    });
}

#[test]
fn an_aggregate_lives_as_long_as_something_inside_it_and_is_held() {
    in_lab(|lab| {
        let aggregate = format!(
            "[[bgp.aggregate]]\nprefix = \"{AGGREGATE}\"\n\
             [[bgp.rule]]\naggregate = true\nmed = 24\n"
        );
        let size = Size {
            balancers: 1,
            backends: 2,
        };
        let mut site = Site::without_agents(lab, size, &[VIP.into(), SECOND.into()])?;
        let mut config = AgentConfig::default();
        config.peer += &aggregate;
        for (i, vip) in [VIP, SECOND].into_iter().enumerate() {
            let backend = &site.rack.backends[i..=i];
            config = config.service(&format!("s{i}"), vip.into(), "ipip", backend);
        }
        site.start_agents(&config)?;
        let balancers = site.rack.balancers.clone();
        let has_aggregate = |site: &Site| {
            ensure_attributes(&site.router, AGGREGATE, &[("BGP.med", "24")])?;
            let held = held(site)?;
            ensure!(held.contains(&format!("unreachable {AGGREGATE}")), "{held}");
            Ok(())
        };
        wait_until("the aggregate is there", PATIENCE, || has_aggregate(&site))?;
        site.wait_for_routes(VIP.into(), &balancers)?;
        site.wait_for_routes(SECOND.into(), &balancers)?;
        let since = site.router.routes(AGGREGATE)?[0].since;

        site.servers[0].kill()?;
        site.wait_for_routes(VIP.into(), &[])?;
        has_aggregate(&site)?;
        let now = site.router.routes(AGGREGATE)?[0].since;
        let moved = since.zip(now).context("two times")?;
        ensure!(
            moved.0.abs_diff(moved.1) < Duration::from_millis(100),
            "it was announced anew: {moved:?}"
        );

        site.servers[1].kill()?;
        wait_until("the aggregate is gone", PATIENCE, || {
            let routes = site.router.routes(AGGREGATE)?;
            ensure!(routes.is_empty(), "{routes:?}");
            Ok(())
        })?;
        wait_until("and let go of", PATIENCE, || {
            let held = held(&site)?;
            ensure!(held.is_empty(), "{held}");
            Ok(())
        })?;

        let suppressing = |config: &AgentConfig| {
            let table = "[[bgp.aggregate]]\n";
            let text = config.text(&balancers[0]);
            text.replace(table, &format!("{table}suppress = true\n"))
        };
        site.agents[0].reload(&suppressing(&config))?;
        site.servers[0] = Nginx::start(&site.rack.backends[0].host)?;
        wait_until("the aggregate is back", PATIENCE, || has_aggregate(&site))?;
        let answered = ask(&site.rack.client, (VIP, 80).into())?;
        ensure!(answered == "b1", "by the aggregate: {answered}");
        wait_until("the agent says so", PATIENCE, || {
            let status = site.agents[0].status()?;
            let (vip, shown) = (&status["vips"][0], &status["aggregates"][0]);
            let is_inside = vip["announced"] == true && vip["suppressed_by"] == AGGREGATE;
            ensure!(is_inside && shown["alive"] == 1, "{status}");
            Ok(())
        })?;
        // A route of its own would come before one that is new now.
        let backends = &site.rack.backends;
        let more = config.udp_service("more", (VIP6.into(), 53), "l2-dsr", backends);
        site.agents[0].reload(&suppressing(&more))?;
        site.wait_for_routes(VIP6.into(), &balancers)?;
        ensure!(site.router.routes(&host_prefix(VIP.into()))?.is_empty());
        Ok(())
    });
}

#[test]
fn a_host_that_an_aggregate_would_cut_off_is_told_of() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let mut config = AgentConfig::default();
        config.peer += &format!("[[bgp.aggregate]]\nprefix = \"{AGGREGATE}\"\n");
        let mut config = config.udp_service("one", (VIP.into(), 53), "ipip", &rack.backends);
        // By the default route.
        let inside = Ipv4Addr::new(198, 51, 100, 21);
        config.services +=
            &format!("[[service.backend]]\nname = \"far\"\naddress = \"{inside}\"\n");
        let text = config.text(balancer);
        let agent = Vipd::start(&balancer.host, &text)?;
        let told = || {
            let findings = agent.status()?["findings"].to_string();
            anyhow::Ok(findings.matches("would be cut off").count())
        };
        ensure!(told()? == 1, "{}", agent.status()?);
        let route = format!("route add {inside} via {ROUTER_IPV4}\n");
        balancer.host.ip(&route)?;
        agent.reload(&text)?;
        ensure!(told()? == 0, "{}", agent.status()?);
        Ok(())
    });
}

#[test]
fn another_rule_changes_only_what_it_is_about() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let router = Bird::on_router(&rack, "")?;
        let balancer = &rack.balancers[0];
        let config = |rules: &str, more: bool| {
            let mut config = two_vips(&rack, rules);
            if more {
                let address = (SECOND.into(), 53);
                config = config.udp_service("more", address, "l2-dsr", &rack.backends);
            }
            config.text(balancer)
        };
        let agent = Vipd::start(&balancer.host, &config("", false))?;
        let (four, six) = (host_prefix(VIP.into()), host_prefix(VIP6.into()));
        wait_until("both are there", PATIENCE, || {
            ensure_attributes(&router, &four, &[])?;
            ensure_attributes(&router, &six, &[])
        })?;
        let session = router.ensure_established("lb1")?;
        let since = router.routes(&six)?[0].since;
        let told = router.received("lb1")?;
        ensure!(told.announced == 2, "one for each: {told:?}");

        let rule = |med| format!("[[bgp.rule]]\nservices = [\"four\"]\nmed = {med}\n");
        // A rule may change nothing that a router could notice. The new address
        // tells when it is in force, and the last rule would come after whatever
        // it has caused.
        let idle = rule(50) + "communities = []\nprepend = 0\n";
        for (rules, more, prefix, med) in [
            (rule(50), false, &four, Some(("BGP.med", "50"))),
            (idle, true, &host_prefix(SECOND.into()), None),
            (rule(51), true, &four, Some(("BGP.med", "51"))),
        ] {
            agent.reload(&config(&rules, more))?;
            wait_until("the rule is in force", PATIENCE, || {
                ensure_attributes(&router, prefix, med.as_slice())
            })?;
        }
        let updates = router.received("lb1")?.announced;
        ensure!(updates == 5, "one for each change, and {updates} have come");
        let close = |a: Option<Duration>, b: Option<Duration>| {
            a.zip(b)
                .is_some_and(|(a, b)| a.abs_diff(b) < Duration::from_millis(100))
        };
        let now = router.ensure_established("lb1")?;
        ensure!(
            close(session.since, now.since),
            "the session flapped: {now:?}"
        );
        let now = router.routes(&six)?.remove(0);
        ensure!(close(since, now.since), "announced anew: {now:?}");
        Ok(())
    });
}

/// Web services on these addresses with quick checks, and further tables.
fn web(rack: &Rack, vips: &[Ipv4Addr], tables: &str) -> AgentConfig {
    let mut config = AgentConfig {
        check: QUICK.to_owned(),
        ..AgentConfig::default()
    };
    config.peer += tables;
    for (i, vip) in vips.iter().enumerate() {
        config = config.service(&format!("s{i}"), (*vip).into(), "ipip", &rack.backends);
    }
    config
}

fn wait_for_table(site: &Site, sentence: &str, wanted: &Table) -> Result<()> {
    wait_until(sentence, PATIENCE, || {
        let mut found = Table::new();
        for digit in 1..=3 {
            for route in site.router.routes(&host_prefix(service_address(digit)))? {
                let med = route.attribute("BGP.med").unwrap_or("none").to_owned();
                found.insert((route.session, digit), med);
            }
        }
        ensure!(found == *wanted, "{found:?}");
        Ok(())
    })
}

fn route_of(site: &Site, node: &str, digit: u16) -> Result<BirdRoute> {
    let routes = site.router.routes(&host_prefix(service_address(digit)))?;
    let route = routes.into_iter().find(|route| route.session == node);
    route.with_context(|| format!("{node} has no route"))
}

fn ensure_attributes(router: &Bird, prefix: &str, expected: &[(&str, &str)]) -> Result<()> {
    let routes = router.routes(prefix)?;
    ensure!(routes.len() == 1, "{prefix}: {routes:?}");
    for (name, value) in expected {
        let found = routes[0].attribute(name);
        ensure!(found == Some(value), "no {name} {value:?} in {routes:?}");
    }
    Ok(())
}

/// What the balancer holds by unreachable routes.
fn held(site: &Site) -> Result<String> {
    let host = &site.rack.balancers[0].host;
    host.run("ip", &["route", "show", "proto", "86"])
}
