//! How a service is: by its backends, by others that it follows, by the word of
//! the operator, and by what is known of our own network.

use std::sync::Arc;

use crate::{announcement::State, duty::Duty, model::Service};

/// How a service is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Who is on duty, and whether that is enough.
    pub duty: Duty,
    /// The name of a service that it follows and that is not alive.
    pub follows: Option<Arc<str>>,
    /// Why it is disabled, if it is.
    pub disabled: Option<Arc<str>>,
    /// Why our own network is the likelier cause of nobody answering, if it is.
    pub doubt: Option<Arc<str>>,
}

impl Condition {
    /// The worst that is said of it; but of what is down in doubt, doubt.
    #[must_use]
    pub fn state(&self) -> State {
        let by_duty = match (self.duty.state, &self.doubt) {
            (State::Down, Some(_)) => State::Doubt,
            (state, _) => state,
        };
        let by_others = self.follows.as_ref().map_or(State::Up, |_| State::Down);
        let by_order = self
            .disabled
            .as_ref()
            .map_or(State::Up, |_| State::Disabled);
        by_duty.min(by_others).min(by_order)
    }

    /// The same in plain words.
    #[must_use]
    pub fn reason(&self, service: &Service) -> String {
        let name = &service.name;
        let mut words = format!("{name}: ");
        if let Some(why) = &self.disabled {
            words += &format!("disabled, {why}; ");
        }
        words += &self.duty.reason(&service.needs);
        if let Some(other) = &self.follows {
            words += &format!(", and it follows {other}, which is not alive");
        }
        if let Some(why) = &self.doubt {
            words += &format!("; our own network is in doubt: {why}");
        }
        words
    }
}

/// Has services follow those that they track, when these are down or disabled.
/// Some that track each other are alive together or not at all. A name that
/// nobody has is not waited for.
pub fn follow<'a>(services: impl Iterator<Item = (&'a Service, &'a mut Condition)>) {
    let mut services: Vec<_> = services.collect();
    if services.iter().all(|(service, _)| service.track.is_empty()) {
        return;
    }
    // Each round at least one more is found to be dead, until none is.
    loop {
        let dead: Vec<Arc<str>> = services
            .iter()
            .filter(|(_, condition)| condition.state().is_withdrawn())
            .map(|(service, _)| Arc::clone(&service.name))
            .collect();
        let mut changed = false;
        for (service, condition) in &mut services {
            if condition.follows.is_none()
                && let Some(other) = service.track.iter().find(|name| dead.contains(name))
            {
                condition.follows = Some(Arc::clone(other));
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::service;

    /// Services in letters, each with those that it tracks; which of them have no
    /// healthy backend; and which are alive then.
    #[track_caller]
    fn check(sentence: &str, tracks: &[(&str, &str)], down: &str, alive: &str) {
        let services: Vec<_> = tracks
            .iter()
            .map(|(name, tracked)| {
                let mut service = service(name, &[("a", 1, 1)]);
                service.track = tracked.chars().map(|c| c.to_string().into()).collect();
                service
            })
            .collect();
        let mut conditions: Vec<_> = services
            .iter()
            .map(|service| Condition {
                duty: Duty::new(service, &[!down.contains(&*service.name)], None),
                follows: None,
                disabled: None,
                doubt: None,
            })
            .collect();
        follow(services.iter().zip(&mut conditions));
        let found = services.iter().zip(&conditions);
        let found = found.filter(|(_, condition)| condition.state().is_alive());
        let found: String = found.map(|(service, _)| &*service.name).collect();
        assert_eq!(found, alive, "{sentence}: {conditions:#?}");
    }

    #[test]
    fn who_tracks_others_is_alive_only_while_they_are() {
        let chain = [("a", "b"), ("b", "c"), ("c", ""), ("d", "")];
        check("all well", &chain, "", "abcd");
        check("the end of a chain", &chain, "c", "d");
        check("its middle", &chain, "b", "cd");
        check(
            "two at once",
            &[("a", "bc"), ("b", ""), ("c", "")],
            "c",
            "b",
        );
        let circle = [("a", "b"), ("b", "a"), ("c", "")];
        check("a circle lives", &circle, "", "abc");
        check("and dies together", &circle, "a", "c");
        check("nobody has that name", &[("a", "x")], "", "a");
    }

    #[test]
    fn the_worst_that_is_said_counts_and_doubt_is_better_than_down() {
        let web = service("web", &[("a", 1, 1)]);
        let why: Option<Arc<str>> = Some("so it is".into());
        let check = |up: bool, follows: bool, disabled: bool, doubt: bool, state, reason: &str| {
            let condition = Condition {
                duty: Duty::new(&web, &[up], None),
                follows: follows.then(|| "dns".into()),
                disabled: why.clone().filter(|_| disabled),
                doubt: why.clone().filter(|_| doubt),
            };
            assert_eq!(condition.state(), state, "{condition:#?}");
            assert_eq!(condition.reason(&web), reason);
        };
        let (yes, no) = (true, false);
        check(yes, no, no, no, State::Up, "web: 1 of 1 backends healthy");
        check(
            yes,
            no,
            yes,
            no,
            State::Disabled,
            "web: disabled, so it is; 1 of 1 backends healthy",
        );
        check(
            no,
            no,
            yes,
            no,
            State::Down,
            "web: disabled, so it is; 0 of 1 backends healthy, 1 wanted",
        );
        check(
            no,
            no,
            no,
            yes,
            State::Doubt,
            "web: 0 of 1 backends healthy, 1 wanted; our own network is in doubt: so it is",
        );
        check(
            yes,
            yes,
            no,
            no,
            State::Down,
            "web: 1 of 1 backends healthy, and it follows dns, which is not alive",
        );
    }
}
