//! The speaker: one session per peer, started, changed and stopped as the
//! configuration says, and the listener that hands them incoming connections.

mod bfd;
pub mod dropped;
pub mod icmp;
mod journal;
mod listener;
mod peer;
mod routes;
mod sharing;
mod socket;
pub(crate) mod sockopt;
mod tally;
mod terms;
mod trouble;
mod watched;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tracing::{error, info, warn};
use vipd_bgp::{Session, StopReason};

pub use self::watched::{PeerStatus, Told};
use self::{
    listener::{Door, Listeners},
    peer::{Command, Inputs},
    terms::{Restart, session_config},
};
use crate::{
    announce::Announced,
    bfd::client::{OrderError, States},
    config::{Bgp, BgpPeer, Secret, SecretError, SecretFile},
    events::Recorder,
};

/// All sessions by the names of their peers; each is watched by itself.
pub type Peers = BTreeMap<Arc<str>, PeerView>;

/// A session as others see it.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its state.
    pub status: watch::Receiver<PeerStatus>,
    /// Its driver, if there is one.
    driver: Option<mpsc::Sender<Command>>,
}

/// How long a session may take to say its last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a session may take to tell what it is asked.
const ANSWER: Duration = Duration::from_secs(1);

/// The longest pause between two attempts to read a password.
const READ_AGAIN_MAX: Duration = Duration::from_secs(60);

/// All sessions.
pub struct Speaker {
    bgp: Option<Bgp>,
    announced: watch::Receiver<Arc<Announced>>,
    /// This agent goes on with a data plane that an earlier one has left.
    survived: bool,
    bfd: bfd::Watch,
    recorder: Recorder,
    running: BTreeMap<Arc<str>, Running>,
    held_up: BTreeMap<Arc<str>, HeldUp>,
    listeners: Listeners,
    peers: watch::Sender<Peers>,
}

struct Running {
    password: Option<Secret>,
    peer: watch::Sender<Arc<BgpPeer>>,
    door: mpsc::Sender<TcpStream>,
    commands: mpsc::Sender<Command>,
    status: watch::Sender<PeerStatus>,
    task: JoinHandle<()>,
}

/// A session that has not been started, since its password cannot be read.
struct HeldUp {
    status: watch::Sender<PeerStatus>,
    attempts: u32,
    again_at: Instant,
}

/// What the speaker wants to be looked after for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wake {
    /// The session with this peer has ended that was not told to. It shows as
    /// failed.
    Ended(Arc<str>),
    /// It is time to read a password again that could not be read.
    Password,
}

impl PeerView {
    /// What the peer has been told. Worked out only when somebody asks; nothing
    /// if there is nobody to answer.
    pub async fn told(&self) -> Told {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.driver
                .as_ref()?
                .send(Command::Tell(answer))
                .await
                .ok()?;
            answered.await.ok()
        };
        timeout(ANSWER, asked)
            .await
            .ok()
            .flatten()
            .unwrap_or_default()
    }
}

impl Speaker {
    /// A speaker without sessions. `survived`: packets are forwarded as an earlier
    /// agent has left it, so routers may keep what that one told them.
    #[must_use]
    pub fn new(
        announced: watch::Receiver<Arc<Announced>>,
        survived: bool,
        bfd_socket: PathBuf,
        recorder: Recorder,
    ) -> Self {
        Self {
            bgp: None,
            announced,
            survived,
            bfd: bfd::Watch::new(bfd_socket),
            recorder,
            running: BTreeMap::new(),
            held_up: BTreeMap::new(),
            listeners: Listeners::default(),
            peers: watch::Sender::default(),
        }
    }

    /// What is announced.
    #[must_use]
    pub fn announced(&self) -> watch::Receiver<Arc<Announced>> {
        self.announced.clone()
    }

