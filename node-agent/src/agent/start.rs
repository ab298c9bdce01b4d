//! The start: every room is opened and connected, in the order that loses
//! nothing when one of them cannot be.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{info, warn};
use vipd_control::{
    health::Initial,
    model::{Backend, Service},
    standing::Standing,
};

use super::{
    Agent, Plane,
    findings::{self, Findings},
    settings::{self, backends, plan, secret, settings},
};
use crate::{
    announce, api,
    capture::Captures,
    config::Config,
    dataplane::{
        adopt::Adopted,
        apply::{Applier, Settings},
        driver,
        pins::Pins,
    },
    departure::{self, Ordered, arrivals},
    dependencies::Dependencies,
    disable_files::DisableFiles,
    engine::Engine,
    events::{Event, Recorder, Step, Subject},
    hooks,
    inquiry::Inquiry,
    local::{self, Keeper, Remembered},
    metrics,
    netlink::{Netlink, watch::watch_ways},
    overrides::{self, Overrides},
    plane::{self, drops},
    probe::{Probes, Tunnels},
    speaker::Speaker,
    views::{DataplaneViews, Start, Views},
};

/// How often it is said that what is remembered is true to this day.
const REMEMBER: Duration = Duration::from_secs(5);

impl Agent {
    /// Starts everything for a configuration that has been checked.
    ///
    /// # Errors
    ///
    /// When something is not to be had; then nothing is left behind that was not
    /// there before.
    pub(super) async fn start(
        path: &Path,
        config: Config,
        control: UnixListener,
    ) -> anyhow::Result<Self> {
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
        let Findings { errors, warnings } = findings::look(&config, &netlink).await;
        if !errors.is_empty() {
            bail!("{}", errors.join("\n"));
        }
        for warning in &warnings {
            warn!("{warning}");
        }
        let (findings, findings_out) = watch::channel(warnings.into());
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

        // Longer no router keeps what it was told.
        let restart_time = config.bgp.as_ref().map(|bgp| bgp.restart_time);
        let fresh = restart_time.unwrap_or(Duration::MAX);
        let remembered = Remembered::read(&config.state_directory, fresh);
        if remembered.has_served() {
            info!("an agent before has served addresses of this host: they are taken over");
        }

        let (changes, changed) = mpsc::channel(1024);
        let plan = plan(&config, secret);
        let (plans, plans_out) = watch::channel(plan.clone());
        let (recorder, history) = Recorder::new();
        let (events, events_out) = mpsc::channel(4);
        spawn(&mut tasks, "history", history.run(events_out));
        let (written, ordered) = ordered(&config, &adopted);
        let believed = |service: &Service, backend: &Backend| match adopted
            .standing(service, backend.address)
        {
            None => remembered
                .initial(service, backend)
                .unwrap_or(service.check.timing.initial),
            Some(Standing::Available | Standing::Draining) => Initial::Up,
            Some(Standing::Failing) => Initial::Failing,
            Some(Standing::Dead) => Initial::Down,
        };
        let engine = Engine::new(plan, &believed, ordered, recorder.clone());
        let overrides = engine.overrides();
        let keeper = overrides::Keeper::new(&config.state_directory, written, overrides.clone());
        spawn(&mut tasks, "overrides", keeper.clone().run());
        let disable_files = DisableFiles::default();
        disable_files.follow(&config.model).await;
        let engine = engine.with_disable_files(disable_files.present());
        spawn(&mut tasks, "disable files", disable_files.clone().run());
        let decision = engine.decision();
        let health = engine.health();
        let (ways_in, ways) = watch::channel(Default::default());
        let (problems_in, problems) = watch::channel(Default::default());
        let (settings_in, settings_out) = watch::channel(Settings::default());
        let tunnels = Tunnels::new(ways.clone(), problems.clone(), settings_out.clone());
        let (probes, rounds) = Probes::new(engine.health(), changes, tunnels);
        probes.configure(&config.model);
        spawn(&mut tasks, "checks", rounds);

        let (wanted, wanted_out) = watch::channel(backends(&config));
        let (guarded, guarded_out) = watch::channel(config.dataplane.clone());
        let (applied_in, applied) = watch::channel(Default::default());
        let (fault_in, fault) = watch::channel(None);
        let (interfaces_in, interfaces) = watch::channel(Vec::new());
        let (drops_in, drops) = watch::channel(None);
        let mut dataplane_views = None;
        let mut running = None;
        let mut captures = None;
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
                interfaces,
            });
            let counters = Arc::clone(&applier.tables().counters);
            let watched = guarded_out.clone();
            spawn(
                &mut tasks,
                "drops",
                drops::watch(counters, watched, ways.clone(), drops_in),
            );
            let program = kernel.program_id()?;
            let capturing = Captures::new(Pins::new(&dataplane.pin_path), applied.clone());
            let (stop, stop_out) = watch::channel(false);
            let inputs = driver::Inputs {
                decision: decision.clone(),
                ways,
                problems,
                settings: settings_out,
                applied: applied_in,
                recorder: recorder.clone(),
                stop: stop_out,
            };
            let thread = driver::spawn(applier, inputs, Handle::current())?;
            running = Some(Plane {
                kernel,
                thread,
                stop,
                captures: capturing.clone(),
            });
            spawn(
                &mut tasks,
                "netlink",
                watch_ways(wanted_out, ways_in, problems_in),
            );
            let guard = plane::Guard {
                netlink: netlink.clone(),
                program,
                capturing: capturing.program(),
                config: guarded_out,
                settings: settings_in.clone(),
                fault: fault_in,
                interfaces: interfaces_in,
            };
            spawn(&mut tasks, "guard", guard.run());
            captures = Some((capturing, applied.clone()));
        } else {
            // Nothing to apply, and never a fault.
            idle = Some((applied_in, fault_in, drops_in));
        }
        let (orders, orders_out) = mpsc::channel(1);
        spawn(
            &mut tasks,
            "engine",
            engine.run(changed, plans_out, orders_out),
        );

        let (local_orders, local_orders_out) = watch::channel(settings::local_orders(&config, 0));
        let (found_in, found_out) = watch::channel(Arc::default());
        let (local_in, local) = watch::channel(Arc::default());
        let inputs = local::Inputs {
            decision: decision.clone(),
            orders: local_orders_out,
            local: local_in,
            found: found_in,
        };
        let served = remembered.has_served();
        spawn(&mut tasks, "local", local::run(inputs, remembered.clone()));
        let memory = Keeper {
            decision: decision.clone(),
            local: local.clone(),
            every: REMEMBER,
        };
        let directory = config.state_directory.as_path().into();
        spawn(&mut tasks, "memory", memory.run(directory, remembered));

        let (announced_in, announced) = watch::channel(Default::default());
        let (standings_in, standings) = watch::channel(Default::default());
        let dependencies = Dependencies::new(netlink.clone(), drops);
        dependencies.follow(&config.model).await;
        spawn(&mut tasks, "dependencies", dependencies.clone().run());
        let (closing, closing_out) = watch::channel(Ordered::default());
        let still = Ordered {
            on: departure::Mark::new(&config.state_directory).is_set(),
            trail: recorder.trail(),
        };
        if still.on {
            let words = "still in maintenance: `vipd maint --end` goes back";
            warn!("{words}");
            let event = Event::new(still.trail, Subject::Node, Step::Order, words);
            recorder.record([event]);
        }
        let (maintenance, maintenance_out) = watch::channel(still);
        let (arrivals_in, arrivals_out) = watch::channel(None);
        let (linger, linger_out) = watch::channel(config.linger);
        let inputs = announce::Inputs {
            decision: decision.clone(),
            applied,
            fault,
            lacks: dependencies.lacks(),
            local: local.clone(),
            closing: closing_out,
            maintenance: maintenance_out.clone(),
            known_by: tokio::time::Instant::now() + known_within(&config),
            linger: linger_out,
            announced: announced_in,
            standings: standings_in,
            recorder: recorder.clone(),
        };
        spawn(
            &mut tasks,
            "announce",
            announce::run(inputs, netlink.clone()),
        );
        let survived = !adopted.services.is_empty() || served;
        let mut speaker = Speaker::new(
            announced.clone(),
            survived,
            config.bfd_socket.clone(),
            recorder.clone(),
        );
        spawn(&mut tasks, "BFD of backends", probes.hear(speaker.bfd()));
        speaker.follow_bfd(config.has_bfd());
        speaker.configure(config.bgp.as_ref()).await;

        let (config_in, config_out) = watch::channel(config);
        spawn(
            &mut tasks,
            "arrivals",
            arrivals::run(maintenance_out.clone(), config_out.clone(), arrivals_in),
        );
        let (tallies_in, tallies) = watch::channel(Default::default());
        let (settling, settling_out) = mpsc::channel(1);
        let sources = hooks::Sources::new(
            decision.clone(),
            Arc::clone(&health),
            standings.clone(),
            speaker.peers(),
        );
        spawn(
            &mut tasks,
            "hooks",
            hooks::run(config_out.clone(), sources, tallies_in, settling_out),
        );
        let views = Views {
            started: Start::now(),
            path: path.to_owned(),
            config: config_out.clone(),
            decision,
            health,
            overrides,
            latencies: Arc::clone(recorder.latencies()),
            announced,
            standings,
            peers: speaker.peers(),
            bfd: speaker.bfd(),
            dataplane: dataplane_views,
            findings: findings_out,
            maintenance: maintenance_out,
            arrivals: arrivals_out,
            lateness: probes.lateness(),
            hooks: tallies.clone(),
            local: local.clone(),
        };
        let (reload, reloads) = mpsc::channel(1);
        let (departure, departures) = mpsc::channel(1);
        let inquiry = captures.map(|(captures, applied)| Inquiry {
            pins: captures.pins().clone(),
            netlink: netlink.clone(),
            config: config_out.clone(),
            applied,
            captures,
        });
        let asked = api::Asked {
            reload,
            orders,
            keeper: Some(keeper),
            events,
            departure,
        };
        let api = axum::serve(control, api::router(views.clone(), asked, inquiry));
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
        let mut agent = Self {
            path: path.to_owned(),
            config: config_in,
            plans,
            disable_files,
            dependencies,
            settings: settings_in,
            guarded,
            linger,
            closing,
            maintenance,
            recorder,
            departures,
            wanted,
            orders: local_orders,
            found: found_out,
            local,
            netlink,
            plane: running,
            elsewhere: true,
            _idle: idle,
            probes,
            hooks: settling,
            speaker,
            findings,
            reloads,
            tasks,
            terminate,
            interrupt,
            hangup,
        };
        let config = Arc::clone(&config_out.borrow());
        for message in agent.leave_interfaces(&config).await {
            warn!("{message}");
        }
        if let Some(plane) = &mut agent.plane {
            plane.kernel.settle();
        }
        info!("running with {}: {}", path.display(), config.summary());
        Ok(agent)
    }
}

