//! Many established connections, counted one by one: opened at a bounded pace,
//! kept with data flowing, and each told apart by what became of it.

mod flow;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    runtime::Builder,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{host::Host, wait::wait_until};

/// Connections opened in one go, and how often.
const RAMP: (usize, Duration) = (20, Duration::from_millis(10));
/// How long it may take to open them all, or to end what is to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keep-alive connections from one host to one target, each of which asks
/// every [`FlowPlan::pause`].
#[derive(Debug)]
pub struct Flows {
    plan: FlowPlan,
    orders: UnboundedSender<usize>,
    book: Arc<Mutex<Book>>,
    thread: Option<thread::JoinHandle<Result<()>>>,
}

/// What connections to keep.
#[derive(Clone, Debug)]
pub struct FlowPlan {
    /// Addresses of the host, used in turn.
    pub sources: Vec<IpAddr>,
    /// Where they lead.
    pub target: SocketAddr,
    /// How many.
    pub number: usize,
    /// Between an answer and the next question; each time between 4/5 and 6/5
    /// of this, so that they do not fall into step.
    pub pause: Duration,
}

/// One connection, from its first answer on.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The backend that gave the first answer.
    pub backend: String,
    /// When that was.
    pub opened: Instant,
    /// How many answers came.
    pub answers: usize,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a connection.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It lives.
    Open,
    /// It was to end, and did after an answer.
    Ended,
    /// It was reset or closed, had no answer for long, or was answered by
    /// another backend.
    Broken {
        /// When that was seen.
        at: Instant,
        /// What was seen.
        why: String,
    },
}

/// All connections there have been.
#[derive(Clone, Debug, Default)]
pub struct FlowReport {
    /// Each one that had a first answer.
    pub flows: Vec<Flow>,
    /// How often one could not be opened, by reason.
    pub not_opened: BTreeMap<String, usize>,
}

/// What is known of the connections, shared with those that drive them.
#[derive(Debug, Default)]
struct Book {
    report: FlowReport,
    /// For each connection, whether it is to end after its next answer.
    to_end: Vec<bool>,
    /// Connections that are being opened.
    opening: usize,
}

impl Flows {
    /// Opens all of them; fails unless each has its first answer.
    pub fn open(host: &Host, plan: FlowPlan) -> Result<Self> {
        let (orders, to_open) = unbounded_channel();
        let book = Arc::new(Mutex::new(Book::default()));
        let thread = thread::spawn({
            let (host, plan, book) = (host.clone(), plan.clone(), Arc::clone(&book));
            move || {
                host.enter(|| {
                    let runtime = Builder::new_current_thread().enable_all().build()?;
                    runtime.block_on(drive(&Arc::new(plan), to_open, &book));
                    Ok(())
                })
            }
        });
        let flows = Self {
            plan,
            orders,
            book,
            thread: Some(thread),
        };
        flows.fill()?;
        Ok(flows)
    }

    /// Opens as many as are missing, and returns when all are open.
    pub fn fill(&self) -> Result<()> {
        let number = self.plan.number;
        wait_until("all connections are open", PATIENCE, || {
            let (open, opening) = {
                let mut book = lock(&self.book);
                let open = book.report.open().count();
                let missing = number.saturating_sub(open + book.opening);
                book.opening += missing;
                self.orders
                    .send(missing)
                    .context("nobody drives the connections any more")?;
                (open, book.opening)
            };
            let report = || self.report().not_opened;
            ensure!(
                open >= number,
                "{open} of {number} are open, {opening} being opened; not opened: {:?}",
                report()
            );
            Ok(())
        })
    }

    /// Ends those that `which` names, as their client wishes, and returns when
    /// they have ended (or broken).
    pub fn end(&self, mut which: impl FnMut(&Flow) -> bool) -> Result<usize> {
        let ending: Vec<usize> = {
            let mut book = lock(&self.book);
            let Book { report, to_end, .. } = &mut *book;
            let named = report.flows.iter().zip(to_end).enumerate();
            named
                .filter(|(_, (flow, _))| flow.is_open() && which(flow))
                .map(|(index, (_, to_end))| {
                    *to_end = true;
                    index
                })
                .collect()
        };
        wait_until("the connections have ended", PATIENCE, || {
            let book = lock(&self.book);
            let open = |index: &&usize| book.report.flows[**index].is_open();
            let left = ending.iter().filter(open).count();
            ensure!(left == 0, "{left} of {} live on", ending.len());
            Ok(())
        })?;
        Ok(ending.len())
    }

    /// What is known so far.
    pub fn report(&self) -> FlowReport {
        lock(&self.book).report.clone()
    }

    /// How many live.
    pub fn open_now(&self) -> usize {
        lock(&self.book).report.open().count()
    }

    /// Each connection must give one more answer; then all are ended.
    pub fn judge(self) -> Result<FlowReport> {
        self.end(|_| true)?;
        Ok(self.report())
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        // The order to open none ends the driver, and with it what still lives.
        let (closed, _) = unbounded_channel();
        self.orders = closed;
        if let Some(thread) = self.thread.take() {
            // What went wrong there is in the report, or is not wanted.
            let _ = thread.join();
        }
    }
}

impl Flow {
    /// Whether it lives.
    pub fn is_open(&self) -> bool {
        matches!(self.fate, Fate::Open)
    }
}

impl FlowReport {
    /// Those that live.
    pub fn open(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(|flow| flow.is_open())
    }

    /// Those that broke.
    pub fn broken(&self) -> impl Iterator<Item = &Flow> {
        let broken = |flow: &&Flow| matches!(flow.fate, Fate::Broken { .. });
        self.flows.iter().filter(broken)
    }

    /// Living connections per backend.
    pub fn open_by_backend(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for flow in self.open() {
            *counts.entry(flow.backend.clone()).or_default() += 1;
        }
        counts
    }
}

/// Opens as many as is ordered, until nobody can order any more.
async fn drive(plan: &Arc<FlowPlan>, mut to_open: UnboundedReceiver<usize>, book: &SharedBook) {
    let mut living = JoinSet::new();
    let mut sources = plan.sources.iter().copied().cycle();
    let (at_once, pause) = RAMP;
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(mut missing) = to_open.recv().await {
        while missing > 0 {
            ticks.tick().await;
            for source in sources.by_ref().take(at_once.min(missing)) {
                living.spawn(flow::run(Arc::clone(plan), source, Arc::clone(book)));
                missing -= 1;
            }
            while living.try_join_next().is_some() {}
        }
    }
}

type SharedBook = Arc<Mutex<Book>>;

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
