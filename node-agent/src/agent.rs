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

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sha2::{Digest, Sha256};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::sleep,
};
use tracing::{error, info, warn};
use vipd_abi::{FlowKey, MACS};
use vipd_control::health::Initial;

use crate::{
    announce,
    api::{self, Reload, ReloadAnswer},
    config::{Config, Dataplane, OnStop},
    dataplane::{
        adopt::Adopted,
        apply::{Applied, Applier, Settings},
        driver,
        kernel::Kernel,
        record::TunnelSources,
    },
    engine::{Engine, Plan},
    metrics,
    netlink::{Netlink, watch::watch_ways},
    plane,
    preflight::{self, Severity},
    probe::Probes,
    speaker::Speaker,
    views::{DataplaneViews, Views},
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
    raise_file_limit();
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
    settings: watch::Sender<Settings>,
    guarded: watch::Sender<Option<Dataplane>>,
    linger: watch::Sender<Duration>,
    closing: watch::Sender<bool>,
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    netlink: Netlink,
    plane: Option<Plane>,
    /// The data plane's ends of channels when there is none.
    _idle: Option<Idle>,
    probes: Probes,
    speaker: Speaker,
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
}

impl Agent {
    async fn start(path: &Path, config: Config, control: UnixListener) -> anyhow::Result<Self> {
        // Signals first: one that comes during the start is not lost.
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        // What can fail for reasons outside comes before the data plane.
        let metrics_listener = match config.metrics {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .with_context(|| format!("cannot serve metrics on {address}"))?,
            ),
            None => None,
        };
        let netlink = Netlink::connect()?;
        let findings = findings(&config, &netlink).await?;
        let secret = secret(&config)?;
        let config = Arc::new(config);
        let mut tasks = JoinSet::new();

        let loaded = match &config.dataplane {
            Some(dataplane) => {
                let debug = tracing::enabled!(tracing::Level::DEBUG);
                let (mut kernel, tables, macs) = plane::load(dataplane, &netlink, debug).await?;
                if debug {
                    plane::forward_logs(&mut kernel)?;
                }
                let settings = settings(&config, secret, macs);
                Some((kernel, Applier::new(tables, settings), settings))
            }
            None => None,
        };
        let adopted = loaded
            .as_ref()
            .map_or_else(Adopted::default, |(_, applier, _)| {
                applier.adopted().clone()
            });
        if !adopted.services.is_empty() {
            info!(
                "a data plane with {} services was found and is taken over",
                adopted.services.len()
            );
        }

        let (observations, observed) = mpsc::channel(1024);
        let plan = plan(&config, secret);
        let (plans, plans_out) = watch::channel(plan.clone());
        let engine = Engine::new(plan, &|service, backend| match adopted
            .available(service, backend.address)
        {
            None => Initial::Unknown,
            Some(true) => Initial::Up,
            Some(false) => Initial::Down,
        });
        let decision = engine.decision();
        let health = engine.health();
        let mut probes = Probes::new(observations);
        probes.configure(&config.model);

        let (wanted, wanted_out) = watch::channel(backends(&config));
        let (ways_in, ways) = watch::channel(Default::default());
        let (problems_in, problems) = watch::channel(Default::default());
        let (settings_in, settings_out) = watch::channel(Settings::default());
        let (guarded, guarded_out) = watch::channel(config.dataplane.clone());
        let (applied_in, applied) = watch::channel(Default::default());
        let (fault_in, fault) = watch::channel(None);
        let mut dataplane_views = None;
        let mut running = None;
        let mut idle = None;
        if let (Some((mut kernel, applier, settings)), Some(dataplane)) =
            (loaded, &config.dataplane)
        {
            settings_in.send_replace(settings);
            dataplane_views = Some(DataplaneViews {
                pin_path: dataplane.pin_path.clone(),
                applied: applied.clone(),
                fault: fault.clone(),
                problems: problems.clone(),
                counters: Arc::clone(&applier.tables().counters),
                config: guarded_out.clone(),
            });
            let program = kernel.program_id()?;
            let (stop, stop_out) = watch::channel(false);
            let inputs = driver::Inputs {
                decision: decision.clone(),
                ways,
                problems,
                settings: settings_out,
                applied: applied_in,
                stop: stop_out,
            };
            let thread = driver::spawn(applier, inputs, Handle::current())?;
            running = Some(Plane {
                kernel,
                thread,
                stop,
            });
            spawn(
                &mut tasks,
                "netlink",
                watch_ways(wanted_out, ways_in, problems_in),
            );
            let guard = plane::Guard {
                netlink: netlink.clone(),
                program,
                config: guarded_out,
                settings: settings_in.clone(),
                fault: fault_in,
            };
            spawn(&mut tasks, "guard", guard.run());
        } else {
            // Nothing to apply, and never a fault.
            idle = Some((applied_in, fault_in));
        }
        spawn(&mut tasks, "engine", engine.run(observed, plans_out));

