//! What BFD says of the way to backends, for their health.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError},
    time::Instant,
};

use tokio::sync::{mpsc, watch};
use vipd_control::{
    health::Path,
    health_table::Change,
    model::{Service, Tracked},
};

use crate::{
    bfd::client::{PeerState, States},
    engine::SharedHealth,
};

/// Tells the health table what BFD says of the backends of these services, and
/// the engine what has changed by it, until nobody wants to know any more. Whose
/// state has changed is checked at once.
pub async fn run(
    mut states: watch::Receiver<States>,
    mut services: watch::Receiver<Vec<Arc<Service>>>,
    health: SharedHealth,
    changes: mpsc::Sender<Change>,
    hastened: mpsc::Sender<Tracked>,
) {
    loop {
        let found = {
            let services = services.borrow_and_update();
            let states = states.borrow_and_update();
            tell(&services, &states, &health)
        };
        for (backend, found) in found {
            // It was to be asked again as one that is well.
            if hastened.send(backend).await.is_err() {
                return;
            }
            for change in found {
                if changes.send(change).await.is_err() {
                    return;
                }
            }
        }
        let changed = tokio::select! {
            changed = states.changed() => changed,
            changed = services.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Tells it all: what is known already changes nothing. Whom it has changed, and
/// how.
fn tell(
    services: &[Arc<Service>],
    states: &States,
    health: &SharedHealth,
) -> Vec<(Tracked, Vec<Change>)> {
    let mut found = Vec::new();
    for service in services.iter().filter(|service| service.bfd) {
        let mut table = health.lock().unwrap_or_else(PoisonError::into_inner);
        for backend in &service.backends {
            let path = path(states, backend.address);
            let backend = Tracked::of(service, backend);
            let changes = table.hear(&backend, path, Instant::now());
            if !changes.is_empty() {
                found.push((backend, changes));
            }
        }
    }
    found
}

/// What this says of the way to a backend. No evidence is: that nobody is
/// reached, that there is no session or it was never up, and that somebody
/// holds it down on purpose (RFC 5882, sections 3.2 and 4.2).
fn path(states: &States, backend: IpAddr) -> Path {
    let session = states.sessions.get(&backend);
    let lost = session.and_then(|session| session.lost.as_deref());
    match (states.of(backend), lost) {
        (PeerState::Up, _) => Path::Up,
        (PeerState::Down(_), Some(lost)) => Path::Down(lost.into()),
        (PeerState::Down(_), None) | (PeerState::AdminDown | PeerState::Unknown(_), _) => {
            Path::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::{client::tests::session, protocol::State};

    #[test]
    fn only_a_session_that_was_lost_is_evidence_against_a_backend() {
        let backend = IpAddr::from([192, 0, 2, 1]);
        let with = |state, lost: Option<&str>| {
            let mut session = session(1, state, "nothing has been heard of the peer");
            session.lost = lost.map(str::to_owned);
            States {
                unreachable: None,
                sessions: [(backend, session)].into(),
            }
        };
        let lost = || with(State::Down, Some("control detection time expired"));
        let down = Path::Down("control detection time expired".into());
        for (sentence, states, expected) in [
            ("there is no session", States::default(), Path::Unknown),
            ("it was never up", with(State::Down, None), Path::Unknown),
            ("it is up", with(State::Up, None), Path::Up),
            ("it was up", lost(), down.clone()),
            (
                "it is coming back",
                with(State::Init, Some("control detection time expired")),
                down,
            ),
            (
                "it is held down here",
                with(State::AdminDown, None),
                Path::Unknown,
            ),
            (
                "nobody is reached any more",
                States {
                    unreachable: Some("no such file".to_owned()),
                    ..lost()
                },
                Path::Unknown,
            ),
        ] {
            assert_eq!(path(&states, backend), expected, "{sentence}");
        }
    }
}
