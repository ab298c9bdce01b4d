//! Where hooks see states: what the agent's tasks publish.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::{pending, select_all};
use tokio::sync::watch;

use crate::{
    announce::Standings,
    engine::{Decision, SharedHealth},
    speaker::{PeerStatus, Peers},
};

/// Where states are seen.
pub struct Sources {
    /// What is decided.
    pub decision: watch::Receiver<Decision>,
    /// What checks have found.
    pub health: SharedHealth,
    /// How everything stands that can be announced.
    pub standings: watch::Receiver<Arc<Standings>>,
    /// The BGP sessions.
    peers: watch::Receiver<Peers>,
    /// Each of them.
    statuses: BTreeMap<Arc<str>, watch::Receiver<PeerStatus>>,
}

/// How a BGP session is.
#[derive(Clone, Debug, Default)]
pub struct Session {
    pub is_established: bool,
    /// What has gone wrong last.
    pub error: Option<String>,
}

impl Sources {
    /// What the agent's tasks publish.
    #[must_use]
    pub const fn new(
        decision: watch::Receiver<Decision>,
        health: SharedHealth,
        standings: watch::Receiver<Arc<Standings>>,
        peers: watch::Receiver<Peers>,
    ) -> Self {
        Self {
            decision,
            health,
            standings,
            peers,
            statuses: BTreeMap::new(),
        }
    }

    /// Waits for any of it to change; gives back whether there can be more.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.decision.changed() => changed.is_ok(),
            changed = self.standings.changed() => changed.is_ok(),
            changed = self.peers.changed() => changed.is_ok(),
            () = any_changed(&mut self.statuses) => true,
        }
    }

    /// The sessions that there are, each as it is now, which counts as seen.
    pub fn sessions(&mut self) -> BTreeMap<Arc<str>, Session> {
        let peers = self.peers.borrow_and_update();
        self.statuses.retain(|name, status| {
            let view = peers.get(name);
            view.is_some_and(|view| view.status.same_channel(status))
        });
        for (name, view) in &*peers {
            let status = self.statuses.entry(Arc::clone(name));
            status.or_insert_with(|| view.status.clone());
        }
        let statuses = self.statuses.iter_mut();
        let sessions = statuses.map(|(name, status)| {
            let status = status.borrow_and_update();
            let error = status.session.last_error.as_ref();
            let session = Session {
                is_established: status.session.established_at.is_some(),
                error: error.map(|error| error.words.clone()),
            };
            (Arc::clone(name), session)
        });
        sessions.collect()
    }
}

/// Waits for any of the sessions to change. One that has ended does not any more.
async fn any_changed(statuses: &mut BTreeMap<Arc<str>, watch::Receiver<PeerStatus>>) {
    if statuses.is_empty() {
        return pending().await;
    }
    let changes = statuses.values_mut().map(|status| {
        Box::pin(async {
            if status.changed().await.is_err() {
                pending::<()>().await;
            }
        })
    });
    select_all(changes).await;
}
