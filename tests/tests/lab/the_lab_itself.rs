//! The lab must be right before it may judge: the rack with two plain BIRD
//! speakers that serve the VIP themselves, no vipd in it.

use std::{
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal};
use vipd_tests::{Bird, Frr, Held, Lab, Machine, Nginx, Probes, Rack, Size, ask, wait_until};

use crate::support::in_lab;

const VIP: &str = "198.51.100.10";
const VIP6: &str = "2001:db8:100::10";

#[test]
fn a_client_reaches_two_speakers_by_ecmp_and_outlives_the_silent_death_of_one() {
    in_lab(|lab| {
        let rack = rack(lab)?;
        let [lb1, lb2] = &rack.balancers[..] else {
            panic!("two balancers were ordered");
        };
        let _servers = [Nginx::start(&lb1.host)?, Nginx::start(&lb2.host)?];
        let router = Bird::on_router(&rack, "")?;
        let _speakers = [start_speaker(lb1)?, start_speaker(lb2)?];
        wait_until(
            "both speakers' routes are there",
            Duration::from_secs(15),
            || {
                router.ensure_established("lb1")?;
                router.ensure_established("lb2")?;
                router
                    .ensure_next_hops(&format!("{VIP}/32"), &[lb1.ipv4.into(), lb2.ipv4.into()])?;
                router.ensure_next_hops(&format!("{VIP6}/128"), &[lb1.ipv6.into(), lb2.ipv6.into()])
            },
        )?;
        let vip6 = SocketAddr::new(VIP6.parse()?, 80);
        wait_until("the VIP answers by IPv6", Duration::from_secs(20), || {
            ask(&rack.client, vip6)
        })?;

        let vip = SocketAddr::new(VIP.parse()?, 80);
        let held = Held::open(&rack.client, vip, 40)?;
        let probes = Probes::start(&rack.client, vip);
        sleep(Duration::from_secs(1));
        let before = probes.so_far();
        before.ensure_all_answered()?;
        ensure!(before.by_backend().len() == 2, "{:?}", before.by_backend());

        let death = Instant::now();
        rack.unplug_silently(lb2)?;
        wait_until("the router gives up lb2", Duration::from_secs(20), || {
            router.ensure_next_hops(&format!("{VIP}/32"), &[lb1.ipv4.into()])
        })?;
        let after = Instant::now();
        sleep(Duration::from_secs(3));
        let report = probes.finish()?;
        let meanwhile = report.since(death);
        ensure!(meanwhile.failures().count() > 0, "nobody noticed");
        ensure!(
            report.last_failure() < Some(after + Duration::from_secs(2)),
            "failures go on: {:?}",
            report.since(after).by_failure()
        );

        // Without vipd nobody knows of lb2's connections on lb1.
        let report = held.judge()?;
        ensure!(report.connections.len() == 40);
        ensure!(
            report.broken_elsewhere("lb2").count() == 0,
            "{:?}",
            report.broken().collect::<Vec<_>>()
        );
        ensure!(
            report.broken().count() == report.by_backend()["lb2"],
            "{:?}",
            report.by_backend()
        );
        Ok(())
    });
}

