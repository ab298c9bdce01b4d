//! The agent and the BFD process with no more rights than the packaged units leave
//! them.

use anyhow::{Result, ensure};
use vipd::bfd::protocol::State;
use vipd_tests::{Bfd, Bird, Rack, Vipd};

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

#[test]
fn bfd_on_an_interface_comes_up_without_a_single_capability() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let timing = "min rx interval 100 ms; min tx interval 100 ms; multiplier 10;";
        let router = format!(
            "{}protocol bfd {{ interface \"*\" {{ {timing} }}; }}\n{}",
            Bird::router_config(64501),
            Bird::sessions(&rack.balancers, 64500, "bfd on;")
        );
        let _router = Bird::start(&rack.router, &router)?;
        let config = two_vips(&rack, "interface = \"eth0\"\nbfd = true\n");
        let text = config.text(balancer);
        let mut bfd = Bfd::start_with_rights_of_unit(&balancer.host, &text)?;
        let _agent = Vipd::start_with_rights_of_unit(&balancer.host, &text)?;
        bfd.wait_for("router", State::Up)?;
        let log = bfd.process().log();
        ensure!(!log.contains("there is no filter"), "{log}");
        Ok(())
    });
}
