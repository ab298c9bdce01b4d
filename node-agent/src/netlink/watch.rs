//! Follows the ways to the wanted addresses as the kernel's tables change.
//!
//! One task. It subscribes first and reads then, so that no change falls in
//! between; changes that come together are taken together. Two sockets: were
//! answers to share one with events, a burst of events could push an answer
//! out. Dropping the future at any point loses nothing but the subscription.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use rtnetlink::{
    packet_core::NetlinkMessage,
    packet_route::RouteNetlinkMessage,
    sys::{AsyncSocket, SocketAddr},
};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval, sleep},
};
use tracing::{debug, warn};

use super::{
    Error, Netlink,
    event::{Change, GROUPS},
    neighbour::Target,
    snapshot::{Effect, Snapshot},
    way::{Problems, Ways},
};

/// Changes that follow each other by less are taken together.
const SETTLE: Duration = Duration::from_millis(10);
/// How often the kernel is asked to resolve a neighbour that is silent or
/// stale. Below its 5 s from `STALE` to a probe.
const RESOLVE: Duration = Duration::from_secs(3);
/// How often everything is read anew, so that what came without a message, or
/// was misunderstood, heals.
const REREAD: Duration = Duration::from_secs(30);
/// How long to wait before a new attempt when netlink fails.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes the kernel may have queued for us before it drops messages.
const QUEUE: usize = 4 << 20;
/// Requests under way at the same time.
const REQUESTS: usize = 64;

/// Publishes the ways to the `wanted` addresses, and why there is none to the
/// rest of them, whenever one of them changes. Runs until nobody can want
/// anything any more (all senders of `wanted` are gone). When netlink fails,
/// the last ways stand until it works again.
pub async fn watch_ways(
    mut wanted: watch::Receiver<BTreeSet<IpAddr>>,
    out: watch::Sender<Ways>,
    problems: watch::Sender<Problems>,
) {
    while let Err(error) = follow(&mut wanted, &out, &problems).await {
        warn!("cannot follow routes and neighbours, trying again in {RETRY:?}: {error}");
        sleep(RETRY).await;
    }
}

