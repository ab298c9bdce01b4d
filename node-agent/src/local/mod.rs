//! Addresses that this host serves itself: bound before they are announced,
//! followed as long as they are, and taken away when nobody sends to them any
//! more.
//!
//! One task around `binder`, which decides. It reads the kernel's links and
//! addresses whenever one of them has changed, so that an address that goes is
//! withdrawn at once.

mod binder;
mod found;
mod remembered;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};
use tracing::{info, warn};
use vipd_control::model::Vip;

use self::binder::{Binder, Job, RETRY, Snapshot, Standing};
pub use self::{
    binder::Bound,
    found::found_now,
    remembered::{Keeper, Remembered, forget},
};
use crate::{
    config::{Bindings, Found},
    engine::Decision,
    netlink::{Error, Netlink, host::HostEvents},
};

/// How the addresses stand that this host serves itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Where each is bound, or why it is not. Of who is missing nothing is known
    /// yet.
    pub standings: BTreeMap<Vip, Standing>,
    /// What vipd has bound, for an agent that is started again.
    pub bound: BTreeSet<(std::net::IpAddr, Arc<str>)>,
}

/// What the task lives on.
pub struct Inputs {
    /// Which addresses there are, those on their way out among them.
    pub decision: watch::Receiver<Decision>,
    /// How they are bound.
    pub orders: watch::Receiver<Orders>,
    /// How they stand.
    pub local: watch::Sender<Arc<Local>>,
    /// What others have bound, while services take of it.
    pub found: watch::Sender<Arc<[Found]>>,
}

/// What the configuration says of addresses.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// How those are bound that this host serves itself.
    pub bindings: Arc<Bindings>,
    /// Whether services take what others bind.
    pub takes: bool,
    /// How often the operator has asked for what is configured: another number
    /// binds what was taken away.
    pub reloads: u64,
}

/// What the kernel has taken and does not show is not asked for more often in a
/// row.
const ROUNDS: u32 = 5;
/// How often everything is read anew, so that what came without a message heals.
const REREAD: Duration = Duration::from_secs(30);

/// Runs until the agent ends. `remembered` is what an agent before has bound.
pub async fn run(mut inputs: Inputs, remembered: Remembered) {
    let mut binder = Binder::new(remembered.bound);
    while let Err(error) = follow(&mut binder, &mut inputs).await {
        warn!("cannot follow the addresses of this host, trying again in {RETRY:?}: {error}");
        sleep(RETRY).await;
    }
}

async fn follow(binder: &mut Binder, inputs: &mut Inputs) -> Result<(), Error> {
    // Of its own: the kernel lists one thing at a time on a socket.
    let netlink = &Netlink::connect()?;
    let mut events: Option<HostEvents> = None;
    let mut downed = BTreeSet::new();
    let mut rounds = 0;
    let mut reloads = inputs.orders.borrow().reloads;
    loop {
        let orders = inputs.orders.borrow_and_update().clone();
        // By number, so that it counts whatever else has happened meanwhile.
        let is_reloaded = std::mem::replace(&mut reloads, orders.reloads) != orders.reloads;
        let decision = inputs.decision.borrow_and_update().desired.clone();
        let vips = decision.vips.iter().filter(|(_, plan)| plan.is_local());
        let vips: Vec<_> = vips.map(|(vip, _)| *vip).collect();
        let has_none = vips.is_empty() && !orders.takes;
        if has_none && events.is_none() && binder.remembered().is_empty() {
            // Most hosts have none, and nothing to follow.
            let changed = tokio::select! {
                changed = inputs.decision.changed() => changed,
                changed = inputs.orders.changed() => changed,
            };
            if changed.is_err() {
                return Ok(());
            }
            continue;
        }
        binder.want(vips.iter().map(|vip| (*vip, orders.bindings.get(vip))));
        if is_reloaded {
            binder.anew();
        }
        // Before the first look, so that it misses nothing.
        let events = match &mut events {
            Some(events) => events,
            none => none.insert(Netlink::host_events()?),
        };
        let snapshot = read(netlink, std::mem::take(&mut downed)).await?;
        let (jobs, standings) = binder.look(&snapshot, Instant::now());
        if orders.takes {
            publish_found(&inputs.found, binder.found(&snapshot));
        }
        for job in &jobs {
            carry_out(netlink, binder, job).await?;
        }
        publish(
            &inputs.local,
            Local {
                standings,
                bound: binder.remembered().clone(),
            },
        );
        rounds = if jobs.is_empty() { 0 } else { rounds + 1 };
        if (1..ROUNDS).contains(&rounds) {
            // To see what has become of it.
            continue;
        }
        let again = Instant::now() + REREAD;
        let again = binder.next().map_or(again, |next| next.min(again));
        tokio::select! {
            changed = inputs.decision.changed() => if changed.is_err() { return Ok(()) },
            changed = inputs.orders.changed() => if changed.is_err() { return Ok(()) },
            found = events.next() => downed = found?,
            () = sleep_until(again.into()) => {}
        }
    }
}

/// Addresses first: an interface that goes down is down before it loses them.
async fn read(netlink: &Netlink, downed: BTreeSet<u32>) -> Result<Snapshot, Error> {
    Ok(Snapshot {
        addresses: netlink.addresses().await?,
        links: netlink.links().await?,
        downed,
    })
}

/// Asks the kernel; a refusal is told, and tried again later.
async fn carry_out(netlink: &Netlink, binder: &mut Binder, job: &Job) -> Result<(), Error> {
    let result = match job {
        Job::Make => match netlink.make_dummy(binder::OWN).await {
            Ok(false) => {
                info!("this kernel has no interfaces of type dummy: addresses are bound on lo");
                binder.cannot_make();
                return Ok(());
            }
            result => result.map(drop),
        },
        Job::Bind(address, site) => {
            let label = site.label.as_deref();
            netlink.bind(site.ifindex, *address, label).await
        }
        Job::Unbind(address, site) => netlink.unbind(site.ifindex, *address).await,
        Job::Remove(ifindex) => netlink.remove_link(*ifindex).await,
    };
    match result {
        Ok(()) => {
            info!("done: {job}");
            binder.done(job);
            Ok(())
        }
        Err(error @ Error::Refused { .. }) => {
            let reason = format!("cannot {job}: {error}");
            warn!("{reason}");
            binder.refused(job, &reason, Instant::now());
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Takes away all that vipd has bound.
pub async fn release_all(netlink: &Netlink, local: &Local) {
    let mut binder = Binder::new(local.bound.clone());
    match read(netlink, BTreeSet::new()).await {
        Ok(snapshot) => {
            for job in binder.release(&snapshot) {
                if let Err(error) = carry_out(netlink, &mut binder, &job).await {
                    warn!("addresses may stay behind: {error}");
                }
            }
        }
        Err(error) => warn!("what vipd has bound stays behind: {error}"),
    }
}

fn publish_found(sender: &watch::Sender<Arc<[Found]>>, new: Vec<Found>) {
    sender.send_if_modified(|current| {
        let changed = **current != *new;
        if changed {
            *current = new.into();
        }
        changed
    });
}

fn publish(sender: &watch::Sender<Arc<Local>>, new: Local) {
    sender.send_if_modified(|current| {
        let changed = **current != new;
        if changed {
            *current = Arc::new(new);
        }
        changed
    });
}
