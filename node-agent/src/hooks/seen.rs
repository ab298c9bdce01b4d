//! What has changed since the last look at what the agent's tasks publish.

mod prefixes;
mod services;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    mem::take,
    sync::Arc,
    time::{Instant, SystemTime},
};

use self::{prefixes::SeenPrefixes, services::SeenServices};
use super::{
    queue::Change,
    sources::{Session, Sources},
    subject::{DOWN, Kind, REMOVED, Subject, UNKNOWN, UP},
};

/// What was seen at the last look.
#[derive(Default)]
pub struct Seen {
    services: SeenServices,
    prefixes: SeenPrefixes,
    peers: BTreeMap<Arc<str>, &'static str>,
}

/// What a look finds.
struct Found<'a> {
    kinds: &'a [Kind],
    at: SystemTime,
    changes: Vec<Change>,
}

impl Seen {
    /// Whether there are backends of which nothing is known, so that their first
    /// state may come without anything else changing.
    pub fn is_waiting(&self) -> bool {
        self.services.are_waiting()
    }

    /// What has changed of subjects of these kinds. Of a kind that was not looked at
    /// before, everything has.
    pub fn look(&mut self, sources: &mut Sources, kinds: &[Kind]) -> Vec<Change> {
        let mut found = Found {
            kinds,
            at: SystemTime::now(),
            changes: Vec::new(),
        };
        let wants = |wanted: [Kind; 2]| wanted.iter().any(|kind| kinds.contains(kind));
        let decision = sources.decision.borrow_and_update().clone();
        let standings = Arc::clone(&sources.standings.borrow_and_update());
        // A large farm has very many of them.
        if wants([Kind::Backend, Kind::Service]) {
            let health = &sources.health;
            self.services.look(&decision.desired, health, &mut found);
        }
        if wants([Kind::Vip, Kind::Aggregate]) {
            let now = Instant::now();
            self.prefixes.look(&decision, &standings, now, &mut found);
        }
        self.look_at_peers(sources.sessions(), &mut found);
        found.changes
    }

    fn look_at_peers(&mut self, sessions: BTreeMap<Arc<str>, Session>, found: &mut Found<'_>) {
        let mut before = take(&mut self.peers);
        for (name, session) in sessions {
            let old = before.remove(&name).unwrap_or(UNKNOWN);
            let now = match (session.is_established, &session.error, old) {
                (true, ..) => UP,
                // It has never been up, and nothing has gone wrong so far.
                (false, None, UNKNOWN) => UNKNOWN,
                (false, ..) => DOWN,
            };
            self.peers.insert(Arc::clone(&name), now);
            if now != old {
                found.push(Subject::Peer(name), now, || match (now, session.error) {
                    (UP, _) => "the BGP session is established".to_owned(),
                    (_, Some(error)) => error,
                    (_, None) => "there is no BGP session".to_owned(),
                });
            }
        }
        for name in before.into_keys() {
            found.removed(Subject::Peer(name));
        }
    }
}

impl Found<'_> {
    fn push(&mut self, subject: Subject, state: &'static str, reason: impl FnOnce() -> String) {
        if self.kinds.contains(&subject.kind()) {
            self.changes.push(Change {
                subject,
                state,
                reason: reason(),
                at: self.at,
            });
        }
    }

    fn removed(&mut self, subject: Subject) {
        self.push(subject, REMOVED, || {
            "it is not configured any more".to_owned()
        });
    }
}
