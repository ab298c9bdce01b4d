//! An agent that serves the farm and checks every backend of every service,
//! and the memory it takes.

use std::{
    fmt::Write as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use vipd_tests::{Host, Lab, Nginx, Rack, Size, Vipd, usage::anonymous_memory};

use crate::farm::{HOSTS, RING_SIZE, SERVICES, address, host, name};

/// How long it may take until nearly all backends are found up.
const PATIENCE: Duration = Duration::from_secs(300);
/// A check that is late on a busy machine comes again a minute later.
const NEARLY_ALL: f64 = 0.99;
/// How long it is watched then.
const WATCHED: Duration = Duration::from_secs(20);
/// In so long it has read its configuration, and filled the maps.
const STARTING: Duration = Duration::from_secs(2);
/// Between two looks at its memory.
const LOOK: Duration = Duration::from_millis(100);
/// Looks between two questions for its status.
const ASK: u32 = 100;

/// The most anonymous memory that an agent had, in bytes.
pub struct Most {
    /// While it started.
    pub starting: u64,
    /// While all backends came up, and then.
    pub running: u64,
}

/// Runs one.
pub fn most_memory() -> Result<Most> {
    let lab = Lab::new()?;
    let rack = Rack::build(
        &lab,
        Size {
            balancers: 1,
            backends: 1,
        },
    )?;
    // One machine is all hosts.
    let farm = &rack.backends[0].host;
    let addresses: String = (0..HOSTS)
        .map(|n| format!("address add {}/24 dev eth0\n", host(n)))
        .collect();
    farm.ip(&addresses)?;
    let _server = Nginx::start(farm)?;

    // As the unit does it: checks want a socket each.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    let balancer = &rack.balancers[0].host;
    let config = balancer.write("vipd.toml", &config(balancer)?)?;
    let mut command = Command::new(Vipd::binary()?);
    let agent = balancer.spawn("vipd", command.arg("run").arg("--config").arg(config))?;
    let start = Instant::now();
    let mut most = Most {
        starting: 0,
        running: 0,
    };
    let mut up = None;
    for look in 1.. {
        let now = anonymous_memory(agent.pid())?;
        if start.elapsed() < STARTING {
            most.starting = most.starting.max(now);
        } else {
            most.running = most.running.max(now);
        }
        if up.is_none() && start.elapsed() > PATIENCE {
            bail!(
                "the backends were not found up within {PATIENCE:?}: {:?}\n{}",
                share_up(balancer),
                agent.log()
            );
        }
        // Busy with its first checks, it may not answer in time.
        let ask = up.is_none() && look % ASK == 0;
        if ask && share_up(balancer).is_ok_and(|share| share > NEARLY_ALL) {
            up = Some(Instant::now());
        }
        if up.is_some_and(|up| up.elapsed() > WATCHED) {
            break;
        }
        thread::sleep(LOOK);
    }
    Ok(most)
}

/// Which part of the backends takes flows.
fn share_up(balancer: &Host) -> Result<f64> {
    let vipd = Vipd::binary()?;
    let socket = balancer.dir().join("vipd.sock");
    let words = ["status", "--json", "--socket"].map(String::from);
    let words: Vec<String> = words
        .into_iter()
        .chain([socket.display().to_string()])
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let status: Value = serde_json::from_str(&balancer.run(&vipd.display().to_string(), &words)?)?;
    let services = status["services"].as_array().context("no services")?;
    let backends = services
        .iter()
        .filter_map(|service| service["backends"].as_array())
        .flatten();
    let (up, all) = backends.fold((0, 0), |(up, all), backend| {
        (up + u32::from(backend["available"] == true), all + 1)
    });
    Ok(f64::from(up) / f64::from(all))
}

fn config(balancer: &Host) -> Result<String> {
    let (dir, pins) = (balancer.dir(), balancer.pins().join("vipd"));
    let (dir, pins) = (dir.display(), pins.display());
    let mut text = format!(
        r#"[control]
socket = "{dir}/vipd.sock"

[log]
level = "warn"

[dataplane]
interfaces = ["eth0"]
pin_path = "{pins}"
"#
    );
    for service in 0..SERVICES {
        let (vip, port) = address(service);
        write!(
            text,
            r#"
[[service]]
name = "{}"
vips = ["{vip}"]
protocol = "tcp"
port = {port}
mode = "ipip"
ring_size = {RING_SIZE}
[service.check]
type = "tcp"
port = 80
interval = "1m"
timeout = "10s"
rise = 1
"#,
            name(service)
        )?;
        for number in 0..HOSTS {
            let address = host(number);
            write!(
                text,
                "[[service.backend]]\nname = \"h{number}\"\naddress = \"{address}\"\n"
            )?;
        }
    }
    Ok(text)
}
