//! The agent and the BFD process with no more rights than the packaged units leave
//! them.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use vipd::bfd::protocol::State;
use vipd_tests::{AgentConfig, Bfd, Bird, Host, Rack, Vipd, wait_until};

use crate::support::{PATIENCE, SMALL, in_lab, two_vips, wait_for_peer};

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

#[test]
fn programs_run_as_another_user_and_are_killed_and_addresses_are_bound() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let router = Bird::on_router(&rack, "")?;
        let balancer = &rack.balancers[0];
        let host = &balancer.host;
        let config = AgentConfig {
            services: programs(host)?,
            ..AgentConfig::default()
        };
        let mut agent = Vipd::start_with_rights_of_unit(host, &config.text(balancer))?;

        let checked = |service: &str, code: &str, detail: &str| {
            wait_until(&format!("{service}: {detail}"), PATIENCE, || {
                let status = agent.status()?;
                let mut services = status["services"].as_array().into_iter().flatten();
                let found = services.find(|found| found["name"] == service);
                let check = &found.context("no such service")?["backends"][0]["check"];
                ensure!(
                    check["code"] == code && check["detail"] == detail,
                    "{check}"
                );
                Ok(())
            })
        };
        let who = "exit code 0: nobody nogroup CapBnd: 0000000000000000";
        checked("runs", "PROCOK", who)?;
        checked("slow", "PROCTOUT", "not finished in time, killed")?;
        ensure_killed(host, "hanging-check")?;

        wait_until("a hook is told, as nobody", PATIENCE, || {
            let text = fs::read_to_string(host.dir().join("told"))?;
            let told =
                |line: &str| line.starts_with("nobody: backend runs/b1 ") && line.ends_with("-up");
            ensure!(text.lines().any(told), "{text}");
            Ok(())
        })?;
        wait_until("another one hangs, and is killed", PATIENCE, || {
            let page = agent.metrics("text/plain")?;
            let count = "vipd_hook_runs_total{hook=\"hangs\",result=\"timeout\"} ";
            let mut counts = page.lines().filter_map(|line| line.strip_prefix(count));
            ensure!(counts.any(|count| count != "0"), "{page}");
            Ok(())
        })?;
        ensure_killed(host, "hanging-hook")?;

        let is_bound = || anyhow::Ok(host.run("ip", &["addr"])?.contains(LOCAL));
        wait_until("an address of this host is announced", PATIENCE, || {
            ensure!(router.routes(LOCAL)?.len() == 1, "no route");
            Ok(())
        })?;
        ensure!(is_bound()?, "it is bound");
        let ended = agent.process().terminate(PATIENCE)?;
        ensure!(ended.success(), "{ended}");
        ensure!(!is_bound()?, "nothing is left");
        Ok(())
    });
}

/// An address that the balancer serves itself.
const LOCAL: &str = "198.51.100.30/32";

/// What tells who it is, as a check.
const WHO: &str = "id -un; id -Gn; grep CapBnd /proc/self/status";

/// Services that are checked by programs, one of which hangs; one of this host's own; and
/// hooks, one of which hangs.
fn programs(host: &Host) -> Result<String> {
    let hangs = |name: &str| {
        let file = host.write_for_all(name)?;
        anyhow::Ok(format!("echo $$ >> {}; exec sleep 600", file.display()))
    };
    let told = host.write_for_all("told")?;
    let tells = format!(
        "echo $(id -un): $VIPD_SUBJECT $VIPD_NAME $VIPD_PREVIOUS-$VIPD_STATE >> {}",
        told.display()
    );
    let service = |name: &str, vip: &str, script: &str| {
        format!(
            r#"
[[service]]
name = "{name}"
vips = ["{vip}"]
protocol = "tcp"
port = 80
mode = "ipip"
[service.check]
type = "program"
command = ["/bin/sh", "-c", "{script}"]
interval = "2s"
timeout = "2s"
[[service.backend]]
name = "b1"
address = "192.0.2.21"
"#
        )
    };
    let hook = |name: &str, on: &str, timeout: &str, script: &str| {
        format!(
            r#"
[[hook]]
name = "{name}"
on = ["{on}"]
command = ["/bin/sh", "-c", "{script}"]
timeout = "{timeout}"
"#
        )
    };
    let (address, _) = LOCAL.split_once('/').context("a prefix")?;
    let local = format!(
        r#"
[[service]]
name = "own"
vips = ["{address}"]
protocol = "tcp"
port = 25
mode = "local"
check = {{ type = "none" }}
"#
    );
    Ok([
        service("runs", "198.51.100.10", WHO),
        service("slow", "198.51.100.20", &hangs("hanging-check")?),
        local,
        hook("tells", "backend", "20s", &tells),
        hook("hangs", "peer:up", "3s", &hangs("hanging-hook")?),
    ]
    .concat())
}

/// The first of the programs that have written down who they are is gone.
fn ensure_killed(host: &Host, name: &str) -> Result<()> {
    wait_until("a program that hangs is gone", PATIENCE, || {
        let numbers = fs::read_to_string(host.dir().join(name))?;
        let first = numbers.lines().next().context("it has never run")?;
        let process = Path::new("/proc").join(first);
        ensure!(!process.exists(), "process {first} is there");
        Ok(())
    })
}
