//! The loop of the BFD process: wait, take in what has come, let time pass, send
//! what is due.
//!
//! One thread with real-time priority does all that sessions need, and nothing
//! else: interfaces are watched ([`super::links`]), the configuration is read and
//! the log is written ([`super::log`]) by others.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    num::NonZeroU32,
    path::{Path as FilePath, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::AsFd as _,
};
use vipd_bfd::{Hops, Path, Sessions, State, packet::MAX_LEN};

use super::{
    datagram::{DATAGRAM_MAX, Place, Receiver, Sender, is_no_interface},
    holds::{Facts, Orders, Subject},
    links::{self, Link},
    log::Log,
    plan::{Plan, Wanted},
    protocol::{Message, Request, Status},
    realtime::{self, Signal, Signals},
    server::{ClientId, Server},
    view,
    wake::{self, Wake, Waker, Wakes},
};

/// Datagrams taken from a socket before others have their turn.
const BATCH: usize = 256;

/// How long a peer may take to hear that a session ends.
const FAREWELL: Duration = Duration::from_millis(2500);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// When the configuration, the socket or a port is not to be had, in words.
pub fn run(config: &FilePath, plan: Plan) -> anyhow::Result<()> {
    // Threads inherit it.
    let signals = Signals::take()?;
    let log = Log::start()?;
    let server = Server::open(&plan.socket)
        .with_context(|| format!("cannot serve {}", plan.socket.display()))?;
    let (waker, wakes) = wake::pair()?;
    links::watch(waker.clone()).context("cannot watch the interfaces")?;
    let mut process = Process::new(config, server, waker, wakes, log);
    for message in process.apply(plan)? {
        process.log.info(message);
    }
    // Nobody says that the host forwards already.
    process.facts.awaited.clear();
    for refused in realtime::prepare() {
        process.log.warn(refused);
    }
    process.run(&signals)
}

pub(super) struct Process {
    config: PathBuf,
    pub(super) plan: Plan,
    pub(super) sessions: Sessions,
    pub(super) entries: BTreeMap<NonZeroU32, Entry>,
    receivers: BTreeMap<Place, Receiver>,
    pub(super) facts: Facts,
    server: Server,
    waker: Waker,
    wakes: Wakes,
    /// Who waits for the configuration to be read.
    readers: Vec<ClientId>,
    reading: bool,
    log: Log,
    stopping: Option<Instant>,
    pub(super) worst_delay: Duration,
}

/// What the process has beside a session.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) path: Path,
    /// `None` while the interface it is bound to is not there.
    sender: Option<Sender>,
    /// The interface by which the peer was last heard, if it is on our link.
    pub(super) interface: Option<u32>,
    pub(super) unsent: u64,
    /// Why the last packet could not be sent.
    pub(super) failure: Option<io::Error>,
    /// It is not wanted any more, and forgotten then.
    pub(super) leaving: Option<Instant>,
}

impl Process {
    fn new(config: &FilePath, server: Server, waker: Waker, wakes: Wakes, log: Log) -> Self {
        Self {
            config: config.to_owned(),
            plan: Plan::default(),
            sessions: Sessions::new(fastrand::u64(..)),
            entries: BTreeMap::new(),
            receivers: BTreeMap::new(),
            facts: Facts {
                links: None,
                awaited: BTreeSet::new(),
                agent_away: Some(Instant::now()),
                orders: Orders::default(),
                stopping: false,
            },
            server,
            waker,
            wakes,
            readers: Vec::new(),
            reading: false,
            log,
            stopping: None,
            worst_delay: Duration::ZERO,
        }
    }

    fn run(&mut self, signals: &Signals) -> anyhow::Result<()> {
        loop {
            let deadline = self.deadline();
            self.wait(signals, deadline)?;
            let late = deadline.map(|deadline| Instant::now().saturating_duration_since(deadline));
            self.worst_delay = self.worst_delay.max(late.unwrap_or_default());

            self.receive();
            while let Some(signal) = signals.next() {
                match signal {
                    Signal::Stop => self.stop(),
                    Signal::Reload => self.read(None),
                }
            }
            while let Some(wake) = self.wakes.next() {
                match wake {
                    Wake::Links(links) => {
                        self.rebind(&links);
                        self.facts.links(links);
                    }
                    Wake::Warning(words) => self.log.warn(words),
                    Wake::Read(plan) => self.reload(plan),
                }
            }
            self.serve();
            let now = Instant::now();
            self.hold(now);
            self.advance(now);
            self.server.flush();
            if self.has_ended(now) {
                return Ok(());
            }
        }
    }

