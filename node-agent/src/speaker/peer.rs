//! The driver of one BGP session: sockets and clock around the state machine
//! of `vipd-bgp`, which decides everything.
//!
//! One task per peer. Its loop waits for whatever comes first, hands it over,
//! and flushes. Every branch of the wait is cancel-safe: readiness of a socket
//! (nothing is read in the wait itself), the dial (kept outside), channels.

use std::{
    future::pending,
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
    sync::{mpsc, watch},
    task::yield_now,
    time::{sleep_until, timeout},
};
use tracing::{debug, info, warn};
use vipd_bgp::{
    Action, Direction, Event, Input, LastError, PeerConfig, Session, State, Status, StopReason,
    wire,
};

use super::{routes::routes, socket};
use crate::{
    announce::Announced,
    config::{Bgp, BgpPeer, Secret},
};

/// What the driver publishes about its session.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The peer as configured.
    pub peer: Arc<BgpPeer>,
    /// The session.
    pub session: Status,
    /// Whether every route is with the kernel's socket, or there is nobody to
    /// tell.
    pub flushed: bool,
    /// Whether its task has ended without being told to: nothing of the
    /// session is left.
    pub failed: bool,
}

impl PeerStatus {
    /// A session that has not begun.
    #[must_use]
    pub fn new(peer: &Arc<BgpPeer>, session: &Session) -> Self {
        Self {
            peer: Arc::clone(peer),
            session: session.status(),
            flushed: true,
            failed: false,
        }
    }

    /// Makes it that of a session whose task has ended without being told to.
    pub fn fail(&mut self, now: Instant) {
        self.failed = true;
        self.session.state = State::Idle;
        self.session.established_at = None;
        self.session.agreed = None;
        self.session.advertised.clear();
        self.session.last_error = Some(LastError {
            at: now,
            words: "its task has failed, which is a defect of vipd; see the log".to_owned(),
        });
    }
}

/// What a driver can be told.
#[derive(Debug)]
pub enum Command {
    /// End the session for this reason, with words for the peer's operator,
    /// and end the task.
    Stop(StopReason, Option<String>),
}

/// What a driver lives on.
pub struct Inputs {
    /// The peer; may change in what needs no new session.
    pub peer: watch::Receiver<Arc<BgpPeer>>,
    /// What its segments are signed with.
    pub password: Option<Secret>,
    /// What is announced.
    pub announced: watch::Receiver<Arc<Announced>>,
    /// Connections the peer has opened.
    pub incoming: mpsc::Receiver<TcpStream>,
    /// Commands.
    pub commands: mpsc::Receiver<Command>,
    /// Where the state goes.
    pub status: watch::Sender<PeerStatus>,
}

/// The session's terms, as the state machine wants them.
#[must_use]
pub fn session_config(bgp: &Bgp, peer: &BgpPeer) -> PeerConfig {
    let mut config = PeerConfig::new(
        bgp.local_as.number(),
        peer.remote_as.number(),
        bgp.router_id,
    );
    config.hold_time = Duration::from_secs(peer.hold_time.seconds().into());
    config.passive = peer.passive;
    config.retry_min = peer.connect_retry;
    config.retry_max = config.retry_max.max(peer.connect_retry);
    config.families.clear();
    if peer.families.ipv4.is_some() {
        config.families.insert(wire::Family::Ipv4Unicast);
    }
    if peer.families.ipv6.is_some() {
        config.families.insert(wire::Family::Ipv6Unicast);
    }
    config
}