        let (announced_in, announced) = watch::channel(Default::default());
        let (admissions_in, admissions) = watch::channel(Default::default());
        let (closing, closing_out) = watch::channel(false);
        let (linger, linger_out) = watch::channel(config.linger);
        let inputs = announce::Inputs {
            decision: decision.clone(),
            applied,
            fault,
            closing: closing_out,
            linger: linger_out,
            announced: announced_in,
            admissions: admissions_in,
        };
        spawn(
            &mut tasks,
            "announce",
            announce::run(inputs, netlink.clone()),
        );
        let mut speaker = Speaker::new(announced);
        speaker.configure(config.bgp.as_ref()).await;

        let (config_in, config_out) = watch::channel(config);
        let views = Views {
            started: Instant::now(),
            path: path.to_owned(),
            config: config_out.clone(),
            decision,
            health,
            admissions,
            peers: speaker.peers(),
            dataplane: dataplane_views,
            findings: findings.into(),
        };
        let (reload, reloads) = mpsc::channel(1);
        let api = axum::serve(control, api::router(views.clone(), reload));
        spawn(&mut tasks, "control socket", async {
            // Its errors are those of single connections.
            let _ = api.await;
        });
        if let Some(listener) = metrics_listener {
            let page = axum::serve(listener, metrics::router(views));
            spawn(&mut tasks, "metrics", async {
                let _ = page.await;
            });
        }
        info!(
            "running with {}: {}",
            path.display(),
            config_out.borrow().summary()
        );
        Ok(Self {
            path: path.to_owned(),
            config: config_in,
            plans,
            settings: settings_in,
            guarded,
            linger,
            closing,
            wanted,
            netlink,
            plane: running,
            _idle: idle,
            probes,
            speaker,
            reloads,
            tasks,
            terminate,
            interrupt,
            hangup,
        })
    }

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
                peer = self.speaker.ended() => {
                    error!("the session with {peer} has failed, a defect of vipd; it starts anew");
                    sleep(ANEW).await;
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

    /// Loads the configuration anew. A bad one changes nothing.
    async fn reload(&mut self) -> ReloadAnswer {
        let answer = match self.try_reload().await {
            Ok(messages) => ReloadAnswer {
                applied: true,
                messages,
            },
            Err(messages) => ReloadAnswer {
                applied: false,
                messages,
            },
        };
        for message in &answer.messages {
            if answer.applied {
                info!("reload: {message}");
            } else {
                error!("reload refused, the old configuration stays in force: {message}");
            }
        }
        answer
    }

    async fn try_reload(&mut self) -> Result<Vec<String>, Vec<String>> {
        let (mut new, warnings) = Config::load(&self.path).map_err(|error| {
            let findings = error.findings.iter();
            findings.map(ToString::to_string).collect::<Vec<_>>()
        })?;
        let old = Arc::clone(&self.config.borrow());
        if let Some(needs) = needs_restart(&old, &new) {
            return Err(vec![format!(
                "{needs} can change only with a restart of the agent"
            )]);
        }
        let secret = secret(&new).map_err(|error| vec![format!("{error:#}")])?;
        new.share_with(&old);
        let mut messages: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        // What can fail comes first, so that a refusal changes nothing.
        let mut macs = self.settings.borrow().macs;
        if let (Some(plane), Some(dataplane)) = (&mut self.plane, &new.dataplane)
            && old.dataplane.as_ref() != Some(dataplane)
        {
            macs = plane::attach(&mut plane.kernel, dataplane, &self.netlink)
                .await
                .map_err(|error| vec![format!("{error:#}")])?;
        }
        let new = Arc::new(new);
        self.linger.send_replace(new.linger);
        self.guarded.send_replace(new.dataplane.clone());
        if let (Some(plane), Some(dataplane)) = (&mut self.plane, &new.dataplane)
            && let Err(error) =
                plane::detach_others(&mut plane.kernel, dataplane, &self.netlink).await
        {
            messages.push(format!("XDP may still be on other interfaces: {error:#}"));
        }
        self.settings.send_replace(settings(&new, secret, macs));
        self.wanted.send_replace(backends(&new));
        self.plans.send_replace(plan(&new, secret));
        self.probes.configure(&new.model);
        self.speaker.configure(new.bgp.as_ref()).await;
        messages.push(if new == old {
            "the file has not changed; secrets were read anew".to_owned()
        } else {
            format!("in force: {}", new.summary())
        });
        self.config.send_replace(new);
        Ok(messages)
    }

    /// The ordered stop: withdraw, linger while still forwarding, Cease, and
    /// only then take away.
    async fn stop(mut self) {
        let config = Arc::clone(&self.config.borrow());
        info!("stopping: withdrawing all routes");
        self.closing.send_replace(true);
        let mut announced = self.speaker.announced();
        let withdrawn = announced.wait_for(|announced| announced.is_empty());
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
        if let Some(plane) = self.plane {
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
                if let Some(dataplane) = &config.dataplane {
                    plane::wait_detached(dataplane, &self.netlink).await;
                }
            }
        }
        announce::release_all(&self.netlink).await;
        if let Err(error) = std::fs::remove_file(&config.control_socket) {
            warn!("{}: {error}", config.control_socket.display());
        }
        info!("stopped");
    }
}

