//! The operator's will, where it differs from the configuration: backends that are
//! drained or disabled, and services that are disabled.
//!
//! Pure: the time is an argument. `keep.rs` has them in a file, so that they outlive
//! a restart and an upgrade; whoever applies them goes by what the decision makes
//! of them.

mod anchor;
mod keep;
mod order;
mod target;
mod watch;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use vipd_control::model::{Backend, Model, Service};

pub use self::{
    anchor::Anchor,
    keep::Keeper,
    order::{Act, Answer, Order, Request},
    target::Target,
    watch::{Unfinished, wait},
};

/// What the operator wants of a backend or a service, instead of what the
/// configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// What.
    #[serde(flatten)]
    pub will: Will,
    /// Who said so, as the command line told it; empty when nobody knows.
    #[serde(default)]
    pub by: String,
    /// Since when, in seconds since 1970.
    pub at: u64,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// By what it is known again under another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_by: Option<Anchor>,
}

/// What an override does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "will")]
pub enum Will {
    /// The backend gets no new flows and keeps those it has.
    Drain {
        /// Then it leaves although flows remain, in seconds since 1970.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<u64>,
        /// That time has come.
        #[serde(skip)]
        over: bool,
    },
    /// A backend takes no traffic and its flows end; a service is announced as
    /// disabled. Checks go on.
    Disable,
}

/// All overrides, by what they are about: names, also such as the configuration
/// does not have at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides(BTreeMap<Target, Override>);

impl Will {
    /// In one word, as status and metrics have it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Drain { .. } => "drained",
            Self::Disable => "disabled",
        }
    }

    /// Whether a backend serves nothing any more, not even the flows it has.
    #[must_use]
    pub const fn ends_flows(self) -> bool {
        matches!(self, Self::Disable | Self::Drain { over: true, .. })
    }
}

impl Overrides {
    /// Drains of those of whom `is_drained` says so: what an agent that kept no
    /// file has left in the maps.
    #[must_use]
    pub fn of_drained(
        model: &Model,
        is_drained: impl Fn(&Service, &Backend) -> bool,
        now: u64,
    ) -> Self {
        let drained = |service: &Arc<Service>| {
            let backends = service.backends.iter();
            let drained = backends.filter(|backend| is_drained(service, backend));
            let targets = drained.map(|backend| Target::backend(&service.name, &backend.name));
            targets.collect::<Vec<_>>()
        };
        let found = |target: Target| {
            let over = Override {
                known_by: Anchor::of(&target, model),
                will: Will::Drain {
                    deadline: None,
                    over: false,
                },
                by: String::new(),
                at: now,
                reason: None,
            };
            (target, over)
        };
        let targets = model.services.iter().flat_map(drained);
        Self(targets.map(found).collect())
    }

    /// Follows a configuration, new or that of another start: what has got another
    /// name there is followed by its address, or by what it serves. Whoever is gone
    /// is remembered by its name alone: its address may be given to somebody else.
    pub fn configure(&mut self, model: &Model) {
        let all = std::mem::take(&mut self.0).into_iter();
        let followed = all.map(|(target, mut over)| {
            let target = match (target.is_in(model), &over.known_by) {
                (false, Some(anchor)) => anchor.find(&target, model).unwrap_or(target),
                _ => target,
            };
            over.known_by = Anchor::of(&target, model);
            (target, over)
        });
        self.0 = followed.collect();
    }

    /// Whom the operator has drained, one flag per backend in the service's order.
    #[must_use]
    pub fn drained(&self, service: &Service) -> Vec<bool> {
        self.each(service, |will| matches!(will, Will::Drain { .. }))
    }

    /// Who serves nothing any more, not even old flows.
    #[must_use]
    pub fn ended(&self, service: &Service) -> Vec<bool> {
        self.each(service, Will::ends_flows)
    }

    fn each(&self, service: &Service, says: impl Fn(Will) -> bool) -> Vec<bool> {
        let mut flags = vec![false; service.backends.len()];
        if self.0.is_empty() {
            return flags;
        }
        for (flag, backend) in flags.iter_mut().zip(&service.backends) {
            let target = Target::backend(&service.name, &backend.name);
            *flag = self.0.get(&target).is_some_and(|over| says(over.will));
        }
        flags
    }

    /// Why a service is disabled, if it is.
    #[must_use]
    pub fn disabled(&self, service: &Service) -> Option<Arc<str>> {
        if self.0.is_empty() {
            return None;
        }
        let over = self.0.get(&Target::service(&service.name))?;
        let reason = over.reason.iter().map(|reason| format!(": {reason}"));
        Some(format!("by the operator{}", reason.collect::<String>()).into())
    }

    /// Lets the time pass: whose deadlines have come since.
    pub fn expire(&mut self, now: u64) -> Vec<Target> {
        let mut expired = Vec::new();
        for (target, over) in &mut self.0 {
            if let Will::Drain {
                deadline: Some(deadline),
                over: ended @ false,
            } = &mut over.will
                && *deadline <= now
            {
                *ended = true;
                expired.push(target.clone());
            }
        }
        expired
    }

    /// When the next deadline comes, in seconds since 1970.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let wills = self.0.values().map(|over| over.will);
        let deadlines = wills.filter_map(|will| match will {
            Will::Drain {
                deadline,
                over: false,
            } => deadline,
            _ => None,
        });
        deadlines.min()
    }

    /// All of them, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &Override)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests;
