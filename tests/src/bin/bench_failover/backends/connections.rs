//! What clients of a VIP do: they open TCP connections, at a steady pace, each of
//! which is accepted, refused or not answered at all.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    net::TcpSocket,
    runtime,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use vipd_tests::{Host, wait_until};

/// Connections in one go, and how often: 2,000 a second.
const BURST: (usize, Duration) = (2, Duration::from_millis(1));
/// One that is not accepted by then was sent to the dead. The kernel sends its
/// packet again only after a second.
const GRACE: Duration = Duration::from_millis(300);
/// All is well when every connection of so long a time is accepted.
const CALM: Duration = Duration::from_millis(250);
/// So many must be opened in that time, half of what should be.
const FEWEST: usize = (CALM.as_millis() / BURST.1.as_millis()) as usize * BURST.0 / 2;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The connections, while they are being opened.
pub struct Connections {
    opened: Arc<Mutex<Vec<Connection>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Result<()>>>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Connection {
    sent: Instant,
    accepted: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Report(Vec<Connection>);

impl Connections {
    /// Begins at once.
    pub fn start(host: &Host, target: SocketAddr) -> Self {
        let opened = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (host, opened, stop) = (host.clone(), Arc::clone(&opened), Arc::clone(&stop));
            move || {
                host.enter(|| {
                    let runtime = runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()?;
                    runtime.block_on(run(target, &opened, &stop))
                })
            }
        });
        Self {
            opened,
            stop,
            thread: Some(thread),
        }
    }

    /// Waits until every connection of [`CALM`] is accepted, all of it after `since`.
    pub fn wait_until_calm(&self, since: Instant) -> Result<()> {
        wait_until("all connections are accepted", PATIENCE, || {
            let now = Instant::now();
            let begin = now.checked_sub(CALM + GRACE).context("a young machine")?;
            ensure!(since <= begin, "it has only begun");
            let opened = lock(&self.opened);
            let lately = opened
                .iter()
                .filter(|it| it.sent >= begin && it.sent + GRACE <= now);
            let accepted: Vec<bool> = lately.map(|it| it.accepted).collect();
            ensure!(accepted.len() >= FEWEST, "the client does not get to send");
            let lost = accepted.iter().filter(|accepted| !**accepted).count();
            ensure!(lost == 0, "{lost} connections are not accepted");
            Ok(())
        })
    }

    /// Opens no more, and reports when the last ones have had their time.
    pub fn finish(mut self) -> Result<Report> {
        self.end()?;
        let opened = lock(&self.opened).clone();
        Ok(Report(opened))
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().ok().context("the client panicked")?,
            None => Ok(()),
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // Its findings are not wanted any more.
        let _ = self.end();
    }
}

impl Report {
    /// How many were not accepted.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|it| !it.accepted).count()
    }

    /// How long after `event` the last one was opened that was not accepted.
    pub fn last_lost(&self, event: Instant) -> Option<Duration> {
        let lost = self.0.iter().filter(|it| !it.accepted);
        let last = lost.map(|it| it.sent).max()?;
        Some(last.saturating_duration_since(event))
    }

    /// The longest time in which the client itself did not get to send.
    pub fn stall(&self) -> Duration {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let pauses = pairs.map(|(before, after)| after.sent - before.sent);
        pauses.max().unwrap_or_default()
    }
}

async fn run(
    target: SocketAddr,
    opened: &Arc<Mutex<Vec<Connection>>>,
    stop: &AtomicBool,
) -> Result<()> {
    let (at_once, pause) = BURST;
    let mut ticks = interval(pause);
    // What was missed is not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        for _ in 0..at_once {
            let number = {
                let mut opened = lock(opened);
                opened.push(Connection {
                    sent: Instant::now(),
                    accepted: false,
                });
                opened.len() - 1
            };
            let opened = Arc::clone(opened);
            under_way.spawn(async move {
                let accepted = timeout(GRACE, open(target))
                    .await
                    .is_ok_and(|it| it.is_ok());
                lock(&opened)[number].accepted = accepted;
            });
        }
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
    Ok(())
}

/// Opens a connection and resets it, so that its port is free again.
async fn open(target: SocketAddr) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_zero_linger()?;
    socket.connect(target).await?;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lost_connection_counts_from_the_death_on() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let connection = |sent, accepted| Connection {
            sent: at(sent),
            accepted,
        };
        let report = Report(vec![
            connection(0, true),
            connection(10, false),
            connection(20, true),
            connection(45, false),
            connection(50, true),
        ]);
        assert_eq!(report.lost(), 2);
        assert_eq!(report.last_lost(at(5)), Some(Duration::from_millis(40)));
        assert_eq!(report.stall(), Duration::from_millis(25));
        let well = Report(vec![connection(0, true)]);
        assert_eq!(well.last_lost(start), None);
    }
}
