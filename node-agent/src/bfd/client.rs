//! The agent's side of the BFD process's socket.
//!
//! [`start`] gives a [`Bfd`] and the task behind it, which the agent runs for as
//! long as it lives: the connection tells the process that the agent is there.
//! Whoever needs to know watches [`Bfd::states`]:
//!
//! ```no_run
//! # async fn example() {
//! use vipd::bfd::client::{self, PeerState};
//!
//! let (bfd, task) = client::start("/run/vipd/bfd.sock".into());
//! tokio::spawn(task);
//! let mut states = bfd.states();
//! while states.changed().await.is_ok() {
//!     match states.borrow_and_update().of([192, 0, 2, 1].into()) {
//!         PeerState::Down(why) => println!("the router is gone: {why}"),
//!         PeerState::Up | PeerState::AdminDown | PeerState::Unknown(_) => (),
//!     }
//! }
//! # }
//! ```
//!
//! The watch keeps the latest states only. Who must not miss that a session was
//! down between two looks compares [`States::downs`].

use std::{collections::BTreeMap, future::Future, io, net::IpAddr, path::PathBuf, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, interval_at, sleep, timeout, timeout_at},
};
use tracing::{info, warn};

use super::protocol::{self, Message, Request, Session, State, Unreadable, line};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(500);

/// How long the process may take for an order: it does nothing slow itself.
const ANSWER: Duration = Duration::from_secs(2);

/// How long it may take to have the configuration read.
const READING: Duration = Duration::from_secs(5);

/// Between two questions how everything is: counters and gaps change without a
/// word.
const ASK: Duration = Duration::from_secs(2);

/// A process that is silent for so long is not there, whatever its socket says.
/// Longer than [`READING`] and [`ASK`]: who has given an order hears of it first.
const SILENCE: Duration = Duration::from_secs(10);

/// What it means when the process does not know a peer that has BFD.
pub const NO_SESSION: &str = "the BFD process has no session with it: `systemctl reload vipd-bfd` has \
                          it read the configuration";

/// What BFD says of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Nothing: there is no session, or the process is not reached; why. This is
    /// no reason to end a BGP session.
    Unknown(String),
    /// Held down by an operator, here or there: no failure (RFC 5882 section 4.2).
    AdminDown,
    /// Packets do not pass, or have not yet; why.
    Down(String),
    /// Packets pass in both directions.
    Up,
}

/// What BFD says of all peers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct States {
    /// Why the process is not reached, if it is not.
    pub unreachable: Option<String>,
    /// The sessions by peer, as they were when the process was last reached.
    pub sessions: BTreeMap<IpAddr, Session>,
}

impl States {
    /// What BFD says of this peer.
    #[must_use]
    pub fn of(&self, peer: IpAddr) -> PeerState {
        if let Some(why) = &self.unreachable {
            return PeerState::Unknown(why.clone());
        }
        let Some(session) = self.sessions.get(&peer) else {
            return PeerState::Unknown(NO_SESSION.to_owned());
        };
        let by_peer = session.peer.as_ref();
        match session.state {
            State::Up => PeerState::Up,
            State::AdminDown => PeerState::AdminDown,
            State::Down if by_peer.is_some_and(|peer| peer.state == State::AdminDown) => {
                PeerState::AdminDown
            }
            State::Down | State::Init => PeerState::Down(session.why.clone()),
        }
    }

    /// How often the session with this peer was up and went down, since the
    /// process was started.
    #[must_use]
    pub fn downs(&self, peer: IpAddr) -> u64 {
        self.sessions.get(&peer).map_or(0, |session| session.downs)
    }
}

/// Why an order was not carried out.
#[derive(Debug, Error)]
pub enum OrderError {
    /// The process is not reached, or has gone before it answered.
    #[error("the BFD process is not reached")]
    Unreachable,
    /// It says no.
    #[error("the BFD process refuses: {0}")]
    Refused(String),
    /// It has not answered in time; it may still do what it was told.
    #[error("the BFD process has not answered within {0:?}")]
    Silent(Duration),
}

/// A connection to the BFD process.
#[derive(Clone, Debug)]
pub struct Bfd {
    states: watch::Receiver<States>,
    orders: mpsc::Sender<Order>,
}

type Order = (Request, oneshot::Sender<Message>);