/// Runs a session until it is told to stop.
pub async fn run(session: Session, mut inputs: Inputs) {
    let mut driver = Driver {
        peer: inputs.peer.borrow_and_update().clone(),
        password: inputs.password.take(),
        session,
        connections: [None, None],
        dial: None,
    };
    driver.set_routes(&mut inputs);
    driver.session.handle(Input::Start, Instant::now());
    loop {
        driver.flush();
        driver.publish(&inputs.status);
        let deadline = driver.session.poll_timeout();
        let [outgoing, incoming] = &driver.connections;
        let command = tokio::select! {
            // Bytes before time: our own delay must not look like the peer's.
            biased;
            command = inputs.commands.recv() => Some(command.unwrap_or(ABANDONED)),
            changed = inputs.announced.changed() => match changed {
                Ok(()) => {
                    driver.set_routes(&mut inputs);
                    None
                }
                Err(_) => Some(ABANDONED),
            },
            changed = inputs.peer.changed() => match changed {
                Ok(()) => {
                    driver.peer = inputs.peer.borrow_and_update().clone();
                    driver.set_routes(&mut inputs);
                    None
                }
                Err(_) => Some(ABANDONED),
            },
            ready = readiness(outgoing.as_ref()) => {
                driver.ready(Direction::Outgoing, ready);
                driver.keep_time();
                None
            }
            ready = readiness(incoming.as_ref()) => {
                driver.ready(Direction::Incoming, ready);
                driver.keep_time();
                None
            }
            result = dialled(&mut driver.dial) => {
                driver.dialled(result);
                None
            }
            Some(stream) = inputs.incoming.recv() => {
                driver.accepted(stream);
                driver.keep_time();
                None
            }
            () = expiry(deadline) => {
                driver.keep_time();
                None
            }
        };
        if let Some(Command::Stop(reason, text)) = command {
            driver
                .session
                .handle(Input::Stop { reason, text }, Instant::now());
            driver.flush();
            driver.publish(&inputs.status);
            return;
        }
        // Without this, one that is always readable starves all other tasks.
        yield_now().await;
    }
}

/// What to do when nobody is left to say anything.
const ABANDONED: Command = Command::Stop(StopReason::AdminShutdown, None);

struct Driver {
    peer: Arc<BgpPeer>,
    password: Option<Secret>,
    session: Session,
    /// By [`Direction`].
    connections: [Option<Connection>; 2],
    dial: Option<Dial>,
}

type Dial = Pin<Box<dyn Future<Output = Result<TcpStream, String>> + Send>>;

struct Connection {
    stream: TcpStream,
    /// What the socket has not taken yet.
    out: BytesMut,
}

async fn readiness(connection: Option<&Connection>) -> io::Result<Ready> {
    match connection {
        Some(connection) if connection.out.is_empty() => {
            connection.stream.ready(Interest::READABLE).await
        }
        Some(connection) => {
            connection
                .stream
                .ready(Interest::READABLE | Interest::WRITABLE)
                .await
        }
        None => pending().await,
    }
}

async fn dialled(dial: &mut Option<Dial>) -> Result<TcpStream, String> {
    match dial {
        Some(dial) => dial.await,
        None => pending().await,
    }
}

