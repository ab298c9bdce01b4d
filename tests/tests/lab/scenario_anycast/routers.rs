//! The configurations of the routers and of the two route servers.

use vipd_tests::{BIRD_BFD_TIMING, FRR_BFD_TIMING};

use super::{NODES, ROUTERS};

/// A router of AS 65003, which takes what the route servers have, and finds the
/// way to the next hops by its own routes.
pub fn router(number: usize, routes: &[&str]) -> String {
    let own = ROUTERS[number];
    let routes: String = (routes.iter())
        .map(|route| format!("route 2001:db8:{route}; "))
        .collect();
    let session = |name: &str, address: &str| {
        format!(
            "protocol bgp {name} {{\n\
             local {own} as 65003; neighbor {address} as 65002; multihop 10;\n\
             hold time 6; connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
             ipv6 {{ import all; export none; gateway recursive; }};\n}}\n"
        )
    };
    format!(
        "log stderr all;\nrouter id 192.0.2.10{number};\n\
         timeformat route iso short ms;\ntimeformat protocol iso short ms;\n\
         protocol device {{ }}\nprotocol direct {{ ipv6; }}\n\
         protocol static {{ ipv6; {routes} }}\n\
         protocol kernel {{ ipv6 {{ export where source ~ [RTS_BGP, RTS_STATIC]; }}; }}\n{}{}",
        session("rs1", "2001:db8:1::4"),
        session("rs2", "2001:db8:8::5"),
    )
}

/// The route server rs1: hosts of 2001:db8:30::/64 only, ten of each node, and the
/// best of them for the routers.
pub fn bird(bfd: bool) -> String {
    let mut text = "log stderr all;\nrouter id 192.0.2.4;\n\
        timeformat route iso short ms;\ntimeformat protocol iso short ms;\n\
        protocol device { }\nprotocol direct { ipv6; }\n\
        protocol static { ipv6; route 2001:db8::/44 via 2001:db8:1::1; }\n\
        template bgp session {\n\
        debug { states, events }; local 2001:db8:1::4 as 65002; multihop 10; rs client;\n\
        hold time 6; keepalive time 2;\n\
        connect delay time 1; connect retry time 1; error wait time 1, 2;\n}\n"
        .to_owned();
    let mut watched = String::new();
    if bfd {
        let auth = "authentication meticulous keyed sha1; password \"as-bird-has-it\" { id 1; };";
        text += &format!("protocol bfd {{ multihop {{ {BIRD_BFD_TIMING} {auth} }}; }}\n");
        watched += "bfd on;";
    }
    for (name, address, _) in NODES {
        text += &format!(
            "protocol bgp {name} from session {{ neighbor {address} as 65001; {watched}\n\
             ipv6 {{ import limit 10 action restart;\n\
             import where net ~ [ 2001:db8:30::/64{{128,128}} ]; export none; }}; }}\n"
        );
    }
    for (number, address) in ROUTERS.iter().enumerate() {
        text += &format!(
            "protocol bgp r{number} from session {{ neighbor {address} as 65003;\n\
             ipv6 {{ import none; export where source = RTS_BGP; }}; }}\n"
        );
    }
    text
}

/// The same for rs2, and the BFD of it.
pub fn frr(bfd: bool) -> (String, String) {
    let mut neighbours = String::new();
    let mut activated = String::new();
    let nodes = NODES.iter().map(|(_, address, _)| (*address, 65001));
    for (address, number) in nodes.chain(ROUTERS.map(|router| (router, 65003))) {
        neighbours += &format!(
            " neighbor {address} remote-as {number}\n neighbor {address} ebgp-multihop 10\n \
             neighbor {address} timers 2 6\n neighbor {address} timers connect 1\n \
             neighbor {address} advertisement-interval 0\n"
        );
        activated +=
            &format!("  neighbor {address} activate\n  neighbor {address} route-server-client\n");
        if number == 65001 {
            activated += &format!(
                "  neighbor {address} prefix-list services in\n  \
                 neighbor {address} maximum-prefix 10\n"
            );
            if bfd {
                neighbours += &format!(" neighbor {address} bfd profile nodes\n");
            }
        }
    }
    let timers = match bfd {
        true => format!("bfd\n profile nodes\n{FRR_BFD_TIMING} !\n!\n"),
        false => String::new(),
    };
    let text = format!(
        "{timers}ipv6 prefix-list services seq 5 permit 2001:db8:30::/64 ge 128\n\
         router bgp 65002\n bgp router-id 192.0.2.5\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n{neighbours} address-family ipv6 unicast\n{activated} \
         exit-address-family\n"
    );
    (text, timers)
}
