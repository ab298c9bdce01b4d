//! From the decision and the data plane's acknowledgement to the set of
//! addresses that the speaker announces.
//!
//! One task around [`Gate`], which decides. An address is held by an
//! unreachable route from before it is announced until its withdrawal has
//! lingered, so that no packet for it ever goes in a circle. The kernel is asked
//! for that beside everything else: a slow answer delays the address it is
//! about, and no other.

mod holds;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    Stream, StreamExt as _,
    stream::{FuturesUnordered, unfold},
};
use tokio::{
    sync::watch,
    time::{Instant, interval_at, sleep_until},
};
use tracing::{info, warn};
use vipd_control::{
    decide::Desired,
    gate::{Admission, Gate, GateChange, GateChangeKind},
    model::Vip,
};

use self::holds::{Holds, Job};
use crate::{dataplane::apply::Applied, engine::Decision, netlink::Netlink};

/// How every address stands at the gate.
pub type Admissions = BTreeMap<Vip, Admission>;

/// What the task lives on.
pub struct Inputs {
    /// What is decided.
    pub decision: watch::Receiver<Decision>,
    /// What the data plane has done.
    pub applied: watch::Receiver<Arc<Applied>>,
    /// Why the data plane does not forward at all, if so.
    pub fault: watch::Receiver<Option<String>>,
    /// Turns true when the agent is to withdraw everything.
    pub closing: watch::Receiver<bool>,
    /// How long to hold an address after its withdrawal.
    pub linger: watch::Receiver<Duration>,
    /// What is announced.
    pub announced: watch::Sender<Arc<BTreeSet<Vip>>>,
    /// How every address stands.
    pub admissions: watch::Sender<Arc<Admissions>>,
}

/// Runs until the agent ends.
pub async fn run(mut inputs: Inputs, netlink: Netlink) {
    let mut gate = Gate::default();
    // What a previous agent holds is let go unless it is announced again.
    let left = left_behind(&netlink).await;
    let mut holds = Holds::inherited(left, Instant::now() + INHERITED);
    let mut jobs = FuturesUnordered::new();
    let mut listings = pin!(listings(&netlink));
    loop {
        let changes = judge(&mut gate, &mut inputs);
        for change in &changes {
            log(change);
        }
        let admitted = gate.announced();
        let linger = *inputs.linger.borrow();
        let new = holds.follow(&admitted, linger, Instant::now());
        jobs.extend(new.into_iter().map(|job| carry_out(&netlink, job)));
        // A withdrawal waits for nothing; what enters, until it is held.
        publish(&inputs.announced, holds.held(&admitted));
        inputs
            .admissions
            .send_replace(Arc::new(gate.admissions().clone()));

        let next = holds.next();
        let go_on = tokio::select! {
            biased;
            changed = inputs.decision.changed() => changed.is_ok(),
            changed = inputs.applied.changed() => changed.is_ok(),
            changed = inputs.fault.changed() => changed.is_ok(),
            changed = inputs.closing.changed() => changed.is_ok(),
            Some(job) = jobs.next() => {
                holds.done(job);
                true
            }
            Some(kernel) = listings.next() => {
                let lost = holds.found(&kernel);
                for Job::Hold(vip) | Job::Release(vip) in &lost {
                    warn!("the unreachable route of {vip} is not there any more; it is made anew");
                }
                jobs.extend(lost.into_iter().map(|job| carry_out(&netlink, job)));
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

/// Asks the kernel. A refusal is told, and changes nothing else.
async fn carry_out(netlink: &Netlink, job: Job) -> Job {
    match job {
        Job::Hold(vip) => {
            if let Err(error) = netlink.hold(vip).await {
                warn!(
                    "no unreachable route holds {vip}: {error}; packets for it that XDP does not \
                     see could go in a circle"
                );
            }
        }
        Job::Release(vip) => {
            if let Err(error) = netlink.release(vip).await {
                warn!("the unreachable route of {vip} stays behind: {error}");
            }
        }
    }
    job
}

fn judge(gate: &mut Gate, inputs: &mut Inputs) -> Vec<GateChange> {
    let decision = inputs.decision.borrow_and_update().clone();
    let applied = Arc::clone(&inputs.applied.borrow_and_update());
    let fault = inputs.fault.borrow_and_update().clone();
    if *inputs.closing.borrow_and_update() {
        let mut changes = gate.update(&Desired::default(), &applied.vips, None);
        for change in &mut changes {
            "the agent stops".clone_into(&mut change.reason);
        }
        return changes;
    }
    let mut desired = Desired {
        services: Vec::new(),
        vips: decision.desired.vips.clone(),
    };
    desired
        .vips
        .retain(|vip, _| !decision.leaving.contains(vip));
    gate.update(&desired, &applied.vips, fault.as_deref())
}

fn publish(sender: &watch::Sender<Arc<BTreeSet<Vip>>>, set: BTreeSet<Vip>) {
    sender.send_if_modified(|current| {
        let changed = **current != set;
        if changed {
            *current = Arc::new(set);
        }
        changed
    });
}

fn log(change: &GateChange) {
    let GateChange { vip, kind, reason } = change;
    match kind {
        GateChangeKind::Entered => info!("{vip} is announced: {reason}"),
        GateChangeKind::Withdrawn => warn!("{vip} is withdrawn: {reason}"),
        GateChangeKind::Waiting => info!("{vip} is not announced: {reason}"),
    }
}

/// How long what a previous agent holds is kept without being announced.
const INHERITED: Duration = Duration::from_secs(60);
/// Between two looks at whether what is held is still there.
const LOOK: Duration = Duration::from_secs(10);

async fn left_behind(netlink: &Netlink) -> BTreeSet<Vip> {
    list(netlink).await.unwrap_or_default()
}

/// What the kernel holds, again and again.
fn listings(netlink: &Netlink) -> impl Stream<Item = BTreeSet<Vip>> {
    let ticks = interval_at(Instant::now() + LOOK, LOOK);
    let lists = unfold(ticks, async |mut ticks| {
        ticks.tick().await;
        Some((list(netlink).await, ticks))
    });
    lists.filter_map(async |list| list)
}

async fn list(netlink: &Netlink) -> Option<BTreeSet<Vip>> {
    let held = netlink.held().await;
    held.inspect_err(|error| warn!("cannot list the unreachable routes: {error}"))
        .ok()
}

/// Lets go of every address that is held.
pub async fn release_all(netlink: &Netlink) {
    for vip in left_behind(netlink).await {
        carry_out(netlink, Job::Release(vip)).await;
    }
}