/// A connection to the process that serves `socket`, and the task that keeps it.
/// The task never ends while a [`Bfd`] is there.
pub fn start(socket: PathBuf) -> (Bfd, impl Future<Output = ()>) {
    let unreachable = Some("the BFD process has not been reached yet".to_owned());
    let (states_out, states) = watch::channel(States {
        unreachable,
        ..States::default()
    });
    let (orders, orders_in) = mpsc::channel(8);
    (Bfd { states, orders }, keep(socket, states_out, orders_in))
}

impl Bfd {
    /// What BFD says, now and from now on.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<States> {
        self.states.clone()
    }

    /// Has the process read the configuration anew, after it has been found to be
    /// right. What has changed, in words.
    ///
    /// # Errors
    ///
    /// When it is not reached, keeps the old one, or does not answer within 5 s.
    pub async fn reload(&self) -> Result<Vec<String>, OrderError> {
        match self.order(Request::Reload, READING).await? {
            Message::Reloaded {
                applied: true,
                messages,
            } => Ok(messages),
            Message::Reloaded { messages, .. } => Err(OrderError::Refused(messages.join("\n"))),
            other => Err(OrderError::Refused(format!("it answers {other:?}"))),
        }
    }

    /// Holds sessions administratively down, or no longer; `None`: all of them.
    /// It lasts until it is taken back, or another agent connects.
    ///
    /// # Errors
    ///
    /// When the process is not reached, or does not answer within 2 s.
    pub async fn admin_down(
        &self,
        peers: Option<Vec<IpAddr>>,
        down: bool,
    ) -> Result<(), OrderError> {
        match self
            .order(Request::AdminDown { peers, down }, ANSWER)
            .await?
        {
            Message::Done => Ok(()),
            other => Err(OrderError::Refused(format!("it answers {other:?}"))),
        }
    }

    async fn order(&self, request: Request, limit: Duration) -> Result<Message, OrderError> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let sent = self.orders.send((request, answer)).await;
            sent.map_err(|_| OrderError::Unreachable)?;
            answered.await.map_err(|_| OrderError::Unreachable)
        };
        let answered = timeout(limit, asked).await;
        answered.unwrap_or(Err(OrderError::Silent(limit)))
    }
}

