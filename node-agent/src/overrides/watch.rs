//! `vipd drain --wait`: tells how many flows are left, until none is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::time::sleep;
use vipd_control::standing::Standing;

use super::Target;
use crate::{api::Client, status::Status, terminal};

/// Between two looks at the agent's status.
const LOOK: Duration = Duration::from_millis(250);

/// So many looks must find nothing: flows are counted once a second.
const LOOKS: u32 = 12;

/// How long an agent may be silent while nobody has set a limit: it may be
/// starting again.
const SILENCE: Duration = Duration::from_secs(60);

/// Why a wait has ended before the backend was empty.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unfinished {
    /// Somebody has undrained it or taken it out, or its drain was forgotten.
    #[error("{0} does not drain any more")]
    NotDrained(Target),
    /// The limit has passed.
    #[error("{target} is not known to be empty after {seconds} s; it stays drained")]
    TimeOut {
        /// Of whom.
        target: Target,
        /// The limit.
        seconds: u64,
    },
    /// The agent has not answered for long.
    #[error("the agent has been silent for {seconds} s, so nobody knows what {target} has: {last}")]
    Lost {
        /// Of whom.
        target: Target,
        /// How long.
        seconds: u64,
        /// What came instead of its last answer.
        last: String,
    },
}

impl Unfinished {
    /// The command's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NotDrained(_) => 1,
            Self::TimeOut { .. } => 3,
            Self::Lost { .. } => 4,
        }
    }
}

/// Waits until the backend has no flow left, and prints how many it has when
/// that changes. An agent that does not answer is asked again: it may be
/// starting.
///
/// # Errors
///
/// [`Unfinished`], and when nothing can be printed.
pub async fn wait(client: &Client, target: &Target, limit: Option<Duration>) -> anyhow::Result<()> {
    let mut watch = Watch::new(target, limit, Instant::now());
    loop {
        let seen = client.status().await.map(|s| remains(&s, target));
        let (words, end) = watch.look(seen.map_err(|error| format!("{error:#}")), Instant::now());
        if let Some(words) = words {
            terminal::line(format_args!("{target}: {words}"))?;
        }
        match end {
            Some(end) => return Ok(end?),
            None => sleep(LOOK).await,
        }
    }
}

/// What has been seen and told so far.
struct Watch<'a> {
    target: &'a Target,
    limit: Option<Duration>,
    begun: Instant,
    /// When the agent answered last.
    heard: Instant,
    told: String,
    /// Looks in a row that have found nothing.
    nothing: u32,
}

/// What to say now, and how the wait ends if it does.
type Step = (Option<String>, Option<Result<(), Unfinished>>);

impl<'a> Watch<'a> {
    fn new(target: &'a Target, limit: Option<Duration>, now: Instant) -> Self {
        Self {
            target,
            limit,
            begun: now,
            heard: now,
            told: String::new(),
            nothing: 0,
        }
    }

    /// Takes what is left, or why the agent has not said so.
    fn look(&mut self, seen: Result<Remains, String>, now: Instant) -> Step {
        if seen.is_ok() {
            self.heard = now;
        }
        self.nothing = match &seen {
            Ok(Remains::Nothing(_)) => self.nothing + 1,
            _ => 0,
        };
        let words = match &seen {
            Ok(remains) => remains.words(),
            Err(error) => format!("{error}; asking again"),
        };
        // Nothing is told when it is certain.
        let is_news = words != self.told && (self.nothing == 0 || self.nothing == LOOKS);
        if is_news {
            self.told.clone_from(&words);
        }
        let end = match seen {
            Ok(Remains::Nothing(_)) if self.nothing == LOOKS => Some(Ok(())),
            Ok(Remains::NotDrained) => Some(Err(Unfinished::NotDrained(self.target.clone()))),
            Ok(_) => self.time_out(now).map(Err),
            Err(last) => self.lost(last, now).map(Err),
        };
        (is_news.then_some(words), end)
    }

    fn time_out(&self, now: Instant) -> Option<Unfinished> {
        let limit = self.limit?;
        let waited = now.saturating_duration_since(self.begun);
        (waited >= limit).then(|| Unfinished::TimeOut {
            target: self.target.clone(),
            seconds: limit.as_secs(),
        })
    }

    fn lost(&self, last: String, now: Instant) -> Option<Unfinished> {
        let silent = now.saturating_duration_since(self.heard);
        let lost = match self.limit {
            Some(limit) => now.saturating_duration_since(self.begun) >= limit,
            None => silent >= SILENCE,
        };
        lost.then(|| Unfinished::Lost {
            target: self.target.clone(),
            seconds: silent.as_secs(),
            last,
        })
    }
}

/// What a drained backend still has.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Remains {
    /// It is not there, or not drained.
    NotDrained,
    /// The data plane has not followed yet.
    NotApplied,
    /// New flows, since nobody else takes them.
    NewFlows,
    /// Flows that packets came of.
    Flows {
        /// So many that are open.
        open: u64,
        /// So many of which a FIN or RST was seen. The client may have closed
        /// its own side only, and still be receiving.
        closing: u64,
        /// After so many seconds without a packet a flow has ended.
        idle: u64,
    },
    /// Perhaps flows that have been silent; they would show themselves within
    /// so many seconds.
    Silent(u64),
    /// Nothing, and why.
    Nothing(&'static str),
}

fn remains(status: &Status, target: &Target) -> Remains {
    let named = |name: &str, wanted: &Option<Arc<str>>| wanted.as_deref() == Some(name);
    let mut services = status.services.iter();
    let service = services.find(|s| *s.name == *target.service);
    let backend = service.and_then(|s| s.backends.iter().find(|b| named(&b.name, &target.backend)));
    let (Some(service), Some(backend)) = (service, backend) else {
        return Remains::NotDrained;
    };
    if !backend.drained {
        return Remains::NotDrained;
    }
    let Some(slots) = &service.phases else {
        return Remains::Nothing("there is no data plane here that could have flows");
    };
    if backend.slots > 0 {
        return Remains::NewFlows;
    }
    // A service that is down is not in force as long as it is.
    if service.alive && !service.in_force {
        return Remains::NotApplied;
    }
    // With nobody healthy the data plane gives up nobody and no flow.
    let given_up = backend.standing == Standing::Dead.label() && service.healthy > 0;
    match (backend.flows, backend.flows_closing) {
        (0, 0) if given_up => Remains::Nothing("it is down, and its flows have ended"),
        (0, 0) if slots.learn == 0 => Remains::Nothing("no flow left"),
        (0, 0) => Remains::Silent(service.idle_seconds),
        (open, closing) => Remains::Flows {
            open,
            closing,
            idle: service.idle_seconds,
        },
    }
}

impl Remains {
    fn words(&self) -> String {
        match self {
            Self::NotDrained => "not drained".to_owned(),
            Self::NotApplied => "the data plane has not followed yet".to_owned(),
            Self::NewFlows => "it still gets new flows, since nobody else takes them".to_owned(),
            Self::Flows {
                open,
                closing,
                idle,
            } => {
                let open = match open {
                    0 => "no open flow left".to_owned(),
                    1 => "1 flow left".to_owned(),
                    open => format!("{open} flows left"),
                };
                match closing {
                    0 => open,
                    closing => format!(
                        "{open}; {closing} closed or half closed, waited for until {idle} s after \
                         their last packet"
                    ),
                }
            }
            Self::Silent(seconds) => format!(
                "no flow seen; silent ones are waited for, {seconds} s after the last change"
            ),
            Self::Nothing(why) => (*why).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
