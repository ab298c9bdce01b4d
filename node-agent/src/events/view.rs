//! An event as it goes over the control socket, the same for people and programs.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Step, Subject, history::Kept};

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its own number. It grows in the order of recording, which may differ from
    /// that of time by moments.
    pub id: u64,
    /// When, by RFC 3339, in UTC with microseconds.
    pub time: String,
    /// When, in microseconds of `CLOCK_MONOTONIC`.
    pub monotonic_us: u64,
    /// What happened.
    pub step: Step,
    /// To whom.
    #[serde(flatten)]
    pub about: About,
    /// How and why, in plain words.
    pub text: String,
    /// The numbers of the events that it came of, as far as they are remembered.
    pub causes: Vec<u64>,
}

/// Whom an event is about: of the node itself, nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct About {
    /// Name of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Name of the backend, with that of its service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Name of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// A virtual address, or an aggregate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

impl EventView {
    /// An event, and what it came of.
    #[must_use]
    pub fn new(kept: &Kept, causes: Vec<u64>) -> Self {
        let event = &kept.event;
        let at = event.trail.at;
        let time = Timestamp::try_from(at.wall).unwrap_or_default();
        Self {
            id: kept.id,
            time: format!("{time:.6}"),
            monotonic_us: u64::try_from(at.monotonic.as_micros()).unwrap_or(u64::MAX),
            step: event.step,
            about: About::from(&event.subject),
            text: event.text.clone(),
            causes,
        }
    }

    /// The day, for example `2026-11-22`.
    #[must_use]
    pub fn day(&self) -> &str {
        self.time.split('T').next().unwrap_or_default()
    }

    /// The time of the day, in UTC.
    #[must_use]
    pub fn clock(&self) -> &str {
        let clock = self.time.split('T').nth(1).unwrap_or_default();
        clock.trim_end_matches('Z')
    }
}

impl From<&Subject> for About {
    fn from(subject: &Subject) -> Self {
        let mut about = Self::default();
        let named = |name: &str| Some(name.to_owned());
        match subject {
            Subject::Node => {}
            Subject::Service(service) => about.service = named(service),
            Subject::Backend(service, backend) => {
                (about.service, about.backend) = (named(service), named(backend));
            }
            Subject::Prefix(prefix) => about.prefix = Some(prefix.to_string()),
            Subject::Peer(peer) => about.peer = named(peer),
            Subject::Route(peer, prefix) => {
                (about.peer, about.prefix) = (named(peer), Some(prefix.to_string()));
            }
        }
        about
    }
}

/// `web/b1`, `web`, `198.51.100.10`, `router`, `router 198.51.100.10`, `node`.
impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = [&self.service, &self.backend].map(Option::as_deref);
        let route = [&self.peer, &self.prefix].map(Option::as_deref);
        let words = |parts: [Option<&str>; 2], between| {
            let parts: Vec<_> = parts.into_iter().flatten().collect();
            parts.join(between)
        };
        let text = words(service, "/") + &words(route, " ");
        f.pad(if text.is_empty() { "node" } else { &text })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::events::{Event, Stamp, Trail};

    #[test]
    fn an_event_is_a_line_of_json_that_is_read_back() {
        let at = Stamp {
            wall: SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_308_901_000_042),
            monotonic: Duration::from_micros(7_000_300),
        };
        let vip = std::net::IpAddr::from([198, 51, 100, 10]).into();
        let subject = Subject::Route("tor1".into(), vip);
        let event = Event::new(Trail { number: 9, at }, subject, Step::Update, "withdrawn");
        let view = EventView::new(&Kept { id: 3, event }, vec![1, 2]);
        let line = serde_json::to_string(&view).expect("it can be written");
        assert_eq!(
            line,
            r#"{"id":3,"time":"2026-11-22T00:55:01.000042Z","monotonic_us":7000300,"step":"update","peer":"tor1","prefix":"198.51.100.10","text":"withdrawn","causes":[1,2]}"#
        );
        assert_eq!(serde_json::from_str::<EventView>(&line).ok(), Some(view));
    }

    #[test]
    fn subjects_are_named_as_an_operator_does() {
        let vip = std::net::IpAddr::from([198, 51, 100, 10]).into();
        // Its name, and by which keys programs find it.
        for (subject, name, keys) in [
            (Subject::Node, "node", &[][..]),
            (Subject::Service("web".into()), "web", &["service"]),
            (
                Subject::Backend("web".into(), "b1".into()),
                "web/b1",
                &["backend", "service"],
            ),
            (Subject::Prefix(vip), "198.51.100.10", &["prefix"]),
            (Subject::Peer("tor1".into()), "tor1", &["peer"]),
            (
                Subject::Route("tor1".into(), vip),
                "tor1 198.51.100.10",
                &["peer", "prefix"],
            ),
        ] {
            let about = About::from(&subject);
            assert_eq!(about.to_string(), name);
            let json = serde_json::to_value(&about).expect("JSON");
            let json = json.as_object().expect("an object");
            let found: std::collections::BTreeSet<_> = json.keys().map(String::as_str).collect();
            assert!(found.iter().eq(keys), "{name}: {found:?}");
        }
    }
}