    /// When something is due.
    fn deadline(&self) -> Option<Instant> {
        let away = self.facts.deadline(self.plan.restart_time);
        // What has passed is known already.
        let away = away.filter(|deadline| *deadline > Instant::now());
        let leaving = self.entries.values().filter_map(|entry| entry.leaving);
        let due = [self.sessions.poll_timeout(), away, self.stopping];
        due.into_iter().flatten().chain(leaving).min()
    }

    fn wait(&self, signals: &Signals, deadline: Option<Instant>) -> anyhow::Result<()> {
        let mut fds = vec![
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(&self.wakes, PollFlags::IN),
        ];
        let receivers = self.receivers.values();
        fds.extend(
            receivers.map(|receiver| PollFd::from_borrowed_fd(receiver.as_fd(), PollFlags::IN)),
        );
        self.server.poll_fds(&mut fds);
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: 3600,
                tv_nsec: 0,
            })
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait"),
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; DATAGRAM_MAX];
        for receiver in self.receivers.values() {
            for _ in 0..BATCH {
                let Ok((arrival, datagram)) = receiver.receive(&mut buffer) else {
                    break;
                };
                let Some((arrival, interface)) = arrival else {
                    continue;
                };
                // What is discarded is counted.
                if let Ok(id) = self.sessions.receive(&arrival, datagram, Instant::now())
                    && let Some(entry) = self.entries.get_mut(&id)
                    && entry.path.hops == Hops::Single
                {
                    entry.interface = Some(interface);
                }
            }
        }
    }

    fn serve(&mut self) {
        for (client, request) in self.server.serve() {
            let answer = match request {
                Ok(Request::Attend) => {
                    self.facts.orders = Orders::default();
                    self.server.attend(client);
                    Message::Status(self.status())
                }
                Ok(Request::Status) => Message::Status(self.status()),
                Ok(Request::Reload) => {
                    self.read(Some(client));
                    continue;
                }
                Ok(Request::AdminDown { peers, down }) => {
                    self.facts.orders.take(peers, down);
                    Message::Done
                }
                Err(why) => Message::Refused { why },
            };
            self.server.answer(client, &answer);
        }
        self.facts.agent_away = match (self.server.has_agent(), self.facts.agent_away) {
            (true, _) => None,
            (false, Some(since)) => Some(since),
            (false, None) => Some(Instant::now()),
        };
    }

    /// Has the configuration read by another thread.
    fn read(&mut self, client: Option<ClientId>) {
        self.readers.extend(client);
        if self.reading {
            return;
        }
        let (config, waker) = (self.config.clone(), self.waker.clone());
        let read = move || {
            // If the loop has ended nobody needs it.
            let _ = waker.wake(Wake::Read(Plan::read(&config).map(Box::new)));
        };
        let started = thread::Builder::new().name("reload".into()).spawn(read);
        match started {
            Ok(_) => self.reading = true,
            Err(error) => self.reload(Err(vec![error.to_string()])),
        }
    }

    fn reload(&mut self, plan: Result<Box<Plan>, Vec<String>>) {
        self.reading = false;
        let result = match plan {
            Ok(plan) if plan.socket != self.plan.socket => {
                Err(vec!["another bfd.socket needs a restart".to_owned()])
            }
            Ok(plan) => self
                .apply(*plan)
                .map_err(|error| vec![format!("{error:#}")]),
            Err(messages) => Err(messages),
        };
        let applied = result.is_ok();
        let messages = result.unwrap_or_else(|messages| messages);
        for message in &messages {
            if applied {
                self.log.info(message.clone());
            } else {
                self.log
                    .warn(format!("the old configuration stays in force: {message}"));
            }
        }
        if applied {
            // Sessions may have come and gone.
            let status = Message::Status(self.status());
            self.server.publish(&status);
        }
        let answer = Message::Reloaded { applied, messages };
        for client in std::mem::take(&mut self.readers) {
            self.server.answer(client, &answer);
        }
    }

    /// Makes the sessions what is wanted. Gives back what has changed, in words.
    ///
    /// # Errors
    /// When a socket cannot be opened; then nothing has changed.
    fn apply(&mut self, plan: Plan) -> anyhow::Result<Vec<String>> {
        let mut messages = Vec::new();
        let mut fresh = Vec::new();
        let known: BTreeMap<Path, NonZeroU32> = self
            .entries
            .iter()
            .map(|(id, entry)| (entry.path.clone(), *id))
            .collect();
        let receivers = self.open(plan.sessions.keys().map(Place::of).collect())?;
        for (path, wanted) in &plan.sessions {
            if !known.contains_key(path) {
                let sender = if_there(Sender::open(path))
                    .with_context(|| format!("no socket for {}", wanted.name))?;
                fresh.push((path.clone(), wanted.clone(), sender));
            }
        }

        let now = Instant::now();
        for (path, id) in known {
            let (Some(entry), Some(session)) =
                (self.entries.get_mut(&id), self.sessions.get_mut(id))
            else {
                continue;
            };
            match plan.sessions.get(&path) {
                Some(Wanted { name, config }) => {
                    entry.leaving = None;
                    entry.name = name.to_string();
                    if session.config() != config {
                        messages.push(format!("BFD with {name}: changed"));
                        session.configure(config.clone());
                    }
                }
                None => {
                    messages.push(format!("BFD with {}: removed", entry.name));
                    entry.leaving.get_or_insert(now + FAREWELL);
                }
            }
        }
        for (path, Wanted { name, config }, sender) in fresh {
            messages.push(format!("BFD with {name}: added"));
            let id = self.sessions.add(path.clone(), config, now);
            let entry = Entry {
                name: name.to_string(),
                path,
                sender,
                interface: None,
                unsent: 0,
                failure: None,
                leaving: None,
            };
            self.entries.insert(id, entry);
        }
        self.receivers.extend(receivers);
        self.facts.require(&self.plan.interfaces, &plan.interfaces);
        if plan.sessions.is_empty() {
            messages.push("no peer has BFD: nothing to do until a reload".to_owned());
        }
        self.plan = plan;
        self.filter();
        Ok(messages)
    }

    /// Has the kernel drop what no session would take for its TTL.
    fn filter(&self) {
        for (place, receiver) in &self.receivers {
            let here = self.sessions.iter();
            let here = here.filter(|(path, _)| Place::of(path) == *place);
            let lowest = here
                .map(|(path, session)| path.hops.min_ttl(session.config()))
                .min();
            if let Err(error) = receiver.set_min_ttl(lowest.unwrap_or(u8::MAX)) {
                let port = place.port();
                self.log.warn(format!(
                    "who sends much to UDP port {port} keeps us busy, there is no filter: {error}"
                ));
            }
        }
    }

    /// What the kernel has dropped of what came to where a session's packets come.
    pub(super) fn dropped(&self, path: &Path) -> u32 {
        let receiver = self.receivers.get(&Place::of(path));
        receiver.map_or(0, Receiver::dropped)
    }

    /// The same of all ports.
    pub(super) fn all_dropped(&self) -> u64 {
        let dropped = self.receivers.values().map(Receiver::dropped);
        dropped.map(u64::from).sum()
    }

    /// Opens those of these places that are not open yet, as far as their
    /// interfaces are there. Nobody else can open them too.
    ///
    /// # Errors
    /// When a port cannot be opened.
    fn open(&self, places: BTreeSet<Place>) -> anyhow::Result<BTreeMap<Place, Receiver>> {
        let mut all = self.receivers.keys().chain(&places);
        let shared = all.any(|place| place.interface.is_some());
        let share =
            |receiver: &Receiver, shared| receiver.share(shared).context("cannot share a UDP port");
        for receiver in self.receivers.values() {
            share(receiver, shared)?;
        }
        let mut opened = BTreeMap::new();
        for place in places {
            if !self.receivers.contains_key(&place) {
                let receiver = if_there(Receiver::open(&place, shared))
                    .with_context(|| format!("cannot open UDP port {}", place.port()))?;
                opened.extend(receiver.map(|receiver| (place, receiver)));
            }
        }
        for receiver in self.receivers.values().chain(opened.values()) {
            share(receiver, false)?;
        }
        Ok(opened)
    }

    /// Opens anew what is bound to interfaces that have come, or were made anew.
    fn rebind(&mut self, links: &BTreeMap<u32, Link>) {
        self.receivers.retain(|_, receiver| {
            let mut bound = receiver.bound().into_iter();
            bound.all(|bound| bound.is_one_of(links))
        });
        let mut places = BTreeSet::new();
        for entry in self.entries.values_mut() {
            if entry.path.interface.is_none() {
                continue;
            }
            let mut bound = entry.sender.iter().filter_map(Sender::bound);
            if !bound.any(|bound| bound.is_one_of(links)) {
                entry.sender = Sender::open(&entry.path).ok();
            }
            places.insert(Place::of(&entry.path));
        }
        match self.open(places) {
            Ok(opened) => self.receivers.extend(opened),
            Err(error) => self
                .log
                .warn(format!("an interface has changed: {error:#}")),
        }
        self.filter();
    }

    /// Holds down what is to be held down.
    fn hold(&mut self, now: Instant) {
        for (id, entry) in &self.entries {
            let subject = Subject {
                remote: entry.path.remote,
                interface: entry.interface,
                leaving: entry.leaving.is_some(),
                dataplane: &self.plan.interfaces,
                restart_time: self.plan.restart_time,
            };
            let hold = self.facts.hold(&subject, now);
            if let Some(session) = self.sessions.get_mut(*id) {
                session.hold(hold, now);
            }
        }
    }

    /// Lets time pass in all sessions, sends what is due, tells what has changed.
    fn advance(&mut self, now: Instant) {
        let mut buffer = [0; MAX_LEN];
        let mut changed = Vec::new();
        for (id, entry) in &mut self.entries {
            let Some(session) = self.sessions.get_mut(*id) else {
                continue;
            };
            session.handle_timeout(now);
            while let Some(length) = session.poll_transmit(now, &mut buffer) {
                let sent = match &entry.sender {
                    Some(sender) => sender.send(&buffer[..length]),
                    None => Err(no_interface(&entry.path)),
                };
                entry.unsent += u64::from(sent.is_err());
                if let (Err(error), None) = (&sent, &entry.failure) {
                    let name = &entry.name;
                    self.log
                        .warn(format!("BFD with {name}: cannot send: {error}"));
                }
                entry.failure = sent.err();
            }
            while let Some(event) = session.poll_event() {
                let words = format!(
                    "BFD with {}: {} > {}: {}",
                    entry.name, event.from, event.to, event.cause
                );
                if event.from == State::Up {
                    self.log.warn(words);
                } else {
                    self.log.info(words);
                }
                if entry.leaving.is_none() {
                    changed.push(*id);
                }
            }
        }
        changed.dedup();
        for id in changed {
            if let Some(session) = view::session(self, id, now) {
                let session = Box::new(session);
                self.server.publish(&Message::Changed { session });
            }
        }
        self.forget(now);
    }

    /// Forgets the sessions that are not wanted, once their peers know.
    fn forget(&mut self, now: Instant) {
        let sessions = &mut self.sessions;
        let receivers = &mut self.receivers;
        self.entries.retain(|id, entry| {
            let peer_is_down = sessions
                .get_mut(*id)
                .is_none_or(|session| session.peer_is_down());
            let stays = entry
                .leaving
                .is_none_or(|until| until > now && !peer_is_down);
            if !stays {
                sessions.remove(*id);
            }
            stays
        });
        let paths = || self.entries.values().map(|entry| &entry.path);
        receivers.retain(|place, _| paths().any(|path| Place::of(path) == *place));
    }

    fn stop(&mut self) {
        self.log
            .info("stopping: peers are told that their sessions are down".to_owned());
        self.facts.stopping = true;
        self.stopping.get_or_insert(Instant::now() + FAREWELL);
    }

    /// Whether all peers know that we end, or have had their time.
    fn has_ended(&self, now: Instant) -> bool {
        let all_know = || {
            self.sessions
                .iter()
                .all(|(_, session)| session.peer_is_down())
        };
        self.stopping
            .is_some_and(|until| until <= now || all_know())
    }

    fn status(&self) -> Status {
        view::status(self, self.server.has_agent(), Instant::now())
    }
}

/// A socket, unless the interface it is to be bound to is not there.
fn if_there<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if is_no_interface(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn no_interface(path: &Path) -> io::Error {
    let name = path.interface.as_deref().unwrap_or_default();
    io::Error::other(format!("there is no interface {name}"))
}