/// Raises the limit of open files to what is allowed: ten thousand checks want
/// as many sockets.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(
            "the limit of open files stays at {:?}: {error}",
            limit.current
        );
    }
}

/// Starts a task that runs as long as the agent.
fn spawn(
    tasks: &mut JoinSet<&'static str>,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(async move {
        task.await;
        name
    });
}

/// Which task has ended that must not, and how.
fn ended_words(ended: Result<&'static str, JoinError>) -> String {
    match ended {
        Ok(name) => format!("the task `{name}` has ended; this is a defect of vipd"),
        Err(error) => format!("a task has failed: {error}; this is a defect of vipd"),
    }
}

/// What cannot change while the agent runs, if it does change.
fn needs_restart(old: &Config, new: &Config) -> Option<&'static str> {
    let pins = |config: &Config| config.dataplane.as_ref().map(|d| d.pin_path.clone());
    let mode = |config: &Config| config.dataplane.as_ref().map(|d| d.xdp_mode);
    let checks = [
        (
            old.dataplane.is_some() != new.dataplane.is_some(),
            "whether there is a [dataplane]",
        ),
        (pins(old) != pins(new), "dataplane.pin_path"),
        (mode(old) != mode(new), "dataplane.xdp_mode"),
        (old.control_socket != new.control_socket, "control.socket"),
        (old.metrics != new.metrics, "[metrics]"),
        (old.log_level != new.log_level, "log.level"),
    ];
    checks
        .into_iter()
        .find(|(changed, _)| *changed)
        .map(|(_, what)| what)
}

fn plan(config: &Config, secret: [u8; 16]) -> Plan {
    Plan {
        model: Arc::new(config.model.clone()),
        secret,
        linger: config.linger,
    }
}

/// What holds for all services, as configured.
pub(crate) fn settings(config: &Config, secret: [u8; 16], macs: [u64; MACS]) -> Settings {
    let [low, high] = [0, 8].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&secret[at..at + 8]);
        u64::from_le_bytes(word)
    });
    Settings {
        macs,
        flow_key: FlowKey([low, high]),
        sources: config
            .dataplane
            .as_ref()
            .map_or_else(TunnelSources::default, |dataplane| TunnelSources {
                ipv4: dataplane.tunnel_source_ipv4,
                ipv6: dataplane.tunnel_source_ipv6,
            }),
    }
}

/// The cluster secret as sixteen bytes: the first of its SHA-256. Without one,
/// zeroes, which everybody knows.
///
/// # Errors
///
/// When the file cannot be read.
pub(crate) fn secret(config: &Config) -> anyhow::Result<[u8; 16]> {
    let Some(file) = &config.node.cluster_secret else {
        return Ok([0; 16]);
    };
    let digest = Sha256::digest(file.read()?.bytes());
    let mut secret = [0; 16];
    secret.copy_from_slice(&digest[..16]);
    Ok(secret)
}

/// All addresses that packets may have to be sent to.
pub(crate) fn backends(config: &Config) -> BTreeSet<IpAddr> {
    let services = config.model.services.iter();
    services
        .flat_map(|service| service.backends.iter().map(|backend| backend.address))
        .collect()
}

/// What an operator should know before traffic comes.
///
/// # Errors
///
/// When traffic would be lost, so that the agent must not start.
async fn findings(config: &Config, netlink: &Netlink) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    if config.node.cluster_secret.is_none() {
        found.push(
            "no node.cluster_secret_file: the flow hash is keyed with a value that everybody \
             knows, so flows can be aimed at one backend"
                .to_owned(),
        );
    }
    for finding in preflight::inspect(config, netlink).await {
        match finding.severity {
            Severity::Error => bail!("{finding}"),
            Severity::Warning => found.push(finding.to_string()),
            Severity::Info => info!("{finding}"),
        }
    }
    for finding in &found {
        warn!("{finding}");
    }
    Ok(found)
}
