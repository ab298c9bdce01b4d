//! From the decision and the data plane's acknowledgement to what the speaker
//! announces: virtual addresses and aggregates, each in its state.
//!
//! One task around `Judge`, which decides. A prefix is held by an unreachable
//! route from before it is announced, in whatever state, until its withdrawal
//! has lingered, so that no packet for it ever goes in a circle. The kernel is asked
//! for that beside everything else: a slow answer delays the address it is
//! about, and no other.

mod account;
mod holds;
mod judge;
mod news;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt as _, Stream, StreamExt as _,
    stream::{FuturesUnordered, unfold},
};
use tokio::{
    sync::watch,
    time::{Instant, interval_at, sleep_until},
};
use tracing::{info, warn};
use vipd_control::{aggregate, announcement::State, damping, gate::Admission, model::Vip};

pub use self::judge::wait_words;
use self::{
    account::Account,
    holds::{Holds, Job},
    judge::Judge,
    news::{News, log},
};
use crate::{
    config::Bgp,
    dataplane::apply::Applied,
    departure::Ordered,
    dependencies::Lacks,
    engine::Decision,
    events::{Origin, Recorder},
    local::Local,
    netlink::{Error, Netlink},
};

/// What the speaker announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Each prefix in its state.
    pub states: BTreeMap<Vip, State>,
    /// What each peer is told of it; `None`: nobody is told anything.
    pub bgp: Option<Arc<Bgp>>,
    /// Whether this was all there is to know once: a router that has kept what an
    /// earlier agent told it may forget the rest (RFC 4724).
    pub complete: bool,
    /// What it came of.
    pub origin: Origin,
}

/// How everything stands that can be announced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standings {
    /// Every address at the gate.
    pub vips: BTreeMap<Vip, Admission>,
    /// The aggregates.
    pub aggregates: Vec<aggregate::Standing>,
    /// What is announced of both, what of it waits, and what routers count; but
    /// of addresses that an aggregate stands for nothing.
    pub damping: BTreeMap<Vip, damping::Standing>,
    /// Whether something was known of every backend by then: before, what is not
    /// alive may only not have been asked.
    pub known: bool,
}

/// What the task lives on.
pub struct Inputs {
    /// What is decided.
    pub decision: watch::Receiver<Decision>,
    /// What the data plane has done.
    pub applied: watch::Receiver<Arc<Applied>>,
    /// Why the data plane does not forward at all, if so.
    pub fault: watch::Receiver<Option<String>>,
    /// What this host lacks that services depend on.
    pub lacks: watch::Receiver<Arc<Lacks>>,
    /// Whether what this host serves itself is bound.
    pub local: watch::Receiver<Arc<Local>>,
    /// Whether the agent is to withdraw everything.
    pub closing: watch::Receiver<Ordered>,
    /// Whether the host is about to leave, which makes announcements worse.
    pub maintenance: watch::Receiver<Ordered>,
    /// When what is not known yet is not waited for any longer.
    pub known_by: Instant,
    /// How long to hold an address after its withdrawal.
    pub linger: watch::Receiver<Duration>,
    /// What is announced.
    pub announced: watch::Sender<Arc<Announced>>,
    /// How everything stands.
    pub standings: watch::Sender<Arc<Standings>>,
    /// What has happened.
    pub recorder: Recorder,
}

