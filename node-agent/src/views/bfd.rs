//! What is shown of BFD with a peer.

use std::net::IpAddr;

use super::Views;
use crate::{
    bfd::{
        client::{NO_SESSION, States},
        protocol::Session,
    },
    status::Bfd,
};

impl Views {
    /// Why the BFD process is not reached, if a peer or a backend wants it.
    pub(super) fn bfd_unreachable(&self) -> Option<String> {
        let wanted = self.config.borrow().has_bfd();
        let states = self.bfd.borrow();
        states.unreachable.clone().filter(|_| wanted)
    }
}

/// The session with this peer, which is to have one.
pub(super) fn session(peer: IpAddr, states: &States) -> Bfd {
    let told = states.unreachable.is_none();
    match states.sessions.get(&peer).filter(|_| told) {
        Some(session) => known(session),
        // Why, and what helps, is said once for all peers.
        None if !told => {
            let why = "the BFD process is not reached".to_owned();
            Bfd::unknown(why, states.downs(peer))
        }
        None => Bfd::unknown(NO_SESSION.to_owned(), 0),
    }
}

fn known(session: &Session) -> Bfd {
    let gap = session.worst_gap_last_minute.real_seconds;
    Bfd {
        state: session.state.to_string(),
        why: session.why.clone(),
        for_seconds: Some(session.for_seconds),
        transmit_interval_seconds: session.transmit_interval_seconds,
        detection_time_seconds: session.detection_time_seconds,
        transmit_gap_seconds: Some(gap).filter(|gap| *gap > 0.0),
        downs: session.downs,
        last_down: session.last_down.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::{client::tests::session as told, protocol::State};

    #[test]
    fn what_the_process_does_not_tell_is_unknown_and_neither_up_nor_down() {
        let peer = IpAddr::from([192, 0, 2, 1]);
        let told = |state, why| {
            let session = told(1, state, why);
            States {
                unreachable: None,
                sessions: [(session.remote, session)].into(),
            }
        };
        let up = told(State::Up, "");
        let gone = States {
            unreachable: Some("the BFD process at /run/vipd/bfd.sock has gone".to_owned()),
            ..up.clone()
        };
        let down = told(State::Down, "eth0 has no carrier");
        for (sentence, states, words, downs) in [
            ("it is up", up, "Up for 0s", 1),
            ("it is down", down, "Down for 0s: eth0 has no carrier", 1),
            (
                "the process has gone, and the session was up",
                gone,
                "unknown: the BFD process is not reached",
                1,
            ),
            (
                "the process has not read of it",
                States::default(),
                "unknown: the BFD process has no session with it: `systemctl reload vipd-bfd` \
                 has it read the configuration",
                0,
            ),
        ] {
            let shown = session(peer, &states);
            assert_eq!(shown.words(), words, "{sentence}");
            assert_eq!(shown.downs, downs, "{sentence}");
        }
    }
}
