//! One vipd at a time holds a data plane, and keeps it through whatever
//! happens to the vipd.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use vipd::dataplane::pins::Pins;
use vipd_tests::{AgentConfig, Probes, Rack, Site, Size, Vipd};

use crate::support::{VIP, in_lab};

fn site(lab: &vipd_tests::Lab) -> Result<Site> {
    let size = Size {
        balancers: 1,
        backends: 2,
    };
    Site::build(lab, size, &[VIP.into()], &config)
}

fn config(rack: &Rack) -> AgentConfig {
    AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends)
}

#[test]
fn agents_killed_again_and_again_under_traffic_drop_nothing() {
    in_lab(|lab| {
        let mut site = site(lab)?;
        site.rack
            .route_by_hand(VIP.into(), &site.rack.balancers[0])?;
        let probes = Probes::start(&site.rack.client, (VIP, 80).into());
        for _ in 0..5 {
            sleep(Duration::from_millis(300));
            site.agents[0].process().kill()?;
            site.agents[0].start_again()?;
            site.wait_for_sessions()?;
        }
        let report = probes.finish()?;
        report.ensure_all_answered()?;
        let status = site.agents[0].status()?;
        let verdicts = &status["dataplane"]["verdicts"];
        for verdict in ["no_next_hop", "no_backend", "unserved_port", "inconsistent"] {
            ensure!(verdicts[verdict] == 0, "{verdict}: {verdicts}");
        }
        Ok(())
    });
}

#[test]
fn no_other_vipd_touches_the_data_plane_of_a_running_agent() {
    in_lab(|lab| {
        let site = site(lab)?;
        let balancer = &site.rack.balancers[0];
        // The same data plane, other sockets.
        let text = config(&site.rack)
            .text(balancer)
            .replace("vipd.sock", "other.sock");
        let text = text.replace("[control]", "[metrics]\nenabled = false\n\n[control]");
        let file = balancer.host.write("other.toml", &text)?;
        let file = file.to_string_lossy();
        for command in ["unload", "load", "run"] {
            let refused = balancer
                .host
                .run(
                    &Vipd::binary()?.to_string_lossy(),
                    &[command, "--config", &file],
                )
                .expect_err("it is refused");
            let words = format!("{refused:#}");
            ensure!(words.contains("another vipd uses"), "{command}: {words}");
        }
        let answered = vipd_tests::ask(&site.rack.client, (VIP, 80).into())?;
        ensure!(answered.starts_with('b'), "still forwarded: {answered}");
        Ok(())
    });
}

#[test]
fn unload_leaves_the_routes_of_a_running_agent_and_lost_ones_come_back() {
    in_lab(|lab| {
        let site = site(lab)?;
        let balancer = &site.rack.balancers[0];
        let held = || -> Result<bool> {
            let arguments = ["route", "show", "proto", "86"];
            let routes = balancer.host.run("ip", &arguments)?;
            Ok(routes.contains(&format!("unreachable {VIP}")))
        };
        ensure!(held()?, "the VIP is announced and held");

        // Of the agent's own layout nothing is to be seen any more.
        let pins = Pins::new(&balancer.host.pins().join("vipd")).directory();
        fs::remove_dir_all(&pins)?;
        let file = balancer.host.dir().join("vipd.toml");
        let arguments = ["unload", "--config", &file.to_string_lossy()];
        let refused = balancer
            .host
            .run(&Vipd::binary()?.to_string_lossy(), &arguments);
        ensure!(held()?, "the route is gone: {refused:?}");
        let words = format!("{:#}", refused.expect_err("it is refused"));
        ensure!(words.contains("another vipd uses"), "{words}");

        let log = site.agents[0].log();
        let loss = format!("the unreachable route of {VIP} has gone; it is made anew");
        ensure!(!log.contains(&loss), "{log}");
        balancer.host.ip("route flush proto 86\n")?;
        vipd_tests::wait_until("the route is there again", Duration::from_secs(40), || {
            let log = site.agents[0].log();
            ensure!(log.contains(&loss) && held()?, "there is none: {log}");
            Ok(())
        })?;
        let status = site.agents[0].status()?;
        ensure!(status["vips"][0]["announced"] == true, "{status}");
        Ok(())
    });
}

#[test]
fn load_refuses_to_touch_a_filled_data_plane_that_no_agent_runs() {
    in_lab(|lab| {
        let mut site = site(lab)?;
        let balancer = site.rack.balancers[0].clone();
        balancer
            .host
            .ip("link add extra0 type veth peer name extra1\nlink set extra0 up\n")?;
        site.rack.route_by_hand(VIP.into(), &balancer)?;
        site.agents[0].process().kill()?;
        let file = balancer.host.dir().join("vipd.toml");
        let file = file.to_string_lossy();
        for other in [["--iface", "extra0"], ["--mode", "generic"]] {
            let arguments = [&["load", "--config", &file][..], &other].concat();
            let refused = balancer
                .host
                .run(&Vipd::binary()?.to_string_lossy(), &arguments)
                .expect_err("it is refused");
            let words = format!("{refused:#}");
            ensure!(words.contains("pinned"), "{words}");
        }
        sleep(Duration::from_millis(200));
        let answered = vipd_tests::ask(&site.rack.client, (VIP, 80).into())?;
        ensure!(answered.starts_with('b'), "still forwarded: {answered}");
        Ok(())
    });
}

#[test]
fn an_agent_started_with_another_mode_attaches_anew_in_that_mode() {
    in_lab(|lab| {
        let mut site = site(lab)?;
        let balancer = site.rack.balancers[0].clone();
        for (mode, shown) in [("generic", "xdpgeneric"), ("native", "xdp ")] {
            site.agents[0].process().kill()?;
            let dataplane = format!("xdp_mode = \"{mode}\"\n");
            let text = AgentConfig {
                dataplane,
                ..config(&site.rack)
            }
            .text(&balancer);
            balancer.host.write("vipd.toml", &text)?;
            site.agents[0].start_again()?;
            site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
            let link = balancer.host.run("ip", &["link", "show", "eth0"])?;
            ensure!(link.contains(shown), "{mode}: {link}");
            let status = site.agents[0].status()?;
            let interface = &status["dataplane"]["interfaces"][0];
            ensure!(interface["mode"] == mode, "{status}");
        }
        Ok(())
    });
}
