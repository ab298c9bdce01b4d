//! How a lab test runs: few at a time, and with the logs when it fails.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;
use vipd_tests::{AgentConfig, Lab, Rack, Site, Size, Vipd, ask, wait_until};

/// Labs that stand at the same time; each is a dozen busy processes.
const LABS: usize = 3;

/// How long something may take that takes a moment, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` in a lab of its own, and prints the lab's logs if it fails.
pub fn in_lab(test: impl FnOnce(&Lab) -> Result<()>) {
    run(test, 1);
}

/// The same while no other lab stands: for a test that fills what all of them share, the
/// processors and the kernel's queues of packets.
pub fn in_lab_alone(test: impl FnOnce(&Lab) -> Result<()>) {
    run(test, LABS);
}

fn run(test: impl FnOnce(&Lab) -> Result<()>, permits: usize) {
    let _permits = Permits::wait(permits);
    let lab = Lab::new().expect("a lab can be made");
    let outcome = catch_unwind(AssertUnwindSafe(|| test(&lab)));
    if !matches!(outcome, Ok(Ok(()))) {
        eprintln!("{}", lab.logs());
    }
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => resume_unwind(panic),
    }
}

/// Whose turn it is to take permits: who wants them all waits for no later ones.
static TURN: Mutex<()> = Mutex::new(());
static FREE: Mutex<usize> = Mutex::new(LABS);
static FREED: Condvar = Condvar::new();

struct Permits(usize);

impl Permits {
    fn wait(number: usize) -> Self {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = FREED
            .wait_while(free, |free| *free < number)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= number;
        Self(number)
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        FREED.notify_one();
    }
}

/// The VIPs of most labs.
pub const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// See [`VIP`].
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10);

/// One balancer and one backend, for tests of what the agent says to others.
pub const SMALL: Size = Size {
    balancers: 1,
    backends: 1,
};

/// Asks the VIP so many times and fails unless each backend answers, and
/// nobody else.
pub fn ensure_spread(site: &Site, vip: IpAddr, questions: usize) -> Result<()> {
    let mut answered = BTreeSet::new();
    for _ in 0..questions {
        answered.insert(ask(&site.rack.client, (vip, 80).into())?);
    }
    let backends: BTreeSet<String> = site
        .rack
        .backends
        .iter()
        .map(|backend| backend.host.name().to_owned())
        .collect();
    ensure!(answered == backends, "{vip} is answered by {answered:?}");
    Ok(())
}

/// Two VIPs, one of each family, that are always up, and a session with short
/// timers and these further lines.
pub fn two_vips(rack: &Rack, further: &str) -> AgentConfig {
    let mut config = AgentConfig::default()
        .udp_service("four", (VIP.into(), 53), "l2-dsr", &rack.backends)
        .udp_service("six", (VIP6.into(), 53), "l2-dsr", &rack.backends);
    config.peer += further;
    config
}

/// Starts an agent on the first balancer.
pub fn start_agent(rack: &Rack, config: &AgentConfig) -> Result<Vipd> {
    let balancer = &rack.balancers[0];
    Vipd::start(&balancer.host, &config.text(balancer))
}

/// Waits until the agent says of the router what is `good`.
pub fn wait_for_peer(agent: &Vipd, sentence: &str, good: impl Fn(&Value) -> bool) -> Result<()> {
    wait_for(agent, "router", sentence, good)
}

/// Waits until the agent says of this peer what is `good`.
pub fn wait_for(
    agent: &Vipd,
    name: &str,
    sentence: &str,
    good: impl Fn(&Value) -> bool,
) -> Result<()> {
    wait_until(&format!("{name}: {sentence}"), PATIENCE, || {
        let peer = agent.peer(name)?;
        ensure!(good(&peer), "{peer}");
        Ok(())
    })
}

/// Waits until the session with the router is established for the `count`th
/// time.
pub fn wait_for_session(agent: &Vipd, count: u64) -> Result<()> {
    wait_for_peer(agent, "it is established", |peer| {
        peer["state"] == "Established" && peer["established_count"] == count
    })
}
