//! The agent: starts the rooms of the house, connects them, carries a reload
//! to each, and stops them in good order.
//!
//! ```text
//! probes -> engine -> decision -+-> data plane -> applied --.
//!                               +-> local -> bound ---------+
//!                               |                           v
//!   netlink -> ways ------------'            announce (gate) -> speaker -> peers
//! ```
//!
//! Arrows are watch channels: each holds the latest state, and nobody waits
//! for a slow reader.

mod findings;
mod interfaces;
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
    task::{JoinError, JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

pub(crate) use self::settings::{backends, secret, settings};
use crate::{
    announce,
    api::{self, Reload},
    capture::Captures,
    config::{Config, Dataplane, Found, OnStop},
    dataplane::{
        apply::{Applied, Settings},
        kernel::Kernel,
    },
    departure::{self, Act, Ordered},
    dependencies::Dependencies,
    disable_files::DisableFiles,
    engine::{Plan, said_by},
    events::{Event, Recorder, Step, Subject},
    hooks,
    local::{self, Local},
    memory,
    netlink::Netlink,
    plane,
    probe::Probes,
    request,
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
        Ok(end) => {
            agent.stop(end).await;
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
    disable_files: DisableFiles,
    dependencies: Dependencies,
    settings: watch::Sender<Settings>,
    guarded: watch::Sender<Option<Dataplane>>,
    linger: watch::Sender<Duration>,
    closing: watch::Sender<Ordered>,
    maintenance: watch::Sender<Ordered>,
    recorder: Recorder,
    departures: mpsc::Receiver<departure::Request>,
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    orders: watch::Sender<local::Orders>,
    found: watch::Receiver<Arc<[Found]>>,
    local: watch::Receiver<Arc<Local>>,
    netlink: Netlink,
    plane: Option<Plane>,
    /// XDP may be on interfaces that the configuration does not name.
    elsewhere: bool,
    /// The data plane's ends of channels when there is none.
    _idle: Option<Idle>,
    probes: Probes,
    hooks: mpsc::Sender<hooks::Settle>,
    speaker: Speaker,
    findings: watch::Sender<Arc<[String]>>,
    reloads: mpsc::Receiver<Reload>,
    tasks: JoinSet<&'static str>,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Ends of the data plane's channels that nobody writes to.
type Idle = (
    watch::Sender<Arc<Applied>>,
    watch::Sender<Option<String>>,
    watch::Sender<Option<String>>,
);

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
    async fn serve(&mut self) -> anyhow::Result<End> {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Ok(End::Signal),
                _ = self.interrupt.recv() => return Ok(End::Signal),
                Some((order, answer)) = request::next(&mut self.departures) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.depart(&order).await);
                    if order.act == Act::Leave {
                        return Ok(End::Departure);
                    }
                }
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
                Ok(()) = self.found.changed() => self.take_found().await,
                Some(((), reloaded)) = request::next(&mut self.reloads) => {
                    let answer = self.reload().await;
                    // Whoever asked may have gone.
                    let _ = reloaded.send(answer);
                }
            }
        }
    }

    async fn depart(&self, order: &departure::Order) -> departure::Answer {
        let (on, message) = match order.act {
            Act::Begin => (
                true,
                "in maintenance: routers are told to prefer other ways",
            ),
            Act::End => (false, "out of maintenance: announced as before"),
            Act::Leave => (true, "leaving: all routes are withdrawn"),
        };
        let trail = self.recorder.trail();
        self.maintenance.send_replace(Ordered { on, trail });
        let said = format!("{}{message}", said_by(&order.by));
        info!("{said}");
        let event = Event::new(trail, Subject::Node, Step::Order, said);
        self.recorder.record([event]);
        let mut message = message.to_owned();
        if let Err(error) = self.remember(on, &order.by).await {
            message += &format!("; an agent that is started again will not know: {error}");
        }
        departure::Answer {
            message,
            linger_seconds: self.config.borrow().linger.as_secs(),
        }
    }

    /// Has the next agent know whether the node is in maintenance.
    async fn remember(&self, on: bool, by: &str) -> anyhow::Result<()> {
        let mark = departure::Mark::new(&self.config.borrow().state_directory);
        let by = by.to_owned();
        let written = spawn_blocking(move || match on {
            true => mark.set(&by),
            false => mark.clear(),
        });
        // The disk may hang, and nobody else is served meanwhile.
        Ok(timeout(FLUSH, written).await???)
    }

    /// The ordered stop: withdraw, linger while still forwarding, Cease, and
    /// only then take away. If forwarding stays, and routers keep our routes for
    /// the next agent, nothing is withdrawn.
    async fn stop(mut self, end: End) {
        let config = Arc::clone(&self.config.borrow());
        let on_stop = config.dataplane.as_ref().map(|dataplane| dataplane.on_stop);
        let keep = on_stop == Some(OnStop::Keep) && end == End::Signal;
        let serves = !config.bindings.is_empty();
        let keep_local = serves && config.on_stop_local == OnStop::Keep && end == End::Signal;
        let all_stays = (keep || on_stop.is_none()) && (keep_local || !serves);
        let restarts = all_stays && (keep || keep_local) && self.speaker.can_restart();
        if restarts {
            info!("stopping: routers keep our routes for the next agent (graceful restart)");
            self.speaker.restart("vipd restarts").await;
        } else {
            self.withdraw(end, config.linger).await;
            self.speaker
                .stop(match end {
                    End::Signal => "vipd stops",
                    End::Departure => "vipd leaves for maintenance",
                })
                .await;
        }
        hooks::settled(&self.hooks).await;
        self.tasks.abort_all();
        if keep_local {
            info!("addresses of this host stay bound: stop.local = \"keep\"");
        } else {
            let local = Arc::clone(&self.local.borrow());
            local::release_all(&self.netlink, &local).await;
            local::forget(&config.state_directory);
        }
        if !keep && !keep_local && self.maintenance.borrow().on {
            // Whoever starts it again wants it to serve.
            if let Err(error) = self.remember(false, "").await {
                warn!("the node will be in maintenance when it is started again: {error}");
            }
        }
        if !restarts {
            // While the pins are locked: later these routes may be another agent's.
            announce::release_all(&self.netlink).await;
        }
        if let Some(plane) = self.plane {
            let _none = plane.captures.stop().await;
            plane.stop.send_replace(true);
            let _ = spawn_blocking(|| plane.thread.join()).await;
            if keep {
                info!("the data plane stays and forwards on: on_stop = \"keep\"");
            } else {
                match plane.kernel.unload() {
                    Ok(_) => info!("the data plane is taken away"),
                    Err(error) => error!("the data plane stays behind: {error}"),
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

    /// Withdraws all routes, and goes on forwarding until routers have followed.
    async fn withdraw(&mut self, end: End, linger: Duration) {
        let words = "stopping: withdrawing all routes";
        info!("{words}");
        let closing = match end {
            // That was recorded as an order.
            End::Departure => *self.maintenance.borrow(),
            End::Signal => {
                let trail = self.recorder.trail();
                let event = Event::new(trail, Subject::Node, Step::Order, words);
                self.recorder.record([event]);
                Ordered { on: true, trail }
            }
        };
        self.closing.send_replace(closing);
        let mut announced = self.speaker.announced();
        let withdrawn = announced.wait_for(|announced| announced.states.is_empty());
        let _ = timeout(FLUSH, withdrawn).await;
        for peer in self.speaker.flushed(FLUSH).await {
            warn!("{peer} has not taken the withdrawal");
        }
        if self.speaker.has_sessions() {
            info!("forwarding for {linger:?} more; another signal cuts this short");
            tokio::select! {
                () = sleep(linger) => {}
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        }
    }
}

/// Why the agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A signal; another agent may follow.
    Signal,
    /// The host is taken out for maintenance.
    Departure,
}

/// Which task has ended that must not, and how.
fn ended_words(ended: Result<&'static str, JoinError>) -> String {
    match ended {
        Ok(name) => format!("the task `{name}` has ended; this is a defect of vipd"),
        Err(error) => format!("a task has failed: {error}; this is a defect of vipd"),
    }
}