async fn expiry(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

impl Driver {
    fn set_routes(&mut self, inputs: &mut Inputs) {
        let announced = inputs.announced.borrow_and_update().clone();
        self.session.set_routes(routes(&announced, &self.peer.name));
    }

    /// Lets the timers run, once the bytes that were there have been read:
    /// whoever keeps us busy must not keep us from our keepalives.
    fn keep_time(&mut self) {
        let now = Instant::now();
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            self.session.handle_timeout(now);
        }
    }

    fn dialled(&mut self, result: Result<TcpStream, String>) {
        self.dial = None;
        match result {
            Ok(stream) => self.connected(Direction::Outgoing, stream),
            Err(reason) => self
                .session
                .handle(Input::TcpFailed { reason }, Instant::now()),
        }
    }

    fn accepted(&mut self, stream: TcpStream) {
        if self.session.admits_incoming() && socket::accept(&stream, &self.peer).is_ok() {
            self.connected(Direction::Incoming, stream);
        }
    }

    fn connected(&mut self, direction: Direction, stream: TcpStream) {
        let local = match stream.local_addr() {
            Ok(address) => address.ip(),
            Err(error) => {
                let reason = error.to_string();
                if direction == Direction::Outgoing {
                    let failed = Input::TcpFailed { reason };
                    self.session.handle(failed, Instant::now());
                }
                return;
            }
        };
        let local = local.to_canonical();
        socket::limit_unacknowledged(&stream, self.session.config().hold_time);
        self.connections[direction as usize] = Some(Connection {
            stream,
            out: BytesMut::new(),
        });
        self.session
            .handle(Input::TcpConnected { direction, local }, Instant::now());
    }

    /// A socket can be read or written; writing is the flush's.
    fn ready(&mut self, direction: Direction, ready: io::Result<Ready>) {
        if !ready.is_ok_and(|ready| ready.is_readable() || ready.is_read_closed()) {
            return;
        }
        let mut buffer = [0; 65536];
        let Some(connection) = &self.connections[direction as usize] else {
            return;
        };
        let reason = match connection.stream.try_read(&mut buffer) {
            Ok(0) => socket::end_words(None),
            Ok(count) => {
                let bytes = &buffer[..count];
                self.session
                    .handle(Input::Received { direction, bytes }, Instant::now());
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => socket::end_words(Some(&error)),
        };
        self.connections[direction as usize] = None;
        self.session
            .handle(Input::TcpClosed { direction, reason }, Instant::now());
    }

    /// Does what the session asks for and writes what the sockets take.
    fn flush(&mut self) {
        loop {
            while let Some(action) = self.session.poll_action() {
                self.act(action);
            }
            while let Some(event) = self.session.poll_event() {
                log(&self.peer.name, &event);
            }
            let mut ended = false;
            for direction in Direction::ALL {
                ended |= self.write(direction);
            }
            if !ended {
                return;
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect => {
                let peer = Arc::clone(&self.peer);
                let password = self.password.clone();
                // A little sooner than the session itself gives up, since the
                // socket knows better what no answer means.
                let limit = self.session.config().connect_timeout.mul_f32(0.95);
                self.dial = Some(Box::pin(async move {
                    timeout(limit, socket::dial(&peer, password.as_ref()))
                        .await
                        .unwrap_or_else(|_| Err(socket::timeout_words(&peer)))
                }));
            }
            Action::Close {
                direction,
                last_words,
            } => {
                if direction == Direction::Outgoing {
                    self.dial = None;
                }
                if let Some(mut connection) = self.connections[direction as usize].take() {
                    connection.out.extend_from_slice(&last_words);
                    // What the socket does not take now is lost; the peer
                    // sees the connection end either way.
                    let _ = connection.write();
                }
            }
        }
    }

    /// Writes until the socket is full; says whether the connection ended.
    fn write(&mut self, direction: Direction) -> bool {
        let Some(connection) = &mut self.connections[direction as usize] else {
            return false;
        };
        let result = loop {
            let waiting = connection.out.len();
            let written = connection.write();
            if connection.out.len() < waiting {
                self.session.wrote(direction, Instant::now());
            }
            match written {
                Ok(true) => match self.session.poll_transmit(direction) {
                    Some(message) => connection.out.extend_from_slice(&message),
                    None => return false,
                },
                Ok(false) => return false,
                Err(error) => break error,
            }
        };
        // The peer's last words may still wait in the socket.
        self.ready(direction, Ok(Ready::READABLE));
        if self.connections[direction as usize].take().is_some() {
            let reason = socket::end_words(Some(&result));
            self.session
                .handle(Input::TcpClosed { direction, reason }, Instant::now());
        }
        true
    }

    fn publish(&self, status: &watch::Sender<PeerStatus>) {
        let written = self
            .connections
            .iter()
            .flatten()
            .all(|connection| connection.out.is_empty());
        status.send_replace(PeerStatus {
            peer: Arc::clone(&self.peer),
            session: self.session.status(),
            flushed: written
                && (self.session.state() != State::Established || self.session.is_flushed()),
            failed: false,
        });
    }
}

impl Connection {
    /// Writes what is left; says whether all of it went.
    fn write(&mut self) -> io::Result<bool> {
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(count) => self.out.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// One line per event, in words.
fn log(peer: &str, event: &Event) {
    match event {
        Event::StateChanged { from, to, why } if *to == State::Established => {
            info!(peer, "BGP session established (was {from}): {why}");
        }
        Event::StateChanged { from, to, why } if *from == State::Established => {
            warn!(peer, "BGP session lost, now {to}: {why}");
        }
        Event::StateChanged { from, to, why } => debug!(peer, "{from} -> {to}: {why}"),
        Event::Established(agreed) => debug!(peer, ?agreed, "agreed"),
        Event::NotificationSent { notification, .. } => {
            warn!(peer, "sent NOTIFICATION: {notification}");
        }
        Event::NotificationReceived { notification, .. } => {
            warn!(peer, "received NOTIFICATION: {notification}");
        }
        Event::EndOfRib(family) => debug!(peer, ?family, "the peer has all routes"),
        Event::RefreshRequested(family) => {
            info!(peer, ?family, "the peer asks for all routes again");
        }
        Event::UpdateFaults(faults) => {
            for fault in faults {
                debug!(peer, ?fault, "malformed UPDATE survived (RFC 7606)");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::BytesMut;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
    };
    use vipd_bgp::wire::{Capability, Dialect, Family, Message, Open};

    use super::*;
    use crate::speaker::tests::{bgp, peer};

    /// A running session and everything that it hangs on.
    struct World {
        peer: watch::Sender<Arc<BgpPeer>>,
        announced: watch::Sender<Arc<Announced>>,
        _door: mpsc::Sender<TcpStream>,
        _commands: mpsc::Sender<Command>,
        task: JoinHandle<()>,
    }

    fn start(peer: BgpPeer) -> World {
        let peer = Arc::new(peer);
        let session = Session::new(session_config(&bgp(), &peer), 1).unwrap();
        let (announced, announced_out) = watch::channel(Arc::default());
        let (door, incoming) = mpsc::channel(1);
        let (commands, commands_out) = mpsc::channel(1);
        let (status, _) = watch::channel(PeerStatus::new(&peer, &session));
        let (peer, peer_out) = watch::channel(peer);
        let inputs = Inputs {
            peer: peer_out,
            password: None,
            announced: announced_out,
            incoming,
            commands: commands_out,
            status,
        };
        World {
            peer,
            announced,
            _door: door,
            _commands: commands,
            task: tokio::spawn(run(session, inputs)),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_session_that_nobody_feeds_any_more_stops() {
        for abandoned in ["announced", "peer"] {
            let World {
                peer: peer_in,
                announced,
                task,
                _door,
                _commands,
            } = start(peer("192.0.2.1:179"));
            let _kept: Box<dyn Send> = if abandoned == "peer" {
                drop(peer_in);
                Box::new(announced)
            } else {
                drop(announced);
                Box::new(peer_in)
            };
            let ended = timeout(Duration::from_secs(20), task).await;
            assert!(ended.is_ok(), "still running without `{abandoned}`");
        }
    }

    fn open() -> Open {
        Open {
            my_as: 64497,
            hold_time: 3,
            router_id: [192, 0, 2, 1].into(),
            capabilities: vec![
                Capability::family(Family::Ipv4Unicast),
                Capability::FourOctetAs(64497),
            ],
        }
    }

    #[tokio::test]
    async fn a_peer_that_never_stops_sending_leaves_time_for_others() {
        let flooded = Duration::from_secs(8);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let world = start(peer(&listener.local_addr().unwrap().to_string()));
        let flood = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&open().emit()).unwrap();
            let many = wire::keepalive().repeat(100_000);
            let begun = Instant::now();
            while begun.elapsed() < flooded && stream.write_all(&many).is_ok() {}
        });
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let took = begun.elapsed();
        world.task.abort();
        assert!(took < flooded / 2, "one second took {took:?}");
        let _ = world.task.await;
        flood.join().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keepalives_are_sent_to_a_peer_that_never_stops_sending() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = start(peer(&listener.local_addr().unwrap().to_string()));
        let (stream, _) = listener.accept().await.unwrap();
        let (mut from, mut to) = stream.into_split();
        let flood = tokio::spawn(async move {
            to.write_all(&open().emit()).await.unwrap();
            let many = wire::keepalive().repeat(10_000);
            while to.write_all(&many).await.is_ok() {}
        });
        let mut seen = Vec::new();
        let keepalives = async {
            let mut bytes = BytesMut::new();
            while seen.iter().filter(|m| **m == Message::Keepalive).count() < 3 {
                assert_ne!(from.read_buf(&mut bytes).await.unwrap(), 0);
                while let Some(message) = Message::take(
                    &mut bytes,
                    Dialect {
                        four_octet_as: true,
                        internal: false,
                        extended_messages: false,
                    },
                )
                .unwrap()
                {
                    seen.push(message);
                }
            }
        };
        let come = timeout(Duration::from_secs(20), keepalives).await;
        flood.abort();
        world.task.abort();
        assert!(come.is_ok(), "only {seen:?}");
    }
}
