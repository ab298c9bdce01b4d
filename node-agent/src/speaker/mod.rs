//! The speaker: one session per peer, started, changed and stopped as the
//! configuration says, and the listener that hands them incoming connections.

mod dropped;
mod icmp;
mod journal;
mod listener;
mod peer;
mod routes;
mod socket;
mod sockopt;
mod trouble;
mod watched;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    hash::{BuildHasher, RandomState},
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
    peer::{Command, Inputs, session_config},
};
use crate::{
    announce::Announced,
    config::{Bgp, BgpPeer, Secret, SecretError, SecretFile},
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
    /// A speaker without sessions.
    #[must_use]
    pub fn new(announced: watch::Receiver<Arc<Announced>>) -> Self {
        Self {
            bgp: None,
            announced,
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

    /// Whether any peer can hear us now.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        self.running
            .values()
            .any(|running| running.status.borrow().session.established_at.is_some())
    }

    /// The states of the sessions.
    #[must_use]
    pub fn peers(&self) -> watch::Receiver<Peers> {
        self.peers.subscribe()
    }

    /// Brings the sessions to what is configured, passwords included, which
    /// are read now. A session is touched only if it must be: other attributes
    /// of its routes are sent as an update, another password is put on its
    /// connection, and when nothing has changed nothing happens.
    pub async fn configure(&mut self, new: Option<&Bgp>) {
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
        for name in names {
            let reason = match (wanted.get(&name), &old, self.running.get_mut(&name)) {
                (None, ..) => StopReason::PeerDeconfigured,
                (Some((bgp, peer)), Some(old), Some(running))
                    if same_sockets(&running.peer.borrow(), peer) =>
                {
                    let config = session_config(bgp, peer);
                    if config != session_config(old, &running.peer.borrow()) {
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
                running.stop(reason, None).await;
            }
        }
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
        let session = match Session::new(session_config(bgp, peer), seed) {
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
                incoming,
                commands: commands_out,
                status: status.clone(),
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

    /// Ends all sessions with a Cease.
    pub async fn stop(&mut self, text: &str) {
        self.listeners.close().await;
        let running = std::mem::take(&mut self.running);
        let stops = running
            .into_values()
            .map(|running| running.stop(StopReason::AdminShutdown, Some(text.to_owned())));
        futures_util::future::join_all(stops).await;
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

    async fn stop(mut self, reason: StopReason, text: Option<String>) {
        let _ = self.commands.send(Command::Stop(reason, text)).await;
        if timeout(LAST_WORDS, &mut self.task).await.is_err() {
            warn!(
                peer = &*self.status.borrow().peer.name,
                "the session does not end; cut off"
            );
            self.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        path::PathBuf,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;
    use crate::config::{Config, SecretFile};

    /// A speaker with one peer, which is [`peer`].
    pub fn bgp() -> Bgp {
        let text = r#"
            [bgp]
            local_as = 64496
            router_id = "192.0.2.11"

            [[bgp.peer]]
            name = "router"
            address = "192.0.2.1"
            as = 64497
            hold_time = "3s"
        "#;
        let (config, _) = Config::parse(text, "vipd.toml").expect("a good configuration");
        config.bgp.expect("it has [bgp]")
    }

    /// A router at this address and port.
    pub fn peer(address: &str) -> BgpPeer {
        BgpPeer {
            address: address.parse().unwrap(),
            ..BgpPeer::clone(&bgp().peers[0])
        }
    }

    /// A file with a password, for as long as this lives.
    struct PasswordFile(PathBuf);

    impl PasswordFile {
        fn new(password: &[u8]) -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("vipd-password-{}-{number}", std::process::id());
            let file = Self(std::env::temp_dir().join(name));
            file.write(password);
            file
        }

        fn write(&self, password: &[u8]) {
            fs::write(&self.0, password).unwrap();
            fs::set_permissions(&self.0, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    impl Drop for PasswordFile {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// A password as it is read.
    pub fn password(bytes: &[u8]) -> Secret {
        let file = PasswordFile::new(bytes);
        SecretFile::new(file.0.clone(), 1000).read().unwrap()
    }

    #[tokio::test]
    async fn a_session_takes_another_password_over_and_starts_anew_only_without_one() {
        let file = PasswordFile::new(b"swordfish");
        let mut bgp = bgp();
        bgp.peers = vec![Arc::new(BgpPeer {
            passive: true,
            source: Some([127, 0, 0, 77].into()),
            password: Some(SecretFile::new(file.0.clone(), 80)),
            ..peer("192.0.2.1:179")
        })];
        let (_announced, announced) = watch::channel(Arc::default());
        let mut speaker = Speaker::new(announced);
        speaker.configure(Some(&bgp)).await;
        let session = |speaker: &Speaker| speaker.running["router"].door.clone();
        let first = session(&speaker);

        let given = |speaker: &Speaker| speaker.running["router"].password.clone();
        let steps: [(&str, &[u8], &[u8]); 3] = [
            ("nothing changed", b"swordfish", b"swordfish"),
            ("it is unreadable", b"", b"swordfish"),
            ("it has changed", b"other", b"other"),
        ];
        for (sentence, written, expected) in steps {
            file.write(written);
            speaker.configure(Some(&bgp)).await;
            assert!(session(&speaker).same_channel(&first), "{sentence}");
            assert_eq!(given(&speaker), Some(password(expected)), "{sentence}");
        }

        let mut slower = bgp.clone();
        slower.router_id = [192, 0, 2, 12].into();
        slower.peers = vec![Arc::new(BgpPeer {
            connect_retry: Duration::from_secs(7),
            ..BgpPeer::clone(&bgp.peers[0])
        })];
        speaker.configure(Some(&slower)).await;
        assert!(session(&speaker).same_channel(&first), "other terms");

        let mut open = bgp.clone();
        open.peers = vec![Arc::new(BgpPeer {
            password: None,
            ..BgpPeer::clone(&bgp.peers[0])
        })];
        speaker.configure(Some(&open)).await;
        assert!(!session(&speaker).same_channel(&first), "there is none");
    }

    #[tokio::test]
    async fn a_session_whose_password_cannot_be_read_shows_why_and_starts_by_itself() {
        let file = PasswordFile::new(b"");
        let mut bgp = bgp();
        bgp.peers = vec![Arc::new(BgpPeer {
            passive: true,
            source: Some([127, 0, 0, 79].into()),
            password: Some(SecretFile::new(file.0.clone(), 80)),
            ..peer("192.0.2.1:179")
        })];
        let (_announced, announced) = watch::channel(Arc::default());
        let mut speaker = Speaker::new(announced);
        speaker.configure(Some(&bgp)).await;
        let peers = speaker.peers();
        let error = || {
            let view = peers.borrow()["router"].clone();
            let status = view.status.borrow();
            status.session.last_error.clone().map(|error| error.words)
        };
        let words = error().expect("it says why");
        assert!(words.contains("is empty"), "{words}");

        file.write(b"swordfish");
        let wake = timeout(Duration::from_secs(20), speaker.wake()).await;
        assert_eq!(wake, Ok(Wake::Password));
        speaker.configure(Some(&bgp)).await;
        assert!(speaker.running.contains_key("router"));
        assert_eq!(error(), None);
        let early = timeout(Duration::from_millis(50), speaker.wake()).await;
        assert!(early.is_err(), "woken for nothing: {early:?}");
    }

    #[tokio::test]
    async fn a_session_that_fails_is_named_and_can_be_started_again() {
        let mut bgp = bgp();
        bgp.peers = vec![Arc::new(BgpPeer {
            passive: true,
            source: Some([127, 0, 0, 78].into()),
            ..peer("192.0.2.1:179")
        })];
        let (_announced, announced) = watch::channel(Arc::default());
        let mut speaker = Speaker::new(announced);
        speaker.configure(Some(&bgp)).await;
        let peers = speaker.peers();
        let failed =
            |peers: &watch::Receiver<Peers>| peers.borrow()["router"].status.borrow().failed;
        assert!(!failed(&peers));
        let early = timeout(Duration::from_millis(50), speaker.wake()).await;
        assert!(early.is_err(), "ended while it runs: {early:?}");

        speaker.running["router"].task.abort();
        let ended = timeout(Duration::from_secs(20), speaker.wake()).await;
        assert_eq!(ended, Ok(Wake::Ended("router".into())));
        assert!(failed(&peers));
        speaker.configure(Some(&bgp)).await;
        assert!(!failed(&peers));
    }
}
