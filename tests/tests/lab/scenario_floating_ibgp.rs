//! The story of docs/scenarios/floating-ip-ibgp.md: two machines serve one
//! address, and announce it to two route reflectors of the provider.
//!
//! ```text
//!   client -- router -- switch --+-- b1, b2   reflectors (BIRD)
//!                                +-- lb1, lb2 machines 1 and 2 (nginx, vipd)
//! ```
//!
//! The client of the story asks every 2 seconds, this one as soon as it has an
//! answer.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use vipd::bfd::protocol::State;
use vipd_tests::{
    BFD_TIMING, Bfd, Bird, BirdBfd, Lab, Machine, Nginx, Rack, Size, Vipd, ask, wait_until,
};

use crate::support::{PATIENCE, VIP, VIP6, in_lab, wait_for};

const EXAMPLE: &str = include_str!("../../../examples/floating-ip-ibgp.toml");
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(VIP), IpAddr::V6(VIP6)];
const LINES: [&str; 2] = ["Hello from machine 1", "Greetings from machine 2"];
/// In which a session can be while it is not up.
const ON_THE_WAY: [&str; 5] = ["Idle", "Connect", "Active", "OpenSent", "OpenConfirm"];
/// The hold time of the example, and some.
const WITHIN_HOLD_TIME: Duration = Duration::from_secs(15);
/// BFD finds a death after 2 s here.
const WITHIN_BFD: Duration = Duration::from_secs(6);

#[test]
fn a_floating_address_follows_the_machine_that_lives() {
    in_lab(|lab| play(lab, false));
}

#[test]
fn a_floating_address_follows_the_machine_that_lives_with_bfd() {
    in_lab(|lab| play(lab, true));
}

fn play(lab: &Lab, bfd: bool) -> Result<()> {
    let size = Size {
        balancers: 2,
        backends: 2,
    };
    let rack = Rack::build(lab, size)?;
    let _router = Bird::start(&rack.router, &router(&rack))?;
    let mut reflectors = vec![reflect(&rack, 0, bfd)?];
    let mut machines = vec![boot(&rack, 0, bfd)?, boot(&rack, 1, bfd)?];

    // One reflector does not run yet.
    for machine in &machines {
        wait_for(&machine.agent, "rr1", "it is up", |peer| {
            peer["state"] == "Established"
        })?;
        let peer = machine.agent.peer("rr2")?;
        let state = peer["state"].as_str().unwrap_or_default();
        ensure!(ON_THE_WAY.contains(&state), "{peer}");
        wait_for_sessions(machine, "degraded")?;
    }
    reflectors.push(reflect(&rack, 1, bfd)?);
    for machine in &machines {
        wait_for_sessions(machine, "healthy")?;
    }
    wait_for_line(&rack, 0, PATIENCE)?;
    ensure_shown(&machines[0])?;
    if let Some(bfd) = &machines[0].bfd {
        bfd.wait_for("rr1", State::Up)?;
        bfd.wait_for("rr2", State::Up)?;
    }

    // A reflector stops: the node is degraded, and clients see nothing of it.
    reflectors[0].process().terminate(PATIENCE)?;
    for machine in &machines {
        wait_for_sessions(machine, "degraded")?;
    }
    for _ in 0..20 {
        ensure_line(&rack, 0)?;
    }
    reflectors[0] = reflect(&rack, 0, bfd)?;
    for machine in &machines {
        wait_for_sessions(machine, "healthy")?;
    }

    // Its server dies, and comes back.
    machines[0].server.kill()?;
    wait_for_line(&rack, 1, PATIENCE)?;
    machines[0].server = Nginx::saying(&rack.balancers[0].host, LINES[0])?;
    wait_for_line(&rack, 0, PATIENCE)?;

    // Machine 1 is rebooted: at first it is silent, ..
    rack.unplug_silently(&rack.balancers[0])?;
    wait_for_line(&rack, 1, if bfd { WITHIN_BFD } else { WITHIN_HOLD_TIME })?;
    wait_for_sessions(&machines[0], "isolated")?;
    let table = machines[0].agent.show_bgp(&[])?;
    ensure!(table.contains("no router hears from this node"), "{table}");
    // .. then nothing of it is left, ..
    machines[0].halt(&rack.balancers[0])?;
    rack.plug_in(&rack.balancers[0])?;
    ensure_line(&rack, 1)?;
    // .. and then it returns.
    machines[0] = boot(&rack, 0, bfd)?;
    wait_for_sessions(&machines[0], "healthy")?;
    wait_for_line(&rack, 0, PATIENCE)
}

/// What runs on a machine.
struct Running {
    agent: Vipd,
    server: Nginx,
    bfd: Option<Bfd>,
}

impl Running {
    fn halt(&mut self, machine: &Machine) -> Result<()> {
        self.agent.process().kill()?;
        self.server.kill()?;
        if let Some(bfd) = &mut self.bfd {
            bfd.process().kill()?;
        }
        let lines = ADDRESSES.map(|vip| format!("addr del {vip} dev lo\n"));
        machine.host.ip(&lines.concat())
    }
}

