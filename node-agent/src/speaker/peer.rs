//! The driver of one BGP session: sockets and clock around the state machine
//! of `vipd-bgp`, which decides everything.
//!
//! One task per peer. Its loop waits for whatever comes first, hands it over,
//! and flushes. Every branch of the wait is cancel-safe: readiness of a socket
//! (nothing is read in the wait itself), the dial (kept outside), channels.

use std::{
    future::{pending, ready},
    io,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, yield_now},
    time::{sleep_until, timeout},
};
use tracing::warn;
use vipd_bgp::{Action, Direction, Event, Input, PeerConfig, Session, State, StopReason};

use super::{
    bfd::Ear,
    dropped::Dropped,
    journal::Journal,
    routes::routes,
    socket, sockopt,
    tally::Tally,
    trouble::{self, Trouble},
    watched::{PeerStatus, Told},
};
use crate::{
    announce::Announced,
    bfd::client::States,
    config::{BgpPeer, Secret},
    events::Recorder,
};

/// What a driver can be told.
#[derive(Debug)]
pub enum Command {
    /// End the session for this reason, with words for the peer's operator,
    /// and end the task.
    Stop(StopReason, Option<String>),
    /// Sign with another password from now on, also on the connection that
    /// stands.
    Rekey(Secret),
    /// Go by other terms from now on; the session knows which of them it can
    /// take over as it stands.
    Reconfigure(PeerConfig),
    /// Say what the peer has been told.
    Tell(oneshot::Sender<Told>),
}

/// What a driver lives on.
pub struct Inputs {
    /// The peer; may change in what needs no new session.
    pub peer: watch::Receiver<Arc<BgpPeer>>,
    /// What its segments are signed with.
    pub password: Option<Secret>,
    /// What is announced.
    pub announced: watch::Receiver<Arc<Announced>>,
    /// What BFD says.
    pub bfd: watch::Receiver<States>,
    /// Connections the peer has opened.
    pub incoming: mpsc::Receiver<TcpStream>,
    /// Commands.
    pub commands: mpsc::Receiver<Command>,
    /// Where the state goes.
    pub status: watch::Sender<PeerStatus>,
    /// What has happened.
    pub recorder: Recorder,
}

