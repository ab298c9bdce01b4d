//! BFD to backends: evidence against them, and none for them.
//!
//! ```text
//!   lb1 (vipd, vipd bfd) ---- switch ---- b1 (nginx, BIRD's BFD)
//!                                  \----- b2 (nginx, no BFD)
//! ```

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use vipd_tests::{
    AgentConfig, BIRD_BFD_TIMING, Bfd, Bird, Rack, Size, Vipd, start_servers, wait_until,
};

use crate::support::{PATIENCE, VIP, in_lab};

/// Checks that would find a death after minutes, and a return soon: what goes
/// down sooner goes down by BFD.
const CHECK: &str = "interval = \"60s\"\nfast_interval = \"200ms\"\ndown_interval = \"500ms\"\n\
                     timeout = \"2s\"\nrise = 2\nfall = 3\n";

/// Of BFD 100 ms twenty times: a busy machine is not a dead one.
const SERVICE: &str = "slow_start = \"5s\"\n\
                       bfd = { min_tx = \"100ms\", min_rx = \"100ms\", multiplier = 20 }\n";

#[test]
fn a_backend_goes_down_by_bfd_at_once_and_comes_up_by_its_check_and_slowly() {
    in_lab(|lab| {
        let size = Size {
            balancers: 1,
            backends: 2,
        };
        let rack = Rack::build(lab, size)?;
        let _servers = start_servers(&rack, &[VIP.into()])?;
        let balancer = &rack.balancers[0];
        let b1 = &rack.backends[0];
        let (us, them) = (balancer.ipv4, b1.ipv4);
        let mut bird = Bird::start(
            &b1.host,
            &format!(
                "log stderr all;\nrouter id {them};\nprotocol device {{ }}\n\
                 protocol bfd {{ interface \"*\" {{ {BIRD_BFD_TIMING} }}; \
                 neighbor {us} dev \"eth0\" local {them}; }}\n"
            ),
        )?;
        let config = AgentConfig {
            check: CHECK.to_owned(),
            service: SERVICE.to_owned(),
            ..AgentConfig::default()
        };
        let config = config.service("four", VIP.into(), "l2-dsr", &rack.backends);
        let text = config.text(balancer);
        let mut bfd = Bfd::start(&balancer.host, &text)?;
        let agent = Vipd::start(&balancer.host, &text)?;
        wait_for(&agent, "b1", "it is up, and BFD is", |b1| {
            b1["available"] == true && b1["bfd"]["state"] == "Up"
        })?;
        wait_for(&agent, "b2", "no BFD is no evidence", |b2| {
            b2["available"] == true && b2["bfd"]["state"] == "Down"
        })?;
        ensure!(
            backend(&agent, "b1")?["share_percent"] == 100,
            "no slow start at the start"
        );

        bird.process().freeze()?;
        let down = wait_for(&agent, "b1", "it is down, and its flows end", |b1| {
            b1["state"] == "down" && b1["standing"] == "down"
        });
        // Its web server answers all the time: the check alone would bring it up.
        sleep(Duration::from_secs(2));
        let still = backend(&agent, "b1");
        bird.process().signal(Signal::CONT)?;
        down?;
        let still = still?;
        ensure!(still["state"] == "down", "{still}");
        ensure!(still["check"]["code"] == "L7OK", "{still}");
        let log = agent.log();
        let reason = "backend four/b1 is down: BFD: control detection time expired";
        ensure!(log.contains(reason), "{log}");

        let share = |b1: &Value| b1["share_percent"].as_u64().unwrap_or_default();
        wait_for(&agent, "b1", "its check brings it up, slowly", |b1| {
            b1["available"] == true && share(b1) < 100
        })?;
        let status = agent.command("status", &[])?;
        ensure!(status.contains("slow start"), "{status}");
        let slots = |b1: &Value| b1["slots"].as_u64().unwrap_or_default();
        let few = slots(&backend(&agent, "b1")?);
        wait_for(&agent, "b1", "it has the whole", |b1| share(b1) == 100)?;
        let all = slots(&backend(&agent, "b1")?);
        ensure!(0 < few && few < all, "{few} slots of {all}");

        bfd.process().kill()?;
        wait_for(&agent, "b1", "nobody tells of BFD any more", |b1| {
            b1["bfd"]["state"] == "unknown"
        })?;
        sleep(Duration::from_secs(1));
        agent.ensure_backend("b1", true)
    });
}

/// Waits until `is_so` of this backend.
fn wait_for(
    agent: &Vipd,
    name: &str,
    sentence: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Result<()> {
    wait_until(&format!("{name}: {sentence}"), PATIENCE, || {
        let backend = backend(agent, name)?;
        ensure!(is_so(&backend), "{backend}");
        Ok(())
    })
}

fn backend(agent: &Vipd, name: &str) -> Result<Value> {
    let status = agent.status()?;
    let backends = status["services"][0]["backends"].as_array();
    let mut backends = backends.into_iter().flatten();
    let found = backends.find(|backend| backend["name"] == name);
    found
        .cloned()
        .with_context(|| format!("no {name} in {status}"))
}