/// Starts a machine: it binds the addresses itself.
fn boot(rack: &Rack, index: usize, bfd: bool) -> Result<Running> {
    let machine = &rack.balancers[index];
    machine.bind_vips(&ADDRESSES)?;
    let text = config(machine, index, bfd);
    Ok(Running {
        server: Nginx::saying(&machine.host, LINES[index])?,
        bfd: match bfd {
            true => Some(Bfd::start(&machine.host, &text)?),
            false => None,
        },
        agent: Vipd::start(&machine.host, &text)?,
    })
}

/// The example, as its head says to change it, with places of the lab's own.
fn config(machine: &Machine, index: usize, bfd: bool) -> String {
    let mut text = EXAMPLE.to_owned();
    if index == 1 {
        text = text
            .replace("name = \"machine1\"", "name = \"machine2\"")
            .replace("192.0.2.11", "192.0.2.12")
            .replace("2001:db8:1::11", "2001:db8:1::12")
            .replace("local_preference = 200", "local_preference = 100");
    }
    if bfd {
        let keys: Vec<_> = BFD_TIMING.lines().collect();
        let keys = format!("hold_time = \"9s\"\nbfd = {{ {} }}\n", keys.join(", "));
        text = text.replace("hold_time = \"9s\"\n", &keys);
    }
    let dir = machine.host.dir();
    let dir = dir.display();
    format!(
        "{text}\n[control]\nsocket = \"{dir}/vipd.sock\"\n\
         [bfd]\nsocket = \"{dir}/bfd.sock\"\n[state]\ndirectory = \"{dir}/state\"\n"
    )
}

/// The provider's router, which the client is behind.
fn router(rack: &Rack) -> String {
    let further = "hold time 9;";
    Bird::router_config(64500) + &Bird::sessions(&rack.backends, 64500, further)
}

/// Starts one of the provider's reflectors.
fn reflect(rack: &Rack, index: usize, bfd: bool) -> Result<Bird> {
    let Machine { host, ipv4, .. } = &rack.backends[index];
    let (head, of_client) = match bfd {
        true => (BirdBfd::protocol(), "direct; bfd on;"),
        false => (String::new(), ""),
    };
    let channel = "import all; export where source = RTS_BGP;";
    let sessions = [
        ("lb1", "192.0.2.11"),
        ("lb2", "192.0.2.12"),
        ("provider", "192.0.2.1"),
    ];
    let sessions = sessions.map(|(name, address)| {
        let of_client = if name == "provider" { "" } else { of_client };
        format!(
            "protocol bgp {name} from reflected {{ neighbor {address} as 64500; {of_client} }}\n"
        )
    });
    let config = format!(
        "log stderr all;
router id {ipv4};
timeformat protocol iso short ms;
timeformat route iso short ms;
protocol device {{ }}
protocol direct {{ ipv4; ipv6; }}
{head}template bgp reflected {{
    local {ipv4} as 64500;
    rr client;
    rr cluster id 192.0.2.254;
    hold time 9;
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
    ipv4 {{ {channel} }};
    ipv6 {{ {channel} }};
}}
{}",
        sessions.concat()
    );
    Bird::start(host, &config)
}

fn wait_for_sessions(machine: &Running, state: &str) -> Result<()> {
    wait_until(
        &format!("its sessions are {state}"),
        WITHIN_HOLD_TIME,
        || {
            let status = machine.agent.status()?;
            let sessions = &status["sessions"];
            ensure!(
                sessions["state"] == state,
                "{sessions}: {}",
                status["peers"]
            );
            Ok(())
        },
    )
}

/// Both addresses are answered by this machine.
fn ensure_line(rack: &Rack, index: usize) -> Result<()> {
    for vip in ADDRESSES {
        let line = ask(&rack.client, (vip, 80).into())?;
        ensure!(line == LINES[index], "{vip} is answered by `{line}`");
    }
    Ok(())
}

fn wait_for_line(rack: &Rack, index: usize, within: Duration) -> Result<()> {
    let sentence = format!("the client reads `{}`", LINES[index]);
    wait_until(&sentence, within, || ensure_line(rack, index))
}

/// What an operator sees of a session that is up.
fn ensure_shown(machine: &Running) -> Result<()> {
    wait_until("all is shown", PATIENCE, || {
        let table = machine.agent.show_bgp(&[])?;
        for words in ["machine1", "healthy: 2 of 2", "192.0.2.21:179", "2/2"] {
            ensure!(table.contains(words), "no {words} in {table}");
        }
        let session = machine.agent.show_bgp(&["rr1"])?;
        for words in [
            "rr1 (iBGP)",
            "Established",
            "here                   AS 64500, router id 192.0.2.11, 192.0.2.11:",
            "there                  AS 64500, router id 192.0.2.21, 192.0.2.21:",
            "2 of 2 announced",
            "198.51.100.10/32 via 192.0.2.11",
            "2001:db8:100::10/128 via 2001:db8:1::11",
            "local preference 200",
        ] {
            ensure!(session.contains(words), "no `{words}` in {session}");
        }
        let status = machine.agent.status()?;
        for vip in status["vips"].as_array().into_iter().flatten() {
            let bound = &vip["bound"];
            ensure!(
                bound["interface"] == "lo" && bound["by_vipd"] == false,
                "{vip}"
            );
        }
        Ok(())
    })
}
