//! A drain, from the control socket to the decision and back to the status.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use axum::{Json, Router, routing::post};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::timeout,
};
use vipd::{
    api::{self, Client},
    config::Config,
    departure,
    engine::{Decision, Engine, Plan},
    events::Recorder,
    overrides::{Act, Answer, Keeper, Order, Overrides},
    status,
    views::{Start, Views},
};
use vipd_control::{
    health::Initial,
    model::{Backend, Service},
    standing::Standing,
};

const SERVICES: &str = r#"
[node]
name = "lb1"

[dataplane]
interfaces = ["eth0"]

[[service]]
name = "web"
vips = ["198.51.100.10"]
protocol = "tcp"
port = 80
mode = "ipip"

[[service.backend]]
name = "b1"
address = "192.0.2.21"

[[service.backend]]
name = "b2"
address = "192.0.2.22"
"#;

/// An engine without probes and data plane, behind a control socket.
struct Node {
    client: Client,
    decision: watch::Receiver<Decision>,
    plans: watch::Sender<Plan>,
    plan: Plan,
    socket: PathBuf,
    /// Where orders are kept.
    directory: PathBuf,
    /// Orders to the agent's main loop, which there is none of.
    departures: mpsc::Receiver<departure::Request>,
    /// Nobody tells of changes, but somebody could.
    _ends: (
        mpsc::Sender<vipd_control::health_table::Change>,
        watch::Sender<Arc<Config>>,
    ),
}

impl Node {
    fn start(name: &str, drained: &str) -> Self {
        let (config, _) = Config::parse(SERVICES, "vipd.toml").expect("a configuration");
        let plan = Plan {
            model: Arc::new(config.model.clone()),
            secret: [0; 16],
            linger: config.linger,
            bgp: None,
            doubt: config.doubt.clone(),
        };
        let is_drained = |_: &Service, backend: &Backend| &*backend.name == drained;
        let directory = std::env::temp_dir().join(format!("vipd-{name}-{}", std::process::id()));
        let ordered = Keeper::read(&directory).expect("a good file");
        let ordered =
            ordered.unwrap_or_else(|| Overrides::of_drained(&plan.model, is_drained, 1000));
        let (recorder, history) = Recorder::new();
        let (events, asked) = mpsc::channel(1);
        tokio::spawn(history.run(asked));
        let up = |_: &Service, _: &Backend| Initial::Up;
        let engine = Engine::new(plan.clone(), &up, ordered, recorder.clone());
        let keeper = Keeper::new(&directory, Overrides::default(), engine.overrides());
        let decision = engine.decision();
        let (config_in, config) = watch::channel(Arc::new(config));
        let views = Views {
            started: Start::now(),
            path: "vipd.toml".into(),
            config,
            decision: decision.clone(),
            health: engine.health(),
            overrides: engine.overrides(),
            latencies: Arc::clone(recorder.latencies()),
            announced: watch::channel(Default::default()).1,
            standings: watch::channel(Default::default()).1,
            peers: watch::channel(Default::default()).1,
            bfd: watch::channel(Default::default()).1,
            dataplane: None,
            findings: watch::channel(Arc::from([])).1,
            maintenance: watch::channel(Default::default()).1,
            arrivals: watch::channel(None).1,
            lateness: Arc::default(),
            hooks: watch::channel(Default::default()).1,
            local: watch::channel(Arc::default()).1,
        };
        let (changes, changed) = mpsc::channel(1);
        let (plans, plans_out) = watch::channel(plan.clone());
        let (orders, orders_out) = mpsc::channel(1);
        let (departure, departures) = mpsc::channel(1);
        tokio::spawn(engine.run(changed, plans_out, orders_out));
        let socket = socket(name);
        let listener = api::listen(&socket).expect("a socket");
        let client = Client::new(&socket);
        let router = api::router(
            views,
            api::Asked {
                reload: mpsc::channel(1).0,
                orders,
                keeper: Some(keeper),
                events,
                departure,
            },
            None,
        );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            client,
            decision,
            plans,
            plan,
            socket,
            directory,
            departures,
            _ends: (changes, config_in),
        }
    }

    async fn order(&self, target: &str, drained: bool, force: bool) -> Answer {
        let target = target.parse().expect("a target");
        let act = match drained {
            true => Act::Drain {
                target,
                deadline_seconds: None,
            },
            false => Act::Undrain(target),
        };
        let order = Order {
            act,
            force,
            by: "anna".to_owned(),
            reason: None,
        };
        self.client.order(&order).await.expect("an answer")
    }

    /// What is decided, after an answer or later.
    fn standing(&self) -> Vec<Standing> {
        let decision = self.decision.borrow();
        decision.desired.services[0].standing.clone()
    }

    /// Standing and drain in the status.
    async fn shown(&self) -> Vec<(String, bool)> {
        let status = self.client.status().await.expect("a status");
        let shown = |backend: &status::Backend| (backend.standing.clone(), backend.drained);
        status.services[0].backends.iter().map(shown).collect()
    }
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("vipd-{name}-{}.sock", std::process::id()))
}

