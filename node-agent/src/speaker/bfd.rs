//! What BFD says, for the sessions: the connection to the BFD process, which is
//! there when a peer wants it.

use std::{net::IpAddr, path::PathBuf};

use tokio::{sync::watch, task::JoinHandle};
use vipd_bgp::Bfd as Said;

use crate::{
    bfd::client::{self, Bfd, OrderError, PeerState, States},
    config::Bgp,
};

/// The connection, if there is one, and what came over it last.
pub struct Watch {
    socket: PathBuf,
    connection: Option<Connection>,
    states: watch::Sender<States>,
}

struct Connection {
    bfd: Bfd,
    tasks: [JoinHandle<()>; 2],
}

impl Watch {
    /// Nothing is asked yet.
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            connection: None,
            states: watch::Sender::default(),
        }
    }

    /// What BFD says, now and from now on.
    pub fn states(&self) -> watch::Receiver<States> {
        self.states.subscribe()
    }

    /// Connects to the process when a peer has BFD, and only then: the connection
    /// tells it that there is an agent.
    pub fn follow(&mut self, bgp: Option<&Bgp>) {
        let mut peers = bgp.iter().flat_map(|bgp| &bgp.peers);
        let wanted = peers.any(|peer| peer.bfd.is_some());
        if !wanted {
            self.leave();
        } else if self.connection.is_none() {
            let (bfd, keep) = client::start(self.socket.clone());
            let (mut heard, states) = (bfd.states(), self.states.clone());
            let tell = async move {
                while heard.changed().await.is_ok() {
                    states.send_replace(heard.borrow_and_update().clone());
                }
            };
            self.connection = Some(Connection {
                bfd,
                tasks: [tokio::spawn(keep), tokio::spawn(tell)],
            });
        }
    }

    /// The process, to give orders to.
    pub fn process(&self) -> Option<Bfd> {
        self.connection.as_ref().map(|it| it.bfd.clone())
    }

    /// Has the process tell all routers that we leave on purpose.
    ///
    /// # Errors
    ///
    /// When it is not reached.
    pub async fn admin_down(&self) -> Result<(), OrderError> {
        match &self.connection {
            Some(connection) => connection.bfd.admin_down(None, true).await,
            None => Ok(()),
        }
    }

    fn leave(&mut self) {
        for task in self.connection.take().into_iter().flat_map(|it| it.tasks) {
            task.abort();
        }
        self.states.send_replace(States::default());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What a session has heard of its peer.
#[derive(Debug, Default)]
pub struct Ear {
    downs: Option<u64>,
}

impl Ear {
    /// What the session is to be told, in this order. Of a process that is not
    /// reached nothing is: it says neither that the peer is there nor that it is
    /// gone.
    pub fn hear(&mut self, states: &States, peer: IpAddr) -> Vec<Said> {
        let said = match states.of(peer) {
            PeerState::Unknown(_) => return Vec::new(),
            PeerState::AdminDown => Said::AdminDown,
            PeerState::Down(_) => Said::Down,
            PeerState::Up => Said::Up,
        };
        let downs = states.downs(peer);
        let before = self.downs.replace(downs);
        // It was down between two looks.
        let missed = said == Said::Up && before.is_some_and(|before| before < downs);
        missed
            .then_some(Said::Down)
            .into_iter()
            .chain([said])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::{client::tests::session, protocol::State};

    #[test]
    fn a_session_is_told_what_bfd_says_of_its_peer_and_of_no_other() {
        let of = |last: u8, state, downs| {
            let mut session = session(last, state, "");
            session.downs = downs;
            States {
                unreachable: None,
                sessions: [(session.remote, session)].into(),
            }
        };
        let unreachable = States {
            unreachable: Some("no such file".to_owned()),
            ..of(1, State::Up, 0)
        };
        let mut ear = Ear::default();
        for (sentence, states, said) in [
            ("nobody is reached", unreachable.clone(), &[][..]),
            ("another peer is up", of(2, State::Up, 0), &[]),
            ("it is not up yet", of(1, State::Down, 0), &[Said::Down]),
            ("it comes up", of(1, State::Up, 0), &[Said::Up]),
            ("it is still up", of(1, State::Up, 0), &[Said::Up]),
            ("nobody is reached again", unreachable, &[]),
            (
                "it was down between two looks",
                of(1, State::Up, 1),
                &[Said::Down, Said::Up],
            ),
            ("it goes down", of(1, State::Down, 2), &[Said::Down]),
            ("it is back", of(1, State::Up, 2), &[Said::Up]),
            (
                "somebody holds it down",
                of(1, State::AdminDown, 2),
                &[Said::AdminDown],
            ),
        ] {
            assert_eq!(ear.hear(&states, [192, 0, 2, 1].into()), said, "{sentence}");
        }
    }
}
