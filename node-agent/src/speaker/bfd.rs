//! What BFD says, for the sessions: the connection to the BFD process, which is
//! there when a peer wants it.

use std::{net::IpAddr, path::PathBuf};

use tokio::{net::UnixStream, sync::watch, task::JoinHandle};
use vipd_bgp::Bfd as Said;

use crate::bfd::client::{self, Bfd, OrderError, PeerState, States};

/// The connection, if there is one, and what came over it last.
pub struct Watch {
    socket: PathBuf,
    connection: Option<Connection>,
    /// Whether a peer has BFD, or a backend.
    wanted: bool,
    /// Whether the process has been told of our configuration.
    told: bool,
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
            wanted: false,
            told: false,
            states: watch::Sender::default(),
        }
    }

    /// What BFD says, now and from now on.
    pub fn states(&self) -> watch::Receiver<States> {
        self.states.subscribe()
    }

    /// Connects to the process when a peer has BFD, or a backend: the connection tells it that
    /// there is an agent. One that is not needed any more stays until
    /// [`Watch::reload`], by which the process learns of it.
    pub fn follow(&mut self, wanted: bool) {
        self.wanted = wanted;
        if wanted {
            self.connect();
        }
    }

    fn connect(&mut self) {
        if self.connection.is_none() {
            let (bfd, keep) = client::start(self.socket.clone());
            let (mut heard, states) = (bfd.states(), self.states.clone());
            let tell = async move {
                loop {
                    states.send_replace(heard.borrow_and_update().clone());
                    if heard.changed().await.is_err() {
                        return;
                    }
                }
            };
            self.connection = Some(Connection {
                bfd,
                tasks: [tokio::spawn(keep), tokio::spawn(tell)],
            });
        }
    }

    /// Has the process read the configuration anew; what has changed, in words.
    /// Then the connection ends if nobody has BFD. The first time the process is
    /// told in any case: it may run sessions that an agent before us wanted.
    ///
    /// # Errors
    ///
    /// As [`Bfd::reload`].
    pub async fn reload(&mut self) -> Result<Vec<String>, OrderError> {
        let first = !std::mem::replace(&mut self.told, true);
        if first && UnixStream::connect(&self.socket).await.is_ok() {
            self.connect();
        }
        let answer = match &self.connection {
            Some(connection) => connection.bfd.reload().await,
            None => Ok(Vec::new()),
        };
        if !self.wanted {
            self.leave();
        }
        answer
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
    /// How often BFD had come up and gone down when it was last known of.
    before: Option<Counts>,
}

#[derive(Clone, Copy, Debug)]
struct Counts {
    ups: u64,
    downs: u64,
}

impl Ear {
    /// What the session is to be told, in this order. When the process is not
    /// reached, or has another session with the peer than before, what was heard
    /// before says neither that the peer is there nor that it is gone.
    pub fn hear(&mut self, states: &States, peer: IpAddr) -> Vec<Said> {
        let said = match states.of(peer) {
            PeerState::Unknown(why) => Said::Unknown(why.into()),
            PeerState::AdminDown => Said::AdminDown,
            PeerState::Down(why) => Said::Down(why.into()),
            PeerState::Up => Said::Up,
        };
        let session = states.sessions.get(&peer);
        let session = session.filter(|_| !matches!(said, Said::Unknown(_)));
        let now = session.map(|session| Counts {
            ups: session.ups,
            downs: session.downs,
        });
        let before = std::mem::replace(&mut self.before, now);
        let missed = before.zip(now).and_then(|(before, now)| {
            if now.ups < before.ups || now.downs < before.downs {
                return Some(Said::Unknown("it is another BFD session".into()));
            }
            // It was down between two looks.
            let why = session.and_then(|session| session.last_down.clone());
            (said == Said::Up && now.downs > before.downs)
                .then(|| Said::Down(why.unwrap_or_default().into()))
        });
        missed.into_iter().chain([said]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::{client::tests::session, protocol::State};

    /// A session with 192.0.2.`last` that has come up and gone down so often.
    fn of(last: u8, state: State, [ups, downs]: [u64; 2]) -> States {
        let mut session = session(last, state, "the cable is cut");
        (session.ups, session.downs) = (ups, downs);
        session.last_down = Some("the cable was cut".to_owned());
        States {
            unreachable: None,
            sessions: [(session.remote, session)].into(),
        }
    }

    #[test]
    fn a_session_is_told_what_bfd_says_of_its_peer_and_of_no_other() {
        let unreachable = States {
            unreachable: Some("no such file".to_owned()),
            ..of(1, State::Up, [0, 0])
        };
        let unknown = |why: &str| Said::Unknown(why.into());
        let nobody = || unknown("no such file");
        let (down, missed) = (
            || Said::Down("the cable is cut".into()),
            Said::Down("the cable was cut".into()),
        );
        let mut ear = Ear::default();
        for (sentence, states, said) in [
            ("nobody is reached", unreachable.clone(), vec![nobody()]),
            (
                "another peer is up",
                of(2, State::Up, [1, 0]),
                vec![unknown(client::NO_SESSION)],
            ),
            ("it is not up yet", of(1, State::Down, [0, 0]), vec![down()]),
            ("it comes up", of(1, State::Up, [1, 0]), vec![Said::Up]),
            ("it is still up", of(1, State::Up, [1, 0]), vec![Said::Up]),
            (
                "it was down between two looks",
                of(1, State::Up, [2, 1]),
                vec![missed.clone(), Said::Up],
            ),
            ("nobody is reached again", unreachable, vec![nobody()]),
            (
                "what it was meanwhile is not known",
                of(1, State::Up, [3, 2]),
                vec![Said::Up],
            ),
            ("it goes down", of(1, State::Down, [3, 3]), vec![down()]),
            ("it is back", of(1, State::Up, [4, 3]), vec![Said::Up]),
            (
                "somebody holds it down",
                of(1, State::AdminDown, [4, 4]),
                vec![Said::AdminDown],
            ),
            ("it is back", of(1, State::Up, [5, 4]), vec![Said::Up]),
            (
                "it is another session",
                of(1, State::Down, [0, 0]),
                vec![unknown("it is another BFD session"), down()],
            ),
        ] {
            assert_eq!(ear.hear(&states, [192, 0, 2, 1].into()), said, "{sentence}");
        }
    }
}
