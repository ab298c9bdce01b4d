//! Interfaces that come, go, and are not what they were: what a reload makes of
//! them, and the next agent.

use anyhow::{Result, ensure};
use vipd_abi::LAYOUT;
use vipd_tests::{AgentConfig, Lab, Site, wait_until};

use crate::support::{PATIENCE, SMALL, VIP, in_lab};

#[test]
fn interfaces_come_and_go_with_a_reload_and_a_refused_one_changes_nothing() {
    in_lab(|lab| {
        let site = site(lab)?;
        site.agents[0].reload(&with(&site, &["eth0", "extra0"]))?;
        ensure!(
            has_xdp(&site, "eth0")? && has_xdp(&site, "extra0")?,
            "both carry the program"
        );

        let refused = site.agents[0].reload(&with(&site, &["eth0", "extra1", "nowhere0"]));
        let words = format!("{:#}", refused.expect_err("it is refused"));
        ensure!(words.contains("nowhere0"), "{words}");
        ensure!(!has_xdp(&site, "extra1")?, "nothing was attached");
        ensure!(has_xdp(&site, "extra0")?, "nothing was taken off");

        site.agents[0].reload(&with(&site, &["eth0"]))?;
        wait_until("the program is off extra0", PATIENCE, || {
            ensure!(!has_xdp(&site, "extra0")?, "it is still attached");
            Ok(())
        })?;
        site.agents[0].reload(&with(&site, &["extra0", "eth0"]))?;
        ensure!(has_xdp(&site, "extra0")?, "it came back");
        ensure_forwarding(&site)
    });
}

#[test]
fn a_reload_is_refused_for_an_interface_that_a_start_would_refuse() {
    in_lab(|lab| {
        let site = site(lab)?;
        let host = &site.rack.balancers[0].host;
        host.ip("tuntap add dev tun0 mode tun\nlink set tun0 up\n")?;
        let refused = site.agents[0].reload(&with(&site, &["eth0", "tun0"]));
        let words = format!("{:#}", refused.expect_err("it is refused"));
        ensure!(words.contains("tun0: this is no Ethernet"), "{words}");
        ensure!(!has_xdp(&site, "tun0")?, "nothing was attached");
        let status = site.agents[0].status()?;
        ensure!(!status["findings"].to_string().contains("tun0"), "{status}");
        ensure_forwarding(&site)
    });
}

#[test]
fn a_reload_tells_what_hampers_the_node_and_the_next_one_that_it_is_gone() {
    in_lab(|lab| {
        let site = site(lab)?;
        let host = &site.rack.balancers[0].host;
        let text = with(&site, &["eth0", "extra0"]);
        let shown = || anyhow::Ok(site.agents[0].status()?["findings"].to_string());
        host.ip("link set extra0 down\n")?;
        let words = "extra0: the interface is down";
        for sentence in ["found", "found again"] {
            let answer = site.agents[0].reload(&text)?;
            let is_new = sentence == "found";
            ensure!(answer.contains(words) == is_new, "{sentence}: {answer}");
            ensure!(shown()?.contains(words), "{sentence}: {}", shown()?);
        }
        host.ip("link set extra0 up\n")?;
        site.agents[0].reload(&text)?;
        ensure!(!shown()?.contains(words), "{}", shown()?);
        Ok(())
    });
}

#[test]
fn without_an_interface_nothing_is_announced_until_a_reload_attaches_to_it_anew() {
    in_lab(|lab| {
        let site = site(lab)?;
        let host = &site.rack.balancers[0].host;
        let text = with(&site, &["eth0", "extra0"]);
        site.agents[0].reload(&text)?;
        ensure_forwarding(&site)?;
        host.ip("link del extra0\n")?;
        ensure_withdrawn(&site, "extra0 is gone")?;
        // What else there is to change can be changed meanwhile.
        let answer = site.agents[0].reload(&text)?;
        ensure!(answer.contains("no such interface"), "{answer}");
        host.ip(EXTRA)?;
        ensure_withdrawn(&site, "detached from extra0; `vipd reload` attaches it")?;
        site.agents[0].reload(&text)?;
        ensure!(has_xdp(&site, "extra0")?, "it is not attached");
        ensure_forwarding(&site)
    });
}

