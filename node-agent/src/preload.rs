//! `vipd load`: the data plane without an agent.
//!
//! Attaches, pins, and fills the maps from the configuration once, with every
//! backend taken for healthy. Packets are forwarded from then on; nobody checks
//! or announces anything until an agent takes over.

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::bail;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use vipd_control::{
    decide::{Decider, Desired},
    model::{Backend, Service},
};

use crate::{
    agent,
    config::{Config, Dataplane},
    dataplane::{
        apply::{Applier, Reach, Settings},
        kernel::{Kernel, Mode},
    },
    netlink::{Netlink, watch::watch_ways, way::Ways},
    plane,
};

/// How long the kernel may take to find the neighbours.
const NEIGHBOURS: Duration = Duration::from_secs(2);

/// Loads and fills. Gives back in words what was done and how to see and undo
/// it.
///
/// # Errors
///
/// When a data plane is there already, or the kernel refuses.
pub async fn load(path: &Path, config: &Config, dataplane: &Dataplane) -> anyhow::Result<String> {
    let file = path.display();
    let pins = dataplane.pin_path.display();
    let mut report = String::new();
    let netlink = Netlink::connect()?;
    let secret = agent::secret(config)?;
    let (mut kernel, tables) = Kernel::load(Some(&dataplane.pin_path), false)?;
    let mut applier = Applier::new(tables, Settings::default());
    if !applier.adopted().services.is_empty() {
        bail!(
            "a filled data plane is pinned at {pins} already: `vipd run --config {file}` takes it \
             over, `vipd unload --config {file}` takes it away"
        );
    }
    let macs = plane::attach(&mut kernel, dataplane, &netlink).await?;
    plane::detach_others(&mut kernel, dataplane, &netlink).await?;
    applier.configure(agent::settings(config, secret, macs));
    for name in &dataplane.interfaces {
        let link = plane::interface(&netlink, name.as_str()).await?;
        let mode = plane::attached(&link).map_or("no", Mode::name);
        writeln!(report, "{name}: XDP program attached in {mode} mode")?;
    }

    let reach = Reach {
        ways: ways(config).await.into(),
        ..Reach::default()
    };
    let everybody = |_: &Service, _: &Backend| true;
    let desired = Decider::new(secret).decide(&config.model, &everybody, &Desired::default());
    let mut applied = applier.apply(&desired, &reach, true, Instant::now());
    while let Some(at) = applied.retry_at {
        sleep(at.saturating_duration_since(Instant::now())).await;
        applied = applier.apply(&desired, &reach, true, Instant::now());
    }
    for (subject, fault) in &applied.faults {
        writeln!(report, "! {subject}: {fault}")?;
    }
    for backend in agent::backends(config) {
        if !reach.ways.contains_key(&backend) {
            writeln!(
                report,
                "! backend {backend}: no way to it is known; its packets are dropped"
            )?;
        }
    }
    write!(
        report,
        "{}: forwarded from now on, every backend taken for healthy\n\
         pinned at {pins}\n\
         see it with    ip link show; ls {pins}\n\
         run the agent  vipd run --config {file}\n\
         undo with      vipd unload --config {file}\n",
        config.summary()
    )?;
    kernel.settle();
    Ok(report)
}

/// The ways to all backends, as far as they are found in time.
async fn ways(config: &Config) -> Ways {
    let backends = agent::backends(config);
    let count = backends.len();
    let (_wanted, wanted_out) = watch::channel(backends);
    let (ways_in, mut ways) = watch::channel(Ways::default());
    let (problems, _problems_out) = watch::channel(Default::default());
    let task = tokio::spawn(watch_ways(wanted_out, ways_in, problems));
    let complete = ways.wait_for(|ways| ways.len() == count);
    let _ = timeout(NEIGHBOURS, complete).await;
    task.abort();
    ways.borrow_and_update().clone()
}
