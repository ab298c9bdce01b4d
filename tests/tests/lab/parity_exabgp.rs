//! What ExaBGP's health-check program offers, by one node that does it: the rows of
//! docs/parity/exabgp-healthcheck.md that other labs do not play.
//!
//! ```text
//!   router (BIRD, AS 64501) -- switch --+-- lb1 (vipd, AS 64500)
//!                                       +-- b1  (BIRD, AS 64500)
//! ```

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{Bird, BirdRoute, Rack, Vipd, wait_until};

use crate::support::{PATIENCE, SMALL, in_lab, wait_for};

/// The state of the service, and what is told of it: the MEDs of both addresses, the
/// last number of each community, the path, the next hop, and the local preference.
struct Told {
    state: &'static str,
    meds: [&'static str; 2],
    number: u8,
    path: &'static str,
    next_hop: &'static str,
    preference: &'static str,
}

const UP: Told = Told {
    state: "up",
    meds: ["100", "105"],
    number: 1,
    path: "64500 64511",
    next_hop: "192.0.2.11",
    preference: "300",
};
const DOWN: Told = Told {
    state: "down",
    meds: ["1000", "1005"],
    number: 2,
    path: "64500 64512 64513",
    next_hop: "192.0.2.77",
    preference: "100",
};
const DISABLED: Told = Told {
    state: "disabled",
    meds: ["500", "505"],
    number: 3,
    path: "64500 64514",
    next_hop: "192.0.2.11",
    preference: "200",
};
const PREFIXES: [&str; 2] = ["198.51.100.10/32", "198.51.100.11/32"];

#[test]
fn each_state_is_announced_as_the_health_check_program_would() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let outside = Bird::on_router(&rack, "")?;
        let inside = Bird::start(&rack.backends[0].host, &inside(&rack))?;
        let host = &rack.balancers[0].host;
        let (broken, disabled) = (host.dir().join("broken"), host.dir().join("disabled"));
        let told = open_to_all(host.dir().join("told").as_path())?;
        let agent = Vipd::start(host, &config(&rack, &broken, &disabled, &told))?;
        // The routers, and the hook: it has run for the states, in their order.
        let mut states = String::new();
        let mut is_told = |expected: &Told, state: &str| {
            ensure_told(&outside, &inside, expected)?;
            states += &format!("{state}\n");
            wait_until("the hook was told of each state", PATIENCE, || {
                let text = fs::read_to_string(&told)?;
                ensure!(text == states, "{text}");
                Ok(())
            })
        };

        is_told(&UP, "up")?;
        let bound = host.run("ip", &["address", "show", "dev", "lo"])?;
        ensure!(
            bound.matches("lo:web").count() == 2,
            "by their label: {bound}"
        );
        ensure_quiet(&agent)?;
        let once = || {
            let config = host.dir().join("vipd.toml");
            let config = config.to_string_lossy();
            let vipd = Vipd::binary()?;
            let vipd = vipd.to_string_lossy();
            host.run(&vipd, &["check-once", "web", "--config", &config])
        };
        once().context("one check, that passes")?;

        fs::write(&broken, "")?;
        is_told(&DOWN, "down")?;
        let failed = once().err().context("one check, that fails")?;
        ensure!(
            format!("{failed:#}").contains("exit status: 2"),
            "{failed:#}"
        );
        fs::remove_file(&broken)?;
        is_told(&UP, "up")?;
        fs::write(&disabled, "")?;
        is_told(&DISABLED, "disabled")?;
        // Disabled and down is down, which is worse.
        fs::write(&broken, "")?;
        is_told(&DOWN, "down")?;
        fs::remove_file(&broken)?;
        is_told(&DISABLED, "disabled")?;
        fs::remove_file(&disabled)?;
        is_told(&UP, "up")
    });
}

/// A file that programs may write who run as nobody.
fn open_to_all(file: &Path) -> Result<String> {
    fs::write(file, "")?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o666))?;
    Ok(file.display().to_string())
}

