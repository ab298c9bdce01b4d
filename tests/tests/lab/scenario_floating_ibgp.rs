//! The story of docs/scenarios/floating-ip-ibgp.md: two machines serve one
//! address, and announce it to two route reflectors of the provider.
//!
//! ```text
//!   client -- router -- switch --+-- b1, b2   reflectors (BIRD)
//!                                +-- lb1, lb2 machines 1 and 2 (nginx, vipd)
//! ```
//!
//! The client asks every 2 seconds from the beginning to the end.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;
use vipd::bfd::protocol::State;
use vipd_tests::{
    BFD_TIMING, Bfd, Bird, BirdBfd, Decapsulator, Host, Lab, Machine, Nginx, Probes, Rack, Size,
    Vipd, ask, host_prefix, wait_until,
};

use crate::support::{PATIENCE, VIP, VIP6, in_lab, wait_for};

const EXAMPLE: &str = include_str!("../../../examples/floating-ip-ibgp.toml");
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(VIP), IpAddr::V6(VIP6)];
const LINES: [&str; 2] = ["Hello from machine 1", "Greetings from machine 2"];
/// Between two questions of the client.
const ASKS_EVERY: Duration = Duration::from_secs(2);
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
    let router = Bird::start(&rack.router, &router(&rack))?;
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
    let client = Client::start(&rack.client);
    client.wait_for(LINES[0])?;
    ensure_shown(&machines[0])?;
    ensure_one_of_one(&rack, &machines[0], bfd)?;
    ensure_preference_decides(&rack, &machines[1], &client, bfd)?;
    if let Some(bfd) = &machines[0].bfd {
        bfd.wait_for("rr1", State::Up)?;
        bfd.wait_for("rr2", State::Up)?;
    }

    // A reflector stops: the node is degraded, and clients see nothing of it.
    let probes = ADDRESSES.map(|vip| Probes::start(&rack.client, (vip, 80).into()));
    reflectors[0].process().terminate(PATIENCE)?;
    for machine in &machines {
        wait_for_sessions(machine, "degraded")?;
    }
    wait_for_reflected(&rack, &router, false)?;
    let status = machines[0].agent.command("status", &[])?;
    let words = "degraded: 1 of 2 BGP sessions down";
    ensure!(status.contains(words), "no `{words}` in {status}");
    reflectors[0] = reflect(&rack, 0, bfd)?;
    for machine in &machines {
        wait_for_sessions(machine, "healthy")?;
    }
    wait_for_reflected(&rack, &router, true)?;
    for probes in probes {
        probes.finish()?.ensure_all_answered_by(LINES[0])?;
    }

    // Its server dies, and comes back. The sessions stay up.
    let established = machines[0].times_established()?;
    machines[0].server.kill()?;
    wait_for_line(&rack, 1, PATIENCE)?;
    client.wait_for(LINES[1])?;
    wait_for_sessions(&machines[0], "healthy")?;
    ensure!(machines[0].times_established()? == established);
    machines[0].server = Nginx::saying(&rack.balancers[0].host, LINES[0])?;
    wait_for_line(&rack, 0, PATIENCE)?;
    client.wait_for(LINES[0])?;

    // Machine 1 is rebooted: at first it is silent, ..
    rack.unplug_silently(&rack.balancers[0])?;
    wait_for_line(&rack, 1, if bfd { WITHIN_BFD } else { WITHIN_HOLD_TIME })?;
    client.wait_for(LINES[1])?;
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
    wait_for_line(&rack, 0, PATIENCE)?;
    client.wait_for(LINES[0])?;
    // Twice by its preference, by the death of a server, and by the reboot.
    let [one, two] = LINES;
    let heard = client.finish();
    ensure!(heard == [one, two, one, two, one, two, one], "{heard:?}");
    Ok(())
}

