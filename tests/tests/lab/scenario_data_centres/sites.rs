//! The two sites: who is where, by which cables, and with which configuration.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use vipd_tests::{Host, Lab, Segments};

use super::{HOLD_DOWN, NARROW};
use crate::examples::{Node, example};

/// Each site: its balancer, its gateway, its carriers with AS numbers, and its
/// backends, all with the last octets of their addresses.
pub struct SitePlan {
    pub name: &'static str,
    pub balancer: (&'static str, u8),
    pub gateway: (&'static str, u8),
    pub carriers: [(&'static str, u8, u32); 2],
    pub backends: [(&'static str, u8); 2],
}

pub const SITES: [SitePlan; 2] = [
    SitePlan {
        name: "site1",
        balancer: ("lb1", 11),
        gateway: ("g1", 3),
        carriers: [("carrier1", 1, 64501), ("carrier2", 2, 64502)],
        backends: [("b1", 21), ("b2", 22)],
    },
    SitePlan {
        name: "site2",
        balancer: ("lb2", 139),
        gateway: ("g2", 131),
        carriers: [("carrier3", 129, 64503), ("carrier4", 130, 64504)],
        backends: [("b3", 149), ("b4", 150)],
    },
];

pub fn site_address(octet: u8) -> String {
    Ipv4Addr::new(198, 51, 100, octet).to_string()
}

/// A carrier's address towards the core.
pub fn core_address(number: u32) -> String {
    format!("192.0.2.{}", number - 64490)
}

pub fn wire(lab: &Lab) -> Result<Segments> {
    let mut members: Vec<(&str, Vec<(&str, String)>)> = vec![
        (
            "c",
            vec![
                ("core", "203.0.113.1/24".to_owned()),
                ("client", "203.0.113.10/24".to_owned()),
            ],
        ),
        ("x", vec![("core", "192.0.2.1/24".to_owned())]),
    ];
    for site in &SITES {
        let all = [site.balancer, site.gateway].into_iter();
        let all = all.chain(site.backends);
        let all = all.chain(site.carriers.map(|(name, octet, _)| (name, octet)));
        let all = all.map(|(name, octet)| (name, site_address(octet) + "/25"));
        members.push((site.name, all.collect()));
        for (name, _, number) in site.carriers {
            members[1].1.push((name, core_address(number) + "/24"));
        }
    }
    let borrowed: Vec<Vec<(&str, [&str; 1])>> = members
        .iter()
        .map(|(_, hosts)| {
            hosts
                .iter()
                .map(|(host, a)| (*host, [a.as_str()]))
                .collect()
        })
        .collect();
    let lists: Vec<Vec<(&str, &[&str])>> = borrowed
        .iter()
        .map(|hosts| hosts.iter().map(|(host, a)| (*host, &a[..])).collect())
        .collect();
    let segments: Vec<_> = members
        .iter()
        .zip(&lists)
        .map(|((name, _), hosts)| (*name, hosts.as_slice()))
        .collect();
    let net = Segments::build(lab, &segments)?;
    net.forward(&["core", "g1", "g2", "lb1", "lb2"])?;
    net.forward(&["carrier1", "carrier2", "carrier3", "carrier4"])?;
    net.host("client")?
        .ip("route add default via 203.0.113.1\n")?;
    for site in &SITES {
        let gateway = site_address(site.gateway.1);
        for (name, _) in site.backends.into_iter().chain([site.balancer]) {
            let host = net.host(name)?;
            host.ip(&format!("route add default via {gateway}\n"))?;
            host.sysctl(&[
                ("net/ipv4/conf/all/arp_ignore", "1"),
                ("net/ipv4/conf/all/arp_announce", "2"),
            ])?;
        }
    }
    Ok(net)
}

/// The example, for this site.
pub fn config(host: &Host, site: &SitePlan, bfd: bool) -> Result<String> {
    let mut text = example("data-centres", &Node::forwarding(host))?
        .replace("\"2m\"", &format!("\"{}s\"", HOLD_DOWN.as_secs()));
    let timing = match bfd {
        true => "bfd = { min_tx = \"100ms\", min_rx = \"100ms\", multiplier = 20 }",
        false => "bfd = false",
    };
    text = text.replace("bfd = true", timing);
    if site.name == "site2" {
        let backend = |name, octet| format!("\"{name}\"\naddress = \"{}\"\n", site_address(octet));
        let narrow = |prefix| format!("[[bgp.aggregate]]\nprefix = \"{prefix}\"\n");
        for (old, new) in [
            (narrow(NARROW), String::new()),
            (narrow("198.18.1.0/24"), String::new()),
            (
                "peers = [\"carrier2\"]\nprepend = 1".into(),
                "prepend = 2".into(),
            ),
            ("64502:80".into(), "64500:80".into()),
            ("\"lb1\"".into(), "\"lb2\"".into()),
            ("\"site1\"".into(), "\"site2\"".into()),
            ("\"carrier1\"".into(), "\"carrier3\"".into()),
            ("\"carrier2\"".into(), "\"carrier4\"".into()),
            ("as = 64501".into(), "as = 64503".into()),
            ("as = 64502".into(), "as = 64504".into()),
            ("\"198.51.100.1\"".into(), "\"198.51.100.129\"".into()),
            ("\"198.51.100.2\"".into(), "\"198.51.100.130\"".into()),
            ("\"198.51.100.11\"".into(), "\"198.51.100.139\"".into()),
            (
                backend("b2", 22) + "weight = 3",
                backend("b3", 149) + "weight = 3 ",
            ),
            (
                backend("b3", 149) + "weight = 1",
                backend("b2", 22) + "weight = 1 ",
            ),
            (backend("b1", 21), backend("b4", 150)),
            (
                backend("b2", 22) + "weight = 1\n",
                backend("b3", 149) + "weight = 1\n",
            ),
        ] {
            ensure!(text.contains(&old), "{old} in {text}");
            text = text.replace(&old, &new);
        }
    }
    Ok(text)
}