/// Runs `vipd` with the words of a command line, and the socket.
async fn vipd(socket: &Path, words: &str) -> Output {
    let mut command = command(socket, words);
    let output = spawn_blocking(move || command.output()).await;
    output.expect("no panic").expect("vipd can be run")
}

fn command(socket: &Path, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vipd"));
    command.args(words.split(' ')).arg("--socket").arg(socket);
    command
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn who_waits_for_no_answer_any_more_has_given_up_the_order() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let mut node = Node::start("given-up", "");
    let order = departure::Order {
        act: departure::Act::Begin,
        by: String::new(),
    };
    let order = node.client.depart(&order);
    let given_up = timeout(Duration::from_millis(500), order).await;
    assert!(given_up.is_err(), "{given_up:?}");
    let order = timeout(PATIENCE, node.departures.recv()).await;
    let (_, mut answer) = order.expect("in time").expect("an order");
    let closed = timeout(PATIENCE, answer.closed()).await;
    assert!(closed.is_ok(), "it would be carried out all the same");
}

#[tokio::test]
async fn an_order_is_in_force_when_its_answer_comes() {
    use Standing::{Available, Draining};
    let node = Node::start("orders", "");
    assert_eq!(node.standing(), [Available, Available]);

    let answer = node.order("web/b1", true, false).await;
    assert!(answer.done, "{answer:?}");
    assert_eq!(node.standing(), [Draining, Available], "{answer:?}");
    let expected = [("draining".to_owned(), true), ("up".to_owned(), false)];
    assert_eq!(node.shown().await, expected);

    let answer = node.order("web/b2", true, false).await;
    assert!(!answer.done, "{answer:?}");
    assert_eq!(node.standing(), [Draining, Available], "{answer:?}");
    let answer = node.order("web/b2", true, true).await;
    assert!(answer.done, "{answer:?}");
    assert_eq!(node.standing(), [Draining, Draining], "{answer:?}");

    for backend in ["web/b1", "web/b2"] {
        let answer = node.order(backend, false, false).await;
        assert!(answer.done, "{answer:?}");
    }
    assert_eq!(node.standing(), [Available, Available]);

    let answer = node.order("web/b9", true, false).await;
    assert_eq!(
        answer.message,
        "service web has no backend b9; it has b1, b2"
    );
}

#[tokio::test]
async fn what_the_maps_remember_is_drained_from_the_start_and_through_a_reload() {
    use Standing::{Available, Draining};
    let mut node = Node::start("memory", "b2");
    assert_eq!(node.standing(), [Available, Draining]);

    let mut plan = node.plan.clone();
    let model = Arc::make_mut(&mut plan.model);
    let service = Arc::make_mut(&mut model.services[0]);
    service.vips = vec![IpAddr::from([198, 51, 100, 11]).into()];
    let moved = service.vips.clone();
    node.plans.send_replace(plan);
    let followed = node.decision.wait_for(|decision| {
        let services = &decision.desired.services;
        services.iter().any(|plan| plan.service.vips == moved)
    });
    drop(followed.await.expect("an engine"));
    assert_eq!(node.standing(), [Available, Draining]);
    assert_eq!(
        node.order("web/b2", true, false).await.message,
        "web/b2 is drained already"
    );
}