#[test]
fn a_floating_address_is_served_by_backends_as_well() {
    in_lab(|lab| {
        let size = Size {
            balancers: 1,
            backends: 3,
        };
        let rack = Rack::build(lab, size)?;
        let _router = Bird::start(&rack.router, &router(&rack))?;
        let _reflectors = [reflect(&rack, 0, false)?, reflect(&rack, 1, false)?];
        let server = &rack.backends[2];
        server.bind_vips(&[VIP.into()])?;
        let _decapsulator = Decapsulator::attach(&server.host, &["192.0.2.11/32"])?;
        let _server = Nginx::saying(&server.host, LINES[1])?;
        let machine = &rack.balancers[0];
        machine
            .host
            .write_secret("cluster.secret", "00112233445566778899aabbccddeeff\n")?;
        let pins = machine.host.pins().join("vipd");
        let mut text = config(machine, 0, false);
        for (old, new) in [
            (
                "mode = \"local\"\nbind = false\n",
                "mode = \"ipip\"\n".to_owned(),
            ),
            (
                "vips = [\"198.51.100.10\", \"2001:db8:100::10\"]",
                "vips = [\"198.51.100.10\"]".to_owned(),
            ),
            (
                "name = \"machine1\"\n",
                format!(
                    "name = \"machine1\"\ncluster_secret_file = \"cluster.secret\"\n\
                     [dataplane]\ninterfaces = [\"eth0\"]\npin_path = \"{}\"\n",
                    pins.display()
                ),
            ),
            (
                "[service.check]\n",
                format!(
                    "[[service.backend]]\nname = \"server\"\naddress = \"{}\"\n\
                     [service.check]\n",
                    server.ipv4
                ),
            ),
        ] {
            ensure!(text.contains(old), "{old} in {text}");
            text = text.replace(old, &new);
        }
        let _agent = Vipd::start(&machine.host, &text)?;
        wait_until("the backend answers", PATIENCE, || {
            let line = ask(&rack.client, (VIP, 80).into())?;
            ensure!(line == LINES[1], "answered by `{line}`");
            Ok(())
        })
    });
}

/// The client of the story, and what it has read, in order.
struct Client {
    heard: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    fn start(host: &Host) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (host, heard, stop) = (host.clone(), Arc::clone(&heard), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let next = Instant::now() + ASKS_EVERY;
                    // While nobody answers it has nothing to read.
                    if let Ok(line) = ask(&host, (VIP, 80).into()) {
                        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                        if heard.last() != Some(&line) {
                            heard.push(line);
                        }
                    }
                    sleep(next.saturating_duration_since(Instant::now()));
                }
            }
        });
        Self {
            heard,
            stop,
            thread: Some(thread),
        }
    }

    /// The lines it has read, each time another one than before.
    fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock();
        heard.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait_for(&self, line: &str) -> Result<()> {
        wait_until(&format!("the client reads `{line}`"), PATIENCE, || {
            let heard = self.heard();
            ensure!(heard.last().is_some_and(|last| last == line), "{heard:?}");
            Ok(())
        })
    }

    fn finish(self) -> Vec<String> {
        self.heard()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

/// With one address one of one is announced, with two of them two of two.
fn ensure_one_of_one(rack: &Rack, machine: &Running, bfd: bool) -> Result<()> {
    let text = config(&rack.balancers[0], 0, bfd);
    let one = text.replace(", \"2001:db8:100::10\"]", "]");
    for (text, counts) in [(&one, "1/1"), (&text, "2/2")] {
        machine.agent.reload(text)?;
        wait_until(&format!("{counts} is shown"), PATIENCE, || {
            let table = machine.agent.show_bgp(&[])?;
            let rows = table.matches(counts).count();
            ensure!(rows == 2, "{rows} rows have {counts}: {table}");
            Ok(())
        })?;
    }
    Ok(())
}

/// It is the local preference that decides, and no tie-break: with a higher one
/// machine 2 has all, and with a lower one nothing.
fn ensure_preference_decides(
    rack: &Rack,
    machine: &Running,
    client: &Client,
    bfd: bool,
) -> Result<()> {
    let text = config(&rack.balancers[1], 1, bfd);
    let higher = text.replace("local_preference = 100", "local_preference = 300");
    for (text, index) in [(&higher, 1), (&text, 0)] {
        machine.agent.reload(text)?;
        wait_for_line(rack, index, PATIENCE)?;
        client.wait_for(LINES[index])?;
    }
    Ok(())
}

/// What runs on a machine.
struct Running {
    agent: Vipd,
    server: Nginx,
    bfd: Option<Bfd>,
}

impl Running {
    /// How often the session with each reflector was established.
    fn times_established(&self) -> Result<[Value; 2]> {
        let times = |peer| anyhow::Ok(self.agent.peer(peer)?["established_count"].clone());
        Ok([times("rr1")?, times("rr2")?])
    }

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
    // Busy processors answer late now and then; that is no death.
    let mut text = EXAMPLE.replace("timeout = \"500ms\"", "timeout = \"1s\"");
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

/// The router has the addresses of machine 1 by the first reflector, or nothing by it.
fn wait_for_reflected(rack: &Rack, router: &Bird, reflected: bool) -> Result<()> {
    let name = rack.backends[0].host.name();
    let sentence = format!("{name} reflects: {reflected}");
    wait_until(&sentence, PATIENCE, || {
        for vip in ADDRESSES {
            let routes = router.routes(&host_prefix(vip))?;
            let route = routes.iter().find(|route| route.session == name);
            let to = route.and_then(|route| route.via);
            let wanted = reflected.then(|| rack.balancers[0].address_like(vip));
            ensure!(to == wanted, "{vip}: {routes:?}");
        }
        Ok(())
    })
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