/// Why the process is not reached.
#[derive(Debug, Error)]
enum Lost {
    /// Nothing goes over its socket.
    #[error("is not reached: {0}; `systemctl enable --now vipd-bfd` starts it")]
    Socket(#[from] io::Error),
    /// It is there, and says nothing.
    #[error("does not answer: see `journalctl -u vipd-bfd`")]
    Silent,
    /// It is not understood.
    #[error("is not understood: {0}")]
    Unreadable(#[from] Unreadable),
}

/// Connects again and again.
async fn keep(socket: PathBuf, states: watch::Sender<States>, mut orders: mpsc::Receiver<Order>) {
    loop {
        let lost = match UnixStream::connect(&socket).await {
            Ok(stream) => match converse(stream, &states, &mut orders).await {
                Ok(()) => return,
                Err(lost) => lost,
            },
            Err(error) => error.into(),
        };
        let why = Some(format!("the BFD process at {} {lost}", socket.display()));
        states.send_if_modified(|states| {
            let is_new = states.unreachable != why;
            if let (true, Some(why)) = (is_new, &why) {
                warn!("{why}");
            }
            states.unreachable = why;
            is_new
        });
        // Orders of this time have nobody to go to.
        while orders.try_recv().is_ok() {}
        if orders.is_closed() {
            return;
        }
        sleep(RETRY).await;
    }
}

/// Speaks with the process until one of both ends. Cancel safe: reading a line is
/// not, so what has been read of it is kept.
async fn converse(
    stream: UnixStream,
    states: &watch::Sender<States>,
    orders: &mut mpsc::Receiver<Order>,
) -> Result<(), Lost> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut waiting = std::collections::VecDeque::new();
    let mut text = Vec::new();
    let mut ask = interval_at(Instant::now() + ASK, ASK);
    let mut heard = Instant::now();
    write.write_all(&line(&Request::Attend)).await?;
    loop {
        tokio::select! {
            read = timeout_at(heard + SILENCE, read.read_until(b'\n', &mut text)) => {
                if read.map_err(|_| Lost::Silent)?? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                heard = Instant::now();
                let message = protocol::read(&text)?;
                text.clear();
                take(message, states, &mut waiting);
            }
            order = orders.recv() => {
                let Some((request, answer)) = order else {
                    return Ok(());
                };
                waiting.push_back(answer);
                write.write_all(&line(&request)).await?;
            }
            _ = ask.tick() => write.write_all(&line(&Request::Status)).await?,
        }
    }
}

fn take(
    message: Message,
    states: &watch::Sender<States>,
    waiting: &mut std::collections::VecDeque<oneshot::Sender<Message>>,
) {
    match message {
        Message::Status(status) => {
            let sessions = status.sessions.into_iter();
            let sessions = sessions.map(|session| (session.remote, session)).collect();
            let before = states.send_replace(States {
                unreachable: None,
                sessions,
            });
            if before.unreachable.is_some() {
                info!("connected to the BFD process");
            }
        }
        Message::Changed { session } => states.send_modify(|states| {
            states.sessions.insert(session.remote, *session);
        }),
        answer @ (Message::Reloaded { .. } | Message::Done | Message::Refused { .. }) => {
            if let Some(waiting) = waiting.pop_front() {
                // Who has asked may have gone.
                let _ = waiting.send(answer);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{env, fs, process};

    use tokio::net::UnixListener;

    use super::{super::protocol::Status, *};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A session with 192.0.2.`last`.
    pub fn session(last: u8, state: State, why: &str) -> Session {
        let view = format!(
            r#"{{"name": "router", "remote": "192.0.2.{last}", "local": null, "interface": null,
            "multihop": false, "state": "down", "why": "{why}", "for_seconds": 0.0,
            "diagnostic": "", "peer": null, "transmit_interval_seconds": null,
            "detection_time_seconds": null, "sent": 0, "unsent": 0, "received": 0,
            "discarded": {{}}, "ups": 1, "downs": 1, "last_down": null,
            "worst_gap": {{"real_seconds": 0.0, "expected_seconds": 0.0}},
            "worst_gap_last_minute": {{"real_seconds": 0.0, "expected_seconds": 0.0}}}}"#
        );
        let session: Session = serde_json::from_str(&view).expect("a session");
        Session { state, ..session }
    }

    /// A process that says what the test wants.
    struct Fake {
        path: PathBuf,
        listener: UnixListener,
    }

    impl Fake {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("vipd-bfd-{name}-{}", process::id()));
            // One that a killed test left.
            let _ = fs::remove_file(&path);
            let listener = UnixListener::bind(&path).expect("a socket");
            Self { path, listener }
        }

        async fn accept(&self) -> BufReader<UnixStream> {
            let (stream, _) = self.listener.accept().await.expect("the client comes");
            BufReader::new(stream)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.path);
        }
    }

    async fn request(stream: &mut BufReader<UnixStream>) -> Request {
        let mut text = String::new();
        let read = timeout(PATIENCE, stream.read_line(&mut text)).await;
        read.expect("in time").expect("a line");
        serde_json::from_str(&text).expect("a request")
    }

    /// The next request but for questions how it is, which come by the clock.
    async fn expect(stream: &mut BufReader<UnixStream>, expected: &Request) {
        let mut asked = request(stream).await;
        while asked == Request::Status {
            asked = request(stream).await;
        }
        assert_eq!(asked, *expected);
    }

    async fn say(stream: &mut BufReader<UnixStream>, message: &Message) {
        stream
            .get_mut()
            .write_all(&line(message))
            .await
            .expect("it is read");
    }

    async fn wait_for(bfd: &Bfd, peer: IpAddr, good: impl Fn(&PeerState) -> bool) -> PeerState {
        let mut states = bfd.states();
        let waiting = states.wait_for(|states| good(&states.of(peer)));
        let states = timeout(PATIENCE, waiting)
            .await
            .expect("in time")
            .expect("the task lives");
        states.of(peer)
    }

    #[tokio::test]
    async fn states_follow_the_process_and_are_unknown_without_it_never_down() {
        let fake = Fake::new("states");
        let peer = IpAddr::from([192, 0, 2, 1]);
        let (bfd, task) = start(fake.path.clone());
        tokio::spawn(task);
        assert!(matches!(
            bfd.states().borrow().of(peer),
            PeerState::Unknown(_)
        ));

        let mut stream = fake.accept().await;
        expect(&mut stream, &Request::Attend).await;
        let sessions = vec![session(1, State::Up, "")];
        say(
            &mut stream,
            &Message::Status(Status {
                sessions,
                ..Status::default()
            }),
        )
        .await;
        wait_for(&bfd, peer, |state| *state == PeerState::Up).await;
        let other = [192, 0, 2, 9].into();
        assert!(matches!(
            bfd.states().borrow().of(other),
            PeerState::Unknown(_)
        ));

        let session = Box::new(session(1, State::Down, "the cable is cut"));
        say(&mut stream, &Message::Changed { session }).await;
        let down = PeerState::Down("the cable is cut".to_owned());
        wait_for(&bfd, peer, |state| *state == down).await;
        assert_eq!(bfd.states().borrow().downs(peer), 1);

        drop(stream);
        wait_for(&bfd, peer, |state| matches!(state, PeerState::Unknown(_))).await;
        // It comes again by itself.
        expect(&mut fake.accept().await, &Request::Attend).await;
    }

    #[tokio::test]
    async fn each_order_gets_its_own_answer() {
        let fake = Fake::new("orders");
        let (bfd, task) = start(fake.path.clone());
        tokio::spawn(task);
        let mut stream = fake.accept().await;
        expect(&mut stream, &Request::Attend).await;
        say(&mut stream, &Message::Status(Status::default())).await;

        let peers = Some(vec![IpAddr::from([192, 0, 2, 1])]);
        let order = tokio::spawn({
            let (bfd, peers) = (bfd.clone(), peers.clone());
            async move { bfd.admin_down(peers, true).await }
        });
        expect(&mut stream, &Request::AdminDown { peers, down: true }).await;
        say(&mut stream, &Message::Done).await;
        order.await.expect("it ends").expect("it is done");

        let order = tokio::spawn({
            let bfd = bfd.clone();
            async move { bfd.reload().await }
        });
        expect(&mut stream, &Request::Reload).await;
        let messages = vec!["line 3 is wrong".to_owned()];
        say(
            &mut stream,
            &Message::Reloaded {
                applied: false,
                messages,
            },
        )
        .await;
        let refused = order.await.expect("it ends").expect_err("it is refused");
        assert_eq!(
            refused.to_string(),
            "the BFD process refuses: line 3 is wrong"
        );

        let order = tokio::spawn({
            let bfd = bfd.clone();
            async move { bfd.reload().await }
        });
        expect(&mut stream, &Request::Reload).await;
        let silent = bfd.order(Request::Status, Duration::from_millis(50)).await;
        let silent = silent.expect_err("nobody answers");
        let words = "the BFD process has not answered within 50ms";
        assert_eq!(silent.to_string(), words);
        drop(stream);
        let lost = order.await.expect("it ends").expect_err("it is lost");
        assert_eq!(lost.to_string(), "the BFD process is not reached");
    }

    #[tokio::test]
    async fn what_changes_without_a_word_is_asked_for() {
        let fake = Fake::new("asked");
        let (_bfd, task) = start(fake.path.clone());
        tokio::spawn(task);
        let mut stream = fake.accept().await;
        for expected in [Request::Attend, Request::Status, Request::Status] {
            assert_eq!(request(&mut stream).await, expected);
            say(&mut stream, &Message::Status(Status::default())).await;
        }
    }

    #[tokio::test]
    async fn a_process_of_another_version_is_told_as_such_and_its_states_are_unknown() {
        let fake = Fake::new("old");
        let peer = IpAddr::from([192, 0, 2, 1]);
        let (bfd, task) = start(fake.path.clone());
        tokio::spawn(task);
        let mut stream = fake.accept().await;
        expect(&mut stream, &Request::Attend).await;
        let old = Message::Status(Status {
            version: 0,
            sessions: vec![session(1, State::Up, "")],
            ..Status::default()
        });
        say(&mut stream, &old).await;
        let said = |state: &PeerState| match state {
            PeerState::Unknown(why) => why.contains("systemctl restart vipd-bfd"),
            _ => false,
        };
        wait_for(&bfd, peer, said).await;
    }

    #[tokio::test]
    async fn a_process_that_does_not_answer_is_not_there() {
        let fake = Fake::new("silent");
        let peer = IpAddr::from([192, 0, 2, 1]);
        let (bfd, task) = start(fake.path.clone());
        tokio::spawn(task);
        let mut stream = fake.accept().await;
        expect(&mut stream, &Request::Attend).await;
        let up = Status {
            sessions: vec![session(1, State::Up, "")],
            ..Status::default()
        };
        say(&mut stream, &Message::Status(up)).await;
        wait_for(&bfd, peer, |state| *state == PeerState::Up).await;
        let said = |state: &PeerState| match state {
            PeerState::Unknown(why) => why.contains("does not answer"),
            _ => false,
        };
        wait_for(&bfd, peer, said).await;
    }
}