/// Waits until both routers are told this, and no other neighbour than the one
/// outside of the second address.
fn ensure_told(outside: &Bird, inside: &Bird, expected: &Told) -> Result<()> {
    let Told {
        state,
        meds,
        number,
        path,
        next_hop,
        preference,
    } = expected;
    wait_until(&format!("{state} is told as such"), PATIENCE, || {
        for (prefix, med) in PREFIXES.into_iter().zip(meds) {
            let route = only(outside, prefix)?;
            for (name, value) in [
                ("BGP.med", (*med).to_owned()),
                ("BGP.as_path", (*path).to_owned()),
                ("BGP.next_hop", (*next_hop).to_owned()),
                ("BGP.community", format!("(64500,{number})")),
                ("BGP.large_community", format!("(64500, 1, {number})")),
                ("BGP.ext_community", format!("(rt, 64500, {number})")),
            ] {
                let found = route.attribute(name);
                ensure!(
                    found == Some(value.as_str()),
                    "no {name} {value} in {route:?}"
                );
            }
        }
        let route = only(inside, PREFIXES[0])?;
        let found = route.attribute("BGP.local_pref");
        ensure!(found == Some(*preference), "{route:?}");
        let others = inside.routes(PREFIXES[1])?;
        ensure!(others.is_empty(), "{others:?}");
        Ok(())
    })
}

fn only(bird: &Bird, prefix: &str) -> Result<BirdRoute> {
    let routes = bird.routes(prefix)?;
    ensure!(routes.len() == 1, "{prefix}: {routes:?}");
    routes.into_iter().next().context("a route")
}

/// While nothing changes no UPDATE is sent, however often it is checked.
fn ensure_quiet(agent: &Vipd) -> Result<()> {
    wait_for(agent, "outside", "all is told", |peer| peer["pending"] == 0)?;
    let sent = || {
        let peer = agent.peer("outside")?;
        Ok::<_, anyhow::Error>(peer["messages_sent"]["update"].clone())
    };
    let before = sent()?;
    sleep(Duration::from_secs(2));
    let after = sent()?;
    ensure!(before == after, "{before} UPDATEs, then {after}");
    Ok(())
}

/// The neighbour inside our own AS.
fn inside(rack: &Rack) -> String {
    let own = rack.backends[0].ipv4;
    format!(
        "log stderr all;\nrouter id {own};\n\
         timeformat route iso short ms;\ntimeformat protocol iso short ms;\n\
         protocol device {{ }}\nprotocol direct {{ ipv4; }}\n\
         protocol bgp lb1 {{ local {own} as 64500; neighbor 192.0.2.11 as 64500; direct;\n\
         hold time 3; connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
         ipv4 {{ import all; export none; }}; }}\n"
    )
}

fn config(rack: &Rack, broken: &Path, disabled: &Path, told: &str) -> String {
    let dir = rack.balancers[0].host.dir();
    let (dir, inside) = (dir.display(), rack.backends[0].ipv4);
    let (broken, disabled) = (broken.display(), disabled.display());
    let of_state = |state: &str, med: u32, number: u8, path: &str, preference: u32| {
        format!(
            r#"
[[bgp.rule]]
states = ["{state}"]
announce = true
prefixes = ["198.51.100.10", "198.51.100.11"]
med = {med}
med_step = 5
communities = ["64500:{number}", "64500:1:{number}", "rt:64500:{number}"]
as_path = [{path}]
local_preference = {preference}
"#
        )
    };
    let rules = of_state("up", 100, 1, "64511", 300)
        + &of_state("down", 1000, 2, "64512, 64513", 100)
        + "next_hop_ipv4 = \"192.0.2.77\"\n"
        + &of_state("disabled", 500, 3, "64514", 200);
    format!(
        r#"[node]
name = "w1"

[control]
socket = "{dir}/vipd.sock"

[bfd]
socket = "{dir}/bfd.sock"

[state]
directory = "{dir}/state"

[bgp]
local_as = 64500
router_id = "192.0.2.11"

[[bgp.peer]]
name = "outside"
address = "192.0.2.1"
as = 64501
hold_time = "3s"
connect_retry = "1s"

[[bgp.peer]]
name = "inside"
address = "{inside}"
as = 64500
hold_time = "3s"
connect_retry = "1s"
{rules}
[[bgp.rule]]
peers = ["inside"]
prefixes = ["198.51.100.11"]
announce = false

[[hook]]
name = "tells"
on = ["service"]
command = ["/bin/sh", "-c", "echo $VIPD_STATE >> {told}"]

[[service]]
name = "web"
vips = ["198.51.100.10", "198.51.100.11"]
protocol = "tcp"
port = 80
mode = "local"
disable_file = "{disabled}"

[service.bind]
interface = "lo"
label = "lo:web"

[service.check]
type = "program"
command = ["/usr/bin/test", "!", "-e", "{broken}"]
interval = "1s"
fast_interval = "500ms"
timeout = "1s"
rise = 2
fall = 2
"#
    )
}