/// What the file of the overrides says, and what the operator has ordered by that;
/// where it says nothing, by the maps.
fn ordered(config: &Config, adopted: &Adopted) -> (Overrides, Overrides) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let by_maps = || {
        let drained =
            |service: &Service, backend: &Backend| adopted.drained(service, backend.address);
        Overrides::of_drained(&config.model, drained, now)
    };
    match overrides::Keeper::read(&config.state_directory) {
        Ok(Some(overrides)) => (overrides.clone(), overrides),
        Ok(None) => {
            let drained = by_maps();
            let names: Vec<_> = drained.iter().map(|(name, _)| name.to_string()).collect();
            if !names.is_empty() {
                let names = names.join(", ");
                warn!("no file of what was ordered is there; drained by the maps: {names}");
            }
            (Overrides::default(), drained)
        }
        Err(error) => {
            warn!("what was ordered is taken from the maps alone, drains and no more: {error}");
            (Overrides::default(), by_maps())
        }
    }
}

/// After so long routers hear that they have been told everything, whatever is not
/// known by then: soon enough for those that wait for it after a restart.
fn known_within(config: &Config) -> Duration {
    let restart_time = config.bgp.as_ref().map(|bgp| bgp.restart_time);
    restart_time.unwrap_or_default() / 2
}

/// Raises the limit of open files to what is allowed: ten thousand checks want
/// as many sockets.
pub(super) fn raise_file_limit() {
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
