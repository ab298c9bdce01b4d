//! What hooks are run for, and the states it can be in.

use std::{fmt, sync::Arc};

use vipd_control::{announcement::State, model::Vip, standing::Standing};

use crate::status::WITHDRAWN;

/// What a subject is before anything is known of it.
pub const UNKNOWN: &str = "unknown";
/// What a subject is that has been taken out of the configuration.
pub const REMOVED: &str = "removed";
/// A service, or a session, that works.
pub const UP: &str = "up";
/// A service, or a session, that does not.
pub const DOWN: &str = "down";

/// Something that has a state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A backend of a service, both by their names.
    Backend(Arc<str>, Arc<str>),
    /// A service by its name.
    Service(Arc<str>),
    /// A virtual address or prefix.
    Vip(Vip),
    /// An aggregate.
    Aggregate(Vip),
    /// The BGP session with a peer, by its name.
    Peer(Arc<str>),
}

/// What kind of thing a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// See [`Subject::Backend`].
    Backend,
    /// See [`Subject::Service`].
    Service,
    /// See [`Subject::Vip`].
    Vip,
    /// See [`Subject::Aggregate`].
    Aggregate,
    /// See [`Subject::Peer`].
    Peer,
}

/// What a hook is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// For changes of these.
    pub kind: Kind,
    /// Into this state only; `None`: into any.
    pub state: Option<&'static str>,
}

impl Subject {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Backend(..) => Kind::Backend,
            Self::Service(_) => Kind::Service,
            Self::Vip(_) => Kind::Vip,
            Self::Aggregate(_) => Kind::Aggregate,
            Self::Peer(_) => Kind::Peer,
        }
    }
}

/// As an operator names it: `web/b1`, `web`, `198.51.100.10`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(service, backend) => write!(f, "{service}/{backend}"),
            Self::Service(name) | Self::Peer(name) => f.write_str(name),
            Self::Vip(prefix) | Self::Aggregate(prefix) => prefix.fmt(f),
        }
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Backend,
        Self::Service,
        Self::Vip,
        Self::Aggregate,
        Self::Peer,
    ];

    /// Its name in the configuration, and for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Service => "service",
            Self::Vip => "vip",
            Self::Aggregate => "aggregate",
            Self::Peer => "peer",
        }
    }

    /// All states that a hook can be run for.
    #[must_use]
    pub fn states(self) -> Vec<&'static str> {
        match self {
            Self::Backend => {
                let standings = Standing::ALL.map(Standing::label);
                standings.into_iter().chain([REMOVED]).collect()
            }
            Self::Vip | Self::Aggregate => {
                let states = State::ALL.map(State::label);
                states.into_iter().chain([WITHDRAWN]).collect()
            }
            Self::Service => {
                // Only a whole node is in maintenance.
                let states = State::ALL.into_iter();
                let states = states.filter(|state| *state != State::Maintenance);
                states.map(State::label).chain([REMOVED]).collect()
            }
            Self::Peer => vec![UP, DOWN, REMOVED],
        }
    }
}

impl Trigger {
    /// Reads `SUBJECT` or `SUBJECT:STATE`. The error names what there is.
    ///
    /// # Errors
    ///
    /// When there is no such subject, or it has no such state.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (subject, state) = match text.split_once(':') {
            Some((subject, state)) => (subject, Some(state)),
            None => (text, None),
        };
        let mut kinds = Kind::ALL.into_iter();
        let Some(kind) = kinds.find(|kind| kind.label() == subject) else {
            let known = Kind::ALL.map(Kind::label).join(", ");
            return Err(format!(
                "there are no hooks on `{subject}`, only on {known}"
            ));
        };
        let Some(state) = state else {
            return Ok(Self { kind, state: None });
        };
        let known = kind.states();
        match known.iter().find(|known| **known == state) {
            Some(state) => Ok(Self {
                kind,
                state: Some(state),
            }),
            None => Err(format!(
                "`{state}` is no state of a {subject}; there are {}",
                known.join(", ")
            )),
        }
    }

    /// Whether it is for this subject in this state.
    #[must_use]
    pub fn is_for(self, subject: &Subject, state: &str) -> bool {
        self.kind == subject.kind() && self.state.is_none_or(|wanted| wanted == state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_is_a_subject_and_maybe_a_state_of_it() {
        let check = |text: &str, expected: Result<(Kind, Option<&'static str>), &str>| {
            let read = Trigger::parse(text);
            let read = read.as_ref().map(|it| (it.kind, it.state));
            assert_eq!(read.map_err(String::as_str), expected, "{text}");
        };
        check("backend", Ok((Kind::Backend, None)));
        check("vip:withdrawn", Ok((Kind::Vip, Some("withdrawn"))));
        check("peer:down", Ok((Kind::Peer, Some("down"))));
        check(
            "peers",
            Err("there are no hooks on `peers`, only on backend, service, vip, aggregate, peer"),
        );
        check(
            "peer:dead",
            Err("`dead` is no state of a peer; there are up, down, removed"),
        );
    }
}