/// Runs until the agent ends.
pub async fn run(mut inputs: Inputs, netlink: Netlink) {
    let mut judge = Judge::default();
    // What a previous agent holds is let go unless it is announced again.
    let left = left_behind(&netlink).await;
    let mut holds = Holds::inherited(left, INHERITED, Instant::now());
    let mut jobs = FuturesUnordered::new();
    let mut listings = pin!(listings(&netlink));
    let mut news = News::default();
    let mut account = Account::default();
    let mut complete = false;
    loop {
        let (mut admitted, standings, changes) = judge.look(&mut inputs, Instant::now().into_std());
        let turn = judge.turn();
        let wanted = admitted.states.keys().copied().collect();
        let linger = *inputs.linger.borrow();
        let new = holds.follow(&wanted, linger, Instant::now());
        jobs.extend(new.into_iter().map(|job| carry_out(&netlink, job)));
        // A withdrawal waits for nothing; what enters, until it is held.
        let held = holds.held(&wanted);
        admitted.states.retain(|prefix, _| held.contains(prefix));
        complete |= admitted.complete && held.len() == wanted.len();
        complete |= Instant::now() >= inputs.known_by;
        admitted.complete = complete;
        let at_rest = held.len() == wanted.len() && standings.are_applied();
        let trail = inputs.recorder.trail();
        admitted.origin = account.origin(trail, &turn, &changes, at_rest);
        // First: who has seen what is announced finds why.
        publish(&inputs.standings, standings);
        publish(&inputs.announced, admitted);
        let waits = |prefix| wanted.contains(&prefix) && !held.contains(&prefix);
        let told = news.take(changes, waits);
        told.iter().for_each(log);
        inputs.recorder.record(account.events(trail, &turn, &told));
        account.close(trail, turn, &told);

        let known_by = (!complete).then_some(inputs.known_by);
        let waits = judge.next().map(Instant::from_std);
        let next = holds.next().into_iter().chain(known_by).chain(waits).min();
        let go_on = tokio::select! {
            biased;
            changed = inputs.decision.changed() => changed.is_ok(),
            changed = inputs.applied.changed() => changed.is_ok(),
            changed = inputs.fault.changed() => changed.is_ok(),
            changed = inputs.lacks.changed() => changed.is_ok(),
            changed = inputs.local.changed() => changed.is_ok(),
            changed = inputs.closing.changed() => changed.is_ok(),
            changed = inputs.maintenance.changed() => changed.is_ok(),
            Some(done) = jobs.next() => {
                take_in(&mut holds, done);
                // All that is done by now, since each look at all addresses
                // costs as much as there are of them.
                while let Some(Some(done)) = jobs.next().now_or_never() {
                    take_in(&mut holds, done);
                }
                true
            }
            Some((asked, kernel)) = listings.next() => {
                for (job, lost) in holds.found(&kernel, asked) {
                    if let Job::Hold(vip) = job && lost {
                        warn!("the unreachable route of {vip} has gone; it is made anew");
                    }
                    jobs.push(carry_out(&netlink, job));
                }
                true
            }
            () = async { match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            } } => true,
        };
        if !go_on {
            return;
        }
    }
}

/// Asks the kernel.
async fn carry_out(netlink: &Netlink, job: Job) -> (Job, Result<(), Error>) {
    let result = match job {
        Job::Hold(vip) => netlink.hold(vip).await,
        Job::Release(vip) => netlink.release(vip).await,
    };
    (job, result)
}

/// Takes in what the kernel has done. A refusal is told, and changes nothing else.
fn take_in(holds: &mut Holds, (job, result): (Job, Result<(), Error>)) {
    if holds.done(job, result.is_err(), Instant::now()) {
        log_job(job, &result);
    }
}

fn log_job(job: Job, result: &Result<(), Error>) {
    match (job, result) {
        (Job::Hold(vip), Ok(())) => info!("an unreachable route holds {vip} now"),
        (Job::Hold(vip), Err(error)) => warn!(
            "no unreachable route holds {vip}: {error}; packets for it that XDP does not see could \
             go in a circle"
        ),
        (Job::Release(_), Ok(())) => {}
        (Job::Release(vip), Err(error)) => {
            warn!("the unreachable route of {vip} stays behind: {error}");
        }
    }
}

impl Standings {
    /// Whether no address waits for what is decided to be in force.
    fn are_applied(&self) -> bool {
        !self.vips.values().any(Admission::is_pending)
    }
}

fn publish<T: PartialEq>(sender: &watch::Sender<Arc<T>>, new: T) {
    sender.send_if_modified(|current| {
        let changed = **current != new;
        if changed {
            *current = Arc::new(new);
        }
        changed
    });
}

/// How long what a previous agent holds is kept without being announced.
const INHERITED: Duration = Duration::from_secs(60);
/// Between two looks at whether what is held is still there.
const LOOK: Duration = Duration::from_secs(10);

async fn left_behind(netlink: &Netlink) -> BTreeSet<Vip> {
    list(netlink).await.unwrap_or_default()
}

/// What the kernel holds, again and again, and when it was asked.
fn listings(netlink: &Netlink) -> impl Stream<Item = (Instant, BTreeSet<Vip>)> {
    let ticks = interval_at(Instant::now() + LOOK, LOOK);
    let lists = unfold(ticks, async |mut ticks| {
        ticks.tick().await;
        let asked = Instant::now();
        Some(((asked, list(netlink).await), ticks))
    });
    lists.filter_map(async |(asked, list)| Some((asked, list?)))
}

async fn list(netlink: &Netlink) -> Option<BTreeSet<Vip>> {
    let held = netlink.held().await;
    held.inspect_err(|error| warn!("cannot list the unreachable routes: {error}"))
        .ok()
}

/// Lets go of every address that is held.
pub async fn release_all(netlink: &Netlink) {
    for vip in left_behind(netlink).await {
        let (job, result) = carry_out(netlink, Job::Release(vip)).await;
        log_job(job, &result);
    }
}
