//! The configurations of the carriers, of the world behind them, and of the sites'
//! own ways out.

use vipd_tests::{BIRD_BFD_TIMING, FRR_BFD_TIMING};

use super::sites::{SITES, SitePlan, core_address, site_address};

const SHORT: &str = "hold time 6; connect delay time 1; connect retry time 1; \
    error wait time 1, 2; debug { states, events };";

fn head(router_id: &str, bfd: bool) -> String {
    let watched = match bfd {
        true => format!("protocol bfd {{ interface \"*\" {{ {BIRD_BFD_TIMING} }}; }}\n"),
        false => String::new(),
    };
    format!(
        "log stderr all;\nrouter id {router_id};\n\
         timeformat route iso short ms;\ntimeformat protocol iso short ms;\n\
         protocol device {{ }}\nprotocol direct {{ ipv4; }}\n\
         protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}\n{watched}"
    )
}

fn watched(bfd: bool) -> &'static str {
    if bfd { "bfd on;" } else { "" }
}

/// The world behind the carriers.
pub fn core(bfd: bool) -> String {
    let carriers = SITES.iter().flat_map(|site| site.carriers);
    let sessions: String = carriers
        .map(|(name, _, number)| {
            format!(
                "protocol bgp {name} {{ local 192.0.2.1 as 64496; neighbor {} as {number};\n\
                 {SHORT} {} ipv4 {{ import all; export where net ~ [ 203.0.113.0/24, 198.51.100.0/24+ ]; }}; }}\n",
                core_address(number),
                watched(bfd)
            )
        })
        .collect();
    head("203.0.113.1", bfd) + &sessions
}

/// A carrier that takes nothing longer than /24 of a site.
pub fn carrier(site: &SitePlan, index: usize, bfd: bool, limit: &str) -> String {
    let (_, octet, number) = site.carriers[index];
    let own = site_address(octet);
    let watched = watched(bfd);
    let ((balancer, lb), (gateway, g)) = (site.balancer, site.gateway);
    let (lb, g) = (site_address(lb), site_address(g));
    head(&own, bfd)
        + &format!(
            "protocol bgp core {{ local {} as {number}; neighbor 192.0.2.1 as 64496;\n\
             {SHORT} {watched} ipv4 {{ import all; next hop self; export where source ~ [RTS_BGP, RTS_DEVICE]; }}; }}\n\
             protocol bgp {balancer} {{ local {own} as {number}; neighbor {lb} as 64500;\n\
             {SHORT} {watched} ipv4 {{ {limit} import where net.len <= 24; export none; }}; }}\n\
             protocol bgp {gateway} {{ local {own} as {number}; neighbor {g} as 64510;\n\
             {SHORT} {watched} ipv4 {{ import none; next hop self; export where source = RTS_BGP; }}; }}\n",
            core_address(number)
        )
}

/// The way out of a site, by either carrier.
pub fn gateway(site: &SitePlan, bfd: bool) -> String {
    let own = site_address(site.gateway.1);
    let sessions: String = (site.carriers.iter())
        .map(|(name, octet, number)| {
            format!(
                "protocol bgp {name} {{ local {own} as 64510; neighbor {} as {number};\n\
                 {SHORT} {} ipv4 {{ import all; export none; }}; }}\n",
                site_address(*octet),
                watched(bfd)
            )
        })
        .collect();
    head(&own, bfd) + &sessions
}

/// A carrier that damps routes that flap, and its BFD.
pub fn frr(site: &SitePlan, bfd: bool) -> (String, String) {
    let (_, octet, number) = site.carriers[1];
    let neighbours = [
        ("192.0.2.1".to_owned(), 64496),
        (site_address(site.balancer.1), 64500),
        (site_address(site.gateway.1), 64510),
    ];
    let mut sessions = String::new();
    let mut activated = String::new();
    for (address, number) in &neighbours {
        sessions += &format!(
            " neighbor {address} remote-as {number}\n neighbor {address} timers 2 6\n \
             neighbor {address} timers connect 1\n neighbor {address} advertisement-interval 0\n"
        );
        if bfd {
            sessions += &format!(" neighbor {address} bfd profile all\n");
        }
        activated += &format!("  neighbor {address} activate\n");
    }
    activated += &format!("  neighbor {} prefix-list short in\n", neighbours[1].0);
    let timers = match bfd {
        true => format!("bfd\n profile all\n{FRR_BFD_TIMING} !\n!\n"),
        false => String::new(),
    };
    let text = format!(
        "{timers}ip prefix-list short seq 5 permit 0.0.0.0/0 le 24\n\
         router bgp {number}\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n{sessions} address-family ipv4 unicast\n  \
         bgp dampening 15 750 2000 60\n  redistribute connected\n{activated} exit-address-family\n",
        site_address(octet)
    );
    (text, timers)
}