#[test]
fn in_another_mode_than_configured_nothing_is_announced() {
    in_lab(|lab| {
        let site = site(lab)?;
        let host = &site.rack.balancers[0].host;
        let text = with(&site, &["eth0", "extra0"]);
        site.agents[0].reload(&text)?;
        ensure_forwarding(&site)?;
        // Our own program, as slow as where a driver has lost its native mode.
        let program = host.pins().join("vipd").join(LAYOUT).join("program");
        let fall_back = format!(
            "{EXTRA}link set dev extra0 xdpgeneric pinned {}\n",
            program.display()
        );
        host.ip("link del extra0\n")?;
        host.ip(&fall_back)?;
        ensure_withdrawn(&site, "another XDP program or mode than ours: native mode")?;
        let shown = site.agents[0].status()?["dataplane"]["interfaces"][1].clone();
        ensure!(shown["mode"] == "generic", "{shown}");
        host.ip("link set dev extra0 xdpgeneric off\n")?;
        site.agents[0].reload(&text)?;
        ensure_forwarding(&site)
    });
}

#[test]
fn an_interface_that_was_renamed_keeps_its_program_for_the_next_agent() {
    in_lab(|lab| {
        let mut site = site(lab)?;
        site.agents[0].reload(&with(&site, &["eth0", "extra0"]))?;
        ensure_forwarding(&site)?;
        site.agents[0].process().kill()?;
        let host = site.rack.balancers[0].host.clone();
        host.ip("link set extra0 down\nlink set extra0 name wan.7\nlink set wan.7 up\n")?;
        host.write("vipd.toml", &with(&site, &["eth0", "wan.7"]))?;
        site.agents[0].start_again()?;
        let log = site.agents[0].log();
        ensure!(log.contains("XDP on wan.7 taken over"), "{log}");
        ensure_forwarding(&site)
    });
}

/// Two more interfaces, which nothing comes by.
const EXTRA: &str = "link add extra0 type veth peer name extra1\n\
                     link set extra0 up\nlink set extra1 up\n";

/// One balancer with [`EXTRA`].
fn site(lab: &Lab) -> Result<Site> {
    let site = Site::build(lab, SMALL, &[VIP.into()], &|rack| {
        AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends)
    })?;
    site.rack.balancers[0].host.ip(EXTRA)?;
    Ok(site)
}

/// The balancer's configuration, with these interfaces.
fn with(site: &Site, interfaces: &[&str]) -> String {
    let config = AgentConfig::default().service("web", VIP.into(), "ipip", &site.rack.backends);
    config.text(&site.rack.balancers[0]).replace(
        "interfaces = [\"eth0\"]",
        &format!("interfaces = {interfaces:?}"),
    )
}

fn has_xdp(site: &Site, interface: &str) -> Result<bool> {
    let program = site.rack.balancers[0].host.xdp(interface)?;
    Ok(program.is_some())
}

/// The data plane has this fault, and the router has heard of it.
fn ensure_withdrawn(site: &Site, words: &str) -> Result<()> {
    wait_until("the fault is seen", PATIENCE, || {
        let status = site.agents[0].status()?;
        let fault = status["dataplane"]["fault"].to_string();
        ensure!(fault.contains(words), "no {words:?} in {fault}");
        let reason = status["vips"][0]["reason"].to_string();
        ensure!(reason.contains(words), "no {words:?} in {reason}");
        Ok(())
    })?;
    site.wait_for_routes(VIP.into(), &[])
}

/// The data plane is in order, and the VIP is announced: the router says so.
fn ensure_forwarding(site: &Site) -> Result<()> {
    wait_until("all is well", PATIENCE, || {
        let status = site.agents[0].status()?;
        ensure!(status["dataplane"]["fault"].is_null(), "{status}");
        ensure!(status["vips"][0]["announced"] == true, "{status}");
        Ok(())
    })?;
    site.wait_for_routes(VIP.into(), &site.rack.balancers)
}