#[tokio::test]
async fn an_order_is_written_down_when_its_answer_comes_and_a_clear_forgets_it() {
    let node = Node::start("kept", "");
    let check = |words: &'static str, code: i32, said: &'static str| {
        let output = vipd(&node.socket, words);
        async move {
            let output = output.await;
            let streams = [&output.stdout, &output.stderr];
            let text = streams.map(|bytes| String::from_utf8_lossy(bytes)).concat();
            assert_eq!(output.status.code(), Some(code), "{words}: {text}");
            assert!(text.contains(said), "{words}: {text}");
        }
    };
    let kept = || {
        let overrides = Keeper::read(&node.directory).expect("a good file");
        let overrides = overrides.unwrap_or_default();
        let shown = overrides.iter();
        let shown = shown.map(|(target, over)| format!("{target} {}", over.will.label()));
        shown.collect::<Vec<_>>()
    };
    check("disable web/b1 --reason kernel", 0, "its flows end").await;
    assert_eq!(kept(), ["web/b1 disabled"]);
    assert_eq!(node.standing(), [Standing::Dead, Standing::Available]);
    check("overrides", 0, "kernel").await;
    check(
        "status",
        0,
        "1 override differs from the configuration: web/b1 disabled",
    )
    .await;
    check("drain web/b1", 1, "`vipd enable web/b1` first").await;
    check("disable web", 0, "web is disabled").await;
    check("drain web", 2, "SERVICE/BACKEND").await;
    assert_eq!(kept(), ["web disabled", "web/b1 disabled"]);
    check("enable web/b1", 0, "takes new flows again").await;
    assert_eq!(kept(), ["web disabled"]);
    check("drain web/b2 --deadline 1s", 0, "after 1 s it leaves").await;
    let mut decision = node.decision.clone();
    let over = decision.wait_for(|decision| {
        let plan = &decision.desired.services[0];
        plan.standing == [Standing::Available, Standing::Dead]
    });
    let over = timeout(Duration::from_secs(20), over).await;
    drop(over.expect("its deadline comes").expect("an engine"));
    check("why web/b2", 0, "the deadline of its drain has come").await;
    check(
        "events --json --since 1h",
        0,
        r#""step":"order","service":"web","backend":"b2""#,
    )
    .await;
    check("overrides --clear", 0, "as configured again: web, web/b2").await;
    assert_eq!(kept(), Vec::<String>::new());
    assert_eq!(node.standing(), [Standing::Available; 2]);
    check("overrides", 0, "all is as configured").await;
}

#[tokio::test]
async fn the_exit_code_tells_how_a_drain_has_ended() {
    #[track_caller]
    fn check(output: &Output, code: i32, words: &str) {
        let streams = [&output.stdout, &output.stderr];
        let said = streams.map(|bytes| String::from_utf8_lossy(bytes)).concat();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let node = Node::start("codes", "");
    let output = vipd(&node.socket, "drain --wait web/b1").await;
    check(&output, 0, "web/b1: there is no data plane here");
    let output = vipd(&node.socket, "drain web/b2 --wait").await;
    check(&output, 1, "web/b2 is not drained: it is the last one");
    let output = vipd(&node.socket, "drain web/b1 --wait --timeout 1").await;
    check(&output, 3, "web/b1 is not known to be empty after 1 s");
    let output = vipd(&node.socket, "drain web/b1 --timeout 1").await;
    check(&output, 2, "--wait");
    let output = vipd(&node.socket, "drain --help").await;
    check(&output, 0, "Exit codes:");

    // An agent that takes the order and is not heard of again.
    let socket = socket("lost");
    let answer = || async {
        Json(Answer {
            done: true,
            message: "web/b1 is drained".to_owned(),
        })
    };
    let router = Router::new().route("/v1/order", post(answer));
    let listener = api::listen(&socket).expect("a socket");
    tokio::spawn(async move { axum::serve(listener, router).await });
    let output = vipd(&socket, "drain web/b1 --wait --timeout 1").await;
    let _ = fs::remove_file(&socket);
    check(&output, 4, "the agent has been silent for ");
}

#[tokio::test]
async fn a_command_ends_quietly_when_nobody_reads() {
    let node = Node::start("unread", "");
    for words in ["status", "status --json", "drain web/b1 --wait"] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut command = command(&node.socket, words);
        command.stdout(writer);
        let output = spawn_blocking(move || command.output()).await;
        let output = output.expect("no panic").expect("vipd can be run");
        assert_eq!(output.status.code(), Some(141), "{words}: {output:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "",
            "{words}: {output:?}"
        );
    }
}
