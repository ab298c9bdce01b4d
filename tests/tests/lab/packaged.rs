//! The agent with no more rights than the packaged unit leaves it.

use anyhow::Result;
use vipd_tests::{Bird, Rack, Vipd};

use crate::support::{SMALL, in_lab, two_vips, wait_for_peer};

#[test]
fn a_router_on_an_interface_connects_to_us_and_we_to_it() {
    for (who, peer, bird) in [
        ("the router connects", "passive = true\n", ""),
        ("we connect", "", "passive on;"),
    ] {
        in_lab(|lab| start(&Rack::build(lab, SMALL)?, who, peer, bird));
    }
}

fn start(rack: &Rack, who: &str, peer: &str, bird: &str) -> Result<()> {
    let sessions = Bird::sessions(&rack.balancers, 64500, bird);
    let router = Bird::router_config(64501) + &sessions;
    let _router = Bird::start(&rack.router, &router)?;
    let balancer = &rack.balancers[0];
    let config = two_vips(rack, &format!("interface = \"eth0\"\n{peer}"));
    let agent = Vipd::start_with_rights_of_unit(&balancer.host, &config.text(balancer))?;
    wait_for_peer(&agent, who, |peer| peer["state"] == "Established")
}
