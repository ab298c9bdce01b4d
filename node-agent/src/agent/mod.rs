//! The agent: starts the rooms of the house, connects them, carries a reload
//! to each, and stops them in good order.
//!
//! ```text
//! probes -> engine -> decision -+-> data plane -> applied --.
//!                               |                           v
//!   netlink -> ways ------------'            announce (gate) -> speaker -> peers
//! ```
//!
//! Arrows are watch channels: each holds the latest state, and nobody waits
//! for a slow reader.

mod findings;
mod reload;
mod settings;
mod start;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::sleep,
};
use tracing::{error, info, warn};

pub(crate) use self::settings::{backends, secret, settings};
use crate::{
    announce,
    api::{self, Reload},
    capture::Captures,
    config::{Config, Dataplane, OnStop},
    dataplane::{
        apply::{Applied, Settings},
        kernel::Kernel,
    },
    drain,
    engine::{Decision, Plan},
    memory,
    netlink::Netlink,
    plane,
    probe::Probes,
    speaker::{Speaker, Wake},
};

/// How long peers may take to hear of a withdrawal when the agent stops.
const FLUSH: Duration = Duration::from_secs(2);

/// How long a session that has failed stays down, lest it fail in a loop.
const ANEW: Duration = Duration::from_secs(1);

/// Runs the agent until it is told to stop.
///
/// # Errors
///
/// When it cannot start; once it runs, faults are shown and not fatal.
pub async fn run(path: &Path, config: Config) -> anyhow::Result<()> {
    start::raise_file_limit();
    // The file has been read.
    memory::give_back();
    let socket = config.control_socket.clone();
    let control = api::listen(&socket)
        .with_context(|| format!("cannot serve the control socket {}", socket.display()))?;
    let started = Agent::start(path, config, control).await;
    let mut agent = started.inspect_err(|_| {
        let _ = std::fs::remove_file(&socket);
    })?;
    match agent.serve().await {
        Ok(()) => {
            agent.stop().await;
            Ok(())
        }
        Err(error) => {
            // Nobody decides any more: routers must leave at once. Packets
            // that still come are forwarded by what is pinned, and the next
            // agent takes it over.
            agent.speaker.stop("vipd has failed").await;
            Err(error)
        }
    }
}

struct Agent {
    path: PathBuf,
    config: watch::Sender<Arc<Config>>,
    plans: watch::Sender<Plan>,
    decision: watch::Receiver<Decision>,
    settings: watch::Sender<Settings>,
    guarded: watch::Sender<Option<Dataplane>>,
    linger: watch::Sender<Duration>,
    closing: watch::Sender<bool>,
    /// Nobody turns it yet.
    _maintenance: watch::Sender<bool>,
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    netlink: Netlink,
    plane: Option<Plane>,
    /// The data plane's ends of channels when there is none.
    _idle: Option<Idle>,
    probes: Probes,
    speaker: Speaker,
    findings: watch::Sender<Arc<[String]>>,
    reloads: mpsc::Receiver<Reload>,
    tasks: JoinSet<&'static str>,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Ends of the data plane's channels that nobody writes to.
type Idle = (watch::Sender<Arc<Applied>>, watch::Sender<Option<String>>);

/// The loaded data plane and the thread that writes it.
struct Plane {
    kernel: Kernel,
    thread: thread::JoinHandle<()>,
    stop: watch::Sender<bool>,
    captures: Captures,
}

impl Agent {
    /// Serves reloads until a signal asks to stop.
    ///
    /// # Errors
    ///
    /// When a task has ended that must not.
    async fn serve(&mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Ok(()),
                _ = self.interrupt.recv() => return Ok(()),
                wake = self.speaker.wake() => {
                    if let Wake::Ended(peer) = wake {
                        error!(
                            "the session with {peer} has failed, a defect of vipd; it starts anew"
                        );
                        sleep(ANEW).await;
                    }
                    let config = Arc::clone(&self.config.borrow());
                    self.speaker.configure(config.bgp.as_ref()).await;
                }
                Some(ended) = self.tasks.join_next() => {
                    bail!("{}", ended_words(ended));
                }
                _ = self.hangup.recv() => {
                    self.reload().await;
                }
                Some(reload) = self.reloads.recv() => {
                    let answer = self.reload().await;
                    // Whoever asked may have gone.
                    let _ = reload.send(answer);
                }
            }
        }
    }

    /// The ordered stop: withdraw, linger while still forwarding, Cease, and
    /// only then take away.
    async fn stop(mut self) {
        let config = Arc::clone(&self.config.borrow());
        info!("stopping: withdrawing all routes");
        self.closing.send_replace(true);
        let mut announced = self.speaker.announced();
        let withdrawn = announced.wait_for(|announced| announced.states.is_empty());
        let _ = tokio::time::timeout(FLUSH, withdrawn).await;
        for peer in self.speaker.flushed(FLUSH).await {
            warn!("{peer} has not taken the withdrawal");
        }
        if self.speaker.has_sessions() {
            info!(
                "forwarding for {:?} more; another signal cuts this short",
                config.linger
            );
            tokio::select! {
                () = sleep(config.linger) => {}
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        }
        self.speaker.stop("vipd stops").await;
        self.tasks.abort_all();
        // While the pins are locked: later these routes may be another agent's.
        announce::release_all(&self.netlink).await;
        if let Some(plane) = self.plane {
            let _none = plane.captures.stop().await;
            plane.stop.send_replace(true);
            let _ = tokio::task::spawn_blocking(|| plane.thread.join()).await;
            let keep = config
                .dataplane
                .as_ref()
                .is_some_and(|dataplane| dataplane.on_stop == OnStop::Keep);
            if keep {
                info!("the data plane stays and forwards on: on_stop = \"keep\"");
            } else {
                match plane.kernel.unload() {
                    Ok(_) => info!("the data plane is taken away"),
                    Err(error) => error!("the data plane stays behind: {error}"),
                }
                if let Some(drained) = drain::drained(&self.decision.borrow().desired) {
                    warn!(
                        "the drain of {drained} is forgotten with it; with on_stop = \"keep\" it \
                         would not be"
                    );
                }
                if let Some(dataplane) = &config.dataplane {
                    plane::wait_detached(dataplane, &self.netlink).await;
                }
            }
        }
        if let Err(error) = std::fs::remove_file(&config.control_socket) {
            warn!("{}: {error}", config.control_socket.display());
        }
        info!("stopped");
    }
}

/// Which task has ended that must not, and how.
fn ended_words(ended: Result<&'static str, JoinError>) -> String {
    match ended {
        Ok(name) => format!("the task `{name}` has ended; this is a defect of vipd"),
        Err(error) => format!("a task has failed: {error}; this is a defect of vipd"),
    }
}