/// Runs a session until it is told to stop.
///
/// Whatever wakes it, a turn reads what the peer has sent and looks at the
/// time: so neither routes that never stop changing nor a peer that never stops
/// sending keeps it from the other, or from its keepalives.
pub async fn run(session: Session, mut inputs: Inputs) {
    let now = Instant::now();
    let peer = inputs.peer.borrow_and_update().clone();
    let mut driver = Driver {
        password: inputs.password.take(),
        session,
        connections: [None, None],
        dial: None,
        journal: Journal::new(&peer.name, now),
        tally: Tally::new(&peer.name, inputs.recorder.clone()),
        dropped: Dropped::now(),
        parting: Vec::new(),
        ear: Ear::default(),
        wanted: 0,
        more: false,
        peer,
    };
    driver.set_routes(&mut inputs);
    driver.hear(&mut inputs.bfd);
    driver.session.handle(Input::Start, now);
    loop {
        driver.flush();
        if driver.is_flushed() {
            driver.tally.flushed(&driver.session);
        }
        driver.publish(&inputs.status);
        let deadlines = [driver.session.poll_timeout(), driver.journal.due()];
        let deadline = deadlines.into_iter().flatten().min();
        let [outgoing, incoming] = &driver.connections;
        let command = tokio::select! {
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
            // It lives as long as the speaker, and so as long as `commands`.
            Ok(()) = inputs.bfd.changed() => {
                driver.hear(&mut inputs.bfd);
                None
            }
            () = readiness(outgoing.as_ref()) => None,
            () = readiness(incoming.as_ref()) => None,
            result = dialled(&mut driver.dial) => {
                driver.dialled(result);
                None
            }
            Some(stream) = inputs.incoming.recv() => {
                driver.accepted(stream);
                None
            }
            () = expiry(deadline) => None,
            () = ready(()), if driver.more => None,
        };
        match command {
            None => (),
            Some(Command::Rekey(password)) => driver.rekey(password),
            Some(Command::Reconfigure(config)) => driver.reconfigure(config),
            Some(Command::Tell(answer)) => drop(answer.send(driver.told())),
            Some(Command::Stop(reason, text)) => {
                driver
                    .session
                    .handle(Input::Stop { reason, text }, Instant::now());
                driver.flush();
                driver.publish(&inputs.status);
                driver.part().await;
                return;
            }
        }
        // Bytes before time: our own delay must not look like the peer's.
        for direction in Direction::ALL {
            driver.read(direction);
        }
        driver.keep_time();
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
    journal: Journal,
    tally: Tally,
    /// What the kernel had dropped when the session was lost.
    dropped: Dropped,
    /// Connections that are ended, until the peer has ended them too.
    parting: Vec<JoinHandle<()>>,
    ear: Ear,
    /// How many routes the peer is to know.
    wanted: usize,
    /// Whether there may be more to write than one turn takes.
    more: bool,
}

type Dial = Pin<Box<dyn Future<Output = Result<TcpStream, Trouble>> + Send>>;

/// How long a peer may take to end a connection that we have ended.
const PARTING: Duration = Duration::from_millis(500);

/// Messages that a turn writes at most.
const TURN: usize = 256;

struct Connection {
    stream: TcpStream,
    /// Ours and the peer's.
    ends: (SocketAddr, SocketAddr),
    /// What the socket has not taken yet.
    out: BytesMut,
}

/// Until there is something to read, or room for what is left to write.
async fn readiness(connection: Option<&Connection>) {
    let Some(connection) = connection else {
        return pending().await;
    };
    let interest = if connection.out.is_empty() {
        Interest::READABLE
    } else {
        Interest::READABLE | Interest::WRITABLE
    };
    // An error is met again when the socket is read.
    let _ = connection.stream.ready(interest).await;
}

async fn dialled(dial: &mut Option<Dial>) -> Result<TcpStream, Trouble> {
    match dial {
        Some(dial) => dial.await,
        None => pending().await,
    }
}

/// Until a moment, if there is one.
pub async fn expiry(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

impl Driver {
    fn set_routes(&mut self, inputs: &mut Inputs) {
        let announced = inputs.announced.borrow_and_update().clone();
        let routes = routes(&announced, &self.peer.name);
        self.wanted = routes.len();
        let changed = self.session.set_routes(routes);
        self.tally
            .changed(&self.session, changed, &announced.origin);
        self.session.set_complete(announced.complete);
        if announced.complete {
            self.forwards();
        }
    }

    /// Takes in what BFD says.
    fn hear(&mut self, states: &mut watch::Receiver<States>) {
        let said = self
            .ear
            .hear(&states.borrow_and_update(), self.peer.address.ip());
        for said in said {
            self.session.handle(Input::Bfd(said), Instant::now());
        }
    }

    /// From now on packets are forwarded whenever a session comes, which the next
    /// OPEN says.
    fn forwards(&mut self) {
        let config = self.session.config();
        let Some(restart) = &config.graceful_restart else {
            return;
        };
        if restart.forwarding != config.families {
            let mut config = config.clone();
            if let Some(restart) = &mut config.graceful_restart {
                restart.forwarding.clone_from(&config.families);
            }
            self.reconfigure(config);
        }
    }

    /// Lets the timers run, once the bytes that were there have been read.
    fn keep_time(&mut self) {
        let now = Instant::now();
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            self.session.handle_timeout(now);
        }
    }

    fn dialled(&mut self, result: Result<TcpStream, Trouble>) {
        self.dial = None;
        match result {
            Ok(stream) => self.connected(Direction::Outgoing, stream),
            Err(trouble) => {
                let reason = trouble.words(&self.peer);
                self.session
                    .handle(Input::TcpFailed { reason }, Instant::now());
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream) {
        if !self.session.admits_incoming() {
            return;
        }
        match socket::accept(&stream, &self.peer) {
            Ok(()) => self.connected(Direction::Incoming, stream),
            Err(error) => {
                let peer = &*self.peer.name;
                warn!(
                    peer,
                    "its connection is closed, it cannot be set up: {error}"
                );
            }
        }
    }

    fn connected(&mut self, direction: Direction, stream: TcpStream) {
        let ends = stream.local_addr().and_then(|local| {
            let (local, remote) = (canonical(local), canonical(stream.peer_addr()?));
            Ok((local, remote))
        });
        let ends = match ends {
            Ok(ends) => ends,
            Err(error) => {
                let reason = error.to_string();
                if direction == Direction::Outgoing {
                    let failed = Input::TcpFailed { reason };
                    self.session.handle(failed, Instant::now());
                }
                return;
            }
        };
        let local = ends.0.ip();
        socket::limit_unacknowledged(&stream, self.session.config().hold_time);
        self.connections[direction as usize] = Some(Connection {
            stream,
            ends,
            out: BytesMut::new(),
        });
        self.session
            .handle(Input::TcpConnected { direction, local }, Instant::now());
    }

    /// Reads what is there, a bufferful at most; writing is the flush's.
    fn read(&mut self, direction: Direction) {
        let mut buffer = [0; 65536];
        let Some(connection) = &self.connections[direction as usize] else {
            return;
        };
        let error = match connection.stream.try_read(&mut buffer) {
            Ok(0) => None,
            Ok(count) => {
                let bytes = &buffer[..count];
                self.session
                    .handle(Input::Received { direction, bytes }, Instant::now());
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => Some(error),
        };
        self.ended(direction, error.as_ref());
    }

    /// A connection has ended without our doing.
    fn ended(&mut self, direction: Direction, error: Option<&io::Error>) {
        self.connections[direction as usize] = None;
        let hold_time = self.session.config().hold_time;
        let state = self.session.state();
        let dropped = Dropped::now().since(self.dropped);
        let reason = trouble::end(error, state, hold_time, dropped, &self.peer);
        self.session
            .handle(Input::TcpClosed { direction, reason }, Instant::now());
    }

    /// Signs with another password from now on. The session stays if the peer
    /// does the same before its hold time, or ours, is over.
    fn rekey(&mut self, password: Secret) {
        let peer = self.peer.address.ip();
        for connection in self.connections.iter().flatten() {
            let set = sockopt::set_password(&connection.stream, peer, Some(&password));
            if let Err(error) = set {
                let peer = &*self.peer.name;
                warn!(peer, "the connection keeps its old MD5 password: {error}");
            }
        }
        self.password = Some(password);
        self.dropped = Dropped::now();
        if self.dial.is_some() {
            self.dial();
        }
    }

    fn reconfigure(&mut self, config: PeerConfig) {
        if let Err(error) = self.session.reconfigure(config, Instant::now()) {
            let peer = &*self.peer.name;
            warn!(peer, "the session keeps its terms: {error}");
        }
    }

    fn told(&self) -> Told {
        let told = self.session.told();
        told.map(|(prefix, attributes)| (*prefix, attributes))
            .collect()
    }

    /// Does what the session asks for and writes what the sockets take.
    fn flush(&mut self) {
        loop {
            while let Some(action) = self.session.poll_action() {
                self.act(action);
            }
            while let Some(event) = self.session.poll_event() {
                if let Event::StateChanged {
                    from: State::Established,
                    ..
                } = event
                {
                    self.dropped = Dropped::now();
                }
                self.journal.event(&event, Instant::now());
                self.tally.event(&event);
            }
            let mut ended = false;
            self.more = false;
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
            Action::Connect => self.dial(),
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
                    self.parting.retain(|parting| !parting.is_finished());
                    self.parting.push(tokio::spawn(part(connection.stream)));
                }
            }
        }
    }

    /// Waits until the peer has taken the last words.
    async fn part(&mut self) {
        for parting in self.parting.drain(..) {
            let _ = parting.await;
        }
    }

    fn dial(&mut self) {
        let peer = Arc::clone(&self.peer);
        let (password, dropped) = (self.password.clone(), self.dropped);
        // A little sooner than the session itself gives up, since the socket
        // knows better what no answer means.
        let limit = self.session.config().connect_timeout.mul_f32(0.95);
        self.dial = Some(Box::pin(async move {
            socket::dial(&peer, password.as_ref(), limit, dropped).await
        }));
    }

    /// Writes until the socket is full or the turn is over; says whether the
    /// connection ended.
    fn write(&mut self, direction: Direction) -> bool {
        let Some(connection) = &mut self.connections[direction as usize] else {
            return false;
        };
        let mut messages = 0;
        let error = loop {
            let waiting = connection.out.len();
            let written = connection.write();
            if connection.out.len() < waiting {
                self.session.wrote(direction, Instant::now());
            }
            match written {
                Ok(true) if messages == TURN => {
                    self.more = true;
                    return false;
                }
                Ok(true) => match self.session.poll_transmit(direction) {
                    Some(message) => connection.out.extend_from_slice(&message),
                    None => return false,
                },
                Ok(false) => return false,
                Err(error) => break error,
            }
            messages += 1;
        };
        // The peer's last words may still wait in the socket.
        self.read(direction);
        if self.connections[direction as usize].is_some() {
            self.ended(direction, Some(&error));
        }
        true
    }

    /// Whether the kernel has all that the peer is to be told, or there is nobody
    /// to tell.
    fn is_flushed(&self) -> bool {
        let mut connections = self.connections.iter().flatten();
        connections.all(|connection| connection.out.is_empty())
            && (self.session.state() != State::Established || self.session.is_flushed())
    }

    fn publish(&mut self, status: &watch::Sender<PeerStatus>) {
        let session = self.session.status();
        self.journal.status(&session, Instant::now());
        status.send_replace(PeerStatus {
            peer: Arc::clone(&self.peer),
            since: self.journal.since,
            ends: self.connections.iter().flatten().map(|c| c.ends).next(),
            wanted: self.wanted,
            dropped: self.dropped,
            received: self.journal.received.clone(),
            sent: self.journal.sent.clone(),
            session,
            flushed: self.is_flushed(),
            failed: false,
        });
    }
}

/// Ends a connection so that the last words arrive: what still comes in is read
/// until the peer has ended it too. A socket that is closed with something unread
/// is reset, and the peer then loses what it has not read.
async fn part(stream: TcpStream) {
    let _ = SockRef::from(&stream).shutdown(Shutdown::Write);
    let ended = async {
        let mut buffer = [0; 4096];
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(_) => return,
            }
        }
    };
    let _ = timeout(PARTING, ended).await;
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

/// As one would write it, also where the kernel gives an IPv4 address as an
/// IPv6 one.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