    /// Whether any peer can hear us now, or has lost its session but may keep our
    /// routes and send to us (graceful restart).
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        let now = Instant::now();
        self.running
            .values()
            .any(|running| running.status.borrow().may_have_routes(now))
    }

    /// The states of the sessions.
    #[must_use]
    pub fn peers(&self) -> watch::Receiver<Peers> {
        self.peers.subscribe()
    }

    /// What BFD says of the peers that have it.
    #[must_use]
    pub fn bfd(&self) -> watch::Receiver<States> {
        self.bfd.states()
    }

    /// Reaches the BFD process, or needs it no more, as the configuration says.
    pub fn follow_bfd(&mut self, wanted: bool) {
        self.bfd.follow(wanted);
    }

    /// Brings the sessions to what is configured, passwords included, which
    /// are read now. A session is touched only if it must be: other attributes
    /// of its routes are sent as an update, another password is put on its
    /// connection, and when nothing has changed nothing happens.
    pub async fn configure(&mut self, new: Option<&Bgp>) {
        let restart = self.restarting();
        let old = std::mem::replace(&mut self.bgp, new.cloned());
        let wanted: BTreeMap<_, _> = new
            .iter()
            .flat_map(|bgp| {
                bgp.peers
                    .iter()
                    .map(move |peer| (Arc::clone(&peer.name), (*bgp, peer)))
            })
            .collect();
        let names: Vec<Arc<str>> = self.running.keys().cloned().collect();
        let mut stops = Vec::new();
        for name in names {
            let reason = match (wanted.get(&name), &old, self.running.get_mut(&name)) {
                (None, ..) => StopReason::PeerDeconfigured,
                (Some((bgp, peer)), Some(old), Some(running))
                    if same_sockets(&running.peer.borrow(), peer) =>
                {
                    let config = session_config(bgp, peer, restart);
                    if config != session_config(old, &running.peer.borrow(), restart) {
                        let _ = running.commands.send(Command::Reconfigure(config)).await;
                    }
                    running.peer.send_if_modified(|current| {
                        let changed = **current != ***peer;
                        *current = Arc::clone(peer);
                        changed
                    });
                    running.rekey(peer).await;
                    continue;
                }
                _ => StopReason::ConfigurationChange,
            };
            if let Some(running) = self.running.remove(&name) {
                stops.push(running.stop(reason, None));
            }
        }
        futures_util::future::join_all(stops).await;
        self.held_up.retain(|name, _| wanted.contains_key(name));
        let mut doors = Vec::new();
        for (name, (bgp, peer)) in wanted {
            if !self.running.contains_key(&name) {
                self.start(bgp, peer);
            }
            if let Some(running) = self.running.get(&name) {
                doors.push(Door {
                    peer: Arc::clone(peer),
                    password: running.password.clone(),
                    session: running.door.clone(),
                });
            }
        }
        let port = new.and_then(|bgp| bgp.listen);
        self.listeners.open(doors, port).await;
        let view = |status: &watch::Sender<_>, driver| PeerView {
            status: status.subscribe(),
            driver,
        };
        let running = self.running.iter().map(|(name, running)| {
            let driver = Some(running.commands.clone());
            (Arc::clone(name), view(&running.status, driver))
        });
        let held_up = self.held_up.iter();
        let held_up = held_up.map(|(name, held)| (Arc::clone(name), view(&held.status, None)));
        self.peers.send_replace(running.chain(held_up).collect());
    }

    fn start(&mut self, bgp: &Bgp, peer: &Arc<BgpPeer>) {
        let seed = RandomState::new().hash_one(&*peer.name);
        let config = session_config(bgp, peer, self.restarting());
        let session = match Session::new(config, seed) {
            Ok(session) => session,
            Err(reason) => {
                error!(peer = &*peer.name, "no session: {reason}");
                return;
            }
        };
        let now = Instant::now();
        let status = PeerStatus::new(peer, &session, now);
        let password = match password(peer) {
            Ok(password) => password,
            Err(error) => return self.hold_up(&error, status, now),
        };
        self.held_up.remove(&peer.name);
        let (commands, commands_out) = mpsc::channel(8);
        let (door, incoming) = mpsc::channel(4);
        let status = watch::Sender::new(status);
        let (peer_in, peer_out) = watch::channel(Arc::clone(peer));
        let task = tokio::spawn(peer::run(
            session,
            Inputs {
                peer: peer_out,
                password: password.clone(),
                announced: self.announced.clone(),
                bfd: self.bfd.states(),
                incoming,
                commands: commands_out,
                status: status.clone(),
                recorder: self.recorder.clone(),
            },
        ));
        let running = Running {
            password,
            peer: peer_in,
            door,
            commands,
            status,
            task,
        };
        self.running.insert(Arc::clone(&peer.name), running);
    }

    /// Does not start a session yet. The configuration was refused if a password
    /// could not be read, so its file has changed since.
    fn hold_up(&mut self, error: &SecretError, status: PeerStatus, now: Instant) {
        let name = Arc::clone(&status.peer.name);
        let before = self.held_up.get(&name);
        let attempts = before.map_or(0, |held| held.attempts);
        let words = format!(
            "no session yet, its password cannot be read: {error}: {}",
            error.help()
        );
        if before.is_none() {
            error!(peer = &*name, "{words}");
        }
        let pause = Duration::from_secs(1 << attempts.min(6)).min(READ_AGAIN_MAX);
        let held = HeldUp {
            status: watch::Sender::new(status.held_up(words, now)),
            attempts: attempts + 1,
            again_at: now + pause,
        };
        self.held_up.insert(name, held);
    }

    /// Waits until there is something to do: for each, [`Speaker::configure`]
    /// does it. Cancel-safe.
    pub async fn wake(&mut self) -> Wake {
        let again_at = self.held_up.values().map(|held| held.again_at).min();
        tokio::select! {
            name = self.ended() => Wake::Ended(name),
            () = peer::expiry(again_at) => Wake::Password,
        }
    }

    async fn ended(&mut self) -> Arc<str> {
        let (name, result) = poll_fn(|context| {
            let ended = self.running.iter_mut().find_map(|(name, running)| {
                match Pin::new(&mut running.task).poll(context) {
                    Poll::Ready(result) => Some((Arc::clone(name), result)),
                    Poll::Pending => None,
                }
            });
            ended.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        if let Err(error) = result {
            error!(peer = &*name, "the session's task has failed: {error}");
        }
        if let Some(running) = self.running.remove(&name) {
            let now = Instant::now();
            running.status.send_modify(|status| status.fail(now));
        }
        name
    }

    /// Waits until every peer has been told the present routes, for at most
    /// `limit`; names the peers that have not.
    pub async fn flushed(&mut self, limit: Duration) -> Vec<Arc<str>> {
        let announced = self.announced.borrow().clone();
        let wait = |running: &Running| {
            let mut status = running.status.subscribe();
            let announced = Arc::clone(&announced);
            async move {
                let told = status.wait_for(|status| is_told(status, &announced));
                timeout(limit, told).await.is_ok_and(|told| told.is_ok())
            }
        };
        let told = futures_util::future::join_all(self.running.values().map(wait)).await;
        self.running
            .keys()
            .zip(told)
            .filter(|(_, told)| !told)
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    /// Whether any peer keeps our routes while another agent takes over.
    #[must_use]
    pub fn can_restart(&self) -> bool {
        self.running.values().any(Running::can_restart)
    }

    /// Makes room for another agent: peers that keep our routes meanwhile see the
    /// connection end without a word, the others a Cease.
    pub async fn restart(&mut self, text: &str) {
        self.end(|running| match running.can_restart() {
            true => (StopReason::Restart, None),
            false => (StopReason::AdminShutdown, Some(text.to_owned())),
        })
        .await;
    }

    /// Ends all sessions for good, with a Cease. Then routers are told by BFD too
    /// that we leave on purpose.
    pub async fn stop(&mut self, text: &str) {
        self.end(|_| (StopReason::AdminShutdown, Some(text.to_owned())))
            .await;
        if let Err(error) = self.bfd.admin_down().await {
            warn!("routers do not hear by BFD that we leave: {error}");
        }
    }

    async fn end(&mut self, words: impl Fn(&Running) -> (StopReason, Option<String>)) {
        self.listeners.close().await;
        let running = std::mem::take(&mut self.running);
        let stops = running.into_values().map(|running| {
            let (reason, text) = words(&running);
            running.stop(reason, text)
        });
        futures_util::future::join_all(stops).await;
    }

    /// Has the BFD process follow the configuration too, after
    /// [`Speaker::configure`]; what has changed, in words.
    ///
    /// # Errors
    ///
    /// When it does not, or does not say so in time.
    pub async fn reload_bfd(&mut self) -> Result<Vec<String>, OrderError> {
        let changed = self.bfd.reload().await?;
        Ok(changed.iter().map(|it| format!("BFD: {it}")).collect())
    }

    /// How our own restart goes, as far as peers are to know.
    fn restarting(&self) -> Restart {
        Restart {
            restarting: self.survived,
            forwarding: self.survived || self.announced.borrow().complete,
        }
    }
}

/// Whether nothing has changed that sockets have from their beginning.
fn same_sockets(old: &BgpPeer, peer: &BgpPeer) -> bool {
    old.address == peer.address
        && old.source == peer.source
        && old.interface == peer.interface
        && old.reach == peer.reach
        && old.password.is_some() == peer.password.is_some()
}

/// What a peer's password is now.
fn password(peer: &BgpPeer) -> Result<Option<Secret>, SecretError> {
    peer.password.as_ref().map(SecretFile::read).transpose()
}

fn is_told(status: &PeerStatus, announced: &Announced) -> bool {
    let advertised: usize = status.session.advertised.values().sum();
    status.flushed
        && (status.session.established_at.is_none()
            || advertised == routes::routes(announced, &status.peer.name).len())
}

impl Running {
    /// Gives the session the password that the file has now. One that cannot be
    /// read changes nothing.
    async fn rekey(&mut self, peer: &BgpPeer) {
        match password(peer) {
            Ok(Some(password)) if self.password.as_ref() != Some(&password) => {
                info!(
                    peer = &*peer.name,
                    "another password; the session stays if it changes there"
                );
                self.password = Some(password.clone());
                let _ = self.commands.send(Command::Rekey(password)).await;
            }
            Ok(_) => (),
            Err(error) => warn!(peer = &*peer.name, "the old password stays: {error}"),
        }
    }

    /// Whether the peer keeps our routes when the connection ends.
    fn can_restart(&self) -> bool {
        let status = self.status.borrow();
        let agreed = status.session.agreed.as_ref();
        status.session.established_at.is_some()
            && agreed.is_some_and(|agreed| agreed.restart.is_some())
    }

    async fn stop(mut self, reason: StopReason, text: Option<String>) {
        let stopped = async {
            let _ = self.commands.send(Command::Stop(reason, text)).await;
            let _ = (&mut self.task).await;
        };
        if timeout(LAST_WORDS, stopped).await.is_err() {
            warn!(
                peer = &*self.status.borrow().peer.name,
                "the session does not end; cut off"
            );
            self.task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
