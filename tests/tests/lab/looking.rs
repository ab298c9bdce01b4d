//! Looking at single packets of a living data plane: explained and captured.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use vipd_tests::{AgentConfig, Host, Lab, Probes, Site, wait_until};

use crate::support::{PATIENCE, SMALL, VIP, VIP6, ensure_spread, in_lab};

#[test]
fn a_flow_is_explained_from_the_service_to_the_headers_on_the_wire() {
    in_lab(|lab| {
        let site = site(lab)?;
        let agent = &site.agents[0];
        let text = agent.command("explain", &["203.0.113.2:40000", "198.51.100.10:80"])?;
        for expected in [
            "verdict    forwarded: ",
            "comes by   eth0",
            "service    web",
            "stable",
            "backend    b1 (192.0.2.21)",
            "because    the slot is stable",
            "leaves by  eth0 to ",
            "IPv4 192.0.2.11 > 192.0.2.21, TTL 64, DF",
            "IPv4 203.0.113.2 > 198.51.100.10, TTL 63, DF",
            "TCP 40000 > 80 [ACK]",
        ] {
            ensure!(text.contains(expected), "no `{expected}` in\n{text}");
        }

        let explained = |arguments: &[&str]| -> Result<Value> {
            let text = agent.command("explain", &[arguments, &["--json"]].concat())?;
            serde_json::from_str(&text).with_context(|| format!("answered {text}"))
        };
        let six = explained(&["[2001:db8:c::2]:40000", "[2001:db8:100::10]:80", "--syn"])?;
        ensure!(six["verdict"] == "forwarded", "{six}");
        ensure!(
            six["leaves"]["headers"][3] == "TCP 40000 > 80 [SYN]",
            "{six}"
        );
        let udp = explained(&["203.0.113.2:40000", "198.51.100.10:80", "udp"])?;
        ensure!(udp["verdict"] == "unserved_port", "{udp}");
        let other = explained(&["203.0.113.2:40000", "192.0.2.99:80"])?;
        ensure!(
            other["verdict"] == "not_vip" && other["action"] == "pass",
            "{other}"
        );

        ensure!(six["but"].is_null(), "{six}");

        let mixed = agent.command("explain", &["203.0.113.2:1", "[2001:db8::1]:80"]);
        let words = format!("{:#}", mixed.expect_err("two families"));
        ensure!(words.contains("two address families"), "{words}");
        Ok(())
    });
}

#[test]
fn an_explanation_says_when_packets_do_not_come_to_the_program() {
    in_lab(|lab| {
        let site = site(lab)?;
        let balancer = &site.rack.balancers[0];
        let flow = ["203.0.113.2:40000", "198.51.100.10:80"];
        let wait_for = |sentence: &str, words: &str| {
            wait_until(sentence, PATIENCE, || {
                let text = site.agents[0].command("explain", &flow)?;
                let first = text.lines().next().unwrap_or_default();
                let told = first.starts_with("but ") && first.contains(words);
                ensure!(told, "{text}");
                Ok(())
            })
        };
        site.rack.pull_cable(balancer)?;
        wait_for("the cable is missed", "eth0 has no carrier")?;
        site.rack.push_cable(balancer)?;
        wait_until("all is well again", PATIENCE, || {
            let text = site.agents[0].command("explain", &flow)?;
            ensure!(text.starts_with("verdict"), "{text}");
            Ok(())
        })?;
        // Another interface of that name, without the program.
        balancer.host.ip("link set eth0 down\n\
             link set eth0 name old0\n\
             link add eth0 type veth peer name other0\n\
             link set eth0 up\nlink set other0 up\n")?;
        wait_for(
            "the program is missed",
            "the XDP program has been detached from eth0",
        )
    });
}

