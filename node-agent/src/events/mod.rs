//! What has happened, and what it came of: from a check's result over state,
//! decision, maps and announcement to the UPDATE that a peer was sent.
//!
//! Whoever publishes a state takes a [`Trail`] for it: a number that grows, and the
//! moment. The trail goes with what is published, so whoever acts on it can say
//! later by which publication it did. Causes are therefore known and never
//! guessed from times.
//!
//! An event is recorded after what it tells of was published, over a channel that
//! nobody waits for: when it is full, what does not fit is counted and lost. The
//! other end, [`Keeper`], is a task of its own.

mod history;
mod keeper;
mod latency;
mod view;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use vipd_control::model::Vip;

pub use self::{
    history::{History, Limits},
    keeper::{Answers, Asked, Keeper, Question, lines},
    latency::{Latencies, Latency, Way},
    view::{About, EventView},
};

/// Events of one publication that are told one by one.
const MOST_AT_ONCE: usize = 256;

/// Publications whose events may wait for the keeper.
const WAITING: usize = 4096;

/// Which step of a change an event is, in the order of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A configuration came into force.
    Configuration,
    /// The operator has given an order, or its time has come.
    Order,
    /// A check had a result that changed something.
    Check,
    /// What is believed of a backend has changed.
    State,
    /// What is to be forwarded and announced was decided.
    Decision,
    /// Packets meet what was decided.
    Maps,
    /// A prefix is announced, announced in another state, or withdrawn.
    Announcement,
    /// The kernel has taken the UPDATE to a peer.
    Update,
    /// A BGP session came up or went.
    Session,
}

/// Whom an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// This agent as a whole.
    Node,
    /// A service, by its name.
    Service(Arc<str>),
    /// A backend, by the names of its service and its own.
    Backend(Arc<str>, Arc<str>),
    /// A virtual address or an aggregate.
    Prefix(Vip),
    /// A BGP peer, by its name.
    Peer(Arc<str>),
    /// What a peer, by its name, is told of a prefix.
    Route(Arc<str>, Vip),
}

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// By the clock of the day, which may be set.
    pub wall: SystemTime,
    /// By `CLOCK_MONOTONIC`, since the machine was started: what the kernel's
    /// own times are told in too.
    pub monotonic: Duration,
}

/// A publication: its number, greater than those of all before it, and when it was
/// made. The default is that of what was never published.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trail {
    /// Counts from 1.
    pub number: u64,
    /// The moment.
    pub at: Stamp,
}

/// A state is the same whichever way it came about.
impl PartialEq for Trail {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Trail {}

/// What an announcement came of, for whoever sends it on. As with a [`Trail`], two
/// are never different.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    /// The publication.
    pub trail: Trail,
    /// When the decision was made that it follows, if it follows one and nothing
    /// else, such as maintenance.
    pub decided: Option<Stamp>,
    /// Whether a prefix is withdrawn or announced worse by it.
    pub worse: bool,
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

/// What an event came of: the last event of that step about that subject, of a
/// publication numbered above `after` and at most `upto`, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// About whom.
    pub subject: Subject,
    /// What happened to it.
    pub step: Step,
    /// What was published by then was known before.
    pub after: u64,
    /// What was published later was not known yet.
    pub upto: u64,
}

/// Something that has happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// The publication that it is part of.
    pub trail: Trail,
    /// About whom.
    pub subject: Subject,
    /// What happened.
    pub step: Step,
    /// How and why, in plain words.
    pub text: String,
    /// What it came of.
    pub causes: Vec<Cause>,
}

/// Takes events from all tasks. Its clones are one recorder. The default one
/// numbers, and records nothing.
#[derive(Clone, Debug)]
pub struct Recorder {
    numbers: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    to: mpsc::Sender<Vec<Event>>,
    latencies: Arc<Latencies>,
}

impl Recorder {
    /// A recorder, and the task that keeps what it records.
    #[must_use]
    pub fn new() -> (Self, Keeper) {
        let (to, recorded) = mpsc::channel(WAITING);
        let recorder = Self {
            numbers: Arc::default(),
            lost: Arc::default(),
            to,
            latencies: Arc::default(),
        };
        let keeper = Keeper::new(recorded, Arc::clone(&recorder.lost));
        (recorder, keeper)
    }

    /// A trail for what is published now.
    #[must_use]
    pub fn trail(&self) -> Trail {
        Trail {
            // Nothing else is ordered by it: trails travel over channels.
            number: self.numbers.fetch_add(1, Ordering::Relaxed) + 1,
            at: Stamp::now(),
        }
    }

    /// Records events of one publication. Never waits; after the first
    /// 256, one says that there were more.
    pub fn record(&self, events: impl IntoIterator<Item = Event>) {
        let mut events = events.into_iter();
        let mut told: Vec<_> = events.by_ref().take(MOST_AT_ONCE).collect();
        if let Some(last) = events.next() {
            told.push(Event {
                subject: Subject::Node,
                text: format!("more than {MOST_AT_ONCE} at once: the others are not told"),
                causes: Vec::new(),
                ..last
            });
        }
        let count = told.len() as u64;
        if count > 0 && self.to.try_send(told).is_err() {
            self.lost.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How long decisions took to become UPDATEs.
    #[must_use]
    pub fn latencies(&self) -> &Arc<Latencies> {
        &self.latencies
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new().0
    }
}

impl Stamp {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        // Neither is ever negative.
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self {
            wall: SystemTime::now(),
            monotonic: Duration::new(seconds, nanos),
        }
    }
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            wall: SystemTime::UNIX_EPOCH,
            monotonic: Duration::ZERO,
        }
    }
}

impl Event {
    /// An event that came of nothing that is recorded.
    #[must_use]
    pub fn new(trail: Trail, subject: Subject, step: Step, text: impl Into<String>) -> Self {
        Self {
            trail,
            subject,
            step,
            text: text.into(),
            causes: Vec::new(),
        }
    }

    /// The same, come of these.
    #[must_use]
    pub fn caused_by(mut self, causes: impl IntoIterator<Item = Cause>) -> Self {
        self.causes.extend(causes);
        self
    }
}

impl Step {
    /// Its name for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Configuration => "config",
            Self::Order => "order",
            Self::Check => "check",
            Self::State => "state",
            Self::Decision => "decision",
            Self::Maps => "maps",
            Self::Announcement => "announce",
            Self::Update => "update",
            Self::Session => "session",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}
