//! From the decision and the data plane's acknowledgement to the set of
//! addresses that the speaker announces.
//!
//! One task around [`Gate`], which decides. An address is held by an
//! unreachable route from before it is announced until its withdrawal has
//! lingered, so that no packet for it ever goes in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};
use vipd_control::{
    decide::Desired,
    gate::{Admission, Gate, GateChange, GateChangeKind},
};

use crate::{dataplane::apply::Applied, engine::Decision, netlink::hold::Holds};

/// How every address stands at the gate.
pub type Admissions = BTreeMap<IpAddr, Admission>;

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
    pub announced: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    /// How every address stands.
    pub admissions: watch::Sender<Arc<Admissions>>,
}

/// Runs until the agent ends.
pub async fn run(mut inputs: Inputs, mut holds: Holds) {
    let mut gate = Gate::default();
    let mut release: BTreeMap<IpAddr, Instant> = BTreeMap::new();
    loop {
        let changes = judge(&mut gate, &mut inputs);
        for change in &changes {
            log(change);
        }
        let announced = gate.announced();
        // Withdrawals first, and at once.
        let before = Arc::clone(&inputs.announced.borrow());
        let kept: BTreeSet<IpAddr> = before.intersection(&announced).copied().collect();
        publish(&inputs.announced, kept);
        let at = Instant::now() + *inputs.linger.borrow();
        release.extend(before.difference(&announced).map(|vip| (*vip, at)));
        for vip in announced.difference(&before) {
            release.remove(vip);
            if let Err(error) = holds.hold(*vip).await {
                warn!(
                    "no unreachable route holds {vip}: {error}; packets for it that XDP does not \
                     see could go in a circle"
                );
            }
        }
        publish(&inputs.announced, announced);
        inputs
            .admissions
            .send_replace(Arc::new(gate.admissions().clone()));

        let next = release.values().min().copied();
        let go_on = tokio::select! {
            biased;
            changed = inputs.decision.changed() => changed.is_ok(),
            changed = inputs.applied.changed() => changed.is_ok(),
            changed = inputs.fault.changed() => changed.is_ok(),
            changed = inputs.closing.changed() => changed.is_ok(),
            () = async { match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            } } => {
                let now = Instant::now();
                let due: Vec<IpAddr> =
                    release.iter().filter(|(_, at)| **at <= now).map(|(vip, _)| *vip).collect();
                for vip in due {
                    release.remove(&vip);
                    if let Err(error) = holds.release(vip).await {
                        warn!("the unreachable route of {vip} stays behind: {error}");
                    }
                }
                true
            }
        };
        if !go_on {
            return;
        }
    }
}

fn judge(gate: &mut Gate, inputs: &mut Inputs) -> Vec<GateChange> {
    let decision = inputs.decision.borrow_and_update().clone();
    let applied = Arc::clone(&inputs.applied.borrow_and_update());
    let fault = inputs.fault.borrow_and_update().clone();
    if *inputs.closing.borrow_and_update() {
        return gate.update(&Desired::default(), &applied.vips, None);
    }
    let mut desired = Desired {
        services: Vec::new(),
        vips: decision.desired.vips.clone(),
    };
    desired.vips.retain(|vip, _| !decision.leaving.contains(vip));
    gate.update(&desired, &applied.vips, fault.as_deref())
}

fn publish(sender: &watch::Sender<Arc<BTreeSet<IpAddr>>>, set: BTreeSet<IpAddr>) {
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
