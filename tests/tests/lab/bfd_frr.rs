//! `vipd bfd` against FRR: one hop, several hops, with the TTL that FRR sends and
//! asks for, and the authentication that it has not.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use vipd::bfd::protocol::State;
use vipd_tests::{
    BFD_TIMING, Bfd, CLIENT_IPV4, FRR_BFD_TIMING, Frr, Machine, ROUTER_IPV4, ROUTER_IPV6, Rack,
    wait_until,
};

use crate::support::{PATIENCE, SMALL, in_lab};

#[test]
fn frr_and_we_see_each_other_over_ipv4_and_ipv6() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        for router in [IpAddr::from(ROUTER_IPV4), ROUTER_IPV6.into()] {
            let us = balancer.address_like(router);
            let peer = format!("peer {us} local-address {router} interface rack0");
            let frr = start_bfd(&rack.router, &peer)?;
            let bfd = Bfd::start(&balancer.host, &config(balancer, router, "", ""))?;
            bfd.wait_for("frr", State::Up)?;
            wait_for_frr(&frr, us, true)?;
        }
        Ok(())
    });
}

#[test]
fn frr_behind_a_router_is_reached_over_several_hops_and_not_taken_from_farther_away() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let peer = format!(
            "peer {} multihop local-address {CLIENT_IPV4}",
            balancer.ipv4
        );
        let frr = start_bfd(&rack.client, &peer)?;
        let config = |min_ttl: u8| {
            let bfd = format!("min_ttl = {min_ttl}\n");
            config(balancer, CLIENT_IPV4.into(), "multihop = 2\n", &bfd)
        };
        // Both send with a TTL of 255, and one router is between: less than 254
        // is too little for FRR, too.
        let bfd = Bfd::start(&balancer.host, &config(254))?;
        let session = bfd.wait_for("frr", State::Up)?;
        ensure!(session.multihop, "{session:?}");
        wait_for_frr(&frr, balancer.ipv4.into(), true)?;

        bfd.reload(&config(255))?;
        bfd.wait_for_reason("frr", "with a TTL below 255")?;
        wait_for_frr(&frr, balancer.ipv4.into(), false)
    });
}

#[test]
fn frr_which_has_no_authentication_is_not_let_up_and_the_reason_is_told() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        let peer = format!(
            "peer {} local-address {ROUTER_IPV4} interface rack0",
            balancer.ipv4
        );
        let frr = start_bfd(&rack.router, &peer)?;
        balancer.host.write_secret("router.bfd", "a key\n")?;
        let config = |bfd| config(balancer, ROUTER_IPV4.into(), "", bfd);
        let with = "auth = \"meticulous-keyed-sha1\"\nkey_file = \"router.bfd\"\n";
        let bfd = Bfd::start(&balancer.host, &config(with))?;
        bfd.wait_for_reason("frr", "it is not authenticated")?;
        wait_for_frr(&frr, balancer.ipv4.into(), false)?;

        bfd.reload(&config(""))?;
        bfd.wait_for("frr", State::Up)?;
        wait_for_frr(&frr, balancer.ipv4.into(), true)
    });
}

/// FRR with this BFD session.
fn start_bfd(host: &vipd_tests::Host, peer: &str) -> Result<Frr> {
    let bfd = format!("bfd\n {peer}\n{FRR_BFD_TIMING}  no shutdown\n !\n!\n");
    Frr::start_with_bfd(host, "", &bfd)
}

/// Waits until FRR has the session up, or down or in between.
fn wait_for_frr(frr: &Frr, us: IpAddr, up: bool) -> Result<()> {
    wait_until(&format!("FRR agrees, up: {up}"), PATIENCE, || {
        let session = frr.bfd(&us.to_string())?;
        ensure!((session["status"] == "up") == up, "{session}");
        Ok(())
    })
}

/// A peer `frr`, with further lines for BGP and for BFD. No data plane: BFD
/// stays up without one.
fn config(balancer: &Machine, address: IpAddr, peer: &str, bfd: &str) -> String {
    let (router_id, source) = (balancer.ipv4, balancer.address_like(address));
    format!(
        "[bgp]\nlocal_as = 64500\nrouter_id = \"{router_id}\"\n\
         [[bgp.peer]]\nname = \"frr\"\naddress = \"{address}\"\nas = 64501\n\
         source = \"{source}\"\n{peer}[bgp.peer.bfd]\n{BFD_TIMING}{bfd}"
    )
}
