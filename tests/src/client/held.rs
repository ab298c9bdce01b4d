//! Long-lived connections with data flowing, to see what an old customer
//! meets.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{http, runtime};
use crate::host::Host;

/// How long opening one may take.
const OPENING: Duration = Duration::from_secs(5);
/// How long the last answer may take when all is judged.
const LAST_ANSWER: Duration = Duration::from_secs(3);

/// Keep-alive connections, each asking every 100 to 200 ms.
#[derive(Debug)]
pub struct Held {
    judge: watch::Sender<bool>,
    broken: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<Result<HeldReport>>>,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct HeldConnection {
    /// The backend that gave the first answer.
    pub backend: String,
    /// How many answers came.
    pub answers: usize,
    /// When and why it broke: reset, closed, no answer at the end, or answered
    /// by another backend. `None` when it lived to the end.
    pub broken: Option<(Instant, String)>,
}

/// All connections.
#[derive(Clone, Debug, Default)]
pub struct HeldReport {
    /// Each connection.
    pub connections: Vec<HeldConnection>,
}

impl Held {
    /// Opens `number` connections and returns when each has had its first
    /// answer. Fails if one has none.
    pub fn open(host: &Host, target: SocketAddr, number: usize) -> Result<Self> {
        let (judge, judged) = watch::channel(false);
        let (opened, all_open) = std::sync::mpsc::channel();
        let broken = Arc::new(AtomicUsize::new(0));
        let thread = thread::spawn({
            let (host, broken) = (host.clone(), Arc::clone(&broken));
            move || {
                host.enter(|| runtime()?.block_on(hold(target, number, &opened, judged, &broken)))
            }
        });
        let mut held = Self {
            judge,
            broken,
            thread: Some(thread),
        };
        if all_open.recv().is_err() {
            // The thread has ended early, and its result tells why.
            held.join()?;
            bail!("the held connections ended before they were open");
        }
        Ok(held)
    }

    /// How many are known to be broken so far.
    pub fn broken_so_far(&self) -> usize {
        self.broken.load(Ordering::Relaxed)
    }

    /// Ends it: each connection must give a last answer.
    pub fn judge(mut self) -> Result<HeldReport> {
        self.judge.send_replace(true);
        self.join()
    }

    fn join(&mut self) -> Result<HeldReport> {
        let thread = self.thread.take().context("judged already")?;
        thread
            .join()
            .ok()
            .context("the held connections panicked")?
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.judge.send_replace(true);
        if self.thread.is_some() {
            // Its findings are not wanted any more.
            let _ = self.join();
        }
    }
}

impl HeldReport {
    /// Those that broke.
    pub fn broken(&self) -> impl Iterator<Item = &HeldConnection> {
        self.connections.iter().filter(|c| c.broken.is_some())
    }

    /// Those that broke though they were not on `backend`.
    pub fn broken_elsewhere(&self, backend: &str) -> impl Iterator<Item = &HeldConnection> {
        self.broken().filter(move |c| c.backend != backend)
    }

    /// Connections per backend.
    pub fn by_backend(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for connection in &self.connections {
            *counts.entry(connection.backend.clone()).or_default() += 1;
        }
        counts
    }
}

async fn hold(
    target: SocketAddr,
    number: usize,
    opened: &std::sync::mpsc::Sender<()>,
    judged: watch::Receiver<bool>,
    broken: &Arc<AtomicUsize>,
) -> Result<HeldReport> {
    let mut opening = JoinSet::new();
    for _ in 0..number {
        opening.spawn(open_one(target));
    }
    let mut streams = Vec::with_capacity(number);
    while let Some(result) = opening.join_next().await {
        streams.push(result??);
    }
    let mut running = JoinSet::new();
    for (index, (stream, backend)) in streams.into_iter().enumerate() {
        let (judged, broken) = (judged.clone(), Arc::clone(broken));
        running.spawn(async move {
            // 100 to 200 ms, spread over the connections.
            let pause = Duration::from_millis(100 + 100 * index as u64 / number as u64);
            let connection = hold_one(stream, backend, pause, judged).await;
            if connection.broken.is_some() {
                broken.fetch_add(1, Ordering::Relaxed);
            }
            connection
        });
    }
    // The other side waits for this word, or is gone.
    let _ = opened.send(());
    Ok(HeldReport {
        connections: running.join_all().await,
    })
}

async fn open_one(target: SocketAddr) -> Result<(TcpStream, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(target).await.context("connect")?;
        stream.set_nodelay(true)?;
        let backend = http::request(&mut stream, http::Connection::KeepAlive).await?;
        anyhow::Ok((stream, backend))
    };
    timeout(OPENING, exchange)
        .await
        .with_context(|| format!("not open within {OPENING:?}"))?
        .with_context(|| format!("open a connection to {target} that is to be held"))
}

async fn hold_one(
    mut stream: TcpStream,
    backend: String,
    pause: Duration,
    mut judged: watch::Receiver<bool>,
) -> HeldConnection {
    let mut connection = HeldConnection {
        backend,
        answers: 1,
        broken: None,
    };
    let end = loop {
        let last = tokio::select! {
            () = sleep(pause) => false,
            _ = judged.wait_for(|judged| *judged) => true,
        };
        let answer = tokio::select! {
            answer = http::request(&mut stream, http::Connection::KeepAlive) => answer,
            () = too_late(&mut judged) => Err(anyhow::anyhow!("no answer at the end")),
        };
        let same_backend = answer.and_then(|name| {
            ensure!(name == connection.backend, "answered by {name}");
            Ok(())
        });
        match same_backend {
            Ok(()) => connection.answers += 1,
            Err(error) => break Err(error),
        }
        if last {
            break Ok(());
        }
    };
    connection.broken = end
        .err()
        .map(|error| (Instant::now(), format!("{error:#}")));
    connection
}

/// Comes when the judgement is due and the last answer's time is over.
async fn too_late(judged: &mut watch::Receiver<bool>) {
    // A dropped sender is a judgement too.
    let _ = judged.wait_for(|judged| *judged).await;
    sleep(LAST_ANSWER).await;
}