async fn follow(
    wanted: &mut watch::Receiver<BTreeSet<IpAddr>>,
    out: &watch::Sender<Ways>,
    problems: &watch::Sender<Problems>,
) -> Result<(), Error> {
    // The handle keeps the socket open.
    let (mut connection, _handle, events) =
        rtnetlink::new_multicast_connection(&GROUPS).map_err(Error::Open)?;
    let socket = connection.socket_mut().socket_mut();
    if let Err(error) = socket.set_rx_buf_sz(QUEUE) {
        debug!("the netlink queue stays at its default size: {error}");
    }
    tokio::spawn(connection);

    let mut follower = Follower {
        netlink: Netlink::connect()?,
        snapshot: Snapshot::default(),
        resolved: BTreeSet::new(),
    };
    let mut waiter = Waiter {
        events,
        resolve: every(RESOLVE),
        reread: every(REREAD),
    };
    follower.read().await?;
    loop {
        let addresses = wanted.borrow_and_update().clone();
        follower.look_up(&addresses).await?;
        let (new_ways, new_problems) = follower.snapshot.conclude();
        publish(out, new_ways);
        publish(problems, new_problems);
        follower.resolve().await?;
        match waiter.wait(wanted, &mut follower.snapshot).await? {
            Wake::Conclude => {}
            Wake::Resolve => follower.resolved.clear(),
            Wake::Reread => follower.read().await?,
            Wake::Unwanted => return Ok(()),
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick of an interval is at once.
    interval.reset();
    interval
}

fn publish<K: PartialEq, V: PartialEq>(
    sender: &watch::Sender<BTreeMap<K, V>>,
    new: BTreeMap<K, V>,
) {
    sender.send_if_modified(|old| {
        let modified = *old != new;
        *old = new;
        modified
    });
}

/// The questions to the kernel.
struct Follower {
    netlink: Netlink,
    snapshot: Snapshot,
    /// Whom the kernel has been told to resolve in this round.
    resolved: BTreeSet<Target>,
}

impl Follower {
    /// Reads links and neighbours; routes are to be looked up anew.
    async fn read(&mut self) -> Result<(), Error> {
        self.snapshot.routes.clear();
        self.snapshot.links = self.netlink.links().await?;
        let neighbours = self.netlink.neighbours().await?;
        self.snapshot.neighbours.replace(neighbours);
        Ok(())
    }

    /// Looks up the routes that are wanted and missing; forgets the unwanted.
    async fn look_up(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let routes = &mut self.snapshot.routes;
        routes.retain(|address, _| wanted.contains(address));
        let missing = wanted
            .iter()
            .copied()
            .filter(|address| !routes.contains_key(address));
        let missing: Vec<_> = missing.collect();
        let netlink = &self.netlink;
        let found: Vec<_> = stream::iter(missing)
            .map(|address| async move { Ok((address, netlink.route_to(address).await?)) })
            .buffer_unordered(REQUESTS)
            .try_collect()
            .await?;
        routes.extend(found);
        Ok(())
    }

    /// Has the kernel resolve those who need it, each once in a round.
    async fn resolve(&mut self) -> Result<(), Error> {
        let mut targets = self.snapshot.to_resolve();
        targets.retain(|target| self.resolved.insert(*target));
        let netlink = &self.netlink;
        stream::iter(targets)
            .map(|target| async move { (target, netlink.resolve(target).await) })
            .buffer_unordered(REQUESTS)
            .map(|(target, result)| match result {
                // The table is full, or the link is going away.
                Err(error @ Error::Refused { .. }) => {
                    debug!("cannot resolve {target:?}: {error}");
                    Ok(())
                }
                other => other,
            })
            .try_collect()
            .await
    }
}

/// What there is to wait for.
struct Waiter<E> {
    events: E,
    resolve: Interval,
    reread: Interval,
}

/// Why the waiting has ended.
enum Wake {
    /// What is wanted, or what the kernel has, is new.
    Conclude,
    /// Neighbours may have grown old.
    Resolve,
    /// The tables have to be read anew.
    Reread,
    /// Nobody can want anything any more.
    Unwanted,
}

impl<E> Waiter<E>
where
    E: Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Unpin,
{
    async fn wait(
        &mut self,
        wanted: &mut watch::Receiver<BTreeSet<IpAddr>>,
        snapshot: &mut Snapshot,
    ) -> Result<Wake, Error> {
        loop {
            tokio::select! {
                changed = wanted.changed() => return Ok(match changed {
                    Ok(()) => Wake::Conclude,
                    Err(_) => Wake::Unwanted,
                }),
                _ = self.resolve.tick() => return Ok(Wake::Resolve),
                _ = self.reread.tick() => return Ok(Wake::Reread),
                event = self.events.next() => {
                    let (message, _) = event.ok_or(Error::Closed)?;
                    match self.settle(&message, snapshot).await {
                        Effect::None => {}
                        Effect::Conclude => return Ok(Wake::Conclude),
                        Effect::Reread => return Ok(Wake::Reread),
                    }
                }
            }
        }
    }

    /// Applies a message and, when it matters, those that come right after it.
    async fn settle(
        &mut self,
        message: &NetlinkMessage<RouteNetlinkMessage>,
        snapshot: &mut Snapshot,
    ) -> Effect {
        let mut effect = apply(message, snapshot);
        if effect == Effect::None {
            return effect;
        }
        sleep(SETTLE).await;
        // An end of the events shows at the next wait.
        while let Some(Some((message, _))) = self.events.next().now_or_never() {
            effect = effect.max(apply(&message, snapshot));
        }
        effect
    }
}

fn apply(message: &NetlinkMessage<RouteNetlinkMessage>, snapshot: &mut Snapshot) -> Effect {
    Change::read(message).map_or(Effect::None, |change| snapshot.apply(change))
}