#[test]
fn frr_as_the_router_shows_what_a_speaker_announces() {
    in_lab(|lab| {
        let rack = rack(lab)?;
        let lb1 = &rack.balancers[0];
        let neighbours = std::slice::from_ref(lb1);
        let config = Frr::router_config(64501, neighbours, 64500, &[]);
        let router = Frr::start(&rack.router, &config)?;
        let _speaker = start_speaker(lb1)?;
        wait_until("FRR has the session", Duration::from_secs(20), || {
            router.ensure_established(&lb1.ipv4.to_string())
        })?;
        for (prefix, next_hop) in [
            (format!("{VIP}/32"), lb1.ipv4.to_string()),
            (format!("{VIP6}/128"), lb1.ipv6.to_string()),
        ] {
            wait_until("FRR has the route", Duration::from_secs(20), || {
                let paths = router.paths(&prefix)?;
                ensure!(
                    paths.len() == 1 && paths[0]["nexthops"][0]["ip"] == next_hop.as_str(),
                    "{prefix}: {paths:?}"
                );
                Ok(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn backends_answer_from_their_own_addresses() {
    in_lab(|lab| {
        let rack = rack(lab)?;
        for backend in &rack.backends {
            let _server = Nginx::start(&backend.host)?;
            for address in [IpAddr::from(backend.ipv4), IpAddr::from(backend.ipv6)] {
                let answer = ask(&rack.client, (address, 80).into())?;
                ensure!(answer == backend.host.name(), "{address} answered {answer}");
            }
        }
        Ok(())
    });
}

#[test]
fn nothing_is_left_of_a_dropped_lab() {
    let mut left_id = None;
    in_lab(|lab| {
        let rack = rack(lab)?;
        let _server = Nginx::start(&rack.backends[0].host)?;
        ensure!(namespaces_of(&lab.id().to_string()) == 7, "the lab stands");
        ensure!(lab.id().dir().exists() && lab.id().pins().exists());
        left_id = Some(lab.id().to_string());
        Ok(())
    });
    assert_nothing_left(&left_id.expect("the lab has run"));
}

#[test]
fn nothing_is_left_of_a_lab_whose_owner_is_interrupted() {
    let (mut owner, id) = start_owner();
    rustix::process::kill_process(Pid::from_child(&owner), Signal::INT).expect("it runs");
    let status = owner.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert_nothing_left(&id);
}

#[test]
fn the_next_lab_removes_what_a_killed_owner_left() {
    let (mut owner, id) = start_owner();
    owner.kill().expect("it runs");
    owner.wait().expect("it ends");
    in_lab(|_| Ok(()));
    assert_nothing_left(&id);
}

/// Starts another process with a lab and returns it with its lab's name.
fn start_owner() -> (Child, String) {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_lab_owner"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be started");
    let output = BufReader::new(owner.stdout.take().expect("it is piped"));
    let id = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix("lab ")?.to_owned()))
        .expect("it tells its lab");
    assert_eq!(namespaces_of(&id), 7, "its lab stands");
    (owner, id)
}

/// Looks for anything that carries the lab's name.
fn assert_nothing_left(id: &str) {
    assert_eq!(namespaces_of(id), 0);
    for dir in ["/tmp", "/sys/fs/bpf"] {
        assert!(!Path::new(dir).join(id).exists(), "{id} is in {dir}");
    }
    assert_eq!(processes_that_name(id), Vec::<String>::new());
}

fn rack(lab: &Lab) -> Result<Rack> {
    Rack::build(
        lab,
        Size {
            balancers: 2,
            backends: 2,
        },
    )
}

/// A BIRD that announces the VIPs, which are bound on its own machine.
fn start_speaker(machine: &Machine) -> Result<Bird> {
    machine.bind_vips(&[VIP.parse()?, VIP6.parse()?])?;
    let Machine { ipv4, ipv6, .. } = machine;
    Bird::start(
        &machine.host,
        &format!(
            "log stderr all;
router id {ipv4};
protocol device {{ }}
protocol static {{ ipv4; route {VIP}/32 unreachable; }}
protocol static {{ ipv6; route {VIP6}/128 unreachable; }}
protocol bgp upstream {{
    local {ipv4} as 64500;
    neighbor 192.0.2.1 as 64501;
    hold time 3;
    connect delay time 1;
    ipv4 {{ import none; export all; next hop self; }};
    ipv6 {{ import none; export all; next hop address {ipv6}; }};
}}
"
        ),
    )
}

fn namespaces_of(id: &str) -> usize {
    list("/run/netns")
        .iter()
        .filter(|name| name.starts_with(&format!("{id}-")))
        .count()
}

fn processes_that_name(text: &str) -> Vec<String> {
    list("/proc")
        .iter()
        .filter_map(|pid| {
            std::fs::read_to_string(Path::new("/proc").join(pid).join("cmdline")).ok()
        })
        .filter(|command| command.contains(text))
        .collect()
}

fn list(dir: &str) -> Vec<String> {
    std::fs::read_dir(dir)
        .expect("it can be listed")
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