#[test]
fn a_capture_opens_in_tshark_with_each_packets_fate_and_costs_no_packet() {
    in_lab(|lab| {
        let mut site = site(lab)?;
        let balancer = site.rack.balancers[0].host.clone();
        let ours = program(&balancer)?;
        let probes = Probes::start(&site.rack.client, (VIP, 80).into());

        let file = balancer.dir().join("capture.pcapng");
        let path = file.to_string_lossy();
        let write = [
            "--service",
            "web",
            "--dst",
            "198.51.100.0/24",
            "--write",
            &path,
        ];
        let mut capture = site.agents[0].spawn("capture", &write)?;
        wait_until("the capturing program is in place", PATIENCE, || {
            ensure!(program(&balancer)? != ours);
            Ok(())
        })?;
        // Enough for some packets to be written, and for the guard to look.
        std::thread::sleep(Duration::from_secs(2));
        let status = site.agents[0].status()?;
        ensure!(status["dataplane"]["fault"].is_null(), "{status}");
        ensure!(
            status["dataplane"]["interfaces"][0]["mode"] == "native",
            "{status}"
        );
        site.agents[0].command("explain", &["203.0.113.2:40000", "198.51.100.10:80"])?;
        let second = site.agents[0].command("capture", &["--count", "1"]);
        let words = format!("{:#}", second.expect_err("one at a time"));
        ensure!(words.contains("another capture runs"), "{words}");

        capture.signal(Signal::INT)?;
        let ended = capture.wait(PATIENCE)?;
        ensure!(ended.success(), "{ended}: {}", capture.log());
        wait_for_program(&balancer, ours)?;
        ensure_shown_by_tshark(&balancer, &path)?;

        // Ended by its own bound, and by the death of whoever asked.
        let lines = site.agents[0].command("capture", &["--count", "5", "--port", "80"])?;
        ensure!(lines.lines().count() == 5, "{lines}");
        ensure!(
            lines.contains("forwarded, service web, backend b1"),
            "{lines}"
        );
        let mut capture = site.agents[0].spawn("capture", &[])?;
        wait_until("the capturing program is in place", PATIENCE, || {
            ensure!(program(&balancer)? != ours);
            Ok(())
        })?;
        capture.kill()?;
        wait_for_program(&balancer, ours)?;

        let report = probes.finish()?;
        report.ensure_all_answered()?;
        site.router.ensure_established("lb1")?;

        // An agent that dies meanwhile leaves a program that forwards.
        let _capture = site.agents[0].spawn("capture", &[])?;
        wait_until("the capturing program is in place", PATIENCE, || {
            ensure!(program(&balancer)? != ours);
            Ok(())
        })?;
        let capturing = program(&balancer)?;
        site.agents[0].process().kill()?;
        ensure!(program(&balancer)? == capturing, "it is still there");
        site.agents[0].start_again()?;
        ensure!(
            program(&balancer)? != capturing,
            "the new agent puts its own in"
        );
        site.wait_for_sessions()?;
        site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
        ensure_spread(&site, VIP.into(), 5)
    });
}

fn site(lab: &Lab) -> Result<Site> {
    let vips: [IpAddr; 2] = [VIP.into(), VIP6.into()];
    let site = Site::build(lab, SMALL, &vips, &|rack| {
        AgentConfig::default()
            .service("web", VIP.into(), "ipip", &rack.backends)
            .service("web6", VIP6.into(), "ipip", &rack.backends)
    })?;
    ensure_spread(&site, VIP.into(), 5)?;
    Ok(site)
}

/// The kernel's id of the XDP program on the host's interface.
fn program(host: &Host) -> Result<u32> {
    host.xdp("eth0")?.context("no XDP program")
}

fn wait_for_program(host: &Host, id: u32) -> Result<()> {
    wait_until("the forwarding program is back", PATIENCE, || {
        let found = program(host)?;
        ensure!(found == id, "{found} is there");
        Ok(())
    })
}

/// Each packet is there as it came and as it left, and says why.
fn ensure_shown_by_tshark(host: &Host, file: &str) -> Result<()> {
    let fields = ["frame.comment", "frame.interface_name", "ip.dst"];
    let arguments = fields.iter().flat_map(|field| ["-e", field]);
    let arguments: Vec<&str> = ["-r", file, "-T", "fields"]
        .into_iter()
        .chain(arguments)
        .collect();
    let text = host.run("tshark", &arguments)?;
    let comment = "forwarded, service web, backend b1 (192.0.2.21): the slot is stable";
    for (interface, addresses) in [
        ("eth0 (in)", "198.51.100.10"),
        ("eth0 (out)", "192.0.2.21,198.51.100.10"),
    ] {
        let expected = format!("{comment}\t{interface}\t{addresses}");
        let count = text.lines().filter(|line| *line == expected).count();
        ensure!(count > 10, "{count} times `{expected}` in\n{text}");
    }
    Ok(())
}
