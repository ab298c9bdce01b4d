//! What one peer has been told of late, for the history: each prefix once the
//! kernel has taken the UPDATE, with the announcement that it came of.

use std::sync::Arc;

use ipnet::IpNet;
use vipd_bgp::{self as bgp, Session, State};
use vipd_control::model::Vip;

use crate::events::{Cause, Event, Origin, Recorder, Stamp, Step, Subject, Way};

/// Prefixes that are told of one by one; of more, those that come first.
const MOST: usize = 256;

/// What waits for the kernel.
#[derive(Debug)]
pub struct Tally {
    peer: Arc<str>,
    recorder: Recorder,
    /// The session stands and has not been told everything once.
    greeting: bool,
    waiting: Option<Waiting>,
    /// The last announcement that the routes were set by.
    known: u64,
}

#[derive(Debug)]
struct Waiting {
    /// Whether the peer had been told of each before.
    prefixes: Vec<(IpNet, bool)>,
    /// The announcements that they come of.
    after: u64,
    upto: u64,
    decided: Option<Stamp>,
    worse: bool,
}

impl Tally {
    /// An empty one.
    #[must_use]
    pub fn new(peer: &Arc<str>, recorder: Recorder) -> Self {
        Self {
            peer: Arc::clone(peer),
            recorder,
            greeting: false,
            waiting: None,
            known: 0,
        }
    }

    /// Takes in which routes an announcement has changed. Without a session there
    /// is nobody to tell.
    pub fn changed(&mut self, session: &Session, changed: Vec<IpNet>, origin: &Origin) {
        let after = std::mem::replace(&mut self.known, origin.trail.number);
        if changed.is_empty() || session.state() != State::Established {
            return;
        }
        let waiting = self.waiting.get_or_insert_with(|| Waiting {
            prefixes: Vec::new(),
            after,
            upto: 0,
            decided: origin.decided,
            worse: false,
        });
        waiting.upto = origin.trail.number;
        waiting.worse |= origin.worse;
        let told = |prefix: IpNet| (prefix, session.has_told(&prefix));
        let room = MOST.saturating_sub(waiting.prefixes.len());
        let changed = changed.into_iter().take(room).map(told);
        for (prefix, told) in changed {
            if !waiting.prefixes.iter().any(|(known, _)| *known == prefix) {
                waiting.prefixes.push((prefix, told));
            }
        }
    }

    /// Takes in what the session says of itself.
    pub fn event(&mut self, event: &bgp::Event) {
        let bgp::Event::StateChanged { from, to, why } = event else {
            return;
        };
        let words = match (*from, *to) {
            (_, State::Established) => format!("established: {why}"),
            (State::Established, to) => format!("lost, now {to}: {why}"),
            _ => return,
        };
        self.waiting = None;
        self.greeting = *to == State::Established;
        let subject = Subject::Peer(Arc::clone(&self.peer));
        let trail = self.recorder.trail();
        self.recorder
            .record([Event::new(trail, subject, Step::Session, words)]);
    }

    /// Tells what the kernel has taken: all that there was.
    pub fn flushed(&mut self, session: &Session) {
        if self.greeting {
            self.greeting = false;
            let told: usize = session.status().advertised.values().sum();
            let trail = self.recorder.trail();
            let peer = Subject::Peer(Arc::clone(&self.peer));
            let cause = Cause {
                subject: peer.clone(),
                step: Step::Session,
                after: 0,
                upto: trail.number,
            };
            let words = format!("the kernel has all routes for the new session: {told}");
            let event = Event::new(trail, peer, Step::Update, words).caused_by([cause]);
            self.recorder.record([event]);
        }
        let Some(waiting) = self.waiting.take() else {
            return;
        };
        let trail = self.recorder.trail();
        if let Some(decided) = waiting.decided {
            let way = if waiting.worse {
                Way::Worse
            } else {
                Way::Better
            };
            let took = trail.at.monotonic.saturating_sub(decided.monotonic);
            self.recorder.latencies().add(way, took);
        }
        let told = waiting.prefixes.into_iter().filter_map(|(prefix, before)| {
            let words = match (before, session.has_told(&prefix)) {
                (_, true) => "the kernel has the UPDATE that announces it",
                (true, false) => "the kernel has the UPDATE that withdraws it",
                (false, false) => return None,
            };
            let prefix = Vip::from(prefix);
            let cause = Cause {
                subject: Subject::Prefix(prefix),
                step: Step::Announcement,
                after: waiting.after,
                upto: waiting.upto,
            };
            let subject = Subject::Route(Arc::clone(&self.peer), prefix);
            Some(Event::new(trail, subject, Step::Update, words).caused_by([cause]))
        });
        self.recorder.record(told);
    }
}
